//! Checks of a Dockerfile that builds but should be written otherwise.
//!
//! ```text
//!   rules      what each rule is called and says
//!   config     `check=skip=…;error=…;experimental=…`
//!   notes      comments above instructions, words as typed
//!   file       rules about the text: casing, stage names, comments
//!   from       rules about `FROM`
//!   step       rules about an instruction, given what it sees of variables
//!   variables  which variables a word uses that nothing sets
//!   own        kiln's own rules
//! ```
//!
//! A rule that is broken is a warning whose [`Diagnostic::rule`] is set. Whoever finds one calls
//! [`Lint::report`], which leaves out what is skipped. BuildKit's order is kept: rules about the
//! text come first, then those about `FROM`, then those about instructions.

mod config;
mod file;
mod from;
mod name;
mod notes;
mod own;
pub(crate) mod rules;
mod step;
mod variables;

use std::collections::{BTreeSet, HashMap};
use std::fmt;

pub(crate) use crate::lint::notes::{Note, Notes};
pub(crate) use crate::lint::step::{StepView, Tracker};
pub(crate) use crate::lint::variables::used_variables;

use crate::diagnostic::{Diagnostic, Span};
use crate::env::Env;
use crate::instruction::Dockerfile;
use crate::lint::config::Config;
use crate::lint::rules::{Rule, RuleKind};
use crate::options::Options;
use crate::plan::Plan;

/// What checks may know of the build context: names, as they are after the ignore file.
pub trait ContextNames: fmt::Debug + Send + Sync {
    /// Returns true if the ignore file leaves `path`, or a folder that it is in, out.
    fn is_ignored(&self, path: &str) -> bool;

    /// Returns true if the ignore file has exceptions (`!pattern`).
    fn has_exceptions(&self) -> bool;

    /// Returns true if a pattern of the ignore file is `*`, `**` or `**/*`.
    fn ignores_everything(&self) -> bool;

    /// Returns the paths of files for which `is_wanted` is true.
    fn files(&self, is_wanted: &dyn Fn(&str) -> bool) -> Vec<String>;
}

/// When a finding is told, in the order of BuildKit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    File,
    From,
    Base,
    Step,
    Own,
}

/// Collects what is found.
#[derive(Debug)]
pub(crate) struct Lint {
    config: Config,
    notes: Notes,
    /// True for `--check`: rules that builds do not tell of are looked at, too.
    is_check: bool,
    found: Vec<(Phase, Diagnostic)>,
    trackers: HashMap<usize, Tracker>,
}

impl Lint {
    /// Reads the options of the checks; an error if they are wrong.
    pub(crate) fn new(file: &Dockerfile, options: &Options) -> Result<Self, Diagnostic> {
        let wrong = |message| format!("failed to parse check options: {message}");
        let config = match (options.build_arg("BUILDKIT_DOCKERFILE_CHECK"), &file.check) {
            (Some(text), _) => Config::parse(text).map_err(|m| Diagnostic::option(wrong(m)))?,
            (None, Some(word)) => Config::parse(&word.text)
                .map_err(|m| Diagnostic::error(word.span, wrong(m)).with_help(OPTIONS_HELP))?,
            (None, None) => Config::default(),
        };
        Ok(Self {
            config,
            notes: file.notes.clone(),
            is_check: options.check,
            found: Vec::new(),
            trackers: HashMap::new(),
        })
    }

    /// Returns what has found nothing and looks at nothing.
    pub(crate) fn none() -> Self {
        Self {
            config: Config::default(),
            notes: Notes::default(),
            is_check: false,
            found: Vec::new(),
            trackers: HashMap::new(),
        }
    }

    /// Looks at everything that needs no evaluation.
    pub(crate) fn file(&mut self, file: &Dockerfile, options: &Options) {
        self.empty_lines(file);
        file::instructions(self, file);
        file::whole(self, file);
        from::check(self, file, options);
    }

    /// Takes over what was noticed while lines were read.
    fn empty_lines(&mut self, file: &Dockerfile) {
        for warning in &file.warnings {
            match warning.rule {
                Some(rule) => self.report(Phase::File, rule, warning.clone()),
                None => self.found.push((Phase::File, warning.clone())),
            }
        }
    }

    /// Looks at an instruction before it is evaluated.
    pub(crate) fn step(&mut self, at: usize, view: &StepView<'_>) {
        let mut tracker = self.trackers.remove(&at).unwrap_or_default();
        step::check(self, &mut tracker, view);
        self.trackers.insert(at, tracker);
    }

