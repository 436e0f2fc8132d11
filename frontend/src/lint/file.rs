//! Rules about the text: casing, names of stages, comments that describe.

use std::collections::HashSet;

use crate::instruction::{Dockerfile, Stage};
use crate::lint::rules::{
    CONSISTENT_INSTRUCTION_CASING, DUPLICATE_STAGE_NAME, FROM_AS_CASING,
    INVALID_DEFINITION_DESCRIPTION, MAINTAINER_DEPRECATED, RESERVED_STAGE_NAME, STAGE_NAME_CASING,
};
use crate::lint::{Lint, Note, Phase};

/// Names that mean something else than a stage.
const RESERVED: [&str; 2] = ["context", "scratch"];

/// Looks at each instruction by itself.
pub(super) fn instructions(lint: &mut Lint, file: &Dockerfile) {
    for note in file.notes.iter() {
        match note.name().to_ascii_uppercase().as_str() {
            "FROM" => from_line(lint, note),
            "MAINTAINER" => {
                let message = "Maintainer instruction is deprecated in favor of using label";
                lint.warn(Phase::File, &MAINTAINER_DEPRECATED, note.span, message);
            }
            "ARG" => definition(lint, "ARG", &arguments(file, note), note),
            _ => {}
        }
    }
}

/// Looks at the instructions together.
pub(super) fn whole(lint: &mut Lint, file: &Dockerfile) {
    stage_names(lint, &file.stages);
    casing(lint, file);
}

fn from_line(lint: &mut Lint, note: &Note) {
    let words: Vec<&str> = note.typed.split_whitespace().collect();
    let words: Vec<&str> = words
        .into_iter()
        .filter(|word| !word.starts_with("--"))
        .collect();
    let [from, _, keyword, name] = words[..] else {
        return;
    };
    if name != name.to_lowercase() {
        let message = format!("Stage name '{name}' should be lowercase");
        lint.warn(Phase::File, &STAGE_NAME_CASING, note.span, message);
    }
    let differs = match casing_of(from) {
        Some(Casing::Lower) => keyword != keyword.to_lowercase(),
        Some(Casing::Upper) => keyword != keyword.to_uppercase(),
        None => false,
    };
    if differs {
        let message = format!("'{keyword}' and '{from}' keywords' casing do not match");
        lint.warn(Phase::File, &FROM_AS_CASING, note.span, message);
    }
    definition(lint, "FROM", &[name.to_lowercase()], note);
}

/// The last comment above a definition should describe what is defined.
fn definition(lint: &mut Lint, instruction: &str, names: &[String], note: &Note) {
    let (Some(comment), Some(first)) = (note.comments.last(), names.first()) else {
        return;
    };
    let subject = comment.split(' ').next().unwrap_or_default();
    if names.iter().any(|name| name == subject) {
        return;
    }
    let name = if names.len() > 1 { "<arg_key>" } else { first };
    let message =
        format!("Comment for {instruction} should follow the format: `# {name} <description>`");
    lint.warn(
        Phase::File,
        &INVALID_DEFINITION_DESCRIPTION,
        note.span,
        message,
    );
}

/// Returns the names that an `ARG` declares.
fn arguments(file: &Dockerfile, note: &Note) -> Vec<String> {
    let inside = |at: usize| note.span.start <= at && at < note.span.end;
    let args = file.all_args().filter(|arg| inside(arg.span.start));
    args.map(|arg| arg.name.clone()).collect()
}

fn stage_names(lint: &mut Lint, stages: &[Stage]) {
    let mut seen = HashSet::new();
    for stage in stages {
        let Some(name) = &stage.name else {
            continue;
        };
        if RESERVED.contains(&name.as_str()) {
            let message =
                format!("Stage name should not use the same name as reserved stage \"{name}\"");
            lint.warn(Phase::File, &RESERVED_STAGE_NAME, stage.span, message);
        }
        if !seen.insert(name) {
            let message = format!("Duplicate stage name \"{name}\", stage names should be unique");
            lint.warn(Phase::File, &DUPLICATE_STAGE_NAME, stage.span, message);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Casing {
    Lower,
    Upper,
}

/// Returns the casing of a word that has one.
fn casing_of(word: &str) -> Option<Casing> {
    if word == word.to_lowercase() {
        Some(Casing::Lower)
    } else if word == word.to_uppercase() {
        Some(Casing::Upper)
    } else {
        None
    }
}

/// The casing of most instructions should be that of all; arguments before the first stage do
/// not count.
fn casing(lint: &mut Lint, file: &Dockerfile) {
    let Some(first) = file.stages.first() else {
        return;
    };
    let notes: Vec<&Note> = file
        .notes
        .iter()
        .filter(|note| note.span.start >= first.span.start)
        .collect();
    let count = |casing| {
        let same = notes.iter().filter(|note| casing_of(note.name()) == casing);
        same.count()
    };
    let (wanted, word) = match count(Some(Casing::Lower)) > count(Some(Casing::Upper)) {
        true => (Casing::Lower, "lowercase"),
        false => (Casing::Upper, "uppercase"),
    };
    for note in notes {
        let name = note.name();
        if casing_of(name) != Some(wanted) {
            let message =
                format!("Command '{name}' should match the case of the command majority ({word})");
            lint.warn(
                Phase::File,
                &CONSISTENT_INSTRUCTION_CASING,
                note.span,
                message,
            );
        }
    }
}
