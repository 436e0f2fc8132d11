//! What each step of a script can see, as far as it decides about the step: a model of keys that
//! is not made of kiln's own.

use std::hash::{DefaultHasher, Hash, Hasher as _};

use super::script::{ContextFile, Script};
use super::step::{MountOf, What, last_step};

impl Script {
    /// Returns the steps with a digest of everything that each can see.
    pub(super) fn steps(&self) -> Vec<(String, u64)> {
        let (mut steps, mut ends) = (Vec::new(), Vec::<(u64, Vec<String>)>::new());
        for stage in &self.stages {
            let (mut below, mut env) = match stage.parent {
                Some(parent) => ends[parent].clone(),
                None => (0, Vec::new()),
            };
            for step in &stage.steps {
                let text = step.text();
                match &step.what {
                    What::Env { .. } => env.push(text),
                    What::Arg { which } => env.push(format!("{text} {}", self.values[*which])),
                    what => {
                        let seen = self.seen_by(what, &ends);
                        // What is written later sees the working directory.
                        below = digest(&(&text, below, seen, &env));
                        if matches!(what, What::Workdir) {
                            env.push(text.clone());
                        }
                        steps.push((text, below));
                    }
                }
            }
            ends.push((below, env));
        }
        let mut below = 0;
        for (at, (end, _)) in ends.iter().enumerate() {
            below = digest(&(at, below, end));
            steps.push((last_step(at), below));
        }
        steps
    }

    /// Returns a digest of what a step sees besides what is below it.
    fn seen_by(&self, what: &What, ends: &[(u64, Vec<String>)]) -> u64 {
        match what {
            What::Copy { source, .. } => digest(&self.selected(source)),
            What::Run {
                mount: Some(MountOf::Context(dir)),
                ..
            } => digest(&self.selected(dir)),
            What::CopyFrom { stage, .. }
            | What::Run {
                mount: Some(MountOf::Stage { stage, .. }),
                ..
            } => ends[*stage].0,
            _ => 0,
        }
    }

    /// Returns the files of the context that a source selects.
    fn selected(&self, source: &str) -> Vec<(&String, &ContextFile)> {
        let is_selected = |path: &str| match source {
            "a/*.txt" => path.starts_with("a/") && path.ends_with(".txt"),
            "*/*.txt" => path.ends_with(".txt"),
            "b/*" => path.starts_with("b/"),
            _ => path == source || path.starts_with(&format!("{source}/")),
        };
        let files = self
            .files
            .iter()
            .filter(|(path, _)| !path.ends_with(".log"));
        files.filter(|(path, _)| is_selected(path)).collect()
    }
}

fn digest(seen: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    seen.hash(&mut hasher);
    hasher.finish()
}
