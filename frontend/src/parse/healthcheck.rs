//! `HEALTHCHECK`, and durations as it writes them.

use kiln_graph::HealthCheck;

use crate::diagnostic::Diagnostic;
use crate::lines::Word;
use crate::parse::flags::{Flags, Kind};
use crate::parse::simple::at_least_one;
use crate::parse::{Request, not_strings};
use crate::words;

const FLAGS: [(&str, Kind); 5] = [
    ("interval", Kind::Text),
    ("timeout", Kind::Text),
    ("start-period", Kind::Text),
    ("start-interval", Kind::Text),
    ("retries", Kind::Text),
];

const MILLISECOND: i64 = 1_000_000;

/// `HEALTHCHECK NONE` or `HEALTHCHECK [flags] CMD …`.
pub(super) fn healthcheck(request: &Request<'_>) -> Result<HealthCheck, Diagnostic> {
    let rest = request.head.rest.clone();
    let text = &request.line.text[rest.clone()];
    let length = text.find(char::is_whitespace).unwrap_or(text.len());
    let kind = request.line.word(rest.start..rest.start + length);
    let command = words::trimmed(&request.line.text, rest.start + length..rest.end);
    match kind.text.to_ascii_uppercase().as_str() {
        "" => Err(at_least_one(request)),
        "NONE" if command.is_empty() => Ok(HealthCheck {
            test: vec!["NONE".to_owned()],
            ..HealthCheck::default()
        }),
        "NONE" => Err(request.error("`HEALTHCHECK NONE` takes no arguments")),
        "CMD" if command.is_empty() => {
            Err(request.error("missing command after `HEALTHCHECK CMD`"))
        }
        "CMD" => {
            let flags = Flags::read(request, &FLAGS)?;
            let test = test(request, command)?;
            with_options(&flags, test)
        }
        other => {
            let message = format!("unknown type `{other}` in `HEALTHCHECK`");
            Err(Diagnostic::error(kind.span, message).with_help("try `HEALTHCHECK CMD …`"))
        }
    }
}

/// Checks that an array behind the first word has only texts in it, whatever that word is.
pub(super) fn check_array(request: &Request<'_>) -> Result<(), Diagnostic> {
    let rest = request.head.rest.clone();
    let text = &request.line.text[rest.clone()];
    let length = text.find(char::is_whitespace).unwrap_or(text.len());
    let command = words::trimmed(&request.line.text, rest.start + length..rest.end);
    let json = words::json(request.line, command).transpose();
    json.map(drop).map_err(|word| not_strings(&word))
}

fn test(request: &Request<'_>, command: std::ops::Range<usize>) -> Result<Vec<String>, Diagnostic> {
    let json = words::json(request.line, command.clone()).transpose();
    match json.map_err(|word| not_strings(&word))? {
        Some(words) if words.is_empty() => {
            Err(request.error("missing command after `HEALTHCHECK CMD`"))
        }
        Some(words) => {
            let words = words.into_iter().map(|word| word.text);
            Ok(std::iter::once("CMD".to_owned()).chain(words).collect())
        }
        None => Ok(vec![
            "CMD-SHELL".to_owned(),
            request.line.text[command].to_owned(),
        ]),
    }
}

fn with_options(flags: &Flags, test: Vec<String>) -> Result<HealthCheck, Diagnostic> {
    Ok(HealthCheck {
        test,
        interval: interval(flags, "interval")?,
        timeout: interval(flags, "timeout")?,
        start_period: interval(flags, "start-period")?,
        start_interval: interval(flags, "start-interval")?,
        retries: flags
            .text("retries")
            .map(|word| retries(&word))
            .transpose()?
            .flatten(),
    })
}

/// Returns a duration in nanoseconds; zero is as good as none.
fn interval(flags: &Flags, name: &str) -> Result<Option<i64>, Diagnostic> {
    let Some(word) = flags.text(name) else {
        return Ok(None);
    };
    let Some(nanoseconds) = duration(&word.text) else {
        let message = format!("invalid duration `{}` of `--{name}`", word.text);
        return Err(Diagnostic::error(word.span, message).with_help("write `30s` or `1m30s`"));
    };
    if nanoseconds != 0 && nanoseconds < MILLISECOND {
        let message = format!("interval `{name}` cannot be less than 1ms");
        return Err(Diagnostic::error(word.span, message));
    }
    Ok(Some(nanoseconds).filter(|&n| n != 0))
}

fn retries(word: &Word) -> Result<Option<i64>, Diagnostic> {
    let retries = word.text.parse::<i32>().map_err(|_| {
        let message = format!("`--retries` must be a number, not `{}`", word.text);
        Diagnostic::error(word.span, message)
    })?;
    if retries < 0 {
        let message = format!("`--retries` cannot be negative (`{retries}`)");
        return Err(Diagnostic::error(word.span, message));
    }
    Ok(Some(i64::from(retries)).filter(|&n| n != 0))
}

/// Reads `1h15m30.5s` and the like, in nanoseconds.
fn duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total: i64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let length = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(length);
        let length = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(length);
        total = total.checked_add(scaled(number, unit_of(unit)?)?)?;
        rest = tail;
    }
    Some(sign * total)
}

fn unit_of(name: &str) -> Option<i64> {
    Some(match name {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => MILLISECOND,
        "s" => 1_000 * MILLISECOND,
        "m" => 60_000 * MILLISECOND,
        "h" => 3_600_000 * MILLISECOND,
        _ => return None,
    })
}

/// Returns `number` times `unit`, cut to whole nanoseconds.
fn scaled(number: &str, unit: i64) -> Option<i64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: i64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let digits = &fraction[..fraction.len().min(18)];
    let fraction: i128 = if digits.is_empty() {
        0
    } else {
        digits.parse().ok()?
    };
    let power = 10_i128.pow(u32::try_from(digits.len()).ok()?);
    let fraction = i64::try_from(fraction * i128::from(unit) / power).ok()?;
    whole.checked_mul(unit)?.checked_add(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, expected) in [
            ("0", Some(0)),
            ("5m30s", Some(330_000_000_000)),
            ("1.5h", Some(5_400_000_000_000)),
            ("500ms", Some(500_000_000)),
            ("10us", Some(10_000)),
            ("-1s", Some(-1_000_000_000)),
            ("+1s", Some(1_000_000_000)),
            (".5s", Some(500_000_000)),
            ("1.s", Some(1_000_000_000)),
            ("", None),
            ("-", None),
            ("1", None),
            ("s", None),
            (".s", None),
            ("1.2.3s", None),
            ("1d", None),
            ("1 s", None),
            ("9999999999h", None),
        ] {
            assert_eq!(duration(text), expected, "{text}");
        }
    }
}
