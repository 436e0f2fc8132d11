//! Sizes, as docker writes and reads them.

/// Reads a size: a number, maybe with a fraction, and `k`, `m`, `g` or `t` for powers of 1024.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let bad = || format!("`{text}` is not a size: expected a number and k, m, g or t");
    let lower = text.trim().to_ascii_lowercase();
    let unit = lower.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number: f64 = lower[..lower.len() - unit.len()]
        .parse()
        .map_err(|_| bad())?;
    let factor = match unit.trim() {
        "" | "b" => 1.0,
        "k" | "kb" | "kib" => 1024.0,
        "m" | "mb" | "mib" => 1024.0 * 1024.0,
        "g" | "gb" | "gib" => 1024.0 * 1024.0 * 1024.0,
        "t" | "tb" | "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return Err(bad()),
    };
    let bytes = number * factor;
    // The largest number that is still exact.
    const LARGEST: f64 = 9_007_199_254_740_992.0;
    if !(0.0..=LARGEST).contains(&bytes) {
        return Err(bad());
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is in range"
    )]
    Ok(bytes as u64)
}

/// Returns a size with four digits at most and a decimal unit: `12.3MB`.
pub(crate) fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes}B");
    }
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let (mut size, mut unit) = (bytes as f64 / 1000.0, 0);
    while size >= 999.5 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    let digits = usize::from(size < 99.95) + usize::from(size < 9.995);
    format!("{size:.digits$}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, expected) in [
            ("0", 0),
            ("12", 12),
            ("1k", 1024),
            ("1.5 MB", 1_572_864),
            ("2GiB", 2 << 30),
            ("1t", 1 << 40),
        ] {
            assert_eq!(size(text), Ok(expected), "{text}");
        }
        for text in ["", "k", "-1", "1x", "1e9", "99999999999999t", "1..2"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_short() {
        for (bytes, expected) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1.00kB"),
            (12_345_678, "12.3MB"),
            (123_456_789, "123MB"),
            (999_900_000, "1.00GB"),
        ] {
            assert_eq!(human(bytes), expected);
        }
    }
}
