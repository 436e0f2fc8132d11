//! Progress as plain text, for logs: as `docker build --progress=plain` writes it.
//!
//! Every line that a step writes appears, whole and once. Output comes in blocks of one task;
//! others wait until the block ends, or until they have waited long enough. A task gets its
//! number when it first appears.

use std::collections::HashMap;
use std::fmt::{Arguments, Write as _};
use std::time::{Duration, SystemTime};

use kiln_solver::{Direction, Event, Stream, TaskId};

use crate::progress::text::{LineBuffer, amount, clean, overwrites};
use crate::progress::{Lines, seconds, transfer_name};

/// How long output waits while another task has the block.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of output that may wait.
const MAX_WAITING_BYTES: usize = 256 * 1024;
/// How often a transfer is told of.
const TRANSFER_INTERVAL: Duration = Duration::from_secs(5);

/// Renders events as plain text.
#[derive(Debug, Default)]
pub(crate) struct Plain {
    tasks: HashMap<TaskId, Row>,
    /// Whose block is open.
    current: Option<TaskId>,
    /// Those with something to tell, but without the block; in order of arrival.
    waiting: Vec<TaskId>,
    n_numbered: usize,
    is_begun: bool,
}

#[derive(Debug, Default)]
struct Row {
    name: String,
    number: Option<usize>,
    started: Option<SystemTime>,
    stdout: LineBuffer,
    stderr: LineBuffer,
    last_log: Option<SystemTime>,
    last_status: String,
    transfers: HashMap<(Direction, String), Told>,
    untold: Untold,
}

/// What was last told of a transfer.
#[derive(Debug)]
struct Told {
    began: SystemTime,
    at: SystemTime,
    is_complete: bool,
}

/// Lines that wait for the block.
#[derive(Debug, Default)]
struct Untold {
    since: Option<SystemTime>,
    lines: Vec<String>,
    n_bytes: usize,
}

impl Lines for Plain {
    fn event(&mut self, event: &Event) -> String {
        let mut out = String::new();
        match event {
            Event::Added { task, name, .. } => self.add(*task, name),
            Event::Warning { text } => self.warn(text, &mut out),
            Event::Started { task, at } => self.tell(*task, *at, &mut out, |row| row.start(*at)),
            Event::Status { task, text, at } => {
                self.tell(*task, *at, &mut out, |row| row.status(text, *at));
            }
            Event::Log {
                task,
                stream,
                data,
                at,
            } => self.tell(*task, *at, &mut out, |row| row.log(*stream, data, *at)),
            Event::Transfer { task, at, .. } => {
                self.tell(*task, *at, &mut out, |row| row.transfer(event));
            }
            Event::Cached { task, at } => self.end(*task, *at, "CACHED", &mut out),
            Event::Finished { task, at } => {
                let how = self.tasks.get(task).map(|row| row.done(*at));
                self.end(*task, *at, &how.unwrap_or_default(), &mut out);
            }
            Event::Failed { task, message, at } => {
                self.end(*task, *at, &format!("ERROR: {message}"), &mut out);
            }
            Event::Canceled { task, at } => self.cancel(*task, *at, &mut out),
        }
        out
    }

    fn tick(&mut self, now: SystemTime) -> String {
        let mut out = String::new();
        self.let_in(now, &mut out);
        out
    }

    fn finish(&mut self) -> String {
        let mut out = String::new();
        let mut left: Vec<_> = self.tasks.keys().copied().collect();
        left.sort();
        for task in left {
            self.tasks.entry(task).and_modify(Row::flush);
            let row = self.tasks.get(&task);
            if row.is_some_and(|row| !row.untold.lines.is_empty()) {
                self.show(task, &mut out);
            }
        }
        out
    }
}

impl Plain {
    fn add(&mut self, task: TaskId, name: &str) {
        let row = Row {
            name: clean(name.as_bytes()),
            ..Row::default()
        };
        self.tasks.insert(task, row);
    }

    /// Lets a task add lines; shows them if the block is its own or nobody's.
    fn tell(&mut self, task: TaskId, at: SystemTime, out: &mut String, add: impl FnOnce(&mut Row)) {
        let Some(row) = self.tasks.get_mut(&task) else {
            return;
        };
        add(row);
        if row.untold.since.is_none() {
            return;
        }
        if self.current.is_none_or(|current| current == task) {
            return self.show(task, out);
        }
        if !self.waiting.contains(&task) {
            self.waiting.push(task);
        }
        self.let_in(at, out);
    }

    /// Ends a task; what it has to tell is shown at once, whoever has the block.
    fn end(&mut self, task: TaskId, at: SystemTime, how: &str, out: &mut String) {
        let Some(row) = self.tasks.get_mut(&task) else {
            return;
        };
        row.flush();
        for line in how.lines() {
            row.untold.push(at, clean(line.as_bytes()));
        }
        self.show(task, out);
        self.tasks.remove(&task);
        self.current = None;
        if let Some(&next) = self.waiting.first() {
            self.show(next, out);
        }
    }

    /// Ends a task that was stopped; one that nobody has heard of stays unheard of.
    fn cancel(&mut self, task: TaskId, at: SystemTime, out: &mut String) {
        let is_silent = |row: &Row| row.number.is_none() && row.untold.since.is_none();
        if self.tasks.get(&task).is_some_and(is_silent) {
            self.tasks.remove(&task);
            return;
        }
        self.end(task, at, "CANCELED", out);
    }

