//! Taking away what the store has: beside builds, down to a limit, and only what may go.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::support::{Build, Context, Kiln, Lab, command, output, run, text};

/// Builds beside which somebody prunes without a pause.
const N_ROUNDS: usize = 200;
/// Things that those builds make.
const N_VARIANTS: usize = 4;
/// Slack of sizes: what changes while it is counted.
const SLACK: u64 = 128 << 10;

const CACHE: &str = "--mount=type=cache,id=notes,target=/notes";

fn usage(kiln: &Kiln) -> Value {
    let outcome = kiln.run(["du", "--format=json"]).succeeded();
    serde_json::from_slice(&outcome.stdout).unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

/// Returns the sizes of items of a type, or of all.
fn sizes(usage: &Value, kind: Option<&str>) -> Vec<u64> {
    let items = usage["items"].as_array().unwrap().iter();
    let items = items.filter(|item| kind.is_none_or(|kind| item["type"] == kind));
    items.map(|item| number(&item["size"])).collect()
}

/// Builds, and returns the content of the one file that comes out.
fn result(kiln: &Kiln, build: Build<'_>) -> String {
    let files = kiln.out("files");
    build.arg("-o").arg(output("local", &files)).ok();
    fs::read_to_string(files.join("out")).unwrap()
}

/// A context whose result is its number. Every fourth needs the base image and runs a step.
fn variant(number: usize) -> Context {
    let made = match number % 4 {
        0 => "ARG BASE\nFROM $BASE AS made\nCOPY in /in\nRUN cp /in /copy\n",
        _ => "FROM scratch AS made\nCOPY in /in\nCOPY in /copy\n",
    };
    Context::new(&format!(
        "{made}FROM scratch\nCOPY --from=made /copy /out\n"
    ))
    .with("in", &format!("{number}\n"))
}

#[test]
fn builds_go_on_while_somebody_prunes() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let contexts: Vec<_> = (0..N_VARIANTS).map(variant).collect();
    let is_over = AtomicBool::new(false);
    let n_prunes = std::thread::scope(|scope| {
        let pruning = scope.spawn(|| {
            let mut n_prunes = 0;
            while !is_over.load(Ordering::Relaxed) {
                lab.kiln.run(["prune", "-f"]).succeeded();
                n_prunes += 1;
            }
            n_prunes
        });
        let building = scope.spawn(|| {
            for round in 0..N_ROUNDS {
                // Each one twice in a row: some of it is cached, if it was not taken away.
                let variant = round / 2 % N_VARIANTS;
                let made = result(&lab.kiln, lab.build(&contexts[variant]));
                assert_eq!(made, format!("{variant}\n"), "round {round}");
            }
        });
        let built = building.join();
        is_over.store(true, Ordering::Relaxed);
        built.unwrap();
        pruning.join().unwrap()
    });
    assert!(n_prunes > 10, "{n_prunes}");
    lab.kiln.run(["store", "verify"]).succeeded();
}

#[test]
fn limit_holds_and_the_result_is_right() {
    let Some(lab) = Lab::require() else {
        return;
    };
    const LIMIT: u64 = 1_000_000;
    let mut dockerfile = "ARG BASE\nFROM $BASE AS made\n".to_owned();
    for n in 0..4 {
        let step = "RUN dd if=/dev/zero of=/@ bs=1M count=2; echo @ >> /out\n";
        dockerfile += &step.replace('@', &n.to_string());
    }
    let large = Context::new(&(dockerfile + "FROM scratch\nCOPY --from=made /out /out\n"));
    let limited = |context| lab.build(context).arg("--max-cache=1MB");
    assert_eq!(result(&lab.kiln, limited(&large)), "0\n1\n2\n3\n");
    // A build keeps what it works on; when it is over, the next one takes it away.
    let small = Context::new("FROM scratch\nCOPY out /\n").with("out", "small\n");
    assert_eq!(result(&lab.kiln, limited(&small)), "small\n");
    let left: u64 = sizes(&usage(&lab.kiln), None).iter().sum();
    assert!(left <= LIMIT + SLACK, "{left}");
    assert_eq!(result(&lab.kiln, limited(&large)), "0\n1\n2\n3\n");
}

