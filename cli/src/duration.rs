//! Durations as Go writes them, because docker's flags take those: `24h`, `1h30m`, `90s`.

use std::time::Duration;

const UNITS: [(&str, f64); 7] = [
    ("ms", 1e-3),
    ("us", 1e-6),
    ("ns", 1e-9),
    ("d", 86400.0),
    ("h", 3600.0),
    ("m", 60.0),
    ("s", 1.0),
];

/// Reads a duration; days (`d`) are taken, too.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let bad = || format!("`{text}` is no duration; write a number with a unit, such as 90s or 24h");
    let (mut rest, mut seconds) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| c != '.' && !c.is_ascii_digit());
        let (number, after) = rest.split_at(digits.ok_or_else(bad)?);
        let unit = UNITS.iter().find(|(unit, _)| after.starts_with(unit));
        let (unit, length) = unit.ok_or_else(bad)?;
        seconds += number.parse::<f64>().map_err(|_| bad())? * length;
        rest = &after[unit.len()..];
    }
    match text.is_empty() {
        true => Err(bad()),
        false => Duration::try_from_secs_f64(seconds).map_err(|_| bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, seconds) in [
            ("0", 0.0),
            ("90s", 90.0),
            ("1h30m", 5400.0),
            ("1.5h", 5400.0),
            ("2d", 172_800.0),
            ("250ms", 0.25),
        ] {
            let expected = Duration::from_secs_f64(seconds);
            assert_eq!(duration(text), Ok(expected), "{text}");
        }
        for text in ["", "h", "5", "-1h", "1x", "1.2.3s", "1e400h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
