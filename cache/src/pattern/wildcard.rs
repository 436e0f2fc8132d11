//! Wildcards of COPY and ADD, as Go's `filepath.Match` has them.
//!
//! `*` takes as little as lets the text up to the next `*` match, and is not asked again: that
//! matters only for a class that holds the slash, which only `*` and `?` refuse. `?` and classes
//! take a character, or one byte where there is none; `*` takes bytes.

use crate::pattern::class::Class;
use crate::pattern::{PatternError, as_text};

/// A wildcard pattern of COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wildcard(Vec<Chunk>);

/// What stands between stars.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Chunk {
    /// A star is before it.
    after_star: bool,
    items: Vec<Item>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    Byte(u8),
    /// `?`: any character but a slash.
    One,
    Class(Class),
}

impl Wildcard {
    /// Compiles a pattern.
    pub fn parse(pattern: &[u8]) -> Result<Self, PatternError> {
        let error = || PatternError {
            pattern: as_text(pattern),
            line: None,
        };
        chunks(pattern).map(Self).ok_or_else(error)
    }

    /// Returns true if the whole of `path` matches.
    pub fn matches(&self, path: &[u8]) -> bool {
        let mut rest = path;
        for (at, chunk) in self.0.iter().enumerate() {
            let is_last = at + 1 == self.0.len();
            let Some(after) = chunk.find(rest, is_last) else {
                return false;
            };
            rest = after;
        }
        rest.is_empty()
    }

    /// Returns true if `text` holds a character that makes it a pattern.
    pub fn is_needed(text: &[u8]) -> bool {
        text.iter().any(|b| b"*?[\\".contains(b))
    }
}

impl Chunk {
    /// Finds the chunk where its star lets it be; returns what is behind it.
    fn find<'a>(&self, text: &'a [u8], is_last: bool) -> Option<&'a [u8]> {
        let reach = match self.after_star {
            true => text.iter().position(|b| *b == b'/').unwrap_or(text.len()),
            false => 0,
        };
        if is_last && self.after_star && self.items.is_empty() {
            return (reach == text.len()).then_some(&[]);
        }
        let mut ends = (0..=reach).filter_map(|skipped| self.strip(&text[skipped..]));
        ends.find(|rest| !is_last || rest.is_empty())
    }

    /// Returns what follows the chunk at the start of `text`.
    fn strip<'a>(&self, mut text: &'a [u8]) -> Option<&'a [u8]> {
        for item in &self.items {
            let first = *text.first()?;
            let length = match item {
                Item::Byte(byte) => (first == *byte).then_some(1),
                Item::One => (first != b'/').then(|| character(text).1),
                Item::Class(class) => {
                    let (c, length) = character(text);
                    class.has(c).then_some(length)
                }
            };
            text = &text[length?..];
        }
        Some(text)
    }
}

/// Returns the first character and its length.
fn character(text: &[u8]) -> (char, usize) {
    let start = &text[..text.len().min(4)];
    let chunk = start.utf8_chunks().next();
    let first = chunk.and_then(|chunk| chunk.valid().chars().next());
    first.map_or((char::REPLACEMENT_CHARACTER, 1), |c| (c, c.len_utf8()))
}

fn chunks(pattern: &[u8]) -> Option<Vec<Chunk>> {
    let mut chunks = vec![Chunk::default()];
    let mut rest = pattern;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let item = match byte {
            b'*' => {
                next_chunk(&mut chunks);
                continue;
            }
            b'?' => Item::One,
            b'\\' => {
                let (&escaped, after) = rest.split_first()?;
                rest = after;
                Item::Byte(escaped)
            }
            b'[' => {
                let (class, after) = class(rest)?;
                rest = after;
                Item::Class(class)
            }
            byte => Item::Byte(byte),
        };
        chunks.last_mut()?.items.push(item);
    }
    Some(chunks)
}

/// Begins a chunk behind a star; several stars are one.
fn next_chunk(chunks: &mut Vec<Chunk>) {
    match chunks.last_mut() {
        Some(last) if last.items.is_empty() => last.after_star = true,
        _ => chunks.push(Chunk {
            after_star: true,
            items: Vec::new(),
        }),
    }
}

/// Reads a class after its `[`; a `]` right after that does not close it.
fn class(text: &[u8]) -> Option<(Class, &[u8])> {
    let (negated, mut rest) = match text.strip_prefix(b"^") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut ranges = Vec::new();
    loop {
        if let (Some(after), false) = (rest.strip_prefix(b"]"), ranges.is_empty()) {
            return Some((Class::new(negated, ranges), after));
        }
        let (low, after) = class_char(rest)?;
        let (high, after) = match after.strip_prefix(b"-") {
            Some(after) => class_char(after)?,
            None => (low, after),
        };
        ranges.push(low..=high);
        rest = after;
    }
}

fn class_char(text: &[u8]) -> Option<(char, &[u8])> {
    let text = match text.first()? {
        b'-' | b']' => return None,
        b'\\' => &text[1..],
        _ => text,
    };
    let valid = text[..text.len().min(4)].utf8_chunks().next()?.valid();
    let c = valid.chars().next()?;
    Some((c, &text[c.len_utf8()..]))
}
