//! `ONBUILD`: what images keep of it, and triggers as instructions of the stage they run in.
//!
//! Where it is written, BuildKit checks of a trigger only what it needs to find its end: arrays,
//! pairs, heredocs. Everything else is only wrong where the trigger runs, so it is a warning here.

use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Severity, Span};
use crate::instruction::{Instruction, Stage, Step, blame_trigger};
use crate::lines::{Lines, Logical, Word};
use crate::lint::Notes;
use crate::parse::flags::Flags;
use crate::parse::simple::{at_least_one, split_pairs};
use crate::parse::{
    Parser, Request, has_heredocs, healthcheck, instruction_name, json_form, parse_instruction,
    unknown_instruction,
};
use crate::words::{self, Head};

/// Returns true if the instruction behind `ONBUILD` can have heredocs.
pub(super) fn has_bodies(line: &Logical, head: &Head) -> bool {
    let line = line.tail(head.rest.start);
    let head = words::head(&line);
    instruction_name(&head.name).is_some_and(|name| {
        let is_exec = !matches!(json_form(&line, name, &head), Ok(None));
        has_heredocs(name) && !is_exec
    })
}

/// Checks the trigger as far as BuildKit does; returns a warning if it is wrong beyond that.
pub(super) fn warning(request: &Request<'_>) -> Result<Option<Diagnostic>, Diagnostic> {
    if request.rest().text.is_empty() {
        return Err(at_least_one(request));
    }
    Flags::read(request, &[])?;
    let line = request.line.tail(request.head.rest.start);
    let head = words::head(&line);
    let Some(name) = instruction_name(&head.name) else {
        return Ok(Some(as_warning(unknown_instruction(&head.name))));
    };
    let wrong = match name {
        "ONBUILD" => Some("chaining `ONBUILD` via `ONBUILD ONBUILD` isn't allowed".to_owned()),
        "MAINTAINER" | "FROM" => Some(format!("`{name}` isn't allowed as an `ONBUILD` trigger")),
        _ => None,
    };
    if let Some(message) = wrong {
        return Err(Diagnostic::error(head.name.span, message));
    }
    let inner = Request {
        json: json_form(&line, name, &head)?,
        line: &line,
        name,
        head,
        heredocs: request.heredocs.clone(),
        escape: request.escape,
        span: request.span,
    };
    match name {
        "ENV" | "LABEL" => drop(split_pairs(&inner)?),
        "HEALTHCHECK" => healthcheck::check_array(&inner)?,
        _ => {}
    }
    Ok(parse_instruction(&inner).err().map(as_warning))
}

fn as_warning(error: Diagnostic) -> Diagnostic {
    Diagnostic {
        severity: Severity::Warning,
        message: format!("this trigger fails where it runs: {}", error.message),
        ..error
    }
}

/// Returns the trigger as images keep it: everything behind the name, and the heredocs.
pub(super) fn text(request: &Request<'_>) -> String {
    let line = request.line.text.trim_start();
    let behind = &line[request.name.len().min(line.len())..];
    let mut text = behind.trim_start_matches(is_blank).to_owned();
    for heredoc in &request.heredocs {
        text.push('\n');
        text.push_str(&heredoc.body);
        text.push_str(&heredoc.announcement.name);
    }
    text
}

fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\u{c}' | '\r' | ' ')
}

/// Reads a trigger of `base`, for which `span` of the file is blamed.
///
/// Its escape character is the backslash, whatever the file says: an image does not keep that.
pub(crate) fn trigger(text: &str, span: Span, base: &Arc<str>) -> Result<Step, Vec<Diagnostic>> {
    let mut parser = Parser {
        lines: Lines::elsewhere(text, span),
        global_args: Vec::new(),
        stages: vec![nothing(span)],
        n_instructions: 0,
        notes: Notes::default(),
    };
    parser.read();
    let mut errors = parser.lines.diagnostics;
    errors.retain(|diagnostic| diagnostic.severity == Severity::Error);
    let mut steps = parser.stages.pop().map(|stage| stage.steps);
    let step = steps.as_mut().and_then(Vec::pop);
    let is_single = parser.n_instructions == 1 && parser.stages.is_empty();
    let wrong = match &step {
        _ if !errors.is_empty() => None,
        Some(_) if !is_single => Some("a trigger must be a single instruction"),
        None if !parser.stages.is_empty() => Some("`FROM` isn't allowed as an `ONBUILD` trigger"),
        None => Some("a trigger must be an instruction"),
        Some(step) if matches!(step.instruction, Instruction::Onbuild(_)) => {
            Some("chaining `ONBUILD` via `ONBUILD ONBUILD` isn't allowed")
        }
        Some(_) => None,
    };
    errors.extend(wrong.map(|message| Diagnostic::error(span, message)));
    let code = format!("ONBUILD {text}");
    match step {
        Some(step) if errors.is_empty() => Ok(Step {
            code: format!("ONBUILD {}", step.code),
            trigger_of: Some(Arc::clone(base)),
            ..step
        }),
        _ => Err(errors
            .into_iter()
            .map(|error| blame_trigger(&code, base, error))
            .collect()),
    }
}

/// The stage that a trigger is read into.
fn nothing(span: Span) -> Stage {
    let base = Word {
        text: String::new(),
        span,
    };
    Stage {
        base,
        platform: None,
        name: None,
        span,
        steps: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
