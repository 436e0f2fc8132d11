//! What follows a dollar: `$v`, `${v}`, and the modifiers of `${v…}`.

use crate::expand::ExpandError;
use crate::expand::pattern::Pattern;
use crate::expand::reader::Reader;

impl Reader<'_> {
    /// Reads a substitution; a dollar that starts none stands for itself.
    pub(super) fn dollar(&mut self) -> Result<String, ExpandError> {
        self.next();
        if self.peek() == Some('{') {
            self.next();
            return self.braced();
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        match (self.env)(&name) {
            None if self.rules.keep_unset => Ok(format!("${name}")),
            value => Ok(value.unwrap_or_default()),
        }
    }

    fn braced(&mut self) -> Result<String, ExpandError> {
        match self.peek() {
            None => return Err(ExpandError::Missing('}')),
            Some('{' | '}' | ':') => return Err(ExpandError::BadSubstitution),
            Some(_) => {}
        }
        let name = self.name();
        match self.next() {
            None => Err(ExpandError::Missing('}')),
            Some('}') => match (self.env)(&name) {
                None if self.rules.keep_unset => Ok(format!("${{{name}}}")),
                value => Ok(value.unwrap_or_default()),
            },
            Some(':') => self.conditional_after_colon(&name),
            Some(modifier @ ('+' | '-' | '?')) => self.conditional(&name, modifier, false),
            Some(modifier @ ('#' | '%')) => self.trimmed(&name, modifier),
            Some('/') => self.replaced(&name),
            Some(other) => Err(unsupported(&[other])),
        }
    }

    fn conditional_after_colon(&mut self, name: &str) -> Result<String, ExpandError> {
        match self.next() {
            None => Err(ExpandError::Missing('}')),
            Some(modifier @ ('+' | '-' | '?')) => self.conditional(name, modifier, true),
            Some(other) => {
                self.read_until('}', false)?;
                Err(unsupported(&[':', other]))
            }
        }
    }

    /// `${v-w}`, `${v+w}`, `${v?w}`; with a colon an empty value counts as not set.
    fn conditional(
        &mut self,
        name: &str,
        modifier: char,
        empty_is_unset: bool,
    ) -> Result<String, ExpandError> {
        let word = self.read_until('}', false)?;
        let value = (self.env)(name);
        if value.is_none() && self.rules.keep_unset {
            let colon = if empty_is_unset { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{modifier}{word}}}"));
        }
        let is_unset = value.is_none();
        let value = value.filter(|value| !(empty_is_unset && value.is_empty()));
        match (modifier, value) {
            ('-', value) => Ok(value.unwrap_or(word)),
            ('+', value) => Ok(value.map_or_else(String::new, |_| word)),
            (_, Some(value)) => Ok(value),
            (_, None) => Err(required(name, word, is_unset)),
        }
    }

    /// `${v#p}`, `${v##p}`, `${v%p}`, `${v%%p}`.
    fn trimmed(&mut self, name: &str, modifier: char) -> Result<String, ExpandError> {
        let word = self.read_until('}', true)?;
        let Some(value) = self.value_to_modify(name) else {
            return Ok(format!("${{{name}{modifier}{word}}}"));
        };
        let (pattern, longest) = match word.strip_prefix(modifier) {
            Some(pattern) => (pattern, true),
            None => (word.as_str(), false),
        };
        let pattern = Pattern::parse(pattern)?;
        Ok(match modifier {
            '#' => pattern.trim_start(&value, longest),
            _ => pattern.trim_end(&value, longest),
        })
    }

    /// `${v/p/r}`, `${v//p/r}`.
    fn replaced(&mut self, name: &str) -> Result<String, ExpandError> {
        let all = self.peek() == Some('/');
        if all {
            self.next();
        }
        let pattern = self.read_until('/', true)?;
        let replacement = self.read_until('}', true)?;
        let Some(value) = self.value_to_modify(name) else {
            return Ok(format!("${{{name}/{pattern}/{replacement}}}"));
        };
        Ok(Pattern::parse(&pattern)?.replace(&value, &replacement, all))
    }

    /// Returns the value, empty if not set, or nothing if the substitution stays as written.
    fn value_to_modify(&self, name: &str) -> Option<String> {
        match (self.env)(name) {
            None if self.rules.keep_unset => None,
            value => Some(value.unwrap_or_default()),
        }
    }

    /// Reads a name: digits, one special parameter, or letters, digits and underscores.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.peek() {
            Some(c) if c.is_ascii_digit() => {
                self.take_while(&mut name, |c| c.is_ascii_digit());
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => name.extend(self.next()),
            _ => self.take_while(&mut name, |c| c.is_alphanumeric() || c == '_'),
        }
        name
    }

    fn take_while(&mut self, name: &mut String, belongs: impl Fn(char) -> bool) {
        while self.peek().is_some_and(&belongs) {
            name.extend(self.next());
        }
    }
}

fn unsupported(modifier: &[char]) -> ExpandError {
    let printable = |&c: &char| if c.is_control() { ' ' } else { c };
    ExpandError::UnsupportedModifier(modifier.iter().map(printable).collect())
}

fn required(name: &str, word: String, is_unset: bool) -> ExpandError {
    let message = match (word.is_empty(), is_unset) {
        (false, _) => word,
        (true, true) => "is not allowed to be unset".to_owned(),
        (true, false) => "is not allowed to be empty".to_owned(),
    };
    ExpandError::Required {
        name: name.to_owned(),
        message,
    }
}
