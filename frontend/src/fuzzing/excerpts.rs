//! A parsed file as text again, from excerpts of its own text, and whether that parses to the same.
//!
//! Instructions are taken out as they stand in the file, which shows that their spans are right, or
//! on one line, which shows that joining lines changes nothing. Trees are compared as their
//! `Debug` text without places, so that no field of any instruction is forgotten.
//!
//! `fixtures/print.rs` does the opposite: it has nothing but the tree, and writes every instruction
//! in words of its own, which shows that the tree holds all that the text meant.

use std::fmt::Write as _;

use crate::diagnostic::Span;
use crate::instruction::{Arg, Dockerfile, Instruction, Stage, Step};
use crate::parse;

/// Longest instruction that is printed on one line; longer lines are refused.
const MAX_LINE: usize = 60_000;

/// Asserts that both ways of printing `file` parse to the same tree.
pub(super) fn assert_is_stable(file: &Dockerfile, text: &str) {
    for joins in [false, true] {
        let printed = print(file, text, joins);
        let again = parse(&printed).unwrap_or_else(|errors| panic!("{printed}\n{errors:?}"));
        assert_eq!(tree(&again), tree(file), "printed as:\n{printed}");
    }
}

fn print(file: &Dockerfile, text: &str, joins: bool) -> String {
    let mut out = String::new();
    if file.escape != '\\' {
        writeln!(out, "# escape={}", file.escape).expect("a string takes all");
    }
    for argument in &file.global_args {
        out += &argument_line(argument);
    }
    for stage in &file.stages {
        out += &from_line(stage);
        for step in &stage.steps {
            out += &step_lines(step, text, joins, file.escape);
        }
    }
    out
}

fn argument_line(argument: &Arg) -> String {
    match &argument.value {
        Some(value) => format!("ARG {}={}\n", argument.name, value.text),
        None => format!("ARG {}\n", argument.name),
    }
}

fn from_line(stage: &Stage) -> String {
    let platform = stage.platform.as_ref().map(|word| {
        // Flags are unquoted while they are read, with the backslash whatever the directive says.
        let escaped: String = word.text.chars().flat_map(|c| ['\\', c]).collect();
        format!("--platform={escaped} ")
    });
    let name = stage.name.as_ref().map(|name| format!(" AS {name}"));
    let (platform, name) = (platform.unwrap_or_default(), name.unwrap_or_default());
    format!("FROM {platform}{}{name}\n", stage.base.text)
}

fn step_lines(step: &Step, text: &str, joins: bool, escape: char) -> String {
    let written = &text[step.span.range()];
    // A trigger is kept with the blanks at its end, the line of a step is not.
    let keeps_end =
        matches!(&step.instruction, Instruction::Onbuild(text) if text.trim_end() != text);
    let can_join = !written.contains("<<") && !keeps_end && step.code.len() < MAX_LINE;
    let line = if joins && can_join {
        &step.code
    } else {
        written
    };
    let before = line.trim_end_matches([' ', '\t']).strip_suffix(escape);
    if before.is_some_and(|before| !before.ends_with(escape)) {
        // Only the end of the file can have cut it off like that.
        return format!("{line} {escape}\n");
    }
    format!("{line}\n")
}

fn tree(file: &Dockerfile) -> String {
    let stages = format!("{:?} {:?}", file.global_args, file.stages);
    let mut out = String::new();
    for (at, part) in split_places(&stages).enumerate() {
        out += if at == 0 { part } else { without_number(part) };
    }
    out
}

/// Splits behind every name of a place.
fn split_places(debug: &str) -> impl Iterator<Item = &str> {
    debug.split("start: ").flat_map(|part| part.split("end: "))
}

fn without_number(text: &str) -> &str {
    text.trim_start_matches(|c: char| c.is_ascii_digit())
}

/// Returns the spans in a `Debug` text.
pub(super) fn spans(debug: &str) -> impl Iterator<Item = Span> {
    debug.split("Span { start: ").skip(1).filter_map(|part| {
        let (start, rest) = part.split_once(", end: ")?;
        let (end, _) = rest.split_once(" }")?;
        Some(Span::new(start.parse().ok()?, end.parse().ok()?))
    })
}
