//! Names of signals, as `STOPSIGNAL` takes them.

const NAMES: [&str; 34] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
    "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];

/// Returns true if `text` is a number that is not zero, or a signal's name in any case, with or
/// without `SIG`.
pub(super) fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i64>() {
        return number != 0;
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    NAMES.contains(&name) || is_real_time(name)
}

/// `RTMIN`, `RTMIN+1` to `RTMIN+15`, `RTMAX-14` to `RTMAX-1`, `RTMAX`.
fn is_real_time(name: &str) -> bool {
    let offset = |rest: &str, sign: char, last: u8| {
        let number = rest.strip_prefix(sign).unwrap_or_default();
        let is_plain = !number.starts_with(['0', '+']);
        is_plain && number.parse::<u8>().is_ok_and(|number| number <= last)
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return rest.is_empty() || offset(rest, '+', 15);
    }
    let rest = name.strip_prefix("RTMAX");
    rest.is_some_and(|rest| rest.is_empty() || offset(rest, '-', 14))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for text in [
            "9",
            "SIGTERM",
            "term",
            "SIGRTMIN+3",
            "RTMAX-14",
            "sigrtmax",
            "64",
            "-1",
        ] {
            assert!(is_signal(text), "{text}");
        }
        for text in [
            "0", "", "SIG", "SIGFOO", "RTMIN+16", "RTMAX-15", "RTMIN+", "RTMIN+01", "9x",
        ] {
            assert!(!is_signal(text), "{text}");
        }
    }
}
