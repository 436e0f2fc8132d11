//! Diagnostics as JSON for editors and CI: one document a line.
//!
//! ```json
//! {"severity":"error","rule":null,"url":null,"message":"…","help":"…","file":"Dockerfile",
//!  "start":{"line":2,"column":1},"end":{"line":2,"column":5},"bytes":{"start":7,"end":11}}
//! ```
//!
//! Lines and columns are counted from 1, columns in characters; the end is behind the last one.
//! A finding of the checks has the name of its rule, and the address that explains it if there is
//! one. What is not about the file but about options has `null` for `start`, `end` and `bytes`.

use serde_json::{Value, json};

use crate::diagnostic::{Diagnostic, LineIndex, Severity};
use crate::render::within;

/// Returns `diagnostics` as JSON, each on a line of its own.
pub fn to_json(diagnostics: &[Diagnostic], file_name: &str, text: &str) -> String {
    let lines = LineIndex::new(text);
    let mut out = String::new();
    for diagnostic in diagnostics {
        out.push_str(&document(diagnostic, file_name, text, &lines).to_string());
        out.push('\n');
    }
    out
}

fn document(diagnostic: &Diagnostic, file_name: &str, text: &str, lines: &LineIndex) -> Value {
    let span = diagnostic.span.map(|span| within(span, text));
    let place = |offset: usize| {
        let (line, start) = lines.line_start(offset);
        json!({"line": line, "column": text[start..offset].chars().count() + 1})
    };
    json!({
        "severity": match diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
        "rule": diagnostic.rule.map(|rule| rule.name),
        "url": diagnostic.rule.and_then(|rule| rule.url),
        "message": diagnostic.message,
        "help": diagnostic.help,
        "file": file_name,
        "start": span.map(|span| place(span.start)),
        "end": span.map(|span| place(span.end)),
        "bytes": span.map(|span| json!({"start": span.start, "end": span.end})),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Span;
    use crate::lint::rules::UNDEFINED_VAR;

    #[test]
    fn each_diagnostic_is_a_line() {
        let text = "FROM a\nLABEL é=ü x\n\nRUN\n";
        let at = |part: &str| {
            let start = text.find(part).unwrap();
            Span::new(start, start + part.len())
        };
        let diagnostics = [
            Diagnostic::error(at("ü x\n\nRUN"), "wrong \"here\"\n"),
            Diagnostic::option("no such stage").with_help("name one"),
            Diagnostic::warning(Span::new(900, 901), "behind the end").with_rule(&UNDEFINED_VAR),
        ];
        let out = to_json(&diagnostics, "Dockerfile", text);
        let lines: Vec<Value> = out
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(
            lines[0],
            json!({"severity": "error", "rule": null, "url": null, "message": "wrong \"here\"\n", "help": null,
                "file": "Dockerfile", "start": {"line": 2, "column": 9},
                "end": {"line": 4, "column": 4}, "bytes": {"start": 16, "end": 25}})
        );
        assert_eq!(
            (&lines[1]["start"], &lines[1]["help"]),
            (&Value::Null, &json!("name one"))
        );
        assert_eq!(lines[2]["start"], json!({"line": 5, "column": 1}));
        let url = "https://docs.docker.com/go/dockerfile/rule/undefined-var/";
        assert_eq!(
            (&lines[2]["rule"], &lines[2]["url"]),
            (&json!("UndefinedVar"), &json!(url))
        );
        assert_eq!(lines.len(), 3);
    }
}
