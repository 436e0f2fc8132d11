//! What a build can be given: arguments with their values and descriptions, secrets, SSH agents.
//!
//! An argument is listed if the target or a stage that it needs declares it, or uses it in its
//! `FROM`; so is what the default of such an argument uses.

use std::collections::{HashMap, HashSet};

use kiln_graph::SourceLines;

use crate::diagnostic::Span;
use crate::env::Env;
use crate::expand::Rules;
use crate::instruction::{Arg, Dockerfile};
use crate::lint::used_variables;
use crate::options::Options;
use crate::plan::{Origin, Plan};

/// What a build can be given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline {
    /// The name of the target.
    pub name: Option<String>,
    /// What the comment above its `FROM` says.
    pub description: Option<String>,
    /// Arguments in the order of the file.
    pub args: Vec<OutlineArg>,
    /// `RUN --mount=type=secret`.
    pub secrets: Vec<OutlineMount>,
    /// `RUN --mount=type=ssh`.
    pub ssh: Vec<OutlineMount>,
}

/// An argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// Its value in this build, empty if it has none.
    pub value: String,
    /// What the comment above it says.
    pub description: Option<String>,
    /// The lines of its `ARG`.
    pub lines: SourceLines,
    /// Where it stands in the file.
    pub(crate) span: Span,
}

/// A secret or an SSH agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineMount {
    /// Its id.
    pub name: String,
    /// The build fails without it.
    pub required: bool,
    /// The lines of its `RUN`.
    pub lines: SourceLines,
}

/// What the stages were seen to use.
#[derive(Debug, Default)]
pub(crate) struct Capture {
    globals: HashMap<String, Global>,
    stages: HashMap<usize, StageUse>,
}

#[derive(Debug)]
struct Global {
    arg: OutlineArg,
    /// Names that its default uses.
    uses: Vec<String>,
}

#[derive(Debug, Default)]
struct StageUse {
    /// Own arguments by name; the last of a name counts.
    args: HashMap<String, OutlineArg>,
    used: Vec<String>,
    secrets: Vec<OutlineMount>,
    ssh: Vec<OutlineMount>,
}

impl Capture {
    /// Notes the arguments before the first stage, and what each `FROM` uses of them.
    pub(crate) fn new(file: &Dockerfile, options: &Options, globals: &Env) -> Self {
        let mut capture = Self::default();
        for arg in &file.global_args {
            let mut uses = match (&arg.value, options.build_arg(&arg.name)) {
                (Some(word), None) => {
                    used_variables(Rules::words(file.escape), &word.text, globals)
                }
                _ => Vec::new(),
            };
            uses.retain(|name| *name != arg.name);
            if let Some(old) = capture.globals.get(&arg.name) {
                uses.extend(old.uses.clone());
            }
            let value = globals.get(&arg.name).unwrap_or_default().to_owned();
            let arg = outline_arg(file, arg, value);
            let global = Global { arg, uses };
            capture.globals.insert(global.arg.name.clone(), global);
        }
        for (at, stage) in file.stages.iter().enumerate() {
            let words = std::iter::once(&stage.base).chain(&stage.platform);
            let used = words
                .flat_map(|word| used_variables(Rules::words(file.escape), &word.text, globals));
            capture.stages.entry(at).or_default().used.extend(used);
        }
        capture
    }

    /// Notes an `ARG` of a stage with its value; one that takes it from before the first stage
    /// is the argument of there.
    pub(crate) fn arg(
        &mut self,
        at: usize,
        file: &Dockerfile,
        arg: &Arg,
        value: Option<&str>,
        is_inherited: bool,
    ) {
        let stage = self.stages.entry(at).or_default();
        stage.used.push(arg.name.clone());
        if !is_inherited {
            let arg = outline_arg(file, arg, value.unwrap_or_default().to_owned());
            stage.args.insert(arg.name.clone(), arg);
        }
    }

    /// Notes a secret or an SSH agent; the last of a name counts.
    pub(crate) fn mount(&mut self, at: usize, mount: OutlineMount, is_secret: bool) {
        let stage = self.stages.entry(at).or_default();
        let mounts = match is_secret {
            true => &mut stage.secrets,
            false => &mut stage.ssh,
        };
        mounts.retain(|known| known.name != mount.name);
        mounts.push(mount);
    }

    /// Returns what the target can be given.
    pub(crate) fn finish(self, file: &Dockerfile, plan: &Plan) -> Outline {
        let target = &file.stages[plan.target];
        let mut outline = Outline {
            name: target.name.clone(),
            description: file.described(target.span, target.name.as_deref()),
            ..Outline::default()
        };
        let mut seen = HashSet::new();
        for at in stages_of(plan) {
            self.stage(at, &mut seen, &mut outline);
        }
        outline.args.sort_by_key(|arg| arg.span);
        outline.secrets.sort_by_key(|secret| secret.lines.first);
        outline.ssh.sort_by_key(|ssh| ssh.lines.first);
        outline
    }

    fn stage(&self, at: usize, seen: &mut HashSet<String>, outline: &mut Outline) {
        let Some(stage) = self.stages.get(&at) else {
            return;
        };
        let mut names = stage.used.clone();
        let mut known = HashSet::new();
        while let Some(name) = names.pop() {
            if !known.insert(name.clone()) {
                continue;
            }
            let global = self.globals.get(&name);
            names.extend(global.iter().flat_map(|global| global.uses.clone()));
            let own = stage.args.get(&name);
            let arg = own.or_else(|| global.map(|global| &global.arg));
            if let Some(arg) = arg
                && seen.insert(name)
            {
                outline.args.push(arg.clone());
            }
        }
        for (from, to) in [
            (&stage.secrets, &mut outline.secrets),
            (&stage.ssh, &mut outline.ssh),
        ] {
            for mount in from {
                if !to.iter().any(|known| known.name == mount.name) {
                    to.push(mount.clone());
                }
            }
        }
    }
}

fn outline_arg(file: &Dockerfile, arg: &Arg, value: String) -> OutlineArg {
    OutlineArg {
        name: arg.name.clone(),
        value,
        description: file.described(arg.span, Some(&arg.name)),
        lines: lines(file, arg.span),
        span: arg.span,
    }
}

fn lines(file: &Dockerfile, span: Span) -> SourceLines {
    let whole = file.notes.of(span.start).map_or(span, |note| note.span);
    file.lines.lines(whole)
}

/// Returns the target, what it stands on, and what it copies from, in this order.
fn stages_of(plan: &Plan) -> Vec<usize> {
    let (mut stages, mut pending) = (Vec::new(), vec![plan.target]);
    while let Some(at) = pending.pop() {
        if stages.contains(&at) {
            continue;
        }
        stages.push(at);
        if plan.stages[at].is_replaced {
            continue;
        }
        let mut steps: Vec<_> = plan.stages[at].sources.iter().collect();
        steps.sort_by_key(|(step, _)| std::cmp::Reverse(**step));
        let origins = steps.into_iter().map(|(_, origin)| origin);
        let origins = origins.chain(std::iter::once(&plan.stages[at].base));
        pending.extend(origins.filter_map(|origin| match origin {
            Origin::Stage(stage) => Some(*stage),
            _ => None,
        }));
    }
    stages
}
