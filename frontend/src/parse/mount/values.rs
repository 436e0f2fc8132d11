//! Values of mount options: flags, numbers and sizes, as Go's library reads them.

/// Reads a flag.
pub(super) fn flag(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Reads permission bits.
pub(super) fn octal(text: &str) -> Option<u32> {
    number(text, 8).map(|bits| bits & 0o7777)
}

/// Reads the number of a user or group.
pub(super) fn id(text: &str) -> Option<u32> {
    number(text, 10)
}

fn number(text: &str, radix: u32) -> Option<u32> {
    // The library of this language would take a sign.
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    u32::from_str_radix(text, radix).ok().filter(|_| is_plain)
}

/// Reads a number of bytes with an optional binary unit: `64m`, `1.5 GiB`.
pub(super) fn size(text: &str) -> Option<u64> {
    let last = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')?;
    let (number, unit) = text.split_at(last + 1);
    let number = number.strip_suffix(' ').unwrap_or(number);
    let has_odd_letters = number.contains(|c: char| c.is_alphabetic() && !matches!(c, 'e' | 'E'));
    let number: f64 = number.parse().ok().filter(|_| !has_odd_letters)?;
    if number.is_sign_negative() && number != 0.0 {
        return None;
    }
    let bytes = number * factor(&unit.to_ascii_lowercase())?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "it is checked to be in range"
    )]
    let bytes = (bytes < i64::MAX as f64).then_some(bytes as u64);
    bytes
}

fn factor(unit: &str) -> Option<f64> {
    let mut letters = unit.chars();
    let power = match letters.next() {
        None => 0,
        Some('b') => return letters.as_str().is_empty().then_some(1.0),
        Some('k') => 1,
        Some('m') => 2,
        Some('g') => 3,
        Some('t') => 4,
        Some('p') => 5,
        Some(_) => return None,
    };
    matches!(letters.as_str(), "" | "b" | "ib").then_some(1024_f64.powi(power))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        for (text, expected) in [
            ("0", Some(0)),
            ("100", Some(100)),
            ("1b", Some(1)),
            ("64k", Some(64 << 10)),
            ("64Kb", Some(64 << 10)),
            ("1.5 MiB", Some(3 << 19)),
            ("2g", Some(2 << 30)),
            ("1T", Some(1 << 40)),
            ("1p", Some(1 << 50)),
            ("1e3", Some(1000)),
            ("", None),
            ("m", None),
            ("-1", None),
            ("1kk", None),
            ("1bb", None),
            ("1kibb", None),
            ("1x", None),
            ("9999999p", None),
            ("nan1", None),
            ("inf.", None),
        ] {
            assert_eq!(size(text), expected, "{text}");
        }
    }

    #[test]
    fn numbers_have_digits_only() {
        assert_eq!(octal("0755"), Some(0o755));
        assert_eq!(octal("1777"), Some(0o1777));
        assert_eq!(
            octal("0755755"),
            Some(0o5755),
            "what is no permission does not count"
        );
        assert_eq!(id("4294967295"), Some(u32::MAX));
        for text in ["", "+1", "-1", "0o7", "8", " 7", "77777777777"] {
            assert_eq!(octal(text), None, "{text}");
        }
        for text in ["", "+1", "4294967296", "root"] {
            assert_eq!(id(text), None, "{text}");
        }
    }
}
