//! Splits a logical line into the instruction's name, its flags, and its words.
//!
//! Quotes and escapes of words stay: they are read when the word is expanded. Only flags lose
//! them here.

use std::ops::Range;

use crate::lines::{Logical, Word};

/// An instruction's line, taken apart.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) name: Word,
    pub(crate) flags: Vec<Word>,
    /// What follows the flags, without blanks around it.
    pub(crate) rest: Range<usize>,
}

/// Splits off the name and the flags.
pub(crate) fn head(line: &Logical) -> Head {
    let text = trimmed(&line.text, 0..line.text.len());
    let name_length = line.text[text.clone()].find(is_blank).unwrap_or(text.len());
    let name = text.start..text.start + name_length;
    let (flags, rest) = flags(line, trimmed(&line.text, name.end..text.end));
    Head {
        name: line.word(name),
        flags,
        rest: trimmed(&line.text, rest..text.end),
    }
}

/// Returns `range` without white space around it.
pub(crate) fn trimmed(text: &str, range: Range<usize>) -> Range<usize> {
    let part = &text[range.clone()];
    let start = range.start + part.len() - part.trim_start().len();
    start..start + part.trim().len()
}

/// Splits at blanks.
pub(crate) fn split_blanks(line: &Logical, range: Range<usize>) -> Vec<Word> {
    let part = &line.text[range.clone()];
    let words = part.split(is_blank).filter(|word| !word.is_empty());
    words
        .map(|word| {
            let start = range.start + (word.as_ptr() as usize - part.as_ptr() as usize);
            line.word(start..start + word.len())
        })
        .collect()
}

/// Splits at the first run of blanks.
pub(crate) fn split_once(line: &Logical, range: Range<usize>) -> Option<(Word, Word)> {
    let part = &line.text[range.clone()];
    let end = range.start + part.find(is_blank)?;
    let rest = &line.text[end..range.end];
    let start = range.end - rest.trim_start_matches(is_blank).len();
    Some((line.word(range.start..end), line.word(start..range.end)))
}

