//! Failures: what kind, what happened, what may help; and how they end the process.

use std::fmt::Write as _;
use std::process::ExitCode;

/// What ended a command.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Whose fault it was; decides about the exit code.
    pub(crate) kind: FailureKind,
    /// What happened.
    pub(crate) error: anyhow::Error,
    /// What stands before the message: an excerpt of the Dockerfile, the end of a log.
    pub(crate) excerpt: String,
    /// What the user can do.
    pub(crate) hints: Vec<String>,
    /// The excerpt is for programs and says everything.
    pub(crate) is_json: bool,
}

/// Whose fault it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// Of what the user gave, or of the world outside.
    User,
    /// Of how the command was typed.
    Usage,
    /// A step of the build failed.
    Step,
    /// The image is there, and a registry did not take it.
    Push,
    /// Stopped by a signal, this one.
    Stopped(u8),
    /// A check found something, and has told it.
    Findings,
}

impl Failure {
    /// Returns a failure of what the user gave.
    pub(crate) fn user(error: impl Into<anyhow::Error>) -> Self {
        Self::new(FailureKind::User, error)
    }

    /// Returns a failure of how the command was typed.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Usage, anyhow::Error::msg(message.into()))
    }

    /// Returns a failure.
    pub(crate) fn new(kind: FailureKind, error: impl Into<anyhow::Error>) -> Self {
        Self {
            kind,
            error: error.into(),
            excerpt: String::new(),
            hints: Vec::new(),
            is_json: false,
        }
    }

    /// Returns the failure of a check that has told what it found.
    pub(crate) fn findings() -> Self {
        let error = anyhow::Error::msg("the check found something");
        Self::new(FailureKind::Findings, error)
    }

    /// Adds something to do.
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Puts a text before the message.
    pub(crate) fn with_excerpt(mut self, excerpt: impl Into<String>) -> Self {
        self.excerpt = excerpt.into();
        self
    }

    /// Puts lines of JSON in the place of the message.
    pub(crate) fn with_json(mut self, lines: impl Into<String>) -> Self {
        self.is_json = true;
        self.with_excerpt(lines)
    }

    /// Returns the exit code: user 1, usage 2, step 3, push 4, stopped 128 + signal.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self.kind {
            FailureKind::User | FailureKind::Findings => 1,
            FailureKind::Usage => 2,
            FailureKind::Step => 3,
            FailureKind::Push => 4,
            FailureKind::Stopped(signal) => 128 + signal,
        })
    }

    /// Returns the text for people.
    pub(crate) fn render(&self) -> String {
        if self.kind == FailureKind::Findings {
            return String::new();
        }
        let mut out = self.excerpt.clone();
        if !out.is_empty() && !out.ends_with('\n') {
            out.push('\n');
        }
        if self.is_json {
            return out;
        }
        let chain: Vec<String> = self.error.chain().map(ToString::to_string).collect();
        writeln!(out, "error: {}", chain.join(": ")).expect("writing to a String");
        for hint in &self.hints {
            writeln!(out, "hint: {hint}").expect("writing to a String");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_is_one_line_and_hints_follow() {
        let error = anyhow::anyhow!("no such file").context("cannot read `x`");
        let failure = Failure::user(error)
            .with_hint("make it")
            .with_excerpt("1 | x");
        assert_eq!(
            failure.render(),
            "1 | x\nerror: cannot read `x`: no such file\nhint: make it\n"
        );
    }
}
