//! A build with a warm cache gives what a build without any gives, whatever was edited before it.
//!
//! Random Dockerfiles, edited at random: see `script`. After each edit the same is built with the
//! store of the builds before, and with nothing from the cache in another store, unless that was
//! done already. The files must be equal, and a step whose inputs were all there in an earlier
//! build must not have run again.
//!
//! `KILN_DIFFERENTIAL_SCRIPTS` says how many scripts there are, `KILN_DIFFERENTIAL_SEED` which is
//! the first.

mod edits;
mod model;
mod script;
mod step;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use self::script::Script;
use crate::support::{Build, Context, Kiln, Lab, Outcome, Tree, number_from_env};

const N_SCRIPTS: u64 = 300;
const N_THREADS: usize = 2;
const N_EDITS: usize = 3;

/// The stores of a thread, and what was built there.
struct Stores<'a> {
    lab: &'a Lab,
    warm: Kiln,
    cold: Kiln,
    /// The inputs of steps that the warm store has.
    seen: HashSet<u64>,
    /// What cold builds gave, by the inputs of the last step.
    trees: HashMap<u64, Tree>,
    n_ran: usize,
    n_cached: usize,
}

/// Tells how a script that failed is repeated.
struct Story {
    seed: u64,
    told: String,
}

#[test]
fn a_warm_build_equals_a_cold_one() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let seed = number_from_env("KILN_DIFFERENTIAL_SEED");
    let n_scripts = number_from_env("KILN_DIFFERENTIAL_SCRIPTS");
    let n_scripts = n_scripts.unwrap_or(if seed.is_some() { 1 } else { N_SCRIPTS });
    let (first, next) = (seed.unwrap_or(0), AtomicU64::new(0));
    let (lab, next) = (&lab, &next);
    std::thread::scope(|scope| {
        for _ in 0..N_THREADS {
            scope.spawn(move || {
                let mut stores = Stores::new(lab);
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= n_scripts {
                        break stores.assert_both_happened(n_scripts);
                    }
                    stores.try_script(first + number);
                }
            });
        }
    });
}

impl<'a> Stores<'a> {
    fn new(lab: &'a Lab) -> Self {
        Self {
            lab,
            warm: Kiln::new(),
            cold: Kiln::new(),
            seen: HashSet::new(),
            trees: HashMap::new(),
            n_ran: 0,
            n_cached: 0,
        }
    }

    fn try_script(&mut self, seed: u64) {
        let mut script = Script::new(seed);
        let context = Context::new(&script.dockerfile());
        script.write_files(&context);
        let dockerfile = script.dockerfile();
        let told = format!("{dockerfile}\nfirst build");
        let mut story = Story { seed, told };
        self.build_warm(&script, &context);
        for _ in 0..N_EDITS {
            let edit = script.edit(&context);
            context.write("Dockerfile", script.dockerfile());
            story.told = [story.told.clone(), edit, script.dockerfile()].join("\n");
            let warm = self.build_warm(&script, &context);
            let cold = self.build_cold(&script, &context);
            assert_eq!(warm.difference(cold), "", "warm against cold");
            assert_eq!(cold.difference(&warm), "", "cold against warm");
        }
    }

    /// Builds with what the builds before left, and returns the files.
    fn build_warm(&mut self, script: &Script, context: &Context) -> Tree {
        let (outcome, tree) = self.warm.tree_of(self.build(&self.warm, script, context));
        self.assert_only_what_must(script, &outcome);
        tree
    }

    /// Builds without a cache, once for the same inputs, and returns the files.
    fn build_cold(&mut self, script: &Script, context: &Context) -> &Tree {
        let (_, inputs) = script.steps().pop().unwrap();
        if !self.trees.contains_key(&inputs) {
            let build = self.build(&self.cold, script, context).arg("--no-cache");
            let (_, tree) = self.cold.tree_of(build);
            self.trees.insert(inputs, tree);
        }
        &self.trees[&inputs]
    }

    /// Asserts that no step ran whose inputs are those of an earlier one.
    fn assert_only_what_must(&mut self, script: &Script, outcome: &Outcome) {
        let (ran, steps) = (outcome.names_of_ran(), script.steps());
        for name in &ran {
            let inputs = steps.iter().find(|(step, _)| step == name);
            let (_, inputs) = inputs.unwrap_or_else(|| panic!("no step {name} in {steps:?}"));
            assert!(
                !self.seen.contains(inputs),
                "nothing it sees changed, and it ran: {name}\n{}",
                outcome.stderr
            );
        }
        self.n_ran += ran.len();
        self.n_cached += steps.len() - ran.len();
        self.seen.extend(steps.iter().map(|(_, inputs)| inputs));
    }

    fn build<'b>(&self, kiln: &Kiln, script: &Script, context: &'b Context) -> Build<'b> {
        let build = kiln.build(context).base(&self.lab.busybox());
        build.args(script.build_args())
    }

    /// Asserts that the comparison was one: steps ran, and were cached.
    fn assert_both_happened(&self, n_scripts: u64) {
        let is_enough = n_scripts < 10 || self.n_ran > 20 && self.n_cached > 20;
        assert!(is_enough, "{} ran, {} cached", self.n_ran, self.n_cached);
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!(
                "KILN_DIFFERENTIAL_SEED={} repeats this:\n{}",
                self.seed, self.told
            );
        }
    }
}
