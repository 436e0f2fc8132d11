//! `check=skip=A,B|all;error=true;experimental=X|all`: which rules are looked at.
//!
//! The same text stands in the directive at the top of a file, in the build argument
//! `BUILDKIT_DOCKERFILE_CHECK`, and in a comment above an instruction.

use crate::lint::rules::{Rule, RuleKind};

/// Which rules are looked at, and whether breaking one is an error.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Config {
    skip: Names,
    experimental: Names,
    /// Warnings end the build.
    pub(crate) is_error: bool,
}

/// Names of rules, or all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Names {
    all: bool,
    names: Vec<String>,
}

impl Names {
    fn parse(text: &str) -> Self {
        match text.trim() {
            "all" => Self {
                all: true,
                names: Vec::new(),
            },
            text => Self {
                all: false,
                names: text.split(',').map(|name| name.trim().to_owned()).collect(),
            },
        }
    }

    fn has(&self, rule: &Rule) -> bool {
        self.all || self.names.iter().any(|name| name == rule.name)
    }
}

impl Config {
    /// Reads the options, or says which one is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut config = Self::default();
        if text.trim().is_empty() {
            return Ok(config);
        }
        for part in text.trim().split(';') {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| format!("invalid check option `{}`", part.trim()))?;
            match key.trim() {
                "skip" => config.skip = Names::parse(value),
                "experimental" => config.experimental = Names::parse(value),
                "error" => {
                    config.is_error = boolean(value.trim()).ok_or_else(|| {
                        format!("check option `{part}` is neither true nor false")
                    })?;
                }
                key => return Err(format!("invalid check option `{key}`")),
            }
        }
        Ok(config)
    }

    /// Returns the options that a comment above an instruction gives, if it gives any.
    pub(crate) fn of_comment(comment: &str) -> Option<Self> {
        let (key, value) = comment.split_once('=')?;
        if !key.trim().eq_ignore_ascii_case("check") {
            return None;
        }
        let value = value.split_whitespace().next()?;
        Self::parse(value).ok()
    }

    /// Returns true if the rule is skipped.
    pub(crate) fn skips(&self, rule: &Rule) -> bool {
        self.skip.has(rule)
    }

    /// Returns true if the rule is asked for, should it be experimental.
    pub(crate) fn asks_for(&self, rule: &Rule) -> bool {
        rule.kind != RuleKind::Experimental || self.experimental.has(rule)
    }
}

/// Reads a boolean as Go does.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::rules::{INVALID_DEFINITION_DESCRIPTION, UNDEFINED_VAR};

    #[test]
    fn options_are_read_in_any_order() {
        let config = Config::parse("error=true; skip=A, UndefinedVar ;experimental=all").unwrap();
        assert!(config.is_error && config.skips(&UNDEFINED_VAR));
        assert!(config.asks_for(&INVALID_DEFINITION_DESCRIPTION));
        let config = Config::parse("skip=all").unwrap();
        assert!(!config.is_error && config.skips(&UNDEFINED_VAR));
        assert!(!config.asks_for(&INVALID_DEFINITION_DESCRIPTION));
        assert!(config.asks_for(&UNDEFINED_VAR));
    }

    #[test]
    fn wrong_options_are_named() {
        for (text, part) in [
            ("skip", "`skip`"),
            ("skipp=A", "`skipp`"),
            ("error=maybe", "`error=maybe`"),
            ("skip=A;", "``"),
        ] {
            let error = Config::parse(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn comments_above_instructions_are_read() {
        let skips = |comment| Config::of_comment(comment).is_some_and(|c| c.skips(&UNDEFINED_VAR));
        assert!(skips("check=skip=UndefinedVar"));
        assert!(skips("Check = skip=A,UndefinedVar because it is fine"));
        assert!(!skips("checks=skip=UndefinedVar"));
        assert!(!skips("check=nonsense"));
    }
}
