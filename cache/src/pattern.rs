//! Patterns: `.dockerignore` lists and the wildcards of COPY and ADD.
//!
//! Both match whole relative paths, and agree with what BuildKit uses, oddities included. Ignore
//! patterns follow moby/patternmatcher: `**` crosses slashes, the last pattern that matches
//! decides, a pattern that matches a folder holds for all below it; see [`expression`]. Wildcards
//! follow Go's `filepath.Match`: `*` and `?` never cross a slash, there is no `**`; see
//! [`wildcard`].

mod class;
mod expression;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod reference;
mod regex;
#[cfg(test)]
mod tests;
mod wildcard;

use crate::pattern::expression::Expression;
pub use crate::pattern::wildcard::Wildcard;

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
    expression: Expression,
    negated: bool,
    written: String,
    line: usize,
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IgnoreState(Vec<bool>);

impl IgnoreList {
    /// Reads an ignore file: BOM dropped, `#` in the first column is a comment, blanks trimmed.
    ///
    /// Bytes that are no text become U+FFFD, as on the way through BuildKit's messages.
    pub fn parse(text: &[u8]) -> Result<Self, PatternError> {
        let text = as_text(text);
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let mut patterns = Vec::new();
        for (at, line) in text.split('\n').enumerate() {
            let written = line.trim();
            if line.starts_with('#') || written.is_empty() {
                continue;
            }
            patterns.push(IgnorePattern::parse(written, at + 1)?);
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
        let written = patterns.into_iter().map(str::trim);
        let patterns = written
            .filter(|written| !written.is_empty())
            .map(IgnorePattern::given)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            patterns,
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
            *hit = *hit || pattern.negated == ignored && pattern.expression.matches(path);
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

impl IgnorePattern {
    fn parse(written: &str, line: usize) -> Result<Self, PatternError> {
        let error = || PatternError {
            pattern: written.to_owned(),
            line: Some(line),
        };
        let (negated, rest) = match written.strip_prefix('!') {
            Some(rest) => (true, rest.trim()),
            None => (false, written),
        };
        let cleaned = clean(rest);
        if rest.is_empty() || negated && cleaned == "." && rest.starts_with('/') {
            return Err(error());
        }
        Ok(Self {
            expression: Expression::parse(&cleaned).ok_or_else(error)?,
            negated,
            written: written.to_owned(),
            line,
        })
    }

    /// Reads a pattern that is not in a file.
    fn given(written: &str) -> Result<Self, PatternError> {
        let error = || PatternError {
            pattern: written.to_owned(),
            line: None,
        };
        let (negated, rest) = match written.strip_prefix('!') {
            Some("") => return Err(error()),
            Some(rest) => (true, rest),
            None => (false, written),
        };
        let mut cleaned = clean(rest);
        if rest.starts_with('/') {
            cleaned.insert(0, '/');
        }
        Ok(Self {
            expression: Expression::parse(&cleaned).ok_or_else(error)?,
            negated,
            written: written.to_owned(),
            line: 0,
        })
    }
}

/// Go's `filepath.Clean` on a slash-separated path, without a leading slash.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            // Above the root there is nothing.
            ".." if path.starts_with('/') => {}
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        ".".to_owned()
    } else {
        parts.join("/")
    }
}

/// Returns bytes as text, with U+FFFD for each byte that is none.
fn as_text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}
