//! Progress on the terminal: events in, text out.
//!
//! Three renderers over the same events, none of which reads a clock, a terminal or the
//! environment: `plain` for logs, `tty` for people, `rawjson` for programs. [`drive`] is the loop
//! that feeds one of them and writes; it runs on a thread of its own until the last sender is gone.

mod plain;
mod rawjson;
mod text;
mod tty;

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use kiln_solver::{Direction, Event};

use crate::progress::plain::Plain;
use crate::progress::rawjson::RawJson;
use crate::progress::tty::Tty;

/// How often lines that wait may appear without an event.
const TICK: Duration = Duration::from_millis(500);
/// The shortest time between two frames.
const FRAME: Duration = Duration::from_millis(100);
/// Bytes that are written at once if they are there.
const BATCH_BYTES: usize = 64 * 1024;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Line after line, for logs.
    Plain,
    /// Redrawn in place, for people.
    Tty {
        /// With colours; escape codes that move the cursor are written in any case.
        color: bool,
    },
    /// A JSON object per line, for programs.
    RawJson,
}

/// The size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TerminalSize {
    /// Characters in a row.
    pub(crate) columns: usize,
    /// Rows.
    pub(crate) rows: usize,
}

/// A renderer that only ever appends.
trait Lines {
    /// Returns what an event adds.
    fn event(&mut self, event: &Event) -> String;

    /// Returns what the time adds.
    fn tick(&mut self, _now: SystemTime) -> String {
        String::new()
    }

    /// Returns what is left at the end.
    fn finish(&mut self) -> String {
        String::new()
    }
}

/// Shows events until the channel closes.
///
/// `size` is asked before each frame of [`Mode::Tty`]. A reader that has gone away is no error;
/// after any error the channel is closed, so senders go on unheard.
pub(crate) fn drive(
    receiver: Receiver<Event>,
    mode: Mode,
    mut writer: impl Write,
    size: impl FnMut() -> TerminalSize,
) -> io::Result<()> {
    let shown = match mode {
        Mode::Plain => drive_lines(&receiver, Plain::default(), &mut writer),
        Mode::RawJson => drive_lines(&receiver, RawJson::default(), &mut writer),
        Mode::Tty { color } => drive_frames(&receiver, Tty::new(color), &mut writer, size),
    };
    drop(receiver);
    match shown {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        shown => shown,
    }
}

fn drive_lines(
    receiver: &Receiver<Event>,
    mut lines: impl Lines,
    writer: &mut impl Write,
) -> io::Result<()> {
    loop {
        let mut text = match receiver.recv_timeout(TICK) {
            Ok(event) => lines.event(&event),
            Err(RecvTimeoutError::Timeout) => lines.tick(SystemTime::now()),
            Err(RecvTimeoutError::Disconnected) => return write(writer, &lines.finish()),
        };
        while text.len() < BATCH_BYTES
            && let Ok(event) = receiver.try_recv()
        {
            text.push_str(&lines.event(&event));
        }
        write(writer, &text)?;
    }
}

fn drive_frames(
    receiver: &Receiver<Event>,
    mut tty: Tty,
    writer: &mut impl Write,
    mut size: impl FnMut() -> TerminalSize,
) -> io::Result<()> {
    let mut next_frame = Instant::now() + FRAME;
    loop {
        let wait = next_frame.saturating_duration_since(Instant::now());
        match receiver.recv_timeout(wait) {
            Ok(event) => tty.event(&event),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return write(writer, &tty.last_frame(SystemTime::now(), size()));
            }
        }
        if Instant::now() >= next_frame {
            write(writer, &tty.frame(SystemTime::now(), size()))?;
            next_frame = Instant::now() + FRAME;
        }
    }
}

fn write(writer: &mut impl Write, text: &str) -> io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    writer.write_all(text.as_bytes())?;
    writer.flush()
}

/// Returns a text that no terminal takes for more than text.
pub(crate) fn clean_line(line: &str) -> String {
    text::clean(line.as_bytes())
}

/// Returns what a transfer is called: `sha256:…`, `extracting sha256:…`.
fn transfer_name(direction: Direction, id: &str) -> String {
    match direction {
        Direction::Pull => id.to_owned(),
        Direction::Push => format!("pushing {id}"),
        Direction::Extract => format!("extracting {id}"),
        Direction::Compress => format!("compressing {id}"),
        Direction::Export => format!("exporting {id}"),
    }
}

/// Returns the seconds between two times; a clock that went back gives none.
fn seconds(from: SystemTime, to: SystemTime) -> f64 {
    to.duration_since(from).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests;
