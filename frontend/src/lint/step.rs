//! Rules about one instruction, given what it sees of variables and of the image so far.

use std::cell::RefCell;

use kiln_graph::SECRET_WORDS;

use crate::diagnostic::Span;
use crate::env::{Args, Env};
use crate::expand::Rules;
use crate::git_url::is_remote;
use crate::heredoc::Heredoc;
use crate::instruction::{Arg, CommandLine, CopyFiles, CopyKind, Instruction, Pair, Run};
use crate::lines::Word;
use crate::lint::rules::{
    COPY_IGNORED_FILE, EXPOSE_INVALID_FORMAT, EXPOSE_PROTO_CASING, JSON_ARGS_RECOMMENDED,
    LEGACY_KEY_VALUE_FORMAT, MULTIPLE_INSTRUCTIONS_DISALLOWED, SECRETS_USED_IN_ARG_OR_ENV,
    UNDEFINED_VAR, WORKDIR_RELATIVE_PATH,
};
use crate::lint::variables::{similar, used};
use crate::lint::{Lint, Phase};
use crate::options::Options;
use crate::paths;
use crate::quote::quoted;

/// An instruction and what it stands on.
#[derive(Debug)]
pub(crate) struct StepView<'a> {
    pub(crate) instruction: &'a Instruction,
    pub(crate) span: Span,
    /// The variables before the instruction.
    pub(crate) env: &'a Env,
    /// What `ARG` declared so far, with or without a value.
    pub(crate) args: &'a Args,
    pub(crate) options: &'a Options,
    /// True if the image names a shell of its own.
    pub(crate) has_shell: bool,
    pub(crate) escape: char,
}

/// What earlier instructions of a stage leave for later ones.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tracker {
    cmd: Option<Span>,
    entrypoint: Option<Span>,
    healthcheck: Option<Span>,
    has_workdir: bool,
}

impl Tracker {
    /// Returns where a stage starts that stands on this one.
    pub(super) fn of_child(&self) -> Self {
        Self {
            has_workdir: self.has_workdir,
            ..Self::default()
        }
    }
}

/// Looks at an instruction.
pub(super) fn check(lint: &mut Lint, tracker: &mut Tracker, view: &StepView<'_>) {
    match view.instruction {
        Instruction::Arg(args) => arg(lint, view, args),
        Instruction::Env(pairs) => {
            if !pair_words(lint, view, pairs) {
                return;
            }
            for pair in pairs {
                legacy(lint, view, pair);
                let name = used(Rules::words(view.escape), &pair.key.text, view.env).value;
                secret(lint, "ENV", &name.unwrap_or_default(), pair.key.span);
            }
        }
        Instruction::Label(pairs) => {
            if !pair_words(lint, view, pairs) {
                return;
            }
            for pair in pairs {
                legacy(lint, view, pair);
            }
        }
        Instruction::Copy(files) => copy(lint, view, files),
        Instruction::Run(run) => mounts(lint, view, run),
        Instruction::Workdir(path) => workdir(lint, tracker, view, path),
        Instruction::Expose(words) => expose(lint, view, words),
        Instruction::Cmd(command) => {
            once(lint, view, &mut tracker.cmd);
            shell_form(lint, view, command);
        }
        Instruction::Entrypoint(command) => {
            once(lint, view, &mut tracker.entrypoint);
            shell_form(lint, view, command);
        }
        Instruction::Healthcheck(_) => once(lint, view, &mut tracker.healthcheck),
        Instruction::User(word) | Instruction::StopSignal(word) => undefined(lint, view, word),
        Instruction::Volume(words) => {
            for word in words {
                undefined(lint, view, word);
            }
        }
        _ => {}
    }
}

fn undefined(lint: &mut Lint, view: &StepView<'_>, word: &Word) {
    let rules = Rules::words(view.escape);
    undefined_in(lint, view, rules, &word.text, word.span, &[]);
}

