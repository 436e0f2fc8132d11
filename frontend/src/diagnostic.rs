//! Spans and diagnostics: what is wrong with a Dockerfile, and where.
//!
//! A diagnostic is data; [`crate::render()`] makes text of it. Spans are byte ranges of the text that
//! was parsed, so a diagnostic is only of use together with that text.

use std::ops::Range;

use crate::lint::rules::Rule;

/// A byte range of the Dockerfile's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// Offset of the first byte.
    pub start: usize,
    /// Offset behind the last byte.
    pub end: usize,
}

impl Span {
    /// Returns the span from `start` up to `end`.
    pub fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// Returns the lines of `text` that the span touches.
    pub fn lines(self, text: &str) -> kiln_graph::SourceLines {
        LineIndex::new(text).lines(self)
    }

    /// Returns the span as a range.
    pub fn range(self) -> Range<usize> {
        self.start..self.end
    }
}

/// How much a diagnostic matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Nothing is built.
    Error,
    /// The build goes on.
    Warning,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How much it matters.
    pub severity: Severity,
    /// What is wrong: one sentence, lower case, names in backticks.
    pub message: String,
    /// Where; none if the fault is in the options and not in the file.
    pub span: Option<Span>,
    /// What to do about it.
    pub help: Option<String>,
    /// The rule that is broken, if it is a finding of the checks.
    pub rule: Option<&'static Rule>,
}

impl Diagnostic {
    /// Returns an error at `span`.
    pub fn error(span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            span: Some(span),
            help: None,
            rule: None,
        }
    }

    /// Returns a warning at `span`.
    pub fn warning(span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(span, message)
        }
    }

    /// Returns an error that is not in the file but in the options.
    pub fn option(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            span: None,
            help: None,
            rule: None,
        }
    }

    /// Returns a warning that is not about the file but about the options.
    pub(crate) fn option_warning(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::option(message)
        }
    }

    /// Says which rule is broken.
    #[must_use]
    pub(crate) fn with_rule(mut self, rule: &'static Rule) -> Self {
        self.rule = Some(rule);
        self
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds `did you mean …?` if there is a suggestion.
    #[must_use]
    pub(crate) fn with_suggestion(self, suggestion: Option<&str>) -> Self {
        match suggestion {
            Some(word) => self.with_help(format!("did you mean `{word}`?")),
            None => self,
        }
    }
}

/// Where the lines of a text start.
#[derive(Debug, Clone, Default)]
pub(crate) struct LineIndex(Vec<usize>);

impl LineIndex {
    pub(crate) fn new(text: &str) -> Self {
        let after_breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        Self(std::iter::once(0).chain(after_breaks).collect())
    }

    /// Returns the number of the line that holds `offset`, counted from 1.
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.0.partition_point(|&start| start <= offset)
    }

    /// Returns the number of the line that holds `offset`, and where it starts.
    pub(crate) fn line_start(&self, offset: usize) -> (usize, usize) {
        let number = self.line(offset);
        (number, self.0.get(number - 1).copied().unwrap_or(0))
    }

    /// Returns the numbers of the first and last line that `span` touches.
    pub(crate) fn lines(&self, span: Span) -> kiln_graph::SourceLines {
        kiln_graph::SourceLines {
            first: self.line(span.start),
            last: self.line(span.end.saturating_sub(1).max(span.start)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_from_one() {
        let index = LineIndex::new("ab\nc\n\nd");
        let lines: Vec<usize> = (0..7).map(|at| index.line(at)).collect();
        assert_eq!(lines, [1, 1, 1, 2, 2, 3, 4]);
        let span = index.lines(Span::new(0, 5));
        assert_eq!((span.first, span.last), (1, 2));
    }
}
