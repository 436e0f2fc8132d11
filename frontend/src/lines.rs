//! Physical lines to logical lines: comments, continuations, byte order mark, line ends.
//!
//! A logical line is one instruction as its parser reads it; it remembers where in the file each
//! of its bytes stands. Heredoc bodies are read on demand, because only the instruction knows
//! whether it has any. Directives are recognised here since they change how lines continue.

use std::ops::Range;

use crate::diagnostic::{Diagnostic, Span};
use crate::directives::Directives;
use crate::lint::rules::NO_EMPTY_CONTINUATION;

/// A physical line with its line break.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Physical<'a> {
    pub(crate) raw: &'a str,
    pub(crate) start: usize,
}

impl<'a> Physical<'a> {
    /// Returns the line without its line break.
    pub(crate) fn content(self) -> &'a str {
        self.raw.trim_end_matches(['\r', '\n'])
    }

    fn is_comment(self) -> bool {
        self.content().trim_start().starts_with('#')
    }

    fn is_blank(self) -> bool {
        self.content().trim_start().is_empty()
    }

    fn span(self) -> Span {
        Span::new(self.start, self.start + self.content().len())
    }
}

/// A piece of a logical line that stands in one piece in the file.
#[derive(Debug, Clone, Copy)]
struct Piece {
    logical: usize,
    source: usize,
}

/// An instruction without its line breaks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Logical {
    pub(crate) text: String,
    pieces: Vec<Piece>,
    /// Where everything stands that does not stand in the file.
    blamed: Option<Span>,
}

/// A part of a logical line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) text: String,
    pub(crate) span: Span,
}

impl Logical {
    fn push(&mut self, text: &str, source: usize) {
        let logical = self.text.len();
        self.pieces.push(Piece { logical, source });
        self.text.push_str(text);
    }

    /// Returns the line from `start` on.
    pub(crate) fn tail(&self, start: usize) -> Self {
        let source = self.source(start);
        let later = self.pieces.iter().filter(|piece| piece.logical > start);
        let first = Piece { logical: 0, source };
        let later = later.map(|piece| Piece {
            logical: piece.logical - start,
            ..*piece
        });
        Self {
            text: self.text[start..].to_owned(),
            pieces: std::iter::once(first).chain(later).collect(),
            blamed: self.blamed,
        }
    }

    /// Returns where `range` of the logical line stands in the file.
    pub(crate) fn span(&self, range: Range<usize>) -> Span {
        if let Some(span) = self.blamed {
            return span;
        }
        let start = self.source(range.start);
        if range.is_empty() {
            return Span::new(start, start);
        }
        Span::new(start, self.source(range.end - 1) + 1)
    }

    /// Returns the span of the whole line.
    pub(crate) fn whole(&self) -> Span {
        self.span(0..self.text.len())
    }

    /// Returns a part of the line as it stands.
    pub(crate) fn word(&self, range: Range<usize>) -> Word {
        Word {
            text: self.text[range.clone()].to_owned(),
            span: self.span(range),
        }
    }

    fn source(&self, at: usize) -> usize {
        let next = self.pieces.partition_point(|piece| piece.logical <= at);
        // Of pieces that start at the same place only the last has text.
        match next.checked_sub(1).and_then(|last| self.pieces.get(last)) {
            Some(piece) => piece.source + (at - piece.logical),
            None => at,
        }
    }
}

