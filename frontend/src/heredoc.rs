//! Heredocs: the words that announce them, and their bodies.
//!
//! A word announces a heredoc if it is `<<NAME`, with digits before it, a `-` behind it, or a
//! quoted name. The bodies follow the instruction, one after the other.

use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Span};
use crate::expand::{ExpandError, Quotes, Rules};
use crate::lines::Lines;

/// What a heredoc word says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Announcement {
    /// The terminator, and the name of the file.
    pub(crate) name: String,
    /// Variables of the body are expanded: no part of the name is quoted.
    pub(crate) expands: bool,
    /// Leading tabs are left out (`<<-`).
    pub(crate) strips_tabs: bool,
}

/// A heredoc with its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heredoc {
    pub(crate) announcement: Announcement,
    /// The body as it stands, with tabs.
    pub(crate) body: Arc<str>,
    /// Where the body stands.
    pub(crate) span: Span,
    /// Where the terminator ends.
    pub(crate) end: usize,
}

impl Heredoc {
    /// Returns the body without leading tabs, if it asks for that.
    pub(crate) fn content(&self) -> String {
        if !self.announcement.strips_tabs {
            return self.body.to_string();
        }
        let lines = self.body.split_inclusive('\n');
        lines.map(|line| line.trim_start_matches('\t')).collect()
    }
}

/// Returns the heredocs that an instruction announces, in order.
///
/// An instruction whose quotes do not match announces none.
pub(crate) fn announced(instruction: &str) -> Vec<Announcement> {
    let rules = Rules {
        quotes: Quotes::Keep,
        raw_escapes: true,
        keep_unset: true,
        ..Rules::words('\\')
    };
    let words = rules.split(instruction, &|_| None).unwrap_or_default();
    words.iter().filter_map(|word| announcement(word)).collect()
}

/// Returns what a word announces; nothing if it is no heredoc word.
pub(crate) fn announcement(word: &str) -> Option<Announcement> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit());
    let rest = rest.strip_prefix("<<")?;
    let (rest, strips_tabs) = match rest.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (rest, false),
    };
    let rest = rest.trim_start();
    if rest.is_empty() || rest.contains('<') {
        return None;
    }
    let (name, raw) = (
        single_word(rest, Quotes::Remove).ok()??,
        single_word(rest, Quotes::Keep),
    );
    let raw = raw.ok()??;
    let n_quotes = |text: &str| text.matches(['\'', '"']).count();
    Some(Announcement {
        expands: n_quotes(&name) == n_quotes(&raw),
        name,
        strips_tabs,
    })
}

fn single_word(text: &str, quotes: Quotes) -> Result<Option<String>, ExpandError> {
    let rules = Rules {
        quotes,
        keep_unset: true,
        ..Rules::words('\\')
    };
    let mut words = rules.split(text, &|_| None)?;
    Ok(words.pop().filter(|_| words.is_empty()))
}

/// Reads the body of a heredoc; `instruction` is blamed if it does not end.
pub(crate) fn read(
    lines: &mut Lines<'_>,
    announcement: Announcement,
    instruction: Span,
) -> Result<Heredoc, Diagnostic> {
    let start = lines.position();
    let mut body = String::new();
    while let Some(line) = lines.physical() {
        let mut content = line.content();
        if announcement.strips_tabs {
            content = content.trim_start_matches('\t');
        }
        if content == announcement.name {
            let end = line.start + line.content().len();
            return Ok(Heredoc {
                announcement,
                body: body.into(),
                span: lines.span(start, line.start),
                end: lines.span(line.start, end).end,
            });
        }
        body.push_str(line.raw);
    }
    let name = &announcement.name;
    let message = format!("unterminated heredoc: no line is `{name}`");
    Err(Diagnostic::error(instruction, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_announce_heredocs() {
        for (word, expected) in [
            ("<<EOF", Some(("EOF", true, false))),
            ("<<-EOF", Some(("EOF", true, true))),
            ("3<<EOF", Some(("EOF", true, false))),
            ("<<\"EOF\"", Some(("EOF", false, false))),
            ("<<'E F'", Some(("E F", false, false))),
            ("<<E\"O\"F", Some(("EOF", false, false))),
            ("<<", None),
            ("<<-", None),
            ("<<<x", None),
            ("a<<EOF", None),
            ("<<EOF cat", None),
            ("<EOF", None),
        ] {
            let got = announcement(word);
            let got = got
                .as_ref()
                .map(|a| (a.name.as_str(), a.expands, a.strips_tabs));
            assert_eq!(got, expected, "{word}");
        }
    }

    #[test]
    fn instructions_announce_several() {
        let names = |text| {
            announced(text)
                .into_iter()
                .map(|a| a.name)
                .collect::<Vec<_>>()
        };
        assert_eq!(names("COPY <<a <<'b' c /d"), ["a", "b"]);
        assert_eq!(names("RUN echo '<<a' \"<<b\" \\<<c"), Vec::<String>::new());
        assert_eq!(names("RUN echo it's <<a"), Vec::<String>::new());
        assert_eq!(names("RUN cat <<A $(( 1 << 2 ))"), ["A"]);
    }

    #[test]
    fn bodies_end_at_their_terminator() {
        let mut lines = Lines::new("\tx\r\n\t EOF\n\tEOF\nnext");
        let heredoc = read(&mut lines, announcement("<<-EOF").unwrap(), Span::new(0, 0)).unwrap();
        assert_eq!(&*heredoc.body, "\tx\r\n\t EOF\n");
        assert_eq!(heredoc.content(), "x\r\n EOF\n");
        assert_eq!(lines.logical().unwrap().text, "next");
    }
}
