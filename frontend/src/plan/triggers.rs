//! `ONBUILD` triggers: which a stage inherits, and what they make a build need.
//!
//! A trigger can copy from a stage, an image or a context that nothing else names, so which
//! stages count, and which images must be known, shows only after the triggers of the bases are
//! read. Triggers of a base that is an image wait until that image is known.
//!
//! Triggers of images that are only copied from never run, so they are not read.

use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Span};
use crate::instruction::{Instruction, Step};
use crate::options::Images;
use crate::parse::trigger;
use crate::plan::sources::Finder;
use crate::plan::{Origin, PlannedStage};

/// Triggers that a build may have; one base with many of them can stand under many stages.
const MAX_TRIGGERS: usize = 100_000;

/// Reads the triggers of all stages that count, and returns which these are.
pub(super) fn read_triggers(
    finder: &Finder<'_>,
    stages: &mut [PlannedStage],
    target: usize,
    images: &Images,
) -> Result<Vec<bool>, Vec<Diagnostic>> {
    let (mut needed, mut pending) = (vec![false; stages.len()], vec![target]);
    let (mut n_triggers, mut errors) = (0, Vec::new());
    while let Some(at) = pending.pop() {
        if std::mem::replace(&mut needed[at], true) {
            continue;
        }
        let span = finder.file.stages[at].span;
        let planned = &mut stages[at];
        if !planned.is_replaced {
            let texts = texts(finder, planned, images);
            n_triggers += texts.len();
            if n_triggers > MAX_TRIGGERS {
                return Err(vec![too_many(span)]);
            }
            let base: Arc<str> = Arc::from(planned.base_name.as_str());
            match read(&texts, span, &base) {
                Ok(triggers) => {
                    errors.extend(finder.find_trigger_sources(at, planned, &triggers));
                    planned.triggers = triggers;
                }
                Err(wrong) => errors.extend(wrong),
            }
        }
        let planned = &stages[at];
        let origins = std::iter::once(&planned.base).chain(planned.sources.values());
        pending.extend(origins.filter_map(Origin::stage));
    }
    if errors.is_empty() {
        return Ok(needed);
    }
    errors.sort_by_key(|error| error.span);
    Err(errors)
}

/// Returns the triggers that a stage inherits, as text.
fn texts(finder: &Finder<'_>, planned: &PlannedStage, images: &Images) -> Vec<String> {
    match &planned.base {
        Origin::Image(key) => {
            let image = images.get(key);
            image.map_or_else(Vec::new, |image| image.config.config.on_build.clone())
        }
        Origin::Stage(base) => {
            let steps = finder.file.stages[*base].steps.iter();
            let texts = steps.filter_map(|step| match &step.instruction {
                Instruction::Onbuild(text) => Some(text.clone()),
                _ => None,
            });
            texts.collect()
        }
        Origin::Scratch | Origin::Local(_) => Vec::new(),
    }
}

fn read(texts: &[String], span: Span, base: &Arc<str>) -> Result<Vec<Step>, Vec<Diagnostic>> {
    let (mut triggers, mut errors) = (Vec::new(), Vec::new());
    for text in texts {
        match trigger(text, span, base) {
            Ok(step) => triggers.push(step),
            Err(wrong) => errors.extend(wrong),
        }
    }
    if errors.is_empty() {
        return Ok(triggers);
    }
    Err(errors)
}

fn too_many(span: Span) -> Diagnostic {
    let message = format!("the bases have more than {MAX_TRIGGERS} `ONBUILD` triggers");
    Diagnostic::error(span, message)
}
