//! What each `COPY --from` and each mount of a `RUN` takes files from, and that no stage waits for
//! itself.

use std::collections::HashMap;

use crate::diagnostic::{Diagnostic, Span};
use crate::instruction::{Dockerfile, Instruction, Step};
use crate::lines::Word;
use crate::options::Options;
use crate::plan::{Origin, PlannedStage, SourceKey, image};

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
            for (key, word) in words(&self.file.stages[at].steps) {
                match self.origin(&self.file.stages[at].steps[key.0], word) {
                    Ok(origin) => {
                        n_images += usize::from(!matches!(origin, Origin::Stage(_)));
                        planned.sources.insert(key, origin);
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
        for ((step, number), word) in words(triggers) {
            match self.origin(&triggers[step], word) {
                Ok(origin) => drop(planned.sources.insert((first + step, number), origin)),
                Err(error) => errors.push(triggers[step].blame(error)),
            }
        }
        errors
    }

    fn origin(&self, step: &Step, word: &Word) -> Result<Origin, Diagnostic> {
        // Only copies count stages.
        if matches!(step.instruction, Instruction::Copy(_))
            && let Ok(number) = word.text.parse()
        {
            return self.numbered(word, number);
        }
        let lower = word.text.to_lowercase();
        Ok(match self.names.get(lower.as_str()) {
            Some(&at) => Origin::Stage(at),
            None => image(self.options, &word.text, &self.options.target_platform),
        })
    }

    fn numbered(&self, word: &Word, number: i64) -> Result<Origin, Diagnostic> {
        let stage = usize::try_from(number).ok();
        let stage = stage.filter(|&stage| stage < self.file.stages.len());
        stage.map(Origin::Stage).ok_or_else(|| {
            let message = format!("invalid stage index `{number}`");
            Diagnostic::error(word.span, message).with_help("stages are counted from 0")
        })
    }

    /// Returns an error if stages copy from each other in a circle.
    pub(super) fn circle(&self, stages: &[PlannedStage]) -> Option<Diagnostic> {
        let mut walk = Walk {
            stages,
            seen: vec![Seen::Never; stages.len()],
            path: Vec::new(),
        };
        let circle = |at| walk.visit(at).map(|(stage, key)| (at, stage, key));
        let (first, stage, key) = (0..stages.len()).find_map(circle)?;
        let stages = &self.file.stages;
        let name = stages[first]
            .name
            .clone()
            .unwrap_or_else(|| format!("stage-{first}"));
        let message = format!("circular dependency detected on stage: `{name}`");
        let span = self.word_span(stage, key).unwrap_or(stages[stage].span);
        let error = Diagnostic::error(span, message);
        let own = stages[stage].steps.len();
        let trigger = key.0.checked_sub(own);
        let trigger = trigger.and_then(|at| walk.stages[stage].triggers.get(at));
        Some(match trigger {
            Some(trigger) => trigger.blame(error),
            None => error,
        })
    }

    fn word_span(&self, stage: usize, key: SourceKey) -> Option<Span> {
        let mut words = words(&self.file.stages[stage].steps);
        words.find(|(at, _)| *at == key).map(|(_, word)| word.span)
    }
}

/// Returns what steps name behind `from`.
fn words(steps: &[Step]) -> impl Iterator<Item = (SourceKey, &Word)> {
    let steps = steps.iter().enumerate();
    steps.flat_map(|(at, step)| {
        let words: Vec<Option<&Word>> = match &step.instruction {
            Instruction::Copy(files) => vec![files.from.as_ref()],
            Instruction::Run(run) => run.mounts.iter().map(|m| m.from.as_ref()).collect(),
            _ => Vec::new(),
        };
        let words = words.into_iter().enumerate();
        words.filter_map(move |(number, word)| Some(((at, number), word?)))
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
    path: Vec<(usize, Vec<(SourceKey, usize)>)>,
}

impl Walk<'_> {
    /// Returns the stage and the place in it that close a circle.
    fn visit(&mut self, from: usize) -> Option<(usize, SourceKey)> {
        self.enter(from);
        while let Some((stage, edges)) = self.path.last_mut() {
            let stage = *stage;
            let Some((key, next)) = edges.pop() else {
                self.seen[stage] = Seen::Done;
                self.path.pop();
                continue;
            };
            if self.seen[next] == Seen::OnPath {
                return Some((stage, key));
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
        let edges = sources.filter_map(|(&key, origin)| Some((key, origin.stage()?)));
        let mut edges: Vec<(SourceKey, usize)> = edges.collect();
        edges.sort_unstable_by(|a, b| b.cmp(a));
        self.path.push((stage, edges));
    }
}
