//! What each `COPY --from` and each mount of a `RUN` takes files from, and that no stage waits for
//! itself.

use std::collections::HashSet;

use crate::diagnostic::{Diagnostic, Span};
use crate::instruction::{Dockerfile, Instruction};
use crate::lines::Word;
use crate::options::Options;
use crate::plan::{Origin, PlannedStage, SourceKey, image};

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
            for (key, word) in self.words(at) {
                match self.origin(at, key, word) {
                    Ok(origin) => {
                        n_images += usize::from(!matches!(origin, Origin::Stage(_)));
                        planned.sources.insert(key, origin);
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

    /// Returns what the steps of a stage name behind `from`.
    fn words(&self, stage: usize) -> impl Iterator<Item = (SourceKey, &Word)> {
        let steps = self.file.stages[stage].steps.iter().enumerate();
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

    fn origin(&self, stage: usize, key: SourceKey, word: &Word) -> Result<Origin, Diagnostic> {
        let step = &self.file.stages[stage].steps[key.0].instruction;
        // Only copies count stages.
        if matches!(step, Instruction::Copy(_))
            && let Ok(number) = word.text.parse()
        {
            return self.numbered(word, number);
        }
        let lower = word.text.to_lowercase();
        let mut stages = self.file.stages.iter().enumerate().rev();
        let stage = stages.find(|(_, stage)| stage.name.as_deref() == Some(&lower));
        Ok(match stage {
            Some((at, _)) => Origin::Stage(at),
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

    fn circle(&self, stages: &[PlannedStage]) -> Option<Diagnostic> {
        let mut walk = Walk {
            stages,
            done: HashSet::new(),
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
        Some(Diagnostic::error(span, message))
    }

    fn word_span(&self, stage: usize, key: SourceKey) -> Option<Span> {
        let mut words = self.words(stage);
        words.find(|(at, _)| *at == key).map(|(_, word)| word.span)
    }
}

/// A depth-first walk over stages that copy from each other.
struct Walk<'a> {
    stages: &'a [PlannedStage],
    done: HashSet<usize>,
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
                self.path.pop();
                continue;
            };
            if self.path.iter().any(|(on_path, _)| *on_path == next) {
                return Some((stage, key));
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
        let edges = sources.filter_map(|(&key, origin)| Some((key, stage_of(origin)?)));
        let mut edges: Vec<(SourceKey, usize)> = edges.collect();
        edges.sort_unstable_by(|a, b| b.cmp(a));
        self.path.push((stage, edges));
    }
}
