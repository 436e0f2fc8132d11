//! Progress redrawn in place, for people: as BuildKit draws it.
//!
//! A frame has a header, a line for each task that was begun, and under running tasks their
//! transfers and last lines of output. A frame never has more rows than the terminal: what is
//! finished gives way first, oldest first. Only the last frame shows everything.
//!
//! The cursor rests below the frame. A new frame goes up by as many rows as the old one takes at
//! the present width, and erases what it does not overwrite.

mod line;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::SystemTime;

use kiln_solver::{Direction, Event, Stream, TaskId};

use crate::progress::text::{LineBuffer, amount, clean, expand_tabs, fit, last_overwrite, width};
use crate::progress::tty::line::{Line, Style};
use crate::progress::{TerminalSize, seconds, transfer_name};

/// Lines of output shown under a running task.
const MAX_TAIL: usize = 6;
/// Transfers shown under a running task.
const MAX_TRANSFERS: usize = 6;
/// Digits of a digest that people see.
const SHORT_DIGEST: usize = 12;

const HIDE_CURSOR: &str = "\x1b[?25l";
const SHOW_CURSOR: &str = "\x1b[?25h";
const ERASE_LINE: &str = "\x1b[2K";
const ERASE_TO_RIGHT: &str = "\x1b[K";
/// Never sent from the top of a frame: some terminals save a screen that is erased whole.
const ERASE_BELOW: &str = "\x1b[J";

/// Renders events as frames.
#[derive(Debug)]
pub(crate) struct Tty {
    color: bool,
    rows: HashMap<TaskId, Row>,
    /// Tasks that were begun, in order.
    begun: Vec<TaskId>,
    n_ended: usize,
    since: Option<SystemTime>,
    warnings: Vec<String>,
    /// Columns of each line of the frame on the screen.
    drawn: Vec<usize>,
}

#[derive(Debug, Default)]
struct Row {
    name: String,
    started: Option<SystemTime>,
    end: Option<(SystemTime, End)>,
    status: String,
    stdout: LineBuffer,
    stderr: LineBuffer,
    tail: VecDeque<String>,
    transfers: BTreeMap<String, Transfer>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Finished,
    Cached,
    Failed,
    Canceled,
}

#[derive(Debug)]
struct Transfer {
    began: SystemTime,
    done: u64,
    total: Option<u64>,
}

impl Tty {
    pub(crate) fn new(color: bool) -> Self {
        Self {
            color,
            rows: HashMap::new(),
            begun: Vec::new(),
            n_ended: 0,
            since: None,
            warnings: Vec::new(),
            drawn: Vec::new(),
        }
    }

    pub(crate) fn event(&mut self, event: &Event) {
        match event {
            Event::Added { task, name, at, .. } => {
                self.since.get_or_insert(*at);
                let name = visible(name.as_bytes());
                let row = Row {
                    name,
                    ..Row::default()
                };
                self.rows.insert(*task, row);
            }
            Event::Warning { text } => self.warnings.push(text.clone()),
            Event::Started { task, at } => self.update(*task, *at, |_| {}),
            Event::Status { task, text, at } => self.update(*task, *at, |row| {
                row.status = visible(text.as_bytes());
            }),
            Event::Log {
                task,
                stream,
                data,
                at,
            } => self.update(*task, *at, |row| row.log(*stream, data)),
            Event::Transfer { task, at, .. } => self.update(*task, *at, |row| row.transfer(event)),
            Event::Cached { task, at } => self.end(*task, *at, End::Cached),
            Event::Finished { task, at } => self.end(*task, *at, End::Finished),
            Event::Failed { task, at, .. } => self.end(*task, *at, End::Failed),
            Event::Canceled { task, at } => self.end(*task, *at, End::Canceled),
        }
    }

    /// Returns what draws the present state over the last frame.
    pub(crate) fn frame(&mut self, now: SystemTime, size: TerminalSize) -> String {
        // One row stays for the cursor, one is the header.
        let n_free = size.rows.saturating_sub(2);
        let lines = self.body(now, size.columns, n_free);
        self.draw(now, size, lines, "")
    }