fn undefined_in(
    lint: &mut Lint,
    view: &StepView<'_>,
    rules: Rules,
    text: &str,
    span: Span,
    declared: &[&str],
) {
    // Most words have no variables.
    if !text.contains('$') {
        return;
    }
    for name in used(rules, text, view.env).unset {
        let is_declared = view.args.iter().any(|(known, _)| *known == name);
        if is_declared || declared.contains(&name.as_str()) {
            continue;
        }
        let known = view.env.to_vec();
        let mut message = format!("Usage of undefined variable '${name}'");
        if let Some(meant) = similar(&name, known.iter().map(|(known, _)| known.as_str())) {
            message = format!("{message} (did you mean ${meant}?)");
        }
        lint.warn(Phase::Step, &UNDEFINED_VAR, span, message);
    }
}

/// Returns false if a word cannot be expanded: that is an error, and all that is told.
fn pair_words(lint: &mut Lint, view: &StepView<'_>, pairs: &[Pair]) -> bool {
    let words = pairs.iter().flat_map(|pair| [&pair.key, &pair.value]);
    for word in words {
        undefined(lint, view, word);
        let rules = Rules::words(view.escape);
        if used(rules, &word.text, view.env).value.is_none() {
            return false;
        }
    }
    true
}

/// Values of mounts are expanded, unlike the command.
fn mounts(lint: &mut Lint, view: &StepView<'_>, run: &Run) {
    for flag in &run.mounts {
        let words = RefCell::new(Vec::new());
        let expand = |word: &Word| {
            words.borrow_mut().push(word.clone());
            let value = used(Rules::words(view.escape), &word.text, view.env).value;
            Ok(value.unwrap_or_default())
        };
        // What is wrong with the options is told where they are evaluated.
        let _told_later = flag.options(&expand);
        for word in words.into_inner() {
            undefined(lint, view, &word);
        }
    }
}

/// Only the old form has its name and its value in different places.
fn legacy(lint: &mut Lint, view: &StepView<'_>, pair: &Pair) {
    if pair.key.span == pair.value.span {
        return;
    }
    let name = typed_name(lint, view.span);
    let message = format!(
        "\"{name} key=value\" should be used instead of legacy \"{name} key value\" format"
    );
    lint.warn(Phase::Step, &LEGACY_KEY_VALUE_FORMAT, view.span, message);
}

fn arg(lint: &mut Lint, view: &StepView<'_>, args: &[Arg]) {
    let mut declared = Vec::new();
    for arg in args {
        secret(lint, "ARG", &arg.name, arg.span);
        if let Some(word) = &arg.value
            && view.options.build_arg(&arg.name).is_none()
        {
            let rules = Rules::words(view.escape);
            undefined_in(lint, view, rules, &word.text, word.span, &declared);
        }
        declared.push(arg.name.as_str());
    }
}

/// Words of a name that say that its value is not secret, whatever else it says.
const NOT_SECRET: [&str; 3] = ["public", "file", "version"];

fn secret(lint: &mut Lint, instruction: &str, name: &str, span: Span) {
    let lower = name.to_lowercase();
    let has = |words: &[&str]| lower.split('_').any(|word| words.contains(&word));
    if has(&SECRET_WORDS) && !has(&NOT_SECRET) {
        let name = quoted(name);
        let message =
            format!("Do not use ARG or ENV instructions for sensitive data ({instruction} {name})");
        lint.warn(Phase::Step, &SECRETS_USED_IN_ARG_OR_ENV, span, message);
    }
}

fn copy(lint: &mut Lint, view: &StepView<'_>, files: &CopyFiles) {
    let options = [files.chown.as_ref(), files.chmod.as_ref()];
    let words = options.into_iter().flatten().chain(&files.sources);
    for word in words.chain([&files.destination]) {
        undefined(lint, view, word);
    }
    for document in &files.documents {
        heredoc(lint, view, document);
    }
    if files.from.is_none() {
        for word in &files.sources {
            ignored(lint, view, files.kind, word);
        }
    }
}

fn heredoc(lint: &mut Lint, view: &StepView<'_>, document: &Heredoc) {
    if document.announcement.expands {
        let (text, span) = (document.content(), document.span);
        undefined_in(lint, view, Rules::body(), &text, span, &[]);
    }
}

