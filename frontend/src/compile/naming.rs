//! Names of steps as progress output shows them: `[build 2/5] RUN make`.

use kiln_graph::{Platform, redacted};

use crate::env::Env;
use crate::expand::{Quotes, Rules};
use crate::instruction::{Dockerfile, Instruction};
use crate::options::Options;
use crate::plan::{Origin, Plan};

/// Counts and names the steps of one stage.
#[derive(Debug)]
pub(super) struct Naming {
    /// Name of the stage, or its number.
    pub(super) stage: String,
    shown: String,
    /// The stage's platform, if steps say theirs.
    platform: Option<Platform>,
    escape: char,
    index: usize,
    total: usize,
}

impl Naming {
    pub(super) fn new(file: &Dockerfile, options: &Options, plan: &Plan, at: usize) -> Self {
        let (stage, planned) = (&file.stages[at], &plan.stages[at]);
        let shown = match &stage.name {
            _ if plan.is_single => String::new(),
            Some(name) => format!("{name} "),
            None => format!("stage-{at} "),
        };
        let is_shown = |instruction: &Instruction| {
            matches!(
                instruction,
                Instruction::Copy(_) | Instruction::Run(_) | Instruction::Workdir(_)
            )
        };
        let steps = stage
            .steps
            .iter()
            .filter(|step| is_shown(&step.instruction));
        // A folder counts, though it has no number of its own.
        let has_from = matches!(planned.base, Origin::Image(_) | Origin::Local(_));
        let total = match planned.is_replaced {
            true => 0,
            // As in BuildKit, all triggers are counted, though not all are shown.
            false => usize::from(has_from) + planned.triggers.len() + steps.count(),
        };
        Self {
            stage: stage.name.clone().unwrap_or_else(|| at.to_string()),
            shown,
            platform: options.several_platforms.then(|| planned.platform.clone()),
            escape: file.escape,
            index: 0,
            total,
        }
    }

    /// Returns the name of an instruction whose words are expanded, and counts it. Passwords of
    /// addresses are left out: names are shown, and kept.
    pub(super) fn of_words(&mut self, code: &str, env: &Env) -> String {
        let text = redacted(&expanded(Rules::words(self.escape), code, env));
        self.next(&upper_case_name(&text), env)
    }

    /// Returns the name of a command, which keeps its quotes, and counts it.
    pub(super) fn of_command(&mut self, code: &str, env: &Env) -> String {
        let rules = Rules {
            quotes: Quotes::Keep,
            keep_unset: true,
            ..Rules::words(self.escape)
        };
        let text = expanded(rules, code, env);
        self.next(&upper_case_name(&text), env)
    }

    /// Returns `text` behind the stage and the number of the step, and counts it.
    pub(super) fn next(&mut self, text: &str, env: &Env) -> String {
        if self.total == 0 {
            return text.to_owned();
        }
        self.index += 1;
        let platform = match &self.platform {
            Some(platform) => format!("{platform}{} ", cross_target(platform, env)),
            None => String::new(),
        };
        let width = self.total.ilog10() as usize + 1;
        let Self {
            shown,
            index,
            total,
            ..
        } = self;
        format!("[{platform}{shown}{index:width$}/{total}] {text}")
    }
}

fn expanded(rules: Rules, code: &str, env: &Env) -> String {
    let lookup = |name: &str| env.get(name).map(str::to_owned);
    rules
        .expand(code, &lookup)
        .unwrap_or_else(|_| code.to_owned())
}

fn upper_case_name(text: &str) -> String {
    match text.split_once(' ') {
        Some((name, rest)) => format!("{} {rest}", name.to_uppercase()),
        None => text.to_uppercase(),
    }
}

/// Returns `->arm64` for a step that runs on one architecture and builds for another.
fn cross_target(platform: &Platform, env: &Env) -> String {
    let target = match env.get("TARGETPLATFORM").and_then(|text| text.parse().ok()) {
        Some(target) => target,
        None => {
            let part = |name: &str, other: &str| env.get(name).unwrap_or(other).to_owned();
            let architecture = part("TARGETARCH", &platform.architecture);
            let os = part("TARGETOS", &platform.os);
            Platform::normal(&os, &architecture, env.get("TARGETVARIANT"))
        }
    };
    if target.os != platform.os {
        return format!("->{target}");
    }
    if target.architecture == platform.architecture {
        return String::new();
    }
    match &target.variant {
        Some(variant) => format!("->{}/{variant}", target.architecture),
        None => format!("->{}", target.architecture),
    }
}

/// Returns the first line of a heredoc, for the name of its step.
pub(super) fn summary(body: &str) -> String {
    let mut lines = body.trim().lines();
    let first = lines.next().unwrap_or_default().to_owned();
    match lines.next() {
        Some(_) => first + "...",
        None => first,
    }
}