/// Splits at white space that is neither quoted nor escaped; quotes and escapes stay.
pub(crate) fn split_quoted(line: &Logical, range: Range<usize>, escape: char) -> Vec<Word> {
    let mut words = Vec::new();
    let mut chars = line.text[range.clone()].char_indices().peekable();
    let (mut text, mut start, mut has_quotes, mut quote) = (String::new(), None, false, None);
    while let Some((at, c)) = chars.next() {
        let at = range.start + at;
        if quote.is_none() && c.is_whitespace() {
            if let Some(start) = start.take().filter(|_| has_quotes || !text.is_empty()) {
                words.push(word(line, std::mem::take(&mut text), start..at));
            }
            has_quotes = false;
            continue;
        }
        start.get_or_insert(at);
        match quote {
            None if c == '\'' || c == '"' => (quote, has_quotes) = (Some(c), true),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        if c == escape && quote != Some('\'') {
            // At the end of the line the escape character is dropped.
            let Some((_, escaped)) = chars.next() else {
                break;
            };
            text.extend([c, escaped]);
            continue;
        }
        text.push(c);
    }
    if let Some(start) = start.filter(|_| has_quotes || !text.is_empty()) {
        words.push(word(line, text, start..range.end));
    }
    words
}

/// Reads a JSON array of texts: an error if something else than texts is in it, nothing if it
/// is no JSON array.
pub(crate) fn json(line: &Logical, range: Range<usize>) -> Option<Result<Vec<Word>, Word>> {
    let text = &line.text[range.clone()];
    if !text.starts_with('[') {
        return None;
    }
    let values: Vec<serde_json::Value> = serde_json::from_str(text).ok()?;
    let texts = values.into_iter().map(|value| match value {
        serde_json::Value::String(text) => Some(word(line, text, range.clone())),
        _ => None,
    });
    let texts: Option<Vec<Word>> = texts.collect();
    Some(texts.ok_or_else(|| line.word(range)))
}

fn word(line: &Logical, text: String, range: Range<usize>) -> Word {
    let span = line.span(range);
    Word { text, span }
}

fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// Reads words that start with `--`; returns them and where the rest starts.
fn flags(line: &Logical, range: Range<usize>) -> (Vec<Word>, usize) {
    let mut flags = Vec::new();
    let mut at = range.start;
    loop {
        at = trimmed(&line.text, at..range.end).start;
        if !line.text[at..range.end].starts_with("--") {
            return (flags, at);
        }
        let (text, length) = flag(&line.text[at..range.end]);
        let end = at + length;
        if text == "--" {
            return (flags, end);
        }
        flags.push(word(line, text, at..end));
        at = end;
    }
}

/// Reads one flag without its quotes and escapes; returns it and its length as written.
fn flag(text: &str) -> (String, usize) {
    let (mut out, mut quote) = (String::new(), None);
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => return (out, at),
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            // Flags know only the backslash, whatever the escape directive says.
            (_, '\\') => out.extend(chars.next().map(|(_, escaped)| escaped)),
            (_, c) => out.push(c),
        }
    }
    (out, text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::Lines;

    fn line(text: &str) -> Logical {
        Lines::new(text).logical().unwrap()
    }

    fn texts(words: Vec<Word>) -> Vec<String> {
        words.into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn heads_are_name_flags_and_rest() {
        for (text, name, flags, rest) in [
            ("RUN", "RUN", &[][..], ""),
            ("RUN  a  b ", "RUN", &[], "a  b"),
            ("COPY --a=b --c  d --e", "COPY", &["--a=b", "--c"], "d --e"),
            ("COPY -- --a b", "COPY", &[], "--a b"),
            (
                "COPY --a=\"x y\" --b='c'\\ d e",
                "COPY",
                &["--a=x y", "--b=c d"],
                "e",
            ),
            ("COPY --a", "COPY", &["--a"], ""),
            ("RUN -x --y", "RUN", &[], "-x --y"),
        ] {
            let line = line(text);
            let head = head(&line);
            assert_eq!(head.name.text, name);
            assert_eq!(texts(head.flags), flags, "{text}");
            assert_eq!(&line.text[head.rest], rest, "{text}");
        }
    }

    #[test]
    fn quoted_words_keep_quotes_and_escapes() {
        for (text, expected) in [
            ("a=b c", &["a=b", "c"][..]),
            ("a='b c'd e", &["a='b c'd", "e"]),
            ("a=b\\ c", &["a=b\\ c"]),
            ("a=\"b\\\" c\"", &["a=\"b\\\" c\""]),
            ("a='b\\' c", &["a='b\\'", "c"]),
            ("\"\" x", &["\"\"", "x"]),
            ("a=\"b", &["a=\"b"]),
            ("a\\", &["a"]),
        ] {
            let line = line(text);
            let words = split_quoted(&line, 0..line.text.len(), '\\');
            assert_eq!(texts(words), expected, "{text}");
        }
    }

    #[test]
    fn spans_are_those_of_the_words() {
        let source = "COPY \\\n  --from=x a\\\nb  c";
        let line = line(source);
        let head = head(&line);
        let words = split_blanks(&line, head.rest);
        let at = |word: &Word| &source[word.span.range()];
        assert_eq!(at(&head.flags[0]), "--from=x");
        assert_eq!(at(&words[0]), "a\\\nb");
        assert_eq!(at(&words[1]), "c");
    }

    #[test]
    fn json_falls_back_unless_it_is_an_array_of_something_else() {
        let json = |text| json(&line(text), 0..text.len());
        assert_eq!(
            texts(json("[\"a\", \"\\u00e9\"]").unwrap().unwrap()),
            ["a", "é"]
        );
        assert!(json("[1]").unwrap().is_err());
        for text in ["['a']", "[ \"$(cat f)\" == \"x\" ]", "a", "[\"a\"] b"] {
            assert!(json(text).is_none(), "{text}");
        }
    }
}
