//! Excerpts of a Dockerfile, and the end of a step's output, as `docker build` shows them.

use std::fmt::Write as _;

use kiln_graph::{SourceLines, redacted};

use crate::plan::Source;

/// Lines shown before and after the instruction.
const AROUND: usize = 2;

/// Lines of output that a failure repeats.
const TAIL_LINES: usize = 20;

/// Returns the lines of an instruction with their neighbours, marked with `>>>`.
pub(crate) fn of_source(source: &Source, lines: SourceLines) -> String {
    let mut out = format!("{}:{}\n{}\n", source.name, lines.first, "-".repeat(20));
    let first = lines.first.saturating_sub(AROUND).max(1);
    for (number, line) in (1..).zip(source.text.lines()) {
        if number < first || number > lines.last + AROUND {
            continue;
        }
        let is_marked = (lines.first..=lines.last).contains(&number);
        let mark = if is_marked { ">>>" } else { "   " };
        writeln!(out, "{number:4} | {mark} {}", shown(line)).expect("writing to a String");
    }
    out.push_str(&"-".repeat(20));
    out.push('\n');
    out
}

/// Returns the lines of a finding as buildx shows them: two lines around one line, one around
/// several, more on one side where the file ends on the other.
pub(crate) fn of_lines(name: &str, text: &[&str], lines: SourceLines) -> String {
    let (mut start, mut end) = (lines.first, lines.last);
    let wanted = if start == end { 4 } else { 2 };
    let mut shown = 0;
    while shown < wanted {
        if start > 1 {
            start -= 1;
            shown += 1;
        }
        if end < text.len() {
            end += 1;
            shown += 1;
        }
        shown += 1;
    }
    let rule = "-".repeat(20);
    let mut out = format!("{name}:{}\n{rule}\n", lines.first);
    for (number, line) in (1..).zip(text).take(end).skip(start - 1) {
        let is_marked = (lines.first..=lines.last).contains(&number);
        let mark = if is_marked { ">>>" } else { "   " };
        writeln!(out, " {number:3} | {mark} {}", tabbed(line)).expect("writing to a String");
    }
    out + &rule + "\n"
}

/// As [`printable`], without passwords of addresses.
fn shown(line: &str) -> String {
    printable(&redacted(line))
}

/// As [`shown`], but tabs stay.
fn tabbed(line: &str) -> String {
    let line = redacted(line);
    let parts: Vec<String> = line.split('\t').map(printable).collect();
    parts.join("\t")
}

/// Returns the last lines of a step's output, under the step's name.
pub(crate) fn of_log(name: &str, log: &[u8]) -> String {
    let text = String::from_utf8_lossy(log);
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(TAIL_LINES);
    let mut out = format!("------\n > {}:\n", printable(name));
    for line in &lines[from..] {
        writeln!(out, "{}", printable(line)).expect("writing to a String");
    }
    out.push_str("------\n");
    out
}

/// Control characters could redraw the screen: they are shown as `?`, tabs as blanks.
fn printable(line: &str) -> String {
    let plain = |c: char| match c {
        '\t' => ' ',
        c if c.is_control() => '?',
        c => c,
    };
    line.trim_end_matches('\r').chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instruction_is_marked() {
        let text = "FROM a\n\nRUN b \\\n  c\nRUN d\nRUN e\nRUN f\n".to_owned();
        let source = Source {
            name: "Dockerfile".to_owned(),
            text,
        };
        let excerpt = of_source(&source, SourceLines { first: 3, last: 4 });
        assert_eq!(
            excerpt,
            "Dockerfile:3\n--------------------\n   1 |     FROM a\n   2 |     \n   3 | >>> RUN b \\\n   \
             4 | >>>   c\n   5 |     RUN d\n   6 |     RUN e\n--------------------\n"
        );
    }

    #[test]
    fn passwords_of_addresses_are_not_shown() {
        let text = "FROM a\nADD\thttp://u:secret@h/f /f\n".to_owned();
        let lines = SourceLines { first: 2, last: 2 };
        let of_check = of_lines("f", &text.lines().collect::<Vec<_>>(), lines);
        let name = "Dockerfile".to_owned();
        let of_failure = of_source(&Source { name, text }, lines);
        assert!(of_check.contains("ADD\thttp://u:xxxxx@h/f"), "{of_check}");
        assert!(
            of_failure.contains("ADD http://u:xxxxx@h/f"),
            "{of_failure}"
        );
    }

    #[test]
    fn the_log_ends_with_its_last_lines() {
        let log: String = (0..50).map(|n| format!("line {n}\x1b[2J\n")).collect();
        let excerpt = of_log("RUN x", log.as_bytes());
        assert!(
            excerpt.starts_with("------\n > RUN x:\nline 30?[2J\n"),
            "{excerpt}"
        );
        assert!(excerpt.ends_with("line 49?[2J\n------\n"), "{excerpt}");
    }
}
