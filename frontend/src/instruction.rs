//! Typed instructions: what a Dockerfile says, before any variable is expanded.
//!
//! Everything that can be checked without knowing variables has been checked. An option that the
//! language has and kiln does not (yet) is kept as a refusal: it fails a build that reaches it.

use kiln_graph::{HealthCheck, Network, Security, SourceLines};

use crate::diagnostic::{Diagnostic, LineIndex, Span};
use crate::heredoc::Heredoc;
use crate::lines::Word;
use crate::parse::mount::MountFlag;

/// A parsed Dockerfile.
#[derive(Debug, Clone)]
pub struct Dockerfile {
    /// `ARG` instructions before the first `FROM`.
    pub(crate) global_args: Vec<Arg>,
    pub(crate) stages: Vec<Stage>,
    pub(crate) escape: char,
    pub(crate) warnings: Vec<Diagnostic>,
    pub(crate) lines: LineIndex,
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
            lines: self.lines.lines(stage.span),
        })
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
    /// Only ever refused.
    Onbuild,
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