    /// Returns what draws the end; it stays on the screen.
    pub(crate) fn last_frame(&mut self, now: SystemTime, size: TerminalSize) -> String {
        let lines = self.rows().map(|row| row.line(now, size.columns));
        let lines = lines.collect();
        let is_finished = self.n_ended > 0 && self.n_ended == self.rows.len();
        let word = if is_finished { " FINISHED" } else { "" };
        self.draw(now, size, lines, word)
    }

    fn update(&mut self, task: TaskId, at: SystemTime, change: impl FnOnce(&mut Row)) {
        let Some(row) = self.rows.get_mut(&task) else {
            return;
        };
        if row.started.is_none() {
            row.started = Some(at);
            self.begun.push(task);
        }
        change(row);
    }

    fn end(&mut self, task: TaskId, at: SystemTime, end: End) {
        self.n_ended += 1;
        let is_begun = |row: &Row| row.started.is_some();
        if end == End::Canceled && !self.rows.get(&task).is_some_and(is_begun) {
            return;
        }
        self.update(task, at, |row| {
            *row = Row {
                name: std::mem::take(&mut row.name),
                started: row.started,
                end: Some((at, end)),
                ..Row::default()
            };
        });
    }

    fn rows(&self) -> impl DoubleEndedIterator<Item = &Row> {
        self.begun.iter().filter_map(|task| self.rows.get(task))
    }

    /// Returns at most `n_free` lines: running tasks first, then what they show, then the
    /// latest of the finished ones.
    fn body(&self, now: SystemTime, columns: usize, n_free: usize) -> Vec<Line> {
        let n_running = self.rows().filter(|row| row.end.is_none()).count();
        let mut details = self.details(now, columns, n_free.saturating_sub(n_running));
        let n_details: usize = details.iter().map(Vec::len).sum();
        let n_ended = self.rows().count() - n_running;
        let mut n_hidden = (n_running + n_ended + n_details).saturating_sub(n_free);
        let mut lines = Vec::new();
        for row in self.rows() {
            let gives_way = row.end.is_some() && n_hidden > 0;
            if gives_way {
                n_hidden -= 1;
                continue;
            }
            lines.push(row.line(now, columns));
            if row.end.is_none() {
                lines.extend(details.pop_front().unwrap_or_default());
            }
        }
        lines.truncate(n_free);
        lines
    }

    /// Returns what running tasks show below their own lines, `n_free` lines shared fairly.
    fn details(&self, now: SystemTime, columns: usize, n_free: usize) -> VecDeque<Vec<Line>> {
        let running = self.rows().filter(|row| row.end.is_none());
        let mut details: VecDeque<_> = running.map(|row| row.details(now, columns)).collect();
        let longest = details.iter().map(Vec::len).max().unwrap_or(0);
        let n_at =
            |limit: usize| -> usize { details.iter().map(|lines| lines.len().min(limit)).sum() };
        let limit = (0..=longest)
            .rev()
            .find(|&limit| n_at(limit) <= n_free)
            .unwrap_or(0);
        for lines in &mut details {
            let n_over = lines.len().saturating_sub(limit);
            lines.drain(..n_over);
        }
        details
    }

    fn draw(
        &mut self,
        now: SystemTime,
        size: TerminalSize,
        lines: Vec<Line>,
        word: &str,
    ) -> String {
        let Some(since) = self.since else {
            return String::new();
        };
        let mut out = HIDE_CURSOR.to_owned();
        out.push_str(&self.back_to_top(size.columns));
        self.draw_warnings(size.columns, &mut out);
        let (elapsed, n_ended, n_all) = (seconds(since, now), self.n_ended, self.rows.len());
        let header = format!("[+] Building {elapsed:.1}s ({n_ended}/{n_all}){word}");
        let header = Line::new(fit(&header, size.columns), Style::Normal);
        for line in std::iter::once(header).chain(lines) {
            self.drawn.push(width(&line.text));
            out.push_str(ERASE_LINE);
            line.draw(self.color, &mut out);
            out.push('\n');
        }
        out.push_str(ERASE_BELOW);
        out.push_str(SHOW_CURSOR);
        out
    }

