//! Flags of an instruction, checked against those that it has.

use crate::diagnostic::Diagnostic;
use crate::lines::Word;
use crate::parse::Request;
use crate::suggest::nearest;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `--flag=value`, once.
    Text,
    /// `--flag=value`, any number of times.
    List,
    /// `--flag`, `--flag=true`, `--flag=false`, once.
    Switch,
}

/// The flags that an instruction was given.
#[derive(Debug, Default)]
pub(crate) struct Flags(Vec<(&'static str, Word)>);

impl Flags {
    /// Checks the flags of an instruction against `known`.
    pub(crate) fn read(
        request: &Request<'_>,
        known: &[(&'static str, Kind)],
    ) -> Result<Self, Diagnostic> {
        let mut flags = Self::default();
        for word in &request.head.flags {
            let (name, value) = match word.text[2..].split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (&word.text[2..], None),
            };
            let Some(&(name, kind)) = known.iter().find(|(known, _)| *known == name) else {
                return Err(unknown(request, name, word, known));
            };
            if kind != Kind::List && flags.get(name).is_some() {
                let message = format!("duplicate flag specified: `--{name}`");
                return Err(Diagnostic::error(word.span, message));
            }
            let value = checked(name, kind, value).map_err(|m| Diagnostic::error(word.span, m))?;
            flags.0.push((
                name,
                Word {
                    text: value,
                    span: word.span,
                },
            ));
        }
        Ok(flags)
    }

    /// Returns a flag's value.
    pub(crate) fn get(&self, name: &str) -> Option<&Word> {
        self.0
            .iter()
            .find(|(flag, _)| *flag == name)
            .map(|(_, value)| value)
    }

    /// Returns a flag's value if it is not empty.
    pub(crate) fn text(&self, name: &str) -> Option<Word> {
        self.get(name)
            .filter(|value| !value.text.is_empty())
            .cloned()
    }

    /// Returns the values of a flag that may be given several times.
    pub(crate) fn list(&self, name: &str) -> Vec<Word> {
        let given = self.0.iter().filter(|(flag, _)| *flag == name);
        given.map(|(_, value)| value.clone()).collect()
    }

    /// Returns what a switch was set to.
    pub(crate) fn switch(&self, name: &str) -> Option<bool> {
        self.get(name).map(|value| value.text == "true")
    }
}

fn checked(name: &str, kind: Kind, value: Option<&str>) -> Result<String, String> {
    match (kind, value) {
        (Kind::Switch, None) => Ok("true".to_owned()),
        (Kind::Switch, Some("")) | (Kind::Text | Kind::List, None) => {
            Err(format!("missing a value on flag: `--{name}`"))
        }
        (Kind::Switch, Some(value)) => match value.to_ascii_lowercase().as_str() {
            lower @ ("true" | "false") => Ok(lower.to_owned()),
            _ => Err(format!(
                "expecting boolean value for flag `--{name}`, not: `{value}`"
            )),
        },
        (Kind::Text | Kind::List, Some(value)) => Ok(value.to_owned()),
    }
}

fn unknown(
    request: &Request<'_>,
    name: &str,
    word: &Word,
    known: &[(&'static str, Kind)],
) -> Diagnostic {
    let message = format!("unknown flag: `--{name}` of `{}`", request.name);
    let suggestion = nearest(name, known.iter().map(|(known, _)| *known));
    let suggestion = suggestion.map(|flag| format!("--{flag}"));
    Diagnostic::error(word.span, message).with_suggestion(suggestion.as_deref())
}
