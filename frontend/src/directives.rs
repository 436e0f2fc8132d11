//! Parser directives: `# escape=`, `# syntax=`, `# check=` at the top of a Dockerfile.
//!
//! kiln is its own frontend: a `syntax` that names the usual Dockerfile frontend is accepted as
//! built in, another one is refused. `check` steers the checks, which read its value.

use std::ops::Range;

use crate::diagnostic::{Diagnostic, Span};
use crate::lines::Word;
use crate::reference::familiar;

/// What the directives of a file say, and whether more can follow.
#[derive(Debug)]
pub(crate) struct Directives {
    escape: char,
    /// The options of the checks.
    pub(crate) check: Option<Word>,
    seen: Vec<&'static str>,
    zone: Zone,
}

/// Which directives may still come.
#[derive(Debug, PartialEq, Eq)]
enum Zone {
    Start,
    All,
    /// Behind `#!`, only `syntax` counts.
    SyntaxOnly,
    Over,
}

impl Default for Directives {
    fn default() -> Self {
        Self {
            escape: '\\',
            check: None,
            seen: Vec::new(),
            zone: Zone::Start,
        }
    }
}

impl Directives {
    /// Returns the escape character.
    pub(crate) fn escape(&self) -> char {
        self.escape
    }

    /// Reads a line, which stands at `start` of the file.
    pub(crate) fn read(&mut self, line: &str, start: usize, diagnostics: &mut Vec<Diagnostic>) {
        if self.zone == Zone::Over {
            return;
        }
        if self.zone == Zone::Start && line.starts_with("#!") {
            self.zone = Zone::SyntaxOnly;
            return;
        }
        let Some((key, value)) = directive(line) else {
            self.zone = Zone::Over;
            return;
        };
        if self.zone == Zone::Start {
            self.zone = Zone::All;
        }
        let span = Span::new(start, start + line.trim_end().len());
        if self.seen.contains(&key) {
            let message = format!("only one `{key}` parser directive can be used");
            diagnostics.push(Diagnostic::error(span, message));
            return;
        }
        self.seen.push(key);
        diagnostics.extend(self.apply(key, value, span));
    }

    fn apply(&mut self, key: &str, value: &str, span: Span) -> Option<Diagnostic> {
        match (key, value) {
            ("escape", _) if self.zone == Zone::SyntaxOnly => None,
            ("escape", "\\" | "`") => {
                self.escape = value.chars().next().unwrap_or('\\');
                None
            }
            ("escape", _) => {
                let message = format!("invalid escape token `{value}` does not match ` or \\");
                Some(Diagnostic::error(span, message))
            }
            ("check", _) => {
                let text = value.split(' ').next().unwrap_or_default().to_owned();
                self.check = Some(Word { text, span });
                None
            }
            ("syntax", _) if !is_built_in(value) => Some(foreign_syntax(value, span)),
            _ => None,
        }
    }
}

/// Returns true if `syntax` (or `BUILDKIT_SYNTAX`) names the language that kiln speaks.
pub(crate) fn is_built_in(syntax: &str) -> bool {
    let name = syntax.split(' ').next().unwrap_or_default();
    let name = familiar(name);
    let repository = name.split(['@', ':']).next().unwrap_or_default();
    matches!(
        repository,
        "docker/dockerfile" | "docker/dockerfile-upstream" | "dockerfile.v0"
    )
}

fn foreign_syntax(value: &str, span: Span) -> Diagnostic {
    let message = format!("kiln does not run external frontends, and `{value}` is one");
    Diagnostic::error(span, message)
        .with_help("kiln has the Dockerfile language built in: use `docker/dockerfile:1`")
}

/// Returns an error if `// syntax=` or a JSON document with `syntax` asks for another frontend.
///
/// Neither is a Dockerfile, unless that frontend says so.
pub(crate) fn other_forms(text: &str) -> Option<Diagnostic> {
    let start = text.len() - text.trim_start_matches('\u{feff}').len();
    let start = match text[start..].starts_with("#!") {
        true => start + text[start..].find('\n')? + 1,
        false => start,
    };
    let rest = &text[start..];
    let (value, place) = slashes(rest).or_else(|| document(rest))?;
    if is_built_in(&value) {
        return None;
    }
    Some(foreign_syntax(
        &value,
        Span::new(start + place.start, start + place.end),
    ))
}

