//! How a build tells what is wrong: with the Dockerfile, with an option, with a step that failed.
//!
//! Text with an excerpt, or a JSON document a line, as `--diagnostics` says. What a failed step
//! wrote is in the progress already; here is only what happened, and where.

use std::io::Write as _;

use kiln_frontend::{Compiled, Diagnostic, Severity, Span, render, to_json};
use kiln_graph::{Meta, SourceLines};
use kiln_solver::SolveError;
use kiln_worker::WorkerError;

use crate::args::Diagnostics;
use crate::commands::build::Build;
use crate::excerpt;
use crate::report::{Failure, FailureKind};

impl Build<'_> {
    fn rendered(&self, diagnostics: &[Diagnostic], color: bool) -> String {
        let source = &self.plan.dockerfile;
        render(diagnostics, &source.name, &source.text, color)
    }

    /// Returns a warning with its place, or as plain lines if it has none.
    fn warning_text(&self, warning: &Diagnostic) -> String {
        if warning.span.is_none() {
            return unplaced_text(warning);
        }
        let text = self.rendered(std::slice::from_ref(warning), false);
        // Whoever shows it says that it is a warning.
        let text = text.strip_prefix("warning: ").unwrap_or(&text);
        text.trim_end().to_owned()
    }

    fn tell(&self, warning: &Diagnostic) {
        match self.diagnostics {
            Diagnostics::Json => {
                let text = self.json(std::slice::from_ref(warning));
                // Nobody reads it when standard error is closed; the build goes on.
                let _unseen = std::io::stderr().write_all(text.as_bytes());
            }
            Diagnostics::Text => self.reporter.warn(self.warning_text(warning)),
        }
    }

    /// Tells the warnings of all platforms, each once.
    pub(crate) fn warn(&self, warnings: &[Diagnostic]) {
        let mut told: Vec<&Diagnostic> = Vec::new();
        for warning in warnings {
            if !told.contains(&warning) {
                self.tell(warning);
                told.push(warning);
            }
        }
    }

    pub(crate) fn diagnosed(&self, diagnostics: &[Diagnostic]) -> Failure {
        let errors = diagnostics.iter();
        let n = errors.filter(|d| d.severity == Severity::Error).count();
        let message = match n {
            1 => format!("`{}` cannot be built", self.plan.dockerfile.name),
            _ => format!(
                "`{}` cannot be built: {n} errors",
                self.plan.dockerfile.name
            ),
        };
        let failure = Failure::user(anyhow::Error::msg(message));
        match self.diagnostics {
            Diagnostics::Json => failure.with_json(self.json(diagnostics)),
            Diagnostics::Text => failure.with_excerpt(self.rendered(diagnostics, self.color)),
        }
    }

    fn json(&self, diagnostics: &[Diagnostic]) -> String {
        let source = &self.plan.dockerfile;
        to_json(diagnostics, &source.name, &source.text)
    }

    /// The step's output is in the progress; here is only what happened, and where.
    fn solve_failure_as_json(&self, meta: &Meta, error: SolveError<WorkerError>) -> Failure {
        let (kind, error) = match error {
            SolveError::StepFailed { failure, .. } => {
                (FailureKind::Step, anyhow::Error::msg(failure.message))
            }
            error => (FailureKind::User, error.into()),
        };
        let chain: Vec<String> = error.chain().map(ToString::to_string).collect();
        let text = &self.plan.dockerfile.text;
        let diagnostic = match meta.lines {
            Some(lines) => Diagnostic::error(span_of(lines, text), chain.join(": ")),
            None => Diagnostic::option(chain.join(": ")),
        };
        Failure::new(kind, error).with_json(self.json(&[diagnostic]))
    }

    pub(super) fn solve_failure(
        &self,
        compiled: &Compiled,
        error: SolveError<WorkerError>,
    ) -> Failure {
        let meta = &compiled.graph.vertex(error.vertex()).meta;
        if self.diagnostics == Diagnostics::Json {
            return self.solve_failure_as_json(meta, error);
        }
        let lines = meta
            .lines
            .map(|lines| excerpt::of_source(&self.plan.dockerfile, lines));
        let lines = lines.unwrap_or_default();
        match error {
            SolveError::StepFailed { failure, .. } => {
                let log = excerpt::of_log(&meta.name, &failure.log_tail);
                Failure::new(FailureKind::Step, anyhow::Error::msg(failure.message))
                    .with_excerpt(log + &lines)
            }
            error => {
                let hint = hint_of(&error);
                let failure = Failure::user(error).with_excerpt(lines);
                match hint {
                    Some(hint) => failure.with_hint(hint),
                    None => failure,
                }
            }
        }
    }
}

/// Returns what the user can do about an error that knows.
fn hint_of(error: &SolveError<WorkerError>) -> Option<String> {
    match error {
        SolveError::Worker {
            source: WorkerError::Credential(source),
            ..
        } => source.hint(),
        _ => None,
    }
}

/// Returns the bytes of some lines, without the last line break.
fn span_of(lines: SourceLines, text: &str) -> Span {
    let (mut start, mut end, mut at) = (text.len(), text.len(), 0);
    for (number, line) in (1..=lines.last).zip(text.split_inclusive('\n')) {
        if number == lines.first {
            start = at;
        }
        end = at + line.trim_end().len();
        at += line.len();
    }
    Span::new(start, end.max(start))
}

fn unplaced_text(warning: &Diagnostic) -> String {
    match &warning.help {
        Some(help) => format!("{}\n{help}", warning.message),
        None => warning.message.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_whole_lines() {
        let text = "FROM a\nRUN b \\\n  c\nRUN d\n";
        let at = |first, last| &text[span_of(SourceLines { first, last }, text).range()];
        assert_eq!(at(2, 3), "RUN b \\\n  c");
        assert_eq!(at(4, 4), "RUN d");
        assert_eq!(at(9, 9), "");
    }

    #[test]
    fn warnings_without_a_place_are_plain_lines() {
        let warning = Diagnostic::option("build argument `A` is not used");
        assert_eq!(unplaced_text(&warning), "build argument `A` is not used");
        let text = unplaced_text(&warning.with_help("leave it out"));
        assert_eq!(text, "build argument `A` is not used\nleave it out");
    }
}
