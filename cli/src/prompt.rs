//! Questions to whoever sits at the terminal.
//!
//! The question goes to standard error, the answer comes from standard input. An answer that must
//! not be seen is read key by key, so that nothing but this sets the terminal back, also when the
//! user gives up.

use std::io::{self, BufRead as _, Read as _, Write as _};
use std::os::fd::AsFd as _;

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};

const INTERRUPT: u8 = 3;
const END: u8 = 4;
const ERASE_LINE: u8 = 21;

/// Asks for a line that may be seen; `None` if there is no answer.
pub(crate) fn ask(question: &str) -> io::Result<Option<String>> {
    write!(io::stderr(), "{question}")?;
    let mut line = String::new();
    if io::stdin().lock().read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(line.trim_end_matches(['\n', '\r']).to_owned()))
}

/// Asks for a line that is not shown; `None` if there is no answer, or the user gave up.
pub(crate) fn ask_hidden(question: &str) -> io::Result<Option<String>> {
    // Who answers the question at once must not be seen, either.
    let hidden = Hidden::start()?;
    write!(io::stderr(), "{question}")?;
    let line = read_keys(io::stdin().lock().bytes());
    drop(hidden);
    writeln!(io::stderr())?;
    let Some(line) = line? else {
        return Ok(None);
    };
    let text = String::from_utf8(line);
    text.map(Some).map_err(|_| {
        // The bytes themselves must not be shown.
        io::Error::new(io::ErrorKind::InvalidData, "the answer is not UTF-8")
    })
}

/// While it lives, keys are read one by one and not shown.
struct Hidden(Termios);

impl Hidden {
    fn start() -> io::Result<Self> {
        let before = tcgetattr(io::stdin().as_fd())?;
        let mut raw = before.clone();
        raw.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        raw.special_codes[SpecialCodeIndex::VMIN] = 1;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(io::stdin().as_fd(), OptionalActions::Flush, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(io::stdin().as_fd(), OptionalActions::Flush, &self.0) {
            tracing::warn!(%error, "the terminal stays as it is");
        }
    }
}

/// Reads to the end of a line, with what the terminal would do itself: erase, give up.
fn read_keys(keys: impl Iterator<Item = io::Result<u8>>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    for key in keys {
        match key? {
            b'\n' | b'\r' => return Ok(Some(line)),
            INTERRUPT => return Ok(None),
            END if line.is_empty() => return Ok(None),
            END => return Ok(Some(line)),
            ERASE_LINE => line.clear(),
            8 | 127 => erase_last(&mut line),
            byte => line.push(byte),
        }
    }
    Ok(None)
}

/// Takes the last character away, which can have several bytes.
fn erase_last(line: &mut Vec<u8>) {
    while let Some(byte) = line.pop() {
        let is_continuation = byte & 0xc0 == 0x80;
        if !is_continuation {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Option<String> {
        let keys = text.bytes().map(Ok);
        let line = read_keys(keys).unwrap();
        line.map(|line| String::from_utf8(line).unwrap())
    }

    #[test]
    fn keys_make_a_line() {
        for (typed, line) in [
            ("secret\r", Some("secret")),
            ("\n", Some("")),
            ("wron\u{15}g\u{7f}ö\u{7f}right\n", Some("right")),
            ("half\u{4}", Some("half")),
            ("gave\u{3}", None),
            ("\u{4}", None),
            ("ended", None),
        ] {
            assert_eq!(keys(typed).as_deref(), line, "{typed:?}");
        }
    }
}
