//! What each `COPY --from` copies from, and that no stage waits for itself.

use std::collections::HashMap;

use crate::diagnostic::{Diagnostic, Span};
use crate::instruction::{Dockerfile, Instruction, Step};
use crate::lines::Word;
use crate::options::Options;
use crate::plan::{Origin, PlannedStage, image};

pub(super) struct Finder<'a> {
    pub(super) file: &'a Dockerfile,
    pub(super) options: &'a Options,
    /// Stages by name; of several the last counts.
    names: HashMap<&'a str, usize>,
}

impl<'a> Finder<'a> {
    pub(super) fn new(file: &'a Dockerfile, options: &'a Options) -> Self {
        let stages = file.stages.iter().enumerate();
        let names = stages.filter_map(|(at, stage)| Some((stage.name.as_deref()?, at)));
        Self {
            file,
            options,
            names: names.collect(),
        }
    }

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
            for (step, word) in copy_words(&self.file.stages[at].steps) {
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
            return Ok(n_images);
        }
        Err(errors)
    }

    /// Adds the sources of triggers, which are numbered behind the stage's own steps.
    pub(super) fn find_trigger_sources(
        &self,
        at: usize,
        planned: &mut PlannedStage,
        triggers: &[Step],
    ) -> Vec<Diagnostic> {
        let (first, mut errors) = (self.file.stages[at].steps.len(), Vec::new());
        for (step, word) in copy_words(triggers) {
            match self.origin(word) {
                Ok(origin) => drop(planned.sources.insert(first + step, origin)),
                Err(error) => errors.push(triggers[step].blame(error)),
            }
        }
        errors
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
        Ok(match self.names.get(lower.as_str()) {
            Some(&at) => Origin::Stage(at),
            None => image(self.options, &word.text, &self.options.target_platform),
        })
    }

    /// Returns an error if stages copy from each other in a circle.
    pub(super) fn circle(&self, stages: &[PlannedStage]) -> Option<Diagnostic> {
        let mut walk = Walk {
            stages,
            seen: vec![Seen::Never; stages.len()],
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
        let error = Diagnostic::error(span, message);
        let own = stages[stage].steps.len();
        let trigger = step.checked_sub(own);
        let trigger = trigger.and_then(|at| walk.stages[stage].triggers.get(at));
        Some(match trigger {
            Some(trigger) => trigger.blame(error),
            None => error,
        })
    }

    fn word_span(&self, stage: usize, step: usize) -> Option<Span> {
        let mut words = copy_words(&self.file.stages[stage].steps);
        words.find(|(at, _)| *at == step).map(|(_, word)| word.span)
    }
}

fn copy_words(steps: &[Step]) -> impl Iterator<Item = (usize, &Word)> {
    let steps = steps.iter().enumerate();
    steps.filter_map(|(at, step)| match &step.instruction {
        Instruction::Copy(files) => files.from.as_ref().map(|word| (at, word)),
        _ => None,
    })
}

/// How far the walk is with a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Never,
    OnPath,
    Done,
}

/// A depth-first walk over stages that copy from each other.
struct Walk<'a> {
    stages: &'a [PlannedStage],
    seen: Vec<Seen>,
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
                self.seen[stage] = Seen::Done;
                self.path.pop();
                continue;
            };
            if self.seen[next] == Seen::OnPath {
                return Some((stage, step));
            }
            self.enter(next);
        }
        None
    }

    fn enter(&mut self, stage: usize) {
        if self.seen[stage] != Seen::Never {
            return;
        }
        self.seen[stage] = Seen::OnPath;
        let sources = self.stages[stage].sources.iter();
        let edges = sources.filter_map(|(&step, origin)| Some((step, origin.stage()?)));
        let mut edges: Vec<(usize, usize)> = edges.collect();
        edges.sort_unstable_by(|a, b| b.cmp(a));
        self.path.push((stage, edges));
    }
}
