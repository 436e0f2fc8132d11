//! kiln's own rules: what BuildKit does not say, and what most images gain from.
//!
//! They look at the stages that the image consists of: the target and the stages that it stands
//! on. What other stages leave behind never gets into the image. None of them is ever an error,
//! and none counts for the exit status of `--check`.

mod caches;
mod order;
mod quotes;
mod script;
mod secrets;

use crate::env::Env;
use crate::instruction::{Dockerfile, Instruction, Run, Step};
use crate::lint::Lint;
use crate::options::Options;
use crate::plan::{Origin, Plan};

/// Looks at all instructions; `env_of` returns the variables that a stage ends with.
pub(super) fn check(
    lint: &mut Lint,
    file: &Dockerfile,
    options: &Options,
    plan: &Plan,
    env_of: &dyn Fn(usize) -> Option<Env>,
) {
    let image = image_stages(plan);
    for (at, stage) in file.stages.iter().enumerate() {
        let planned = &plan.stages[at];
        if !plan.is_needed[at] || planned.is_replaced {
            continue;
        }
        for step in &stage.steps {
            quotes::check(lint, step);
        }
        order::check(lint, &stage.steps);
        if !image.contains(&at) {
            continue;
        }
        let env = env_of(at).unwrap_or_default();
        for run in runs(&stage.steps) {
            caches::check(lint, run, &env);
        }
        secrets::check(lint, file, options, &stage.steps, &env);
    }
}

/// Returns the target and the stages below it.
fn image_stages(plan: &Plan) -> Vec<usize> {
    let mut stages = vec![plan.target];
    let mut at = plan.target;
    while let Origin::Stage(parent) = plan.stages[at].base {
        if plan.stages[at].is_replaced || stages.contains(&parent) {
            break;
        }
        stages.push(parent);
        at = parent;
    }
    stages
}

fn runs(steps: &[Step]) -> impl Iterator<Item = (&Step, &Run)> {
    steps.iter().filter_map(|step| match &step.instruction {
        Instruction::Run(run) => Some((step, run)),
        _ => None,
    })
}
