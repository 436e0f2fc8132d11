//! Text for progress output: lines from bytes, without what could harm a terminal.
//!
//! What a step writes is not trusted: escape sequences could move the cursor, set the clipboard or
//! hide what happened. [`clean`] lets letters through and nothing that commands a terminal.

use unicode_width::UnicodeWidthChar as _;

/// Bytes after which a line is cut in two, so that output without line ends needs no memory.
const MAX_LINE_BYTES: usize = 64 * 1024;
const TAB_WIDTH: usize = 8;

/// Collects bytes into lines.
#[derive(Debug, Default)]
pub(crate) struct LineBuffer {
    rest: Vec<u8>,
}

impl LineBuffer {
    /// Adds `data`; returns the lines that are complete, without their ends.
    pub(crate) fn push(&mut self, data: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        for part in data.split_inclusive(|&byte| byte == b'\n') {
            self.rest.extend_from_slice(part);
            if self.rest.ends_with(b"\n") {
                self.rest.pop();
                lines.push(std::mem::take(&mut self.rest));
            }
            while self.rest.len() > MAX_LINE_BYTES {
                let after = self
                    .rest
                    .split_off(character_start(&self.rest, MAX_LINE_BYTES));
                lines.push(std::mem::replace(&mut self.rest, after));
            }
        }
        lines
    }

    /// Returns the line that has no end yet.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.rest
    }

    /// Takes the line that has no end, if there is one.
    pub(crate) fn take_rest(&mut self) -> Option<Vec<u8>> {
        let rest = std::mem::take(&mut self.rest);
        (!rest.is_empty()).then_some(rest)
    }
}

/// Returns the last place at or before `at` where a UTF-8 character begins.
fn character_start(data: &[u8], at: usize) -> usize {
    let is_start = |at: &usize| data[*at] & 0xc0 != 0x80;
    (at.saturating_sub(3)..=at)
        .rev()
        .find(is_start)
        .unwrap_or(at)
}

/// Returns what a line shows over time: a carriage return begins it anew.
pub(crate) fn overwrites(line: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    let is_empty = line.is_empty();
    line.split(|&byte| byte == b'\r')
        .filter(move |piece| is_empty || !piece.is_empty())
}

/// Returns what a line shows in the end, as a terminal would.
pub(crate) fn last_overwrite(line: &[u8]) -> &[u8] {
    overwrites(line).next_back().unwrap_or_default()
}

/// Returns `text` without anything that commands a terminal; tabs stay.
pub(crate) fn clean(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_ref();
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        match character {
            '\u{1b}' => rest = after_escape(rest),
            '\u{9b}' => rest = after_control_sequence(rest),
            '\t' => out.push('\t'),
            character if is_unsafe(character) => {}
            character => out.push(character),
        }
    }
    out
}

/// Returns a clean text with spaces in place of tabs.
pub(crate) fn expand_tabs(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut column = 0;
    for character in text.chars() {
        if character == '\t' {
            let n_spaces = TAB_WIDTH - column % TAB_WIDTH;
            out.extend(std::iter::repeat_n(' ', n_spaces));
            column += n_spaces;
        } else {
            out.push(character);
            column += character.width().unwrap_or(0);
        }
    }
    out
}

/// Returns true for controls, and for what reorders or breaks a line.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Returns what follows an escape sequence, whose escape character is gone (ECMA-48, 5.3 to 5.6).
///
/// A string without its end loses only its introducer: no output may disappear.
fn after_escape(text: &str) -> &str {
    match text.as_bytes().first() {
        Some(b'[') => after_control_sequence(&text[1..]),
        Some(b']' | b'P' | b'X' | b'^' | b'_') => after_control_string(&text[1..]),
        Some(0x20..=0x2f) => {
            let text = text.trim_start_matches(|c| matches!(c, ' '..='/'));
            text.strip_prefix(|c| matches!(c, '0'..='~'))
                .unwrap_or(text)
        }
        Some(0x30..=0x7e) => &text[1..],
        _ => text,
    }
}

fn after_control_sequence(text: &str) -> &str {
    let text = text.trim_start_matches(|c| matches!(c, ' '..='?'));
    text.strip_prefix(|c| matches!(c, '@'..='~'))
        .unwrap_or(text)
}

fn after_control_string(text: &str) -> &str {
    let bell = text.find('\u{7}').map(|at| at + 1);
    let terminator = text.find("\u{1b}\\").map(|at| at + 2);
    let end = bell.into_iter().chain(terminator).min();
    &text[end.unwrap_or(0)..]
}