/// Reads `// syntax=…`, behind other directives of that kind; returns where it stands, too.
fn slashes(text: &str) -> Option<(String, Range<usize>)> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let content = line.trim_end();
        let (key, value) = known(content.strip_prefix("//")?)?;
        if key == "syntax" {
            return Some((value.to_owned(), start..start + content.len()));
        }
        start += line.len();
    }
    None
}

fn document(text: &str) -> Option<(String, Range<usize>)> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let document: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    let value = document.get("syntax")?.as_str()?;
    Some((value.to_owned(), 0..text.trim_end().len()))
}

fn directive(line: &str) -> Option<(&'static str, &str)> {
    known(line.strip_prefix('#')?)
}

/// Reads `key=value` of a directive.
fn known(text: &str) -> Option<(&'static str, &str)> {
    let (key, value) = text.trim_start().split_once('=')?;
    let key = key.trim_end().to_ascii_lowercase();
    let value = value.trim();
    let known = ["escape", "syntax", "check"]
        .into_iter()
        .find(|k| *k == key)?;
    (!value.is_empty()).then_some((known, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> (char, Vec<String>) {
        let (mut directives, mut diagnostics) = (Directives::default(), Vec::new());
        for line in lines {
            directives.read(line, 0, &mut diagnostics);
        }
        let messages = diagnostics.into_iter().map(|d| d.message).collect();
        (directives.escape(), messages)
    }

    #[test]
    fn directives_stand_at_the_top() {
        for (lines, escape) in [
            (&["# escape=`"][..], '`'),
            (&["#Escape = ` "], '`'),
            (
                &[
                    "# syntax=docker/dockerfile:1",
                    "# check=skip=all",
                    "# escape=`",
                ],
                '`',
            ),
            (&["# hello", "# escape=`"], '\\'),
            (&["", "# escape=`"], '\\'),
            (&["# other=1", "# escape=`"], '\\'),
            (&["#!/usr/bin/env kiln", "# escape=`"], '\\'),
        ] {
            assert_eq!(read(lines), (escape, vec![]), "{lines:?}");
        }
    }

    #[test]
    fn wrong_directives_are_errors() {
        for (lines, part) in [
            (&["# escape=x"][..], "invalid escape token `x`"),
            (&["# escape=\\", "# escape=`"], "only one `escape`"),
            (&["# syntax=me/mine:1"], "`me/mine:1`"),
            (&["#!/bin/x", "# syntax=me/mine:1"], "`me/mine:1`"),
        ] {
            let (_, messages) = read(lines);
            assert_eq!(messages.len(), 1, "{lines:?}");
            assert!(messages[0].contains(part), "{messages:?}");
        }
    }

    #[test]
    fn other_frontends_are_recognised_in_every_form() {
        for (text, at) in [
            ("// syntax=me/mine:1 x\nspec", "// syntax=me/mine:1 x"),
            ("//check=x\n// SYNTAX = me/mine \n", "// SYNTAX = me/mine"),
            (
                "#!/bin/x\n{\"syntax\": \"me/mine\"}\n",
                "{\"syntax\": \"me/mine\"}",
            ),
            ("\u{feff}//syntax=me/mine", "//syntax=me/mine"),
        ] {
            let error = other_forms(text).unwrap();
            assert_eq!(&text[error.span.unwrap().range()], at);
            assert!(error.message.contains("`me/mine"), "{}", error.message);
        }
        for text in [
            "",
            "#!/x",
            "// x\n// syntax=me/mine",
            "// syntax=docker/dockerfile:1\nFROM a",
            "{\"syntax\": 1}",
            "{\"a\": \"me/mine\"}",
            "FROM a\n// syntax=me/mine",
        ] {
            assert_eq!(other_forms(text), None, "{text}");
        }
    }

    #[test]
    fn the_usual_frontend_is_built_in() {
        for syntax in [
            "docker/dockerfile",
            "docker/dockerfile:1.7-labs",
            "docker.io/docker/dockerfile:1@sha256:00",
            "docker/dockerfile-upstream:master foo",
            "dockerfile.v0",
        ] {
            assert!(is_built_in(syntax), "{syntax}");
        }
        assert!(!is_built_in("docker/dockerfile2:1"));
        assert!(!is_built_in("example.com/docker/dockerfile:1"));
    }
}