    /// Starts a stage that stands on the stage `parent`.
    pub(crate) fn begin_stage(&mut self, at: usize, parent: Option<usize>) {
        let parent = parent.and_then(|parent| self.trackers.get(&parent));
        let tracker = parent.map_or_else(Tracker::default, Tracker::of_child);
        self.trackers.insert(at, tracker);
    }

    /// Looks at kiln's own rules, once all stages are evaluated.
    pub(crate) fn own(
        &mut self,
        file: &Dockerfile,
        options: &Options,
        plan: &Plan,
        env_of: &dyn Fn(usize) -> Option<Env>,
    ) {
        own::check(self, file, options, plan, env_of);
    }

    /// Adds a finding, unless its rule is skipped.
    pub(crate) fn report(&mut self, phase: Phase, rule: &'static Rule, diagnostic: Diagnostic) {
        let at = diagnostic.span.map_or(0, |span| span.start);
        if !self.allows(rule, at) {
            return;
        }
        let help = diagnostic.help.clone();
        let help = help.or_else(|| rule.url.map(|url| format!("see {url}")));
        let diagnostic = Diagnostic {
            rule: Some(rule),
            help,
            ..diagnostic
        };
        self.found.push((phase, diagnostic));
    }

    /// Adds a finding at `span`.
    pub(crate) fn warn(
        &mut self,
        phase: Phase,
        rule: &'static Rule,
        span: Span,
        message: impl Into<String>,
    ) {
        self.report(phase, rule, Diagnostic::warning(span, message));
    }

    /// Returns false if the rule is skipped for the instruction at `at`.
    fn allows(&self, rule: &Rule, at: usize) -> bool {
        if rule.kind == RuleKind::OwnInChecks && !self.is_check {
            return false;
        }
        if self.config.skips(rule) {
            return false;
        }
        let comment = self.notes.of(at).and_then(Note::config);
        match comment {
            Some(config) => {
                !config.skips(rule) && (self.config.asks_for(rule) || config.asks_for(rule))
            }
            None => self.config.asks_for(rule),
        }
    }

    /// Returns errors, and beside them what was found so far if that is asked for.
    pub(crate) fn beside(self, mut errors: Vec<Diagnostic>) -> Vec<Diagnostic> {
        if self.is_check {
            errors.extend(self.finish().0);
        }
        errors
    }

    /// Returns the findings in BuildKit's order, and an error if they are to be one.
    pub(crate) fn finish(self) -> (Vec<Diagnostic>, Option<Diagnostic>) {
        let mut found = self.found;
        found.sort_by_key(|(phase, _)| *phase);
        let found: Vec<Diagnostic> = found.into_iter().map(|(_, found)| found).collect();
        let rules = found.iter().filter_map(|found| found.rule);
        let broken: BTreeSet<&str> = rules
            .filter(|rule| !rule.is_own())
            .map(|rule| rule.name)
            .collect();
        let error = (self.config.is_error && !broken.is_empty()).then(|| {
            let names: Vec<&str> = broken.into_iter().collect();
            let names = names.join(", ");
            Diagnostic::option(format!("lint violation found for rules: {names}"))
        });
        (found, error)
    }
}

/// Returns what the checks find in a Dockerfile that cannot be evaluated.
pub fn findings(file: &Dockerfile, options: &Options) -> Vec<Diagnostic> {
    let Ok(mut lint) = Lint::new(file, options) else {
        return Vec::new();
    };
    lint.file(file, options);
    lint.finish().0
}

/// Returns what the text shows before the first of some errors.
pub(crate) fn findings_before(
    file: &Dockerfile,
    options: &Options,
    errors: &[Diagnostic],
) -> Vec<Diagnostic> {
    let Ok(mut lint) = Lint::new(file, options) else {
        return Vec::new();
    };
    let end = errors.first().and_then(|error| error.span);
    let end = end.map_or(usize::MAX, |span| span.start);
    lint.empty_lines(file);
    file::instructions(&mut lint, file);
    let is_before = |found: &Diagnostic| found.span.is_none_or(|span| span.start <= end);
    let (mut found, _) = lint.finish();
    found.retain(is_before);
    found
}

const OPTIONS_HELP: &str = "write `# check=skip=RuleA,RuleB;error=true`";