/// Returns how many columns a clean text takes.
pub(crate) fn width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// Returns the beginning of a clean text that fits into `max_width` columns.
pub(crate) fn fit(text: &str, max_width: usize) -> String {
    if width(text) <= max_width {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut column = 0;
    for character in text.chars() {
        column += character.width().unwrap_or(0);
        if column >= max_width {
            break;
        }
        out.push(character);
    }
    if max_width > 0 {
        out.push('…');
    }
    out
}

/// Returns a number of bytes for people: `12B`, `1.05kB`, `29.13MB`.
pub(crate) fn bytes(n_bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [
        (1_000_000_000_000, "TB"),
        (1_000_000_000, "GB"),
        (1_000_000, "MB"),
        (1_000, "kB"),
    ];
    let Some((size, unit)) = UNITS.iter().find(|(size, _)| n_bytes >= *size) else {
        return format!("{n_bytes}B");
    };
    let hundredths = u128::from(n_bytes) * 100 / u128::from(*size);
    format!("{}.{:02}{unit}", hundredths / 100, hundredths % 100)
}

/// Returns how much of a transfer is done: `1.05MB / 29.13MB`.
pub(crate) fn amount(done: u64, total: Option<u64>) -> String {
    match total {
        Some(total) => format!("{} / {}", bytes(done), bytes(total)),
        None => bytes(done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together() {
        let mut buffer = LineBuffer::default();
        assert!(buffer.push(b"one").is_empty());
        assert_eq!(buffer.rest(), b"one");
        assert_eq!(buffer.push(b" two\n\nthree"), [&b"one two"[..], b""]);
        assert_eq!(buffer.take_rest().as_deref(), Some(&b"three"[..]));
        assert_eq!(buffer.take_rest(), None);
    }

    #[test]
    fn endless_lines_are_cut_between_characters() {
        let mut buffer = LineBuffer::default();
        let text = "x".to_owned() + &"ä".repeat(100_000);
        let mut lines = buffer.push(text.as_bytes());
        assert!(buffer.rest().len() <= MAX_LINE_BYTES);
        lines.extend(buffer.take_rest());
        assert!(lines.iter().all(|line| std::str::from_utf8(line).is_ok()));
        assert_eq!(lines.concat(), text.as_bytes());
    }

    #[test]
    fn carriage_returns_begin_a_line_anew() {
        let pieces = |line| overwrites(line).collect::<Vec<&[u8]>>();
        assert_eq!(pieces(b"10%\r20%\r"), [b"10%", b"20%"]);
        assert_eq!(pieces(b"dos\r"), [b"dos"]);
        assert_eq!(pieces(b""), [b""]);
        assert!(pieces(b"\r").is_empty());
        assert_eq!(last_overwrite(b"10%\r20%\r"), b"20%");
        assert_eq!(last_overwrite(b"\r"), b"");
    }

    #[test]
    fn nothing_that_commands_a_terminal_stays() {
        for (dirty, expected) in [
            ("\u{1b}[1;31mred\u{1b}[0m", "red"),
            ("\u{9b}2Kgone", "gone"),
            ("\u{1b}]52;c;ZXZpbA==\u{7}clip", "clip"),
            ("\u{1b}]0;title\u{1b}\\text", "text"),
            ("\u{1b}]0;never ended", "0;never ended"),
            ("\u{1b}(Bcharset\u{1b}7\u{1b}M", "charset"),
            ("\u{1b}[", ""),
            ("a\u{8}\u{0}\u{7f}b\u{85}", "ab"),
            ("\u{202e}evil\u{2066}\u{200f}", "evil"),
            ("a\tb", "a\tb"),
            ("emoji 🔥 ok", "emoji 🔥 ok"),
        ] {
            assert_eq!(clean(dirty.as_bytes()), expected, "{dirty:?}");
        }
        assert_eq!(clean(b"\xff\x1b[31m"), "\u{fffd}");
    }

    #[test]
    fn tabs_reach_the_next_stop() {
        assert_eq!(expand_tabs("a\tb\t\tc"), "a       b               c");
        assert_eq!(expand_tabs("日\tx"), "日      x");
    }

    #[test]
    fn texts_are_cut_by_columns() {
        assert_eq!(fit("abc", 3), "abc");
        assert_eq!(fit("abcd", 3), "ab…");
        assert_eq!(fit("日本語", 5), "日本…");
        assert_eq!(fit("日本語", 4), "日…");
        assert_eq!(fit("abc", 0), "");
    }

    #[test]
    fn sizes_have_two_decimals() {
        let sizes = [999, 1_050, 1_059_999, 29_130_000_000].map(bytes);
        assert_eq!(sizes, ["999B", "1.05kB", "1.05MB", "29.13GB"]);
        assert_eq!(amount(5, Some(2_000)), "5B / 2.00kB");
        assert_eq!(amount(5, None), "5B");
    }
}