    /// Returns what moves the cursor to the top of the last frame, and forgets that frame.
    fn back_to_top(&mut self, columns: usize) -> String {
        let rows_of = |width: usize| width.div_ceil(columns.max(1)).max(1);
        let n_rows: usize = std::mem::take(&mut self.drawn)
            .into_iter()
            .map(rows_of)
            .sum();
        match n_rows {
            0 => String::new(),
            n_rows => format!("\r\x1b[{n_rows}A"),
        }
    }

    /// Writes warnings whole and above the frame, where they stay.
    fn draw_warnings(&mut self, columns: usize, out: &mut String) {
        for text in std::mem::take(&mut self.warnings) {
            for (at, line) in text.lines().enumerate() {
                let label = if at == 0 { "WARNING: " } else { "" };
                let text = format!("{label}{}", visible(line.as_bytes()));
                let is_row_full = width(&text).is_multiple_of(columns.max(1));
                Line::new(text, Style::Canceled).draw(self.color, out);
                // Behind a full row the cursor still stands on its last column.
                if !is_row_full {
                    out.push_str(ERASE_TO_RIGHT);
                }
                out.push('\n');
            }
        }
    }
}

impl Row {
    fn log(&mut self, stream: Stream, data: &[u8]) {
        let buffer = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        for line in buffer.push(data) {
            push_tail(&mut self.tail, &line);
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
        let name = short_transfer_name(*direction, id);
        if *total == Some(*done) {
            self.transfers.remove(&name);
            return;
        }
        let began = self.transfers.get(&name).map_or(*at, |old| old.began);
        let transfer = Transfer {
            began,
            done: *done,
            total: *total,
        };
        self.transfers.insert(name, transfer);
    }

    fn line(&self, now: SystemTime, columns: usize) -> Line {
        let (until, end) = self.end.map_or((now, None), |(at, end)| (at, Some(end)));
        let (word, style) = match end {
            None => ("", Style::Normal),
            Some(End::Finished) => ("", Style::Done),
            Some(End::Cached) => ("CACHED ", Style::Done),
            Some(End::Failed) => ("ERROR ", Style::Failed),
            Some(End::Canceled) => ("CANCELED ", Style::Canceled),
        };
        let time = seconds(self.started.unwrap_or(until), until);
        let name = format!(" => {word}{}", self.name);
        Line::timed(&name, "", time, columns, style)
    }

    /// Returns what is shown below a running task: status, transfers, last lines of output.
    fn details(&self, now: SystemTime, columns: usize) -> Vec<Line> {
        let mut lines = Vec::new();
        if !self.status.is_empty() {
            let text = format!(" => => {}", self.status);
            lines.push(Line::new(fit(&text, columns), Style::Dim));
        }
        for (name, transfer) in self.transfers.iter().take(MAX_TRANSFERS) {
            let amount = amount(transfer.done, transfer.total);
            let name = format!(" => => {name}");
            let time = seconds(transfer.began, now);
            lines.push(Line::timed(&name, &amount, time, columns, Style::Normal));
        }
        let mut tail = self.tail.clone();
        for buffer in [&self.stdout, &self.stderr] {
            push_tail(&mut tail, buffer.rest());
        }
        for output in tail {
            let text = format!(" => => # {output}");
            lines.push(Line::new(fit(&text, columns), Style::Dim));
        }
        lines
    }
}

/// Adds what a line of output shows, if that is anything, to the last lines.
fn push_tail(tail: &mut VecDeque<String>, line: &[u8]) {
    let text = visible(last_overwrite(line));
    if text.trim().is_empty() {
        return;
    }
    if tail.len() == MAX_TAIL {
        tail.pop_front();
    }
    tail.push_back(text);
}

fn visible(text: &[u8]) -> String {
    expand_tabs(&clean(text))
}

/// Returns the name of a transfer with as much of a digest as people compare.
fn short_transfer_name(direction: Direction, id: &str) -> String {
    let id = visible(id.as_bytes());
    let short = match id.split_once(':') {
        Some(("sha256", hex)) if hex.is_ascii() && hex.len() > SHORT_DIGEST => {
            format!("sha256:{}", &hex[..SHORT_DIGEST])
        }
        _ => id,
    };
    transfer_name(direction, &short)
}

#[cfg(test)]
mod tests;
