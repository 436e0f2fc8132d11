//! What each `COPY --from` copies from, and that no stage waits for itself.

use std::collections::HashSet;

use crate::diagnostic::{Diagnostic, Span};
use crate::instruction::{Dockerfile, Instruction};
use crate::lines::Word;
use crate::options::Options;
use crate::plan::{Origin, PlannedStage, image};

pub(super) struct Finder<'a> {
    pub(super) file: &'a Dockerfile,
    pub(super) options: &'a Options,
}

impl Finder<'_> {
    /// Fills the sources of all stages; returns how many are no stages.
    pub(super) fn find_sources(
        &self,
        stages: &mut [PlannedStage],
    ) -> Result<usize, Vec<Diagnostic>> {
        let (mut n_images, mut errors) = (0, Vec::new());
        for (at, planned) in stages.iter_mut().enumerate() {
            if planned.is_replaced {
                continue;
            }
            for (step, word) in self.copy_words(at) {
                match self.origin(word) {
                    Ok(origin) => {
                        n_images += usize::from(!matches!(origin, Origin::Stage(_)));
                        planned.sources.insert(step, origin);
                    }
                    Err(error) => errors.push(error),
                }
            }
        }
        if errors.is_empty() {
            errors.extend(self.circle(stages));
        }
        if errors.is_empty() {
            return Ok(n_images);
        }
        Err(errors)
    }

    fn copy_words(&self, stage: usize) -> impl Iterator<Item = (usize, &Word)> {
        let steps = self.file.stages[stage].steps.iter().enumerate();
        steps.filter_map(|(at, step)| match &step.instruction {
            Instruction::Copy(files) => files.from.as_ref().map(|word| (at, word)),
            _ => None,
        })
    }

    fn origin(&self, word: &Word) -> Result<Origin, Diagnostic> {
        if let Ok(number) = word.text.parse::<i64>() {
            let stage = usize::try_from(number).ok();
            let stage = stage.filter(|&stage| stage < self.file.stages.len());
            return stage.map(Origin::Stage).ok_or_else(|| {
                let message = format!("invalid stage index `{number}`");
                Diagnostic::error(word.span, message).with_help("stages are counted from 0")
            });
        }
        let lower = word.text.to_lowercase();
        let mut stages = self.file.stages.iter().enumerate().rev();
        let stage = stages.find(|(_, stage)| stage.name.as_deref() == Some(&lower));
        Ok(match stage {
            Some((at, _)) => Origin::Stage(at),
            None => image(self.options, &word.text, &self.options.target_platform),
        })
    }

    fn circle(&self, stages: &[PlannedStage]) -> Option<Diagnostic> {
        let mut walk = Walk {
            stages,
            done: HashSet::new(),
            path: Vec::new(),
        };
        let circle = |at| walk.visit(at).map(|(stage, step)| (at, stage, step));
        let (first, stage, step) = (0..stages.len()).find_map(circle)?;
        let stages = &self.file.stages;
        let name = stages[first]
            .name
            .clone()
            .unwrap_or_else(|| format!("stage-{first}"));
        let message = format!("circular dependency detected on stage: `{name}`");
        let span = self.word_span(stage, step).unwrap_or(stages[stage].span);
        Some(Diagnostic::error(span, message))
    }

    fn word_span(&self, stage: usize, step: usize) -> Option<Span> {
        let mut words = self.copy_words(stage);
        words.find(|(at, _)| *at == step).map(|(_, word)| word.span)
    }
}

/// A depth-first walk over stages that copy from each other.
struct Walk<'a> {
    stages: &'a [PlannedStage],
    done: HashSet<usize>,
    /// Stages on the way here, each with the steps still to follow.
    path: Vec<(usize, Vec<(usize, usize)>)>,
}

impl Walk<'_> {
    /// Returns the stage and step that close a circle.
    fn visit(&mut self, from: usize) -> Option<(usize, usize)> {
        self.enter(from);
        while let Some((stage, edges)) = self.path.last_mut() {
            let stage = *stage;
            let Some((step, next)) = edges.pop() else {
                self.path.pop();
                continue;
            };
            if self.path.iter().any(|(on_path, _)| *on_path == next) {
                return Some((stage, step));
            }
            self.enter(next);
        }
        None
    }

    fn enter(&mut self, stage: usize) {
        if !self.done.insert(stage) {
            return;
        }
        let stage_of = |origin: &Origin| match origin {
            Origin::Stage(stage) => Some(*stage),
            _ => None,
        };
        let sources = self.stages[stage].sources.iter();
        let edges = sources.filter_map(|(&step, origin)| Some((step, stage_of(origin)?)));
        let mut edges: Vec<(usize, usize)> = edges.collect();
        edges.sort_unstable_by(|a, b| b.cmp(a));
        self.path.push((stage, edges));
    }
}
