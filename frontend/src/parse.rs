//! Text to typed instructions and stages.
//!
//! Does not stop at the first mistake: an instruction that is wrong is left out, and reading goes
//! on with the next one. Nothing is expanded here.

mod command;
mod copy;
mod flags;
mod healthcheck;
pub(crate) mod mount;
mod simple;

use crate::diagnostic::{Diagnostic, LineIndex, Severity, Span};
use crate::heredoc::{self, Heredoc};
use crate::instruction::{Arg, CommandLine, Dockerfile, Instruction, Stage, Step};
use crate::lines::{Lines, Logical, Word};
use crate::suggest::nearest;
use crate::words::{self, Head};

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
    let mut parser = Parser {
        lines: Lines::new(text),
        global_args: Vec::new(),
        stages: Vec::new(),
        n_instructions: 0,
    };
    while let Some(line) = parser.lines.logical() {
        parser.n_instructions += 1;
        if let Err(diagnostic) = parser.instruction(&line) {
            parser.lines.diagnostics.push(diagnostic);
        }
    }
    parser.finish(text)
}

struct Parser<'a> {
    lines: Lines<'a>,
    global_args: Vec<Arg>,
    stages: Vec<Stage>,
    n_instructions: usize,
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
    fn instruction(&mut self, line: &Logical) -> Result<(), Diagnostic> {
        let head = words::head(line);
        let upper = head.name.text.to_ascii_uppercase();
        let Some(name) = INSTRUCTIONS.into_iter().find(|name| *name == upper) else {
            self.heredocs(line)?;
            return Err(unknown_instruction(&head.name));
        };
        let json = json_form(line, name, &head);
        let has_bodies = matches!(name, "ADD" | "COPY" | "RUN" | "ONBUILD");
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

    fn finish(mut self, text: &str) -> Result<Dockerfile, Vec<Diagnostic>> {
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
        if !errors.is_empty() {
            errors.sort_by_key(|diagnostic| diagnostic.span);
            return Err(errors);
        }
        Ok(Dockerfile {
            global_args: self.global_args,
            stages: self.stages,
            escape: self.lines.directives.escape(),
            warnings,
            lines: LineIndex::new(text),
        })
    }
}

type Parsed = Result<(Instruction, Option<Diagnostic>), Diagnostic>;

fn parse_instruction(request: &Request<'_>) -> Parsed {
    let instruction = match request.name {
        "ADD" | "COPY" => return copy::copy(request),
        "RUN" => return command::run(request),
        "ONBUILD" => return command::onbuild(request),
        "ARG" => simple::arg(request)?,
        "CMD" => Instruction::Cmd(command::plain(request)?),
        "ENTRYPOINT" => Instruction::Entrypoint(command::plain(request)?),
        "ENV" => Instruction::Env(simple::pairs(request)?),
        "EXPOSE" => Instruction::Expose(simple::expose(request)?),
        "HEALTHCHECK" => Instruction::Healthcheck(healthcheck::healthcheck(request)?),
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
