//! A line of a frame: what fits into the terminal's width, and in which style.

use std::fmt::Write as _;

use crate::progress::text::{fit, width};

/// Columns that the name of a task has at least.
const MIN_NAME_WIDTH: usize = 14;

/// A line of a frame, as wide as the terminal or less.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) text: String,
    pub(crate) style: Style,
}

/// How a line looks where there are colours; nothing is told by colour alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Normal,
    Done,
    Failed,
    Canceled,
    Dim,
}

impl Line {
    pub(crate) fn new(text: String, style: Style) -> Self {
        Self { text, style }
    }

    /// Returns a line that ends at the right with `amount`, if there is one, and a time.
    ///
    /// The name gives way to these; in a very narrow terminal they give way to the name.
    pub(crate) fn timed(name: &str, amount: &str, time: f64, columns: usize, style: Style) -> Self {
        let space = if amount.is_empty() { "" } else { " " };
        let time = format!(" {time:.1}s");
        let end = format!("{space}{amount}{time}");
        let end = [end, time, String::new()]
            .into_iter()
            .find(|end| end.is_empty() || columns >= MIN_NAME_WIDTH + width(end))
            .unwrap_or_default();
        let n_left = columns.saturating_sub(width(&end));
        let mut text = fit(name, n_left);
        if !end.is_empty() {
            let n_spaces = n_left.saturating_sub(width(&text));
            text.extend(std::iter::repeat_n(' ', n_spaces));
        }
        text.push_str(&end);
        Self::new(text, style)
    }

    pub(crate) fn draw(&self, color: bool, out: &mut String) {
        let code = match self.style {
            Style::Normal => None,
            Style::Done => Some(34),
            Style::Failed => Some(31),
            Style::Canceled => Some(33),
            Style::Dim => Some(2),
        };
        match code.filter(|_| color) {
            Some(code) => {
                write!(out, "\x1b[{code}m{}\x1b[0m", self.text).expect("a string takes every text");
            }
            None => out.push_str(&self.text),
        }
    }
}
