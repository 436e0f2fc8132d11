//! Typed instructions: what a Dockerfile says, before any variable is expanded.
//!
//! Everything that can be checked without knowing variables has been checked. An option that the
//! language has and kiln cannot do is kept as a refusal: it fails a build that reaches it.

use std::sync::Arc;

use kiln_graph::{HealthCheck, Network, Security, SourceLines};

use crate::diagnostic::{Diagnostic, LineIndex, Span};
use crate::heredoc::Heredoc;
use crate::lines::Word;
use crate::lint::Notes;
use crate::lint::rules::NO_EMPTY_CONTINUATION;
use crate::parse::mount::MountFlag;

/// Characters of a trigger that a diagnostic repeats.
const MAX_SHOWN: usize = 80;

/// A parsed Dockerfile.
#[derive(Debug, Clone)]
pub struct Dockerfile {
    /// `ARG` instructions before the first `FROM`.
    pub(crate) global_args: Vec<Arg>,
    pub(crate) stages: Vec<Stage>,
    pub(crate) escape: char,
    pub(crate) warnings: Vec<Diagnostic>,
    pub(crate) lines: LineIndex,
    /// The `check` directive.
    pub(crate) check: Option<Word>,
    /// Comments above instructions, and words as typed.
    pub(crate) notes: Notes,
}

/// A stage as it is written, for lists of targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageOutline {
    /// Its name, in lower case.
    pub name: Option<String>,
    /// What it is based on, variables not expanded.
    pub base: String,
    /// `--platform`, variables not expanded.
    pub platform: Option<String>,
    /// What the comment above it says.
    pub description: Option<String>,
    /// The lines of its `FROM`.
    pub lines: SourceLines,
}

impl Dockerfile {
    /// Returns the stages in the order of the file.
    pub fn stages(&self) -> impl Iterator<Item = StageOutline> {
        self.stages.iter().map(|stage| StageOutline {
            name: stage.name.clone(),
            base: stage.base.text.clone(),
            platform: stage.platform.as_ref().map(|word| word.text.clone()),
            description: self.described(stage.span, stage.name.as_deref()),
            lines: self.lines.lines(stage.span),
        })
    }

    /// Returns what the comment above the instruction at `span` says of `name`.
    pub(crate) fn described(&self, span: Span, name: Option<&str>) -> Option<String> {
        let text = self.notes.description(span.start, name?)?;
        Some(text.to_owned()).filter(|text| !text.is_empty())
    }

    /// Returns all declared arguments in the order of the file.
    pub(crate) fn all_args(&self) -> impl Iterator<Item = &Arg> {
        let steps = self.stages.iter().flat_map(|stage| &stage.steps);
        let args = steps.filter_map(|step| match &step.instruction {
            Instruction::Arg(args) => Some(args),
            _ => None,
        });
        self.global_args.iter().chain(args.flatten())
    }

    /// Returns the lines that BuildKit gives for a diagnostic: those of its instruction.
    pub fn lines_of(&self, diagnostic: &Diagnostic) -> Option<SourceLines> {
        let span = diagnostic.span?;
        let note = self.notes.of(span.start);
        let is_line = diagnostic.rule == Some(&NO_EMPTY_CONTINUATION);
        let whole = note.filter(|_| !is_line).map_or(span, |note| note.span);
        Some(self.lines.lines(whole))
    }

    /// Returns what is worth a warning whatever is built.
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }
}

/// `FROM` and what follows it.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    pub(crate) base: Word,
    pub(crate) platform: Option<Word>,
    /// In lower case.
    pub(crate) name: Option<String>,
    pub(crate) span: Span,
    pub(crate) steps: Vec<Step>,
}

/// An instruction of a stage.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) instruction: Instruction,
    pub(crate) span: Span,
    /// The instruction on one line, as written.
    pub(crate) code: String,
    /// Why kiln does not build it.
    pub(crate) refusal: Option<Diagnostic>,
    /// The base whose `ONBUILD` this is; none if it stands in the stage itself.
    pub(crate) trigger_of: Option<Arc<str>>,
}

impl Step {
    /// Says in a diagnostic that the instruction is a trigger of the base.
    pub(crate) fn blame(&self, diagnostic: Diagnostic) -> Diagnostic {
        match &self.trigger_of {
            Some(base) => blame_trigger(&self.code, base, diagnostic),
            None => diagnostic,
        }
    }
}

/// Says in a diagnostic that it is about a trigger of `base`, whose text is `code`.
pub(crate) fn blame_trigger(code: &str, base: &str, diagnostic: Diagnostic) -> Diagnostic {
    let mut text = code.lines().next().unwrap_or_default().to_owned();
    if let Some((cut, _)) = text.char_indices().nth(MAX_SHOWN) {
        text.replace_range(cut.., "…");
    }
    let message = format!("{} (in `{text}` of base `{base}`)", diagnostic.message);
    Diagnostic {
        message,
        ..diagnostic
    }
}

/// What an instruction says.
#[derive(Debug, Clone)]
pub(crate) enum Instruction {
    Arg(Vec<Arg>),
    Cmd(CommandLine),
    Copy(CopyFiles),
    Entrypoint(CommandLine),
    Env(Vec<Pair>),
    Expose(Vec<Word>),
    Healthcheck(HealthCheck),
    Label(Vec<Pair>),
    Maintainer(Word),
    /// The trigger's text, as images keep it.
    Onbuild(String),
    Run(Run),
    Shell(Vec<String>),
    StopSignal(Word),
    User(Word),
    Volume(Vec<Word>),
    Workdir(Word),
}

/// `NAME` or `NAME=value` of `ARG`.
#[derive(Debug, Clone)]
pub(crate) struct Arg {
    pub(crate) name: String,
    pub(crate) value: Option<Word>,
    pub(crate) span: Span,
}

/// `name=value` of `ENV` and `LABEL`.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) key: Word,
    pub(crate) value: Word,
}

/// A command in shell form or in exec form.
#[derive(Debug, Clone)]
pub(crate) enum CommandLine {
    Shell(String),
    Exec(Vec<String>),
}

/// `RUN`.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) command: CommandLine,
    pub(crate) heredocs: Vec<Heredoc>,
    pub(crate) network: Option<Network>,
    pub(crate) mounts: Vec<MountFlag>,
    pub(crate) security: Option<Security>,
}

/// `COPY` and `ADD`.
#[derive(Debug, Clone)]
pub(crate) struct CopyFiles {
    pub(crate) kind: CopyKind,
    pub(crate) sources: Vec<Word>,
    pub(crate) documents: Vec<Heredoc>,
    pub(crate) destination: Word,
    pub(crate) from: Option<Word>,
    pub(crate) chown: Option<Word>,
    pub(crate) chmod: Option<Word>,
    pub(crate) link: bool,
    pub(crate) parents: bool,
    pub(crate) excludes: Vec<Word>,
    /// Archives are unpacked; without it, those of the context are by `ADD`.
    pub(crate) unpack: Option<bool>,
    /// What a remote source must be.
    pub(crate) checksum: Option<Word>,
    /// `.git` of a Git source is kept.
    pub(crate) keep_git_dir: Option<bool>,
}

/// Which of the two instructions it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CopyKind {
    Copy,
    Add,
}

impl CopyKind {
    /// Returns the name of the instruction.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Copy => "COPY",
            Self::Add => "ADD",
        }
    }
}
