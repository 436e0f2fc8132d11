//! Text to typed instructions and stages.
//!
//! Does not stop at the first mistake: an instruction that is wrong is left out, and reading goes
//! on with the next one. Nothing is expanded here.

mod command;
mod copy;
mod flags;
mod healthcheck;
pub(crate) mod mount;
mod onbuild;
mod simple;

use crate::diagnostic::{Diagnostic, LineIndex, Severity, Span};
use crate::directives;
use crate::heredoc::{self, Heredoc};
use crate::instruction::{Arg, CommandLine, Dockerfile, Instruction, Stage, Step};
use crate::lines::{Lines, Logical, Word};
use crate::lint::{Note, Notes, findings_before};
use crate::options::Options;
use crate::suggest::nearest;
use crate::words::{self, Head};

pub(crate) use crate::parse::onbuild::trigger;

/// The instructions of the language.
const INSTRUCTIONS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Parses a Dockerfile, or says everything that is wrong with it.
pub fn parse(text: &str) -> Result<Dockerfile, Vec<Diagnostic>> {
    if let Some(foreign) = directives::other_forms(text) {
        return Err(vec![foreign]);
    }
    match read(text) {
        (file, errors) if errors.is_empty() => Ok(file),
        (_, errors) => Err(errors),
    }
}

/// Parses a Dockerfile, or says what is wrong with it and what the checks find before that.
pub fn parse_with_findings(text: &str, options: &Options) -> Result<Dockerfile, Vec<Diagnostic>> {
    if let Some(foreign) = directives::other_forms(text) {
        return Err(vec![foreign]);
    }
    let (file, errors) = read(text);
    if errors.is_empty() {
        return Ok(file);
    }
    Err([errors.clone(), findings_before(&file, options, &errors)].concat())
}

/// Returns what can be read of a Dockerfile, and what is wrong with it.
fn read(text: &str) -> (Dockerfile, Vec<Diagnostic>) {
    let mut parser = Parser {
        lines: Lines::new(text),
        global_args: Vec::new(),
        stages: Vec::new(),
        n_instructions: 0,
        notes: Notes::default(),
    };
    parser.read();
    parser.finish(text)
}

struct Parser<'a> {
    lines: Lines<'a>,
    global_args: Vec<Arg>,
    stages: Vec<Stage>,
    n_instructions: usize,
    notes: Notes,
}

/// One instruction while it is read.
pub(crate) struct Request<'a> {
    pub(crate) line: &'a Logical,
    /// The name in upper case.
    pub(crate) name: &'static str,
    pub(crate) head: Head,
    /// The words of the exec form, if it is one.
    pub(crate) json: Option<Vec<Word>>,
    pub(crate) heredocs: Vec<Heredoc>,
    pub(crate) escape: char,
    /// The instruction with its heredocs.
    pub(crate) span: Span,
}

impl Request<'_> {
    /// Returns the text behind the flags.
    pub(crate) fn rest(&self) -> Word {
        self.line.word(self.head.rest.clone())
    }

    /// Returns an error about the instruction as a whole.
    pub(crate) fn error(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(self.line.whole(), message)
    }

    /// Returns the command in its form.
    pub(crate) fn command_line(&self) -> CommandLine {
        match &self.json {
            Some(words) => CommandLine::Exec(words.iter().map(|word| word.text.clone()).collect()),
            None => CommandLine::Shell(self.rest().text),
        }
    }

    /// Returns the words of the exec form, or those between blanks.
    pub(crate) fn words(&self) -> Vec<Word> {
        match &self.json {
            Some(words) => words.clone(),
            None => words::split_blanks(self.line, self.head.rest.clone()),
        }
    }
}

