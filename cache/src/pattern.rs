//! Patterns: `.dockerignore` lists and the wildcards of COPY and ADD.
//!
//! Both match whole relative paths, bytes not characters. Ignore patterns follow
//! moby/patternmatcher: `**` crosses slashes anywhere, the last pattern that matches decides, a
//! pattern that matches a folder holds for all below it. Wildcards follow Go's `filepath.Match`:
//! `*` and `?` never cross a slash, there is no `**`.

/// The patterns of an ignore file, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IgnoreList {
    patterns: Vec<IgnorePattern>,
    /// What the file is called in messages.
    name: String,
}

/// The pattern that excludes a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exclusion<'a> {
    /// The pattern as written.
    pub pattern: &'a str,
    /// Its line, from 1; 0 for patterns that were given one by one.
    pub line: usize,
    /// What its file is called; empty if nobody said.
    pub file: &'a str,
}

/// One line of an ignore file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct IgnorePattern {
    tokens: Vec<Token>,
    negated: bool,
    written: String,
    line: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// `?`: any byte but a slash.
    One,
    /// `*`: any bytes but slashes.
    Star,
    /// `**` at the end or before anything but a slash: any bytes.
    DoubleStar,
    /// `**/`: nothing, or any bytes that end with a slash.
    Folders,
    Class(Class),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Class {
    negated: bool,
    ranges: Vec<(u8, u8)>,
}

/// Says why a pattern cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{pattern}` is not a valid pattern{}", at_line(*line))]
pub struct PatternError {
    /// The pattern as written.
    pub pattern: String,
    /// Its line in the ignore file, from 1; none for a wildcard.
    pub line: Option<usize>,
}

fn at_line(line: Option<usize>) -> String {
    line.map(|line| format!(" (line {line})"))
        .unwrap_or_default()
}

/// Which patterns matched a folder; what is below it starts from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnoreState(Vec<bool>);

impl IgnoreList {
    /// Reads an ignore file: BOM dropped, `#` in the first column is a comment, blanks trimmed.
    pub fn parse(text: &[u8]) -> Result<Self, PatternError> {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let mut patterns = Vec::new();
        for (at, line) in text.split(|&b| b == b'\n').enumerate() {
            if line.starts_with(b"#") {
                continue;
            }
            let written = line.trim_ascii();
            let (negated, rest) = match written.strip_prefix(b"!") {
                Some(rest) => (true, rest.trim_ascii()),
                None => (false, written),
            };
            if rest.is_empty() && !negated {
                continue;
            }
            let cleaned = clean(rest);
            let error = || PatternError {
                pattern: String::from_utf8_lossy(written).into_owned(),
                line: Some(at + 1),
            };
            if rest.is_empty() || negated && cleaned == b"." && rest.starts_with(b"/") {
                return Err(error());
            }
            let tokens = compile(&cleaned, true).ok_or_else(error)?;
            patterns.push(IgnorePattern {
                tokens,
                negated,
                written: String::from_utf8_lossy(written).into_owned(),
                line: at + 1,
            });
        }
        Ok(Self {
            patterns,
            name: String::new(),
        })
    }

    /// Reads patterns that are given one by one: blanks are trimmed, there are no comments, and a
    /// leading slash is part of the pattern, which then matches nothing.
    pub fn from_patterns<'a>(
        patterns: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, PatternError> {
        let mut compiled = Vec::new();
        for written in patterns {
            let trimmed = written.trim();
            if trimmed.is_empty() {
                continue;
            }
            let error = || PatternError {
                pattern: written.to_owned(),
                line: None,
            };
            let (negated, rest) = match trimmed.strip_prefix('!') {
                Some("") => return Err(error()),
                Some(rest) => (true, rest),
                None => (false, trimmed),
            };
            let mut cleaned = clean(rest.as_bytes());
            if rest.starts_with('/') {
                cleaned.insert(0, b'/');
            }
            let tokens = compile(&cleaned, true).ok_or_else(error)?;
            compiled.push(IgnorePattern {
                tokens,
                negated,
                written: trimmed.to_owned(),
                line: 0,
            });
        }
        Ok(Self {
            patterns: compiled,
            name: String::new(),
        })
    }

