//! One ignore pattern, as moby/patternmatcher understands it.
//!
//! A pattern must be a valid wildcard, but it is not matched as one. Without special characters,
//! or with nothing but `**` at its start or its end, it is a text to compare with. Otherwise it is
//! rewritten as a regular expression, and that shows: an escaped letter is what it is there (`\d`
//! is a digit), classes hold slashes, `^`, `|` and `{2}` mean something, and inside a class `*` is
//! not literal. Ignore files that depend on it exist, most without their authors' knowledge, so
//! all of it is kept.

use crate::pattern::regex::Regex;
use crate::pattern::wildcard::Wildcard;

/// How a path is compared with a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expression {
    /// The path is this.
    Exact(String),
    /// The path starts with this: `text**`.
    Prefix(String),
    /// The path ends with this, or is it without its first slash: `**text`.
    Suffix(String),
    Regex(Regex),
}

/// Which of them a pattern is, as far as it has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Exact,
    Prefix,
    Suffix,
    Regex,
}

impl Expression {
    /// Reads a cleaned pattern without its `!`; returns nothing if it is not valid.
    pub(super) fn parse(pattern: &str) -> Option<Self> {
        Wildcard::parse(pattern.as_bytes()).ok()?;
        let (form, regex) = rewritten(pattern);
        Some(match form {
            Form::Exact => Self::Exact(pattern.to_owned()),
            Form::Prefix => Self::Prefix(pattern[..pattern.len() - 2].to_owned()),
            Form::Suffix => Self::Suffix(pattern[2..].to_owned()),
            Form::Regex => Self::Regex(Regex::parse(&regex)?),
        })
    }

    pub(super) fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(text) => path == text.as_bytes(),
            Self::Prefix(text) => path.starts_with(text.as_bytes()),
            Self::Suffix(text) => {
                path.ends_with(text.as_bytes())
                    || text
                        .strip_prefix('/')
                        .is_some_and(|text| path == text.as_bytes())
            }
            Self::Regex(regex) => regex.matches(path),
        }
    }
}

/// Rewrites a pattern as a regular expression, and says whether it is one.
fn rewritten(pattern: &str) -> (Form, String) {
    let (mut form, mut out) = (Form::Exact, "^".to_owned());
    let mut chars = pattern.chars().peekable();
    let mut is_first = true;
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.next_if_eq(&'*').is_some() => {
                chars.next_if_eq(&'/');
                form = match (chars.peek(), form) {
                    _ if is_first => Form::Suffix,
                    (None, Form::Exact) => Form::Prefix,
                    _ => Form::Regex,
                };
                out += if chars.peek().is_none() {
                    ".*"
                } else {
                    "(.*/)?"
                };
            }
            '*' | '?' => {
                form = Form::Regex;
                out += if c == '*' { "[^/]*" } else { "[^/]" };
            }
            '.' | '+' | '(' | ')' | '$' => out.extend(['\\', c]),
            '\\' => {
                form = Form::Regex;
                out.push('\\');
                out.extend(chars.next());
            }
            '[' | ']' => {
                form = Form::Regex;
                out.push(c);
            }
            c => out.push(c),
        }
        is_first = false;
    }
    (form, out + "$")
}
