//! Reads a text up to a stop character: plain characters, escapes, quotes.

use crate::expand::{ExpandError, Lookup, Output, Quotes, Rules};

/// Substitutions inside substitutions; far above any use, far below the stack.
const MAX_DEPTH: usize = 64;

pub(super) struct Reader<'a> {
    pub(super) rules: Rules,
    pub(super) env: Lookup<'a>,
    pub(super) depth: usize,
    /// Bytes that variables made so far.
    n_substituted: usize,
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(rules: Rules, text: &'a str, env: Lookup<'a>) -> Self {
        Self {
            rules,
            env,
            depth: 0,
            n_substituted: 0,
            text,
            at: 0,
        }
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    pub(super) fn next(&mut self) -> Option<char> {
        let c = self.peek();
        self.at += c.map_or(0, char::len_utf8);
        c
    }

    pub(super) fn read_all(&mut self, out: Output) -> Result<Output, ExpandError> {
        self.read(None, self.rules.raw_escapes, out)
    }

    /// Takes what is neither a quote, an escape, a dollar nor `stop`.
    fn plain(&mut self, stop: Option<char>) -> &'a str {
        let Rules { escape, quotes, .. } = self.rules;
        let has_quotes = quotes != Quotes::Ignore;
        let is_special = |c: char| {
            c == '$' || c == escape || Some(c) == stop || (has_quotes && matches!(c, '\'' | '"'))
        };
        let rest = &self.text[self.at..];
        let plain = &rest[..rest.find(is_special).unwrap_or(rest.len())];
        self.at += plain.len();
        plain
    }

    fn substituted(&mut self) -> Result<String, ExpandError> {
        let value = self.dollar()?;
        self.n_substituted += value.len();
        let most = self.rules.max_substituted();
        if self.n_substituted > most {
            return Err(ExpandError::TooLong(most));
        }
        Ok(value)
    }

    /// Reads a nested word up to and including `stop`.
    pub(super) fn read_until(&mut self, stop: char, raw: bool) -> Result<String, ExpandError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(ExpandError::TooDeep);
        }
        let out = self.read(Some(stop), raw, Output::default())?;
        self.depth -= 1;
        Ok(out.text)
    }

    fn read(
        &mut self,
        stop: Option<char>,
        raw: bool,
        mut out: Output,
    ) -> Result<Output, ExpandError> {
        while let Some(c) = self.peek() {
            if Some(c) == stop {
                self.next();
                return Ok(out);
            }
            match c {
                '$' => out.push_open(&self.substituted()?),
                '\'' if self.rules.quotes != Quotes::Ignore => {
                    out.push_closed(&self.single_quoted()?);
                }
                '"' if self.rules.quotes != Quotes::Ignore => {
                    out.push_closed(&self.double_quoted(raw)?);
                }
                c if c == self.rules.escape => self.escaped(raw, &mut out),
                _ => out.push_open(self.plain(stop)),
            }
        }
        match stop {
            Some(stop) => Err(ExpandError::Missing(stop)),
            None => Ok(out),
        }
    }

    /// Reads the escape character and what it escapes; at the end of the text it is dropped.
    fn escaped(&mut self, raw: bool, out: &mut Output) {
        let escape = self.next();
        let escape = escape.filter(|_| raw);
        for c in escape.into_iter().chain(self.next()) {
            out.push_closed(c.encode_utf8(&mut [0; 4]));
        }
    }

    fn single_quoted(&mut self) -> Result<String, ExpandError> {
        let mut text = String::new();
        self.next();
        loop {
            match self.next() {
                None => return Err(ExpandError::Unterminated("single-quote")),
                Some('\'') => return Ok(self.requoted(text, '\'')),
                Some(c) => text.push(c),
            }
        }
    }

    fn double_quoted(&mut self, raw: bool) -> Result<String, ExpandError> {
        let mut text = String::new();
        self.next();
        loop {
            match self.peek() {
                None => return Err(ExpandError::Unterminated("double-quote")),
                Some('"') => {
                    self.next();
                    return Ok(self.requoted(text, '"'));
                }
                Some('$') => text.push_str(&self.substituted()?),
                Some(c) if c == self.rules.escape => self.escaped_in_quotes(raw, &mut text),
                Some(c) => {
                    self.next();
                    text.push(c);
                }
            }
        }
    }

    /// In double quotes only a quote, a dollar and the escape character itself can be escaped.
    fn escaped_in_quotes(&mut self, raw: bool, text: &mut String) {
        let escape = self.rules.escape;
        self.next();
        if raw {
            text.push(escape);
        }
        match self.peek() {
            None => {}
            Some(c) if c == '"' || c == '$' || c == escape => {
                self.next();
                text.push(c);
            }
            Some(_) => text.push(escape),
        }
    }

    fn requoted(&self, text: String, quote: char) -> String {
        match self.rules.quotes {
            Quotes::Keep => format!("{quote}{text}{quote}"),
            Quotes::Remove | Quotes::Ignore => text,
        }
    }
}