    /// Gives the block to the first that has waited too long or has too much to tell.
    fn let_in(&mut self, now: SystemTime, out: &mut String) {
        let is_due = |task: &&TaskId| {
            let row = self.tasks.get(*task);
            row.is_some_and(|row| row.untold.is_due(now))
        };
        if let Some(&task) = self.waiting.iter().find(is_due) {
            self.show(task, out);
        }
    }

    /// Shows what `task` has to tell; it has the block afterwards.
    fn show(&mut self, task: TaskId, out: &mut String) {
        self.waiting.retain(|waiting| *waiting != task);
        if self.current != Some(task) {
            self.open_block(task, out);
        }
        let Some(row) = self.tasks.get_mut(&task) else {
            return;
        };
        let number = row.number.unwrap_or_default();
        for line in std::mem::take(&mut row.untold).lines {
            push_line(out, format_args!("#{number} {line}"));
        }
    }

    fn open_block(&mut self, task: TaskId, out: &mut String) {
        self.leave_block(out);
        let Some(row) = self.tasks.get_mut(&task) else {
            return;
        };
        let number = *row.number.get_or_insert_with(|| {
            self.n_numbered += 1;
            self.n_numbered
        });
        push_line(out, format_args!("#{number} {}", row.name));
        self.current = Some(task);
    }

    /// Says that the open block is not at its end, and leaves a line between blocks.
    fn leave_block(&mut self, out: &mut String) {
        let left = self.current.take().and_then(|task| self.tasks.get(&task));
        if let Some(number) = left.and_then(|row| row.number) {
            push_line(out, format_args!("#{number} ..."));
        }
        if std::mem::replace(&mut self.is_begun, true) {
            out.push('\n');
        }
    }

    fn warn(&mut self, text: &str, out: &mut String) {
        self.leave_block(out);
        for (at, line) in text.lines().enumerate() {
            let label = if at == 0 { "WARNING: " } else { "" };
            push_line(out, format_args!("{label}{}", clean(line.as_bytes())));
        }
    }
}

impl Row {
    fn start(&mut self, at: SystemTime) {
        self.started.get_or_insert(at);
        self.untold.since.get_or_insert(at);
    }

    fn status(&mut self, text: &str, at: SystemTime) {
        if self.last_status != text {
            text.clone_into(&mut self.last_status);
            self.untold.push(at, clean(text.as_bytes()));
        }
    }

    fn log(&mut self, stream: Stream, data: &[u8], at: SystemTime) {
        let started = *self.started.get_or_insert(at);
        let buffer = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        self.last_log = Some(at);
        for line in buffer.push(data) {
            self.untold.push_output(started, at, &line);
        }
    }

    /// Lets go the lines that have no end.
    fn flush(&mut self) {
        let (Some(started), Some(at)) = (self.started, self.last_log) else {
            return;
        };
        for buffer in [&mut self.stdout, &mut self.stderr] {
            if let Some(line) = buffer.take_rest() {
                self.untold.push_output(started, at, &line);
            }
        }
    }

    fn transfer(&mut self, event: &Event) {
        let Event::Transfer {
            id,
            direction,
            done,
            total,
            at,
            ..
        } = event
        else {
            return;
        };
        let is_complete = *total == Some(*done);
        let which = (*direction, id.clone());
        let told = self.transfers.get(&which);
        if told.is_some_and(|told| !told.is_worth_telling(*at, is_complete)) {
            return;
        }
        let began = told.map_or(*at, |told| told.began);
        let mut line = format!(
            "{} {}",
            transfer_name(*direction, id),
            amount(*done, *total)
        );
        if is_complete {
            let time = seconds(began, *at);
            write!(line, " {time:.1}s done").expect("a string takes every text");
        }
        self.untold.push(*at, clean(line.as_bytes()));
        let told = Told {
            began,
            at: *at,
            is_complete,
        };
        self.transfers.insert(which, told);
    }

    fn done(&self, at: SystemTime) -> String {
        match self.started {
            Some(started) => format!("DONE {:.1}s", seconds(started, at)),
            None => "DONE".to_owned(),
        }
    }
}

impl Told {
    fn is_worth_telling(&self, now: SystemTime, is_complete: bool) -> bool {
        let is_due = now.duration_since(self.at).unwrap_or_default() >= TRANSFER_INTERVAL;
        !self.is_complete && (is_complete || is_due)
    }
}

impl Untold {
    fn push(&mut self, at: SystemTime, line: String) {
        self.since.get_or_insert(at);
        self.n_bytes += line.len();
        self.lines.push(line);
    }

    fn push_output(&mut self, started: SystemTime, at: SystemTime, line: &[u8]) {
        let elapsed = elapsed(started, at);
        for piece in overwrites(line) {
            self.push(at, format!("{elapsed} {}", clean(piece)));
        }
    }

    fn is_due(&self, now: SystemTime) -> bool {
        let since = self.since.unwrap_or(now);
        let waited = now.duration_since(since).unwrap_or_default();
        waited >= PATIENCE || self.n_bytes > MAX_WAITING_BYTES
    }
}

/// Returns the time since the start of a step, with about four digits.
fn elapsed(started: SystemTime, at: SystemTime) -> String {
    let seconds = seconds(started, at);
    let n_decimals = match seconds {
        ..10.0 => 3,
        ..100.0 => 2,
        _ => 1,
    };
    format!("{seconds:.n_decimals$}")
}

fn push_line(out: &mut String, line: Arguments<'_>) {
    writeln!(out, "{line}").expect("a string takes every text");
}

#[cfg(test)]
mod tests;
