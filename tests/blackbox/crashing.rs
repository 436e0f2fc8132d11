//! Builds that are killed at any moment, with everything that they started.
//!
//! Not at chosen points as in `killed`, but after a random part of the time that such a build
//! takes. Afterwards nothing in the store is damaged, and the same build gives what it always
//! gives. `KILN_CRASHES` says how many builds are killed.

use std::time::Duration;

use crate::support::{Context, Kiln, Lab, Random, Tree, number_from_env, text};

const N_CRASHES: u64 = 60;
/// Builds that are killed before the store is looked at.
const N_IN_A_ROW: u64 = 10;
/// Moments of a build at which it may be killed.
const N_MOMENTS: usize = 1000;

const DOCKERFILE: &str = "ARG BASE
FROM $BASE AS made
COPY data /data
RUN mkdir /many; for n in $(seq 200); do echo $n > /many/$n; done; rm /data/0
RUN --mount=type=cache,id=notes,target=/notes cp -a /many /notes; ln /many/1 /many/hard
FROM scratch
COPY --from=made /many /many
COPY --from=made /data /data
";

/// How a build is started that will be killed: nothing is cached, or the base is not there
/// either, or what the builds before left is used.
const KINDS: [&[&str]; 3] = [&["--no-cache"], &["--no-cache", "--pull"], &[]];

fn context() -> Context {
    let context = Context::new(DOCKERFILE);
    for n in 0..50 {
        context.write(&format!("data/{n}"), format!("{n}\n").repeat(n * 20));
    }
    context
}

/// Returns the files that the build makes, and how long it takes when nothing is there.
fn undisturbed(lab: &Lab, context: &Context) -> (Tree, Duration) {
    let kiln = Kiln::new();
    let started = std::time::Instant::now();
    let (_, tree) = kiln.tree_of(kiln.build(context).base(&lab.busybox()));
    (tree, started.elapsed())
}

fn assert_recovers(lab: &Lab, context: &Context, expected: &Tree) {
    let outcome = lab.kiln.run(["store", "verify"]).succeeded();
    let told = text(&outcome.stdout);
    assert!(told.contains("nothing is damaged"), "{told}");
    assert_eq!(lab.tree(context).difference(expected), "");
}

#[test]
fn whatever_is_killed_leaves_a_store_that_is_whole() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = context();
    let (expected, usual) = undisturbed(&lab, &context);
    let (mut random, mut n_killed) = (Random::new(1), 0);
    let n_crashes = number_from_env("KILN_CRASHES").unwrap_or(N_CRASHES);
    for number in 1..=n_crashes {
        let kind = KINDS[random.below(KINDS.len())];
        if kind.contains(&"--pull") {
            lab.kiln.run(["prune", "-f"]).succeeded();
        }
        let archive = crate::support::output("oci", &lab.kiln.out("image.tar"));
        let moment = u32::try_from(random.below(N_MOMENTS)).unwrap();
        let build = lab.build(&context).args(kind).arg("-o").arg(archive);
        let running = build.start();
        // It is the moment that matters: there is nothing to wait for.
        std::thread::sleep(usual * moment / u32::try_from(N_MOMENTS).unwrap());
        n_killed += u64::from(!running.kill_group().status.success());
        if number % N_IN_A_ROW == 0 || number == n_crashes {
            assert_recovers(&lab, &context, &expected);
        }
    }
    assert!(
        n_killed > n_crashes / 4,
        "{n_killed} of {n_crashes} were killed in time"
    );
}