/// Reads the lines of a Dockerfile.
pub(crate) struct Lines<'a> {
    text: &'a str,
    at: usize,
    blamed: Option<Span>,
    pub(crate) directives: Directives,
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// The comments above the next instruction.
    pub(crate) comments: Vec<String>,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let at = text.len() - text.trim_start_matches('\u{feff}').len();
        Self {
            text,
            // Only one byte order mark is one.
            at: at.min('\u{feff}'.len_utf8()),
            blamed: None,
            directives: Directives::default(),
            diagnostics: Vec::new(),
            comments: Vec::new(),
        }
    }

    /// Reads a text that is not the file: `span` of the file is blamed for what is in it.
    pub(crate) fn elsewhere(text: &'a str, span: Span) -> Self {
        Self {
            blamed: Some(span),
            ..Self::new(text)
        }
    }

    /// Returns a place of the text as one of the file.
    pub(crate) fn span(&self, start: usize, end: usize) -> Span {
        self.blamed.unwrap_or(Span::new(start, end))
    }

    /// Returns where the next physical line starts.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// Returns the next physical line as it stands.
    pub(crate) fn physical(&mut self) -> Option<Physical<'a>> {
        let rest = &self.text[self.at..];
        if rest.is_empty() {
            return None;
        }
        let length = rest.find('\n').map_or(rest.len(), |at| at + 1);
        let line = Physical {
            raw: &rest[..length],
            start: self.at,
        };
        self.at += length;
        Some(line)
    }

    /// Returns the next instruction.
    pub(crate) fn logical(&mut self) -> Option<Logical> {
        loop {
            let first = self.physical()?;
            let content = first.content().trim_start();
            let start = first.start + first.content().len() - content.len();
            self.directives.read(content, start, &mut self.diagnostics);
            let check = self.directives.check.as_ref().map(|word| word.span.start);
            if let Some(comment) = content.strip_prefix('#')
                && check != Some(start)
            {
                self.comment(comment.trim());
            }
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            return Some(self.continued(content, start));
        }
    }

    /// An empty comment parts those below it from those above.
    fn comment(&mut self, text: &str) {
        if text.is_empty() {
            self.comments.clear();
        } else {
            self.comments.push(text.to_owned());
        }
    }

    fn continued(&mut self, first: &str, start: usize) -> Logical {
        let mut logical = Logical {
            blamed: self.blamed,
            ..Logical::default()
        };
        let (text, mut goes_on) = self.without_continuation(first);
        logical.push(text, start);
        let (mut has_blanks, mut last) = (false, None);
        while goes_on {
            let Some(line) = self.physical() else { break };
            last = Some(line);
            if line.is_comment() {
                continue;
            }
            if line.is_blank() {
                has_blanks = true;
                continue;
            }
            let (text, more) = self.without_continuation(line.content());
            logical.push(text, line.start);
            goes_on = more;
        }
        if let Some(line) = last.filter(|_| has_blanks) {
            self.warn_of_blanks(line);
        }
        logical
    }

    /// Cuts off the escape character at the end of a line, unless another one is before it.
    fn without_continuation<'t>(&self, line: &'t str) -> (&'t str, bool) {
        let escape = self.directives.escape();
        let Some(cut) = line.trim_end_matches([' ', '\t']).strip_suffix(escape) else {
            return (line, false);
        };
        if cut.ends_with(escape) {
            return (line, false);
        }
        (cut, true)
    }

    /// The last line of the instruction is shown, as BuildKit does.
    fn warn_of_blanks(&mut self, last: Physical<'_>) {
        let Span { start, end } = last.span();
        let warning = Diagnostic::warning(self.span(start, end), "Empty continuation line");
        self.diagnostics
            .push(warning.with_rule(&NO_EMPTY_CONTINUATION));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logical_lines(text: &str) -> Vec<String> {
        let mut lines = Lines::new(text);
        std::iter::from_fn(|| lines.logical())
            .map(|line| line.text)
            .collect()
    }

    #[test]
    fn lines_continue_where_the_escape_character_says_so() {
        for (text, expected) in [
            ("A b\nC d", &["A b", "C d"][..]),
            ("\u{feff}A\r\nB\r\n", &["A", "B"]),
            ("  A \\  \n  b\\\n\tc", &["A   b\tc"]),
            ("A \\\n# no\n  # no\n\n b", &["A  b"]),
            ("A \\\\\nB", &["A \\\\", "B"]),
            ("A \\", &["A "]),
            ("# escape=`\nA `\nb\\\nC", &["A b\\", "C"]),
            ("\n# escape=`\nA b\\\nC", &["A bC"]),
            ("A # b", &["A # b"]),
            ("\\\nA", &["A"]),
        ] {
            assert_eq!(logical_lines(text), expected, "{text:?}");
        }
    }

    #[test]
    fn spans_lead_back_to_the_file() {
        let text = "# c\nRUN a \\\n  # x\n  bc d";
        let line = Lines::new(text).logical().unwrap();
        assert_eq!(line.text, "RUN a   bc d");
        let at = line.text.find("bc").unwrap();
        assert_eq!(&text[line.span(at..at + 2).range()], "bc");
        assert_eq!(&text[line.whole().range()], &text[4..]);
    }

    #[test]
    fn lines_may_be_very_long() {
        let text = format!("A {}\nB", "x".repeat(1 << 20));
        let mut lines = Lines::new(&text);
        assert_eq!(lines.logical().unwrap().text.len(), (1 << 20) + 2);
        assert_eq!(lines.logical().unwrap().text, "B");
    }

    #[test]
    fn tails_know_where_they_stand() {
        let text = "ONBUILD \\\n RUN a\\\n bc";
        let line = Lines::new(text).logical().unwrap();
        let tail = line.tail(line.text.find("RUN").unwrap());
        assert_eq!(tail.text, "RUN a bc");
        assert_eq!(&text[tail.span(6..8).range()], "bc");
        assert_eq!(&text[tail.span(0..3).range()], "RUN");
    }
}