impl Parser<'_> {
    fn read(&mut self) {
        while let Some(line) = self.lines.logical() {
            self.n_instructions += 1;
            if let Err(diagnostic) = self.instruction(&line) {
                self.lines.diagnostics.push(diagnostic);
            }
        }
    }

    fn instruction(&mut self, line: &Logical) -> Result<(), Diagnostic> {
        let comments = std::mem::take(&mut self.lines.comments);
        let head = words::head(line);
        let Some(name) = instruction_name(&head.name) else {
            self.heredocs(line)?;
            return Err(unknown_instruction(&head.name));
        };
        let json = json_form(line, name, &head);
        let has_bodies = match name {
            "ONBUILD" => onbuild::has_bodies(line, &head),
            _ => has_heredocs(name),
        };
        let heredocs = match json {
            Ok(None) if has_bodies => self.heredocs(line)?,
            _ => Vec::new(),
        };
        let whole = line.whole();
        let request = Request {
            line,
            name,
            head,
            json: json?,
            span: Span::new(whole.start, heredocs.last().map_or(whole.end, |h| h.end)),
            heredocs,
            escape: self.lines.directives.escape(),
        };
        if name == "ONBUILD" {
            let warning = onbuild::warning(&request)?;
            self.lines.diagnostics.extend(warning);
        }
        self.notes.insert(note(&request, comments));
        self.dispatch(&request)
    }

    fn heredocs(&mut self, line: &Logical) -> Result<Vec<Heredoc>, Diagnostic> {
        let announced = heredoc::announced(&line.text);
        let read = |one| heredoc::read(&mut self.lines, one, line.whole());
        announced.into_iter().map(read).collect()
    }

    fn dispatch(&mut self, request: &Request<'_>) -> Result<(), Diagnostic> {
        if request.name == "FROM" {
            self.stages.push(simple::from(request)?);
            return Ok(());
        }
        let parsed = parse_instruction(request);
        let Some(stage) = self.stages.last_mut() else {
            return self.before_stages(request, parsed?.0);
        };
        let (instruction, refusal) = parsed?;
        stage.steps.push(Step {
            instruction,
            span: request.span,
            code: request.line.text.trim().to_owned(),
            refusal,
            trigger_of: None,
        });
        Ok(())
    }

    fn before_stages(
        &mut self,
        request: &Request<'_>,
        instruction: Instruction,
    ) -> Result<(), Diagnostic> {
        let Instruction::Arg(args) = instruction else {
            let message = format!("no build stage in current context: `{}`", request.name);
            return Err(request
                .error(message + " stands before the first `FROM`")
                .with_help("only `ARG` can stand before the first `FROM`"));
        };
        self.global_args.extend(args);
        Ok(())
    }

    fn finish(mut self, text: &str) -> (Dockerfile, Vec<Diagnostic>) {
        let diagnostics = std::mem::take(&mut self.lines.diagnostics);
        let (mut errors, warnings): (Vec<_>, Vec<_>) = diagnostics
            .into_iter()
            .partition(|diagnostic| diagnostic.severity == Severity::Error);
        if errors.is_empty() && self.stages.is_empty() {
            let message = match (text.is_empty(), self.n_instructions) {
                (true, _) => "the Dockerfile cannot be empty",
                (false, 0) => "file with no instructions",
                _ => "dockerfile contains no stages to build: there is no `FROM`",
            };
            errors.push(Diagnostic::error(Span::new(0, 0), message));
        }
        errors.sort_by_key(|diagnostic| diagnostic.span);
        let file = Dockerfile {
            global_args: self.global_args,
            stages: self.stages,
            escape: self.lines.directives.escape(),
            warnings,
            lines: LineIndex::new(text),
            check: self.lines.directives.check,
            notes: self.notes,
        };
        (file, errors)
    }
}

/// Of most instructions only the name is kept as typed.
fn note(request: &Request<'_>, comments: Vec<String>) -> Note {
    let typed = match request.name {
        "FROM" => request.line.text.trim(),
        _ => request.head.name.text.as_str(),
    };
    Note {
        span: request.span,
        typed: typed.to_owned(),
        comments,
    }
}

fn instruction_name(word: &Word) -> Option<&'static str> {
    let mut names = INSTRUCTIONS.into_iter();
    names.find(|name| word.text.eq_ignore_ascii_case(name))
}

/// Returns true for instructions whose words can announce heredocs.
fn has_heredocs(name: &str) -> bool {
    matches!(name, "ADD" | "COPY" | "RUN")
}

type Parsed = Result<(Instruction, Option<Diagnostic>), Diagnostic>;

fn parse_instruction(request: &Request<'_>) -> Parsed {
    let instruction = match request.name {
        "ADD" | "COPY" => return copy::copy(request),
        "RUN" => return command::run(request),
        "ARG" => simple::arg(request)?,
        "CMD" => Instruction::Cmd(command::plain(request)?),
        "ENTRYPOINT" => Instruction::Entrypoint(command::plain(request)?),
        "ENV" => Instruction::Env(simple::pairs(request)?),
        "EXPOSE" => Instruction::Expose(simple::expose(request)?),
        "HEALTHCHECK" => Instruction::Healthcheck(healthcheck::healthcheck(request)?),
        "ONBUILD" => Instruction::Onbuild(onbuild::text(request)),
        "LABEL" => Instruction::Label(simple::pairs(request)?),
        "MAINTAINER" => Instruction::Maintainer(simple::single(request)?),
        "SHELL" => Instruction::Shell(command::shell(request)?),
        "STOPSIGNAL" => Instruction::StopSignal(simple::single_with_any_flags(request)?),
        "USER" => Instruction::User(simple::single(request)?),
        "VOLUME" => Instruction::Volume(simple::volume(request)?),
        "WORKDIR" => Instruction::Workdir(simple::single(request)?),
        other => return Err(request.error(format!("unknown instruction: `{other}`"))),
    };
    Ok((instruction, None))
}

/// Reads the words of the exec form where an instruction has one.
fn json_form(line: &Logical, name: &str, head: &Head) -> Result<Option<Vec<Word>>, Diagnostic> {
    let has_exec_form = matches!(
        name,
        "ADD" | "CMD" | "COPY" | "ENTRYPOINT" | "RUN" | "SHELL" | "VOLUME"
    );
    if !has_exec_form {
        return Ok(None);
    }
    words::json(line, head.rest.clone())
        .transpose()
        .map_err(|word| not_strings(&word))
}

/// Returns the error about an array with something else than texts in it.
pub(crate) fn not_strings(word: &Word) -> Diagnostic {
    let message = "when using JSON array syntax, arrays must be comprised of strings only";
    Diagnostic::error(word.span, message)
}

fn unknown_instruction(name: &Word) -> Diagnostic {
    let message = format!("unknown instruction: `{}`", name.text);
    Diagnostic::error(name.span, message).with_suggestion(nearest(&name.text, INSTRUCTIONS))
}