    /// Says what the file is called in messages.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..self
        }
    }

    /// Returns true if there is no pattern.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Returns true if some pattern takes back what others exclude.
    pub fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.negated)
    }

    /// Returns the state above the root.
    pub fn root(&self) -> IgnoreState {
        IgnoreState(vec![false; self.patterns.len()])
    }

    /// Returns whether `path` is ignored, and the state for what is below it.
    ///
    /// As moby/patternmatcher has it, a pattern that would not change the decision so far is not
    /// tried, unless it holds for the parent: so an exception for a folder holds for what is
    /// below only where it changed something.
    pub fn check(&self, path: &[u8], parent: &IgnoreState) -> (bool, IgnoreState) {
        let mut ignored = false;
        let mut state = parent.clone();
        for (pattern, hit) in self.patterns.iter().zip(&mut state.0) {
            *hit = *hit || pattern.negated == ignored && matches(&pattern.tokens, path);
            if *hit {
                ignored = !pattern.negated;
            }
        }
        (ignored, state)
    }

    /// Returns the pattern that excludes `path`, if it is excluded.
    pub fn excluded_by(&self, path: &[u8]) -> Option<Exclusion<'_>> {
        let mut state = self.root();
        for end in path
            .iter()
            .enumerate()
            .filter(|(_, b)| **b == b'/')
            .map(|(at, _)| at)
        {
            state = self.check(&path[..end], &state).1;
        }
        let (ignored, state) = self.check(path, &state);
        let last = self
            .patterns
            .iter()
            .zip(&state.0)
            .rfind(|(_, matched)| **matched);
        last.filter(|_| ignored).map(|(pattern, _)| Exclusion {
            pattern: &pattern.written,
            line: pattern.line,
            file: &self.name,
        })
    }
}

/// A wildcard pattern of COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wildcard(Vec<Token>);

impl Wildcard {
    /// Compiles a pattern.
    pub fn parse(pattern: &[u8]) -> Result<Self, PatternError> {
        let error = || PatternError {
            pattern: String::from_utf8_lossy(pattern).into_owned(),
            line: None,
        };
        compile(pattern, false).map(Self).ok_or_else(error)
    }

    /// Returns true if the whole of `path` matches.
    pub fn matches(&self, path: &[u8]) -> bool {
        matches(&self.0, path)
    }

    /// Returns true if `text` holds a character that makes it a pattern.
    pub fn is_needed(text: &[u8]) -> bool {
        text.iter().any(|b| b"*?[\\".contains(b))
    }
}

/// Go's `filepath.Clean` on a slash-separated path, without a leading slash.
fn clean(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." if parts.last().is_some_and(|last| *last != b"..") => {
                parts.pop();
            }
            // Above the root there is nothing.
            b".." if path.starts_with(b"/") => {}
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        b".".to_vec()
    } else {
        parts.join(&b'/')
    }
}

fn compile(pattern: &[u8], double_star: bool) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = pattern;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        tokens.push(match byte {
            b'*' if double_star && rest.first() == Some(&b'*') => {
                rest = &rest[1..];
                match rest.strip_prefix(b"/") {
                    Some(after) => {
                        rest = after;
                        if rest.is_empty() {
                            Token::DoubleStar
                        } else {
                            Token::Folders
                        }
                    }
                    None => Token::DoubleStar,
                }
            }
            b'*' => Token::Star,
            b'?' => Token::One,
            b'\\' => {
                let (&escaped, after) = rest.split_first()?;
                rest = after;
                Token::Byte(escaped)
            }
            b'[' => {
                let (class, after) = class(rest)?;
                rest = after;
                Token::Class(class)
            }
            byte => Token::Byte(byte),
        });
    }
    Some(tokens)
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
            return Some((Class { negated, ranges }, after));
        }
        let (low, after) = class_byte(rest)?;
        let (high, after) = match after.strip_prefix(b"-") {
            Some(after) => class_byte(after)?,
            None => (low, after),
        };
        ranges.push((low, high));
        rest = after;
    }
}

fn class_byte(text: &[u8]) -> Option<(u8, &[u8])> {
    match text.split_first()? {
        (b'-' | b']', _) => None,
        (b'\\', after) => after.split_first().map(|(&byte, after)| (byte, after)),
        (&byte, after) => Some((byte, after)),
    }
}

fn matches(tokens: &[Token], text: &[u8]) -> bool {
    // One row of a dynamic programme a token: `at[i]` says that the tokens so far match `text[..i]`.
    let mut at = vec![false; text.len() + 1];
    at[0] = true;
    for token in tokens {
        let mut next = vec![false; text.len() + 1];
        let mut open = false;
        for i in 0..=text.len() {
            open = open || at[i];
            match token {
                Token::Star => {
                    next[i] = open;
                    open = open && text.get(i) != Some(&b'/');
                }
                Token::DoubleStar => next[i] = open,
                Token::Folders => next[i] = at[i] || open && i > 0 && text[i - 1] == b'/',
                single => {
                    if i > 0 {
                        next[i] = at[i - 1] && matches_byte(single, text[i - 1]);
                    }
                }
            }
        }
        at = next;
    }
    at[text.len()]
}

fn matches_byte(token: &Token, byte: u8) -> bool {
    match token {
        Token::Byte(wanted) => byte == *wanted,
        Token::One => byte != b'/',
        Token::Class(class) => {
            let inside = class
                .ranges
                .iter()
                .any(|(low, high)| (*low..=*high).contains(&byte));
            byte != b'/' && inside != class.negated
        }
        Token::Star | Token::DoubleStar | Token::Folders => false,
    }
}

#[cfg(test)]
mod tests;
