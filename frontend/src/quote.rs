//! Texts in the forms that image histories have them in: quoted words, lists, durations.

use std::fmt::Write as _;

/// Returns `text` in double quotes, with everything that does not print escaped.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if prints(c) => out.push(c),
            c => push_escape(&mut out, c),
        }
    }
    out.push('"');
    out
}

fn push_escape(out: &mut String, c: char) {
    let code = u32::from(c);
    let written = match code {
        0..0x80 => write!(out, "\\x{code:02x}"),
        0x80..0x1_0000 => write!(out, "\\u{code:04x}"),
        _ => write!(out, "\\U{code:08x}"),
    };
    written.expect("writing to a String");
}

/// Returns true for letters, marks, numbers, punctuation, symbols and the blank.
fn prints(c: char) -> bool {
    // Behind another character the standard library escapes exactly what does not print; in
    // front it escapes combining marks too.
    let pair: String = ['a', c].into_iter().collect();
    pair.escape_debug().nth(1) == Some(c) || matches!(c, '\'' | '"' | '\\')
}

/// Returns `["a" "b"]`.
pub(crate) fn quoted_list(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    format!("[{}]", words.join(" "))
}

/// Returns `[a b]`.
pub(crate) fn plain_list(words: &[String]) -> String {
    format!("[{}]", words.join(" "))
}

/// Returns a duration in nanoseconds as `5m30s`, `500ms`, `0s`.
pub(crate) fn duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let n = nanoseconds.unsigned_abs();
    let text = match n {
        0 => "0s".to_owned(),
        1..1_000 => format!("{n}ns"),
        1_000..1_000_000 => format!("{}µs", decimal(n, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", decimal(n, 1_000_000)),
        _ => hours_minutes_seconds(n),
    };
    format!("{sign}{text}")
}

fn hours_minutes_seconds(n: u64) -> String {
    const SECOND: u64 = 1_000_000_000;
    let (minutes, rest) = (n / (60 * SECOND), n % (60 * SECOND));
    let seconds = format!("{}s", decimal(rest, SECOND));
    match (minutes / 60, minutes % 60) {
        (0, 0) => seconds,
        (0, minutes) => format!("{minutes}m{seconds}"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
    }
}

/// Returns `n / unit` with as many decimals as there are.
fn decimal(n: u64, unit: u64) -> String {
    let (whole, rest) = (n / unit, n % unit);
    if rest == 0 {
        return whole.to_string();
    }
    let width = unit.ilog10() as usize;
    let digits = format!("{rest:0width$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_as_histories_have_them() {
        for (text, expected) in [
            ("", r#""""#),
            ("a\tb \"q\" é", r#""a\tb \"q\" é""#),
            ("\u{1}\u{7f}", r#""\x01\x7f""#),
            ("\u{a0}\u{200b}", r#""\u00a0\u200b""#),
            ("e\u{301} 語 'x'", "\"e\u{301} 語 'x'\""),
            ("\u{e0001}", r#""\U000e0001""#),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }

    #[test]
    fn durations() {
        for (n, expected) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (500_000_000, "500ms"),
            (330_000_000_000, "5m30s"),
            (60_000_000_000, "1m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (1_000_000_001, "1.000000001s"),
        ] {
            assert_eq!(duration(n), expected);
        }
    }
}