#[test]
fn what_steps_print_counts() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let loud = Context::new("ARG BASE\nFROM $BASE\nRUN yes | head -c 5000000; touch /done\n");
    lab.build(&loud).ok();
    let logs = || sizes(&usage(&lab.kiln), Some("internal"));
    assert!(logs().iter().sum::<u64>() >= 5_000_000, "{:?}", logs());
    let quiet = Context::new("ARG BASE\nFROM $BASE\nRUN echo quiet > /quiet\n");
    lab.build(&quiet).arg("--max-cache=4MB").ok();
    assert!(logs().iter().sum::<u64>() < 1_000_000, "{:?}", logs());
}

#[test]
fn usage_adds_up_to_what_is_on_disk() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new(&format!(
        "ARG BASE\nFROM $BASE\nRUN {CACHE} dd if=/dev/urandom of=/notes/x bs=1k count=300\n\
         RUN for n in $(seq 300); do echo $n > /$n; done; ln /1 /hard; dd of=/hole bs=1M seek=9 count=0\n"
    ));
    lab.build(&context).tag("app:1").ok();
    let usage = usage(&lab.kiln);
    let total = number(&usage["total"]);
    let items: u64 = sizes(&usage, None).iter().sum();
    assert_eq!(items + number(&usage["internal"]), total);
    let mut du = command("du");
    let du = run(du.args(["-s", "--block-size=1"]).arg(lab.kiln.root()));
    let on_disk: u64 = text(&du.stdout)
        .split('\t')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!(
        on_disk.abs_diff(total) <= SLACK,
        "{on_disk} on disk, told: {total}"
    );
}

/// A step that adds a line to a cache mount, and gives how many lines there are.
fn noting() -> Context {
    Context::new(&format!(
        "ARG BASE\nFROM $BASE AS made\nRUN {CACHE} echo x >> /notes/n; grep -c x /notes/n > /out\n\
         FROM scratch\nCOPY --from=made /out /out\n"
    ))
}

#[test]
fn no_cache_keeps_cache_mounts() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = noting();
    for expected in ["1\n", "2\n", "3\n"] {
        let build = lab.build(&context).arg("--no-cache");
        assert_eq!(result(&lab.kiln, build), expected);
    }
    assert_eq!(result(&lab.kiln, lab.build(&context)), "3\n");
}

#[test]
fn filters_say_what_goes() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = noting();
    result(&lab.kiln, lab.build(&context));
    let kinds = |kind| sizes(&usage(&lab.kiln), Some(kind)).len();
    let n_layers = kinds("regular");
    assert!(n_layers > 0 && kinds("exec.cachemount") == 1);
    for filter in ["until=1h", "type=frontend", "description~=no such step"] {
        let outcome = lab
            .kiln
            .run(["prune", "-f", "--filter", filter])
            .succeeded();
        assert_eq!(text(&outcome.stdout).lines().count(), 1, "{filter}");
        assert_eq!(kinds("exec.cachemount"), 1, "{filter}");
    }
    assert_eq!(kinds("regular"), n_layers);
    lab.kiln
        .run(["prune", "-f", "--filter=type=exec.cachemount"])
        .succeeded();
    assert_eq!((kinds("regular"), kinds("exec.cachemount")), (n_layers, 0));
    // The step is cached; its folder begins anew when it runs again.
    assert_eq!(result(&lab.kiln, lab.build(&context)), "1\n");
    assert_eq!(
        result(&lab.kiln, lab.build(&context).arg("--no-cache")),
        "1\n"
    );
    lab.kiln.run(["prune", "-f"]).succeeded();
    assert_eq!(sizes(&usage(&lab.kiln), None), [0_u64; 0]);
}

#[test]
fn images_that_were_built_here_stay() {
    let Some(mut lab) = Lab::require() else {
        return;
    };
    let context = Context::new("ARG BASE\nFROM $BASE\nRUN echo mine > /mine\nCMD [\"mine\"]\n");
    lab.build(&context).tag("app:1").ok();
    let before = lab.kiln.inspect("app:1");
    lab.kiln.run(["prune", "-f"]).succeeded();
    lab.registry.stop();
    assert_eq!(lab.kiln.inspect("app:1"), before);
    let upon = Context::new(
        "FROM app:1 AS made\nRUN cat /mine > /out; echo more >> /out\n\
         FROM scratch\nCOPY --from=made /out /out\n",
    );
    assert_eq!(result(&lab.kiln, lab.kiln.build(&upon)), "mine\nmore\n");
}
