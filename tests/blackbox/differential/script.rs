//! A random build.
//!
//! Step `n` makes the folder `/o/n`, and reads only such folders, so any order of steps that does
//! not read what is not made yet is a build that succeeds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;

use super::step::{FLAGS, MountOf, PROGRAMS, Step, What, last_step};
use crate::support::{Context, Random};

pub(super) const DIRS: [&str; 4] = ["a", "a/sub", "b", "b/sub"];
pub(super) const CONTENTS: [&str; 5] = ["", "1\n", "2\n", "one\ntwo\n", "two\none\n"];
pub(super) const MODES: [u32; 4] = [0o644, 0o600, 0o755, 0o4755];

#[derive(Debug)]
pub(super) struct Script {
    pub(super) random: Random,
    pub(super) files: BTreeMap<String, ContextFile>,
    pub(super) stages: Vec<Stage>,
    /// The values of the build arguments.
    pub(super) values: [usize; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ContextFile {
    pub(super) content: usize,
    pub(super) mode: u32,
    pub(super) is_link: bool,
}

#[derive(Debug)]
pub(super) struct Stage {
    pub(super) parent: Option<usize>,
    pub(super) steps: Vec<Step>,
}

impl Script {
    pub(super) fn new(seed: u64) -> Self {
        let mut script = Self {
            random: Random::new(seed),
            files: BTreeMap::new(),
            stages: Vec::new(),
            values: [0, 0],
        };
        for path in [
            "a/1.txt", "a/2.txt", "a/no.log", "a/sub/3", "b/4.txt", "b/sub/5",
        ] {
            let file = script.random_file();
            script.files.insert(path.to_owned(), file);
        }
        for path in ["unused", "ignored/6", "b/sub/link"] {
            let file = ContextFile {
                content: 0,
                mode: 0o644,
                is_link: path.ends_with("link"),
            };
            script.files.insert(path.to_owned(), file);
        }
        let mut number = 0;
        for at in 0..2 + script.random.below(2) {
            let parent = (at > 0 && script.random.once_in(3)).then(|| script.random.below(at));
            script.stages.push(Stage {
                parent,
                steps: Vec::new(),
            });
            for _ in 0..2 + script.random.below(3) {
                number += 1;
                let what = script.random_step(at);
                script.stages[at].steps.push(Step { number, what });
            }
        }
        script
    }

    pub(super) fn random_file(&mut self) -> ContextFile {
        let content = self.random.below(CONTENTS.len());
        let mode = MODES[self.random.below(MODES.len())];
        ContextFile {
            content,
            mode,
            is_link: false,
        }
    }

    fn random_step(&mut self, stage: usize) -> What {
        let own = self.made_in(stage);
        if own.is_empty() {
            return self.random_copy();
        }
        match self.random.below(9) {
            0 | 1 => self.random_copy(),
            2 if stage > 0 => {
                let (stage, read) = self.random_output(stage);
                What::CopyFrom {
                    stage,
                    read,
                    link: self.random.once_in(3),
                }
            }
            3 if self.random.once_in(2) => What::Workdir,
            3 => What::Env {
                value: self.random.below(3),
            },
            4 if self.random.once_in(2) => What::Arg {
                which: self.random.below(2),
            },
            _ => {
                let mut reads = vec![own[self.random.below(own.len())]];
                reads.push(own[self.random.below(own.len())]);
                reads.dedup();
                let mount = match self.random.below(4) {
                    0 => Some(MountOf::Context(DIRS[self.random.below(DIRS.len())])),
                    1 if stage > 0 => {
                        let (stage, read) = self.random_output(stage);
                        Some(MountOf::Stage { stage, read })
                    }
                    _ => None,
                };
                What::Run {
                    program: self.random.below(PROGRAMS.len()),
                    reads,
                    mount,
                }
            }
        }
    }

    fn random_copy(&mut self) -> What {
        let sources = [
            "a", "b", "a/sub", "a/*.txt", "*/*.txt", "a/1.txt", "b/sub/5", "b/*",
        ];
        let source = (*self.random.pick(&sources.each_ref())).to_owned();
        What::Copy {
            source,
            flags: self.random.below(FLAGS.len()),
        }
    }

    /// Returns a stage before another one, and a folder that is made there.
    fn random_output(&mut self, before: usize) -> (usize, usize) {
        let stage = self.random.below(before);
        let made = self.made_in(stage);
        (stage, made[self.random.below(made.len())])
    }

    /// Returns the numbers of the folders that are in a stage.
    fn made_in(&self, stage: usize) -> Vec<usize> {
        let Stage { parent, steps } = &self.stages[stage];
        let mut made = parent
            .map(|parent| self.made_in(parent))
            .unwrap_or_default();
        made.extend(
            steps
                .iter()
                .filter(|step| step.makes_files())
                .map(|step| step.number),
        );
        made
    }

    pub(super) fn write_files(&self, context: &Context) {
        context.write(".dockerignore", "ignored\n**/*.log\n");
        for path in self.files.keys() {
            self.write(context, path);
        }
    }

    pub(super) fn write(&self, context: &Context, path: &str) {
        let file = self.files[path];
        if !file.is_link {
            context.write(path, CONTENTS[file.content]);
            return context.chmod(path, file.mode);
        }
        let link = context.join(path);
        if fs::symlink_metadata(&link).is_ok() {
            fs::remove_file(&link).unwrap();
        }
        symlink(format!("target{}", file.content), link).unwrap();
    }

    pub(super) fn build_args(&self) -> Vec<String> {
        let arg = |(at, value)| format!("--build-arg=V{at}={value}");
        self.values.iter().enumerate().map(arg).collect()
    }

    pub(super) fn dockerfile(&self) -> String {
        let (mut text, mut last) = ("ARG BASE\n".to_owned(), "FROM scratch\n".to_owned());
        for (at, stage) in self.stages.iter().enumerate() {
            let parent = stage
                .parent
                .map_or("$BASE".to_owned(), |parent| format!("s{parent}"));
            writeln!(text, "FROM {parent} AS s{at}").unwrap();
            for step in &stage.steps {
                writeln!(text, "{}", step.text()).unwrap();
            }
            writeln!(last, "{}", last_step(at)).unwrap();
        }
        text + &last
    }
}