/// With exceptions in the ignore file a folder may be left out and a file of it not, so nothing
/// is said then.
fn ignored(lint: &mut Lint, view: &StepView<'_>, kind: CopyKind, word: &Word) {
    let context = view.options.context.as_ref();
    let Some(context) = context.filter(|context| !context.has_exceptions()) else {
        return;
    };
    let source = used(Rules::words(view.escape), &word.text, view.env).value;
    let Some(source) = source.filter(|source| !is_remote(source)) else {
        return;
    };
    let path = paths::cleaned(&source);
    let is_ignored = match path.as_str() {
        "." | "/" => context.ignores_everything(),
        path => context.is_ignored(path),
    };
    if is_ignored {
        let command = match kind {
            CopyKind::Copy => "Copy",
            CopyKind::Add => "Add",
        };
        let path = quoted(&path);
        let message =
            format!("Attempting to {command} file {path} that is excluded by .dockerignore");
        lint.warn(Phase::Step, &COPY_IGNORED_FILE, word.span, message);
    }
}

fn workdir(lint: &mut Lint, tracker: &mut Tracker, view: &StepView<'_>, path: &Word) {
    undefined(lint, view, path);
    let value = used(Rules::words(view.escape), &path.text, view.env).value;
    let Some(value) = value else {
        return;
    };
    if !tracker.has_workdir && !value.starts_with('/') {
        let value = quoted(&value);
        let message = format!(
            "Relative workdir {value} can have unexpected results if the base image changes"
        );
        lint.warn(Phase::Step, &WORKDIR_RELATIVE_PATH, path.span, message);
    }
    tracker.has_workdir = true;
}

fn expose(lint: &mut Lint, view: &StepView<'_>, words: &[Word]) {
    for word in words {
        let rules = Rules::words(view.escape);
        let lookup = |name: &str| view.env.get(name).map(str::to_owned);
        for spec in rules.split(&word.text, &lookup).unwrap_or_default() {
            port(lint, &spec, word.span);
        }
    }
}

fn port(lint: &mut Lint, spec: &str, span: Span) {
    let (host, container) = spec.rsplit_once(':').unwrap_or(("", spec));
    let (_, protocol) = container.split_once('/').unwrap_or((container, ""));
    if protocol != protocol.to_lowercase() {
        let message =
            format!("Defined protocol '{spec}' in EXPOSE instruction should be lowercase");
        lint.warn(Phase::Step, &EXPOSE_PROTO_CASING, span, message);
    }
    if host.split(':').any(|part| !part.is_empty()) {
        let message = format!(
            "EXPOSE instruction should not define an IP address or host-port mapping, found '{spec}'"
        );
        lint.warn(Phase::Step, &EXPOSE_INVALID_FORMAT, span, message);
    }
}

/// The earlier one is shown: it is the one without effect.
fn once(lint: &mut Lint, view: &StepView<'_>, earlier: &mut Option<Span>) {
    let rule = &MULTIPLE_INSTRUCTIONS_DISALLOWED;
    if let Some(span) = earlier.replace(view.span)
        && lint.allows(rule, view.span.start)
    {
        let name = typed_name(lint, view.span);
        let message = format!(
            "Multiple {name} instructions should not be used in the same stage because only the \
             last one will be used"
        );
        lint.warn(Phase::Step, rule, span, message);
    }
}

fn shell_form(lint: &mut Lint, view: &StepView<'_>, command: &CommandLine) {
    if view.has_shell || matches!(command, CommandLine::Exec(_)) {
        return;
    }
    let name = typed_name(lint, view.span);
    let message = format!(
        "JSON arguments recommended for {name} to prevent unintended behavior related to OS signals"
    );
    lint.warn(Phase::Step, &JSON_ARGS_RECOMMENDED, view.span, message);
}

/// Returns the name of the instruction at `span` as it is typed.
fn typed_name(lint: &Lint, span: Span) -> String {
    let note = lint.notes.of(span.start);
    note.map_or_else(String::new, |note| note.name().to_owned())
}
