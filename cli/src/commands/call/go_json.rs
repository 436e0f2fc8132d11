//! JSON as Go's encoder writes it: indented by two, with `<`, `>` and `&` escaped.

use kiln_graph::SourceLines;
use serde::Serialize;
use serde_json::{Value, json};

/// Returns `value` as text, with a line end.
pub(super) fn text(value: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(value).expect("plain data");
    let mut out = String::with_capacity(text.len() + 1);
    // These stand in strings only.
    for c in text.chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            c => out.push(c),
        }
    }
    out.push('\n');
    out
}

/// Returns bytes as Go writes them: in base 64.
pub(super) fn bytes(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// Returns a place: one range for each line.
pub(super) fn location(lines: SourceLines) -> Value {
    let range = |line: usize| json!({"start": {"line": line}, "end": {"line": line}});
    let ranges: Vec<Value> = (lines.first..=lines.last).map(range).collect();
    json!({"ranges": ranges})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_html_are_escaped() {
        assert_eq!(text(&"<a> & b"), "\"\\u003ca\\u003e \\u0026 b\"\n");
    }
}
