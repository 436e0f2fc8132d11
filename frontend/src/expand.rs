//! The shell-like expansion of Dockerfile words: quotes, escapes, variables.
//!
//! One pass over the characters, by recursive descent: a word holds substitutions, a substitution
//! holds words. Nothing is run, no file is looked at; the only input besides the text is a lookup
//! of variables. Bracket classes are literal in patterns, as in the language's definition.

mod pattern;
mod reader;
mod substitution;
#[cfg(test)]
mod tests;

use crate::expand::reader::Reader;

/// Says why a text cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExpandError {
    /// A quote or a construct of `${…}` is not closed.
    #[error("unexpected end of statement while looking for matching {0}")]
    Unterminated(&'static str),
    /// `${}`, `${:x}`, `${{`.
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    /// A `${` without its `}`, or a `${v/` without its second `/`.
    #[error("syntax error: missing `{0}`")]
    Missing(char),
    /// `${v^}`, `${v:#x}` and the like.
    #[error("unsupported modifier ({0}) in substitution")]
    UnsupportedModifier(String),
    /// A wrong escape in a pattern.
    #[error("invalid pattern ({pattern}) in substitution: invalid escape `\\{escaped}`")]
    InvalidPattern {
        /// The pattern.
        pattern: String,
        /// What follows the backslash.
        escaped: String,
    },
    /// `${v:?message}` of a variable that is not set, or empty.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// What the Dockerfile says, or a default.
        message: String,
    },
    /// Substitutions inside substitutions without end.
    #[error("substitutions are nested too deeply")]
    TooDeep,
    /// Values of values of values.
    #[error("the variables make more than {} MiB of text", .0 >> 20)]
    TooLong(usize),
}

/// What is done with quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quotes {
    /// They quote, and are left out of the result.
    Remove,
    /// They quote, and stay in the result.
    Keep,
    /// They are ordinary characters.
    Ignore,
}

/// The rules of one kind of expansion.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// The escape character.
    pub(crate) escape: char,
    /// What is done with quotes.
    pub(crate) quotes: Quotes,
    /// Escapes stay in the result.
    pub(crate) raw_escapes: bool,
    /// A variable that is not set stays in the result as written.
    pub(crate) keep_unset: bool,
}

/// Looks a variable up.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Rules {
    /// Returns the rules for words of instructions.
    pub(crate) fn words(escape: char) -> Self {
        Self {
            escape,
            quotes: Quotes::Remove,
            raw_escapes: false,
            keep_unset: false,
        }
    }

    /// Returns how many bytes variables may make; more is no use to anything that runs.
    fn max_substituted(self) -> usize {
        match self.quotes {
            Quotes::Ignore => 256 << 20,
            Quotes::Remove | Quotes::Keep => 16 << 20,
        }
    }

    /// Returns the rules for the bodies of heredocs that are copied.
    pub(crate) fn body() -> Self {
        Self {
            quotes: Quotes::Ignore,
            ..Self::words('\\')
        }
    }

    /// Expands `text` to one word.
    pub(crate) fn expand(self, text: &str, env: Lookup<'_>) -> Result<String, ExpandError> {
        let out = Reader::new(self, text, env).read_all(Output::default())?;
        Ok(out.text)
    }

    /// Expands `text` and splits what comes out at blanks that are not quoted.
    pub(crate) fn split(self, text: &str, env: Lookup<'_>) -> Result<Vec<String>, ExpandError> {
        let out = Output {
            splits: true,
            ..Output::default()
        };
        let out = Reader::new(self, text, env).read_all(out)?;
        Ok(out.into_words())
    }
}

/// The result of an expansion, as one text and as words.
#[derive(Debug, Default)]
struct Output {
    text: String,
    /// Words are kept, too.
    splits: bool,
    words: Vec<String>,
    word: String,
}

impl Output {
    /// Adds text whose blanks split words.
    fn push_open(&mut self, text: &str) {
        self.text.push_str(text);
        if !self.splits {
            return;
        }
        for c in text.chars() {
            if !c.is_whitespace() {
                self.word.push(c);
            } else if !self.word.is_empty() {
                self.words.push(std::mem::take(&mut self.word));
            }
        }
    }

    /// Adds text whose blanks are part of the word.
    fn push_closed(&mut self, text: &str) {
        self.text.push_str(text);
        if self.splits {
            self.word.push_str(text);
        }
    }

    fn into_words(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.words.push(self.word);
        }
        self.words
    }
}
