//! Many builds on one store: what they have in common is made once, and nothing else waits.
//!
//! A step waits at a gate until the test opens it, so that nobody can be late.

use std::net::{Ipv4Addr, TcpListener};

use crate::support::{Build, Context, Lab, output};

const N_BUILDS: usize = 20;
const WAITING: &str = "waiting for another build that makes the same, process ";
/// What a step writes when it stands at the gate.
const AT_GATE: &str = "at-the-gate";
const COUNTER: &str = "--mount=type=cache,id=counter,sharing=shared,target=/counter";

/// Steps that reach it wait until it is dropped.
struct Gate(TcpListener);

impl Gate {
    fn new() -> Self {
        Self(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
    }

    /// Returns a shell command that waits. Its text does not have what it writes.
    fn wait(&self) -> String {
        let port = self.0.local_addr().unwrap().port();
        format!("echo at-the\"-\"gate; nc 127.0.0.1 {port} < /dev/null > /dev/null || true")
    }
}

/// Returns a lab that has the base image, so that nobody waits for it.
fn lab() -> Option<Lab> {
    let lab = Lab::require()?;
    lab.build(&Context::new("ARG BASE\nFROM $BASE\nRUN true\n"))
        .ok();
    Some(lab)
}

fn build<'a>(lab: &Lab, context: &'a Context, number: usize) -> Build<'a> {
    let id = lab.kiln.out(&format!("id{number}"));
    let build = lab.build(context).env("SOURCE_DATE_EPOCH", "1");
    build.args(["--network=host", "--iidfile"]).arg(id)
}

/// Returns how many times each step of `counting` ran.
fn counted(lab: &Lab) -> [usize; 2] {
    let files = lab.kiln.out("counted");
    let read = format!(
        "ARG BASE\nFROM $BASE AS read\nRUN {COUNTER} mkdir /n; cp /counter/* /n\n\
         FROM scratch\nCOPY --from=read /n /\n"
    );
    let context = Context::new(&read);
    let build = lab.build(&context).arg("-o").arg(output("local", &files));
    build.ok();
    let lines = |name| {
        std::fs::read_to_string(files.join(name))
            .unwrap()
            .lines()
            .count()
    };
    ["first", "second"].map(lines)
}

/// Two steps that count how often they run; the first waits at the gate.
fn counting(gate: &Gate) -> Context {
    let wait = gate.wait();
    Context::new(&format!(
        "ARG BASE\nFROM $BASE\n\
         RUN {COUNTER} echo ran >> /counter/first; {wait}; echo first > /first\n\
         RUN {COUNTER} echo ran >> /counter/second; echo second > /second\n"
    ))
}

fn ids(lab: &Lab) -> Vec<String> {
    let id = |number| std::fs::read_to_string(lab.kiln.out(&format!("id{number}"))).ok();
    (0..N_BUILDS).filter_map(id).collect()
}

#[test]
fn equal_builds_run_each_step_once() {
    let Some(lab) = lab() else {
        return;
    };
    let gate = Gate::new();
    let context = counting(&gate);
    let mut builds: Vec<_> = (0..N_BUILDS)
        .map(|number| build(&lab, &context, number).start())
        .collect();
    let mut n_waiting = 0;
    for build in &mut builds {
        n_waiting += build.wait_for_one_of(&[AT_GATE, WAITING]);
    }
    assert_eq!(n_waiting, N_BUILDS - 1);
    drop(gate);
    for build in builds {
        build.wait().succeeded();
    }
    let mut ids = ids(&lab);
    assert_eq!(ids.len(), N_BUILDS);
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(counted(&lab), [1, 1]);
}

/// Whoever makes what others wait for may die.
#[test]
fn another_build_takes_over() {
    let Some(lab) = lab() else {
        return;
    };
    let gate = Gate::new();
    let context = counting(&gate);
    let mut first = build(&lab, &context, 0).start();
    first.wait_for(AT_GATE);
    let mut others: Vec<_> = (1..4).map(|n| build(&lab, &context, n).start()).collect();
    for other in &mut others {
        other.wait_for(WAITING);
    }
    let holder = format!("{WAITING}{}: ", first.id());
    first.kill();
    drop(gate);
    for other in others {
        other.wait().succeeded().says(&[&holder]);
    }
    // The one that was killed counted, too.
    assert_eq!(counted(&lab), [2, 1]);
}

#[test]
fn different_builds_do_not_wait() {
    let Some(lab) = lab() else {
        return;
    };
    let gate = Gate::new();
    let (slow, quick) = (
        counting(&gate),
        Context::new("ARG BASE\nFROM $BASE\nRUN echo quick\n"),
    );
    let mut waiting = build(&lab, &slow, 0).start();
    waiting.wait_for(AT_GATE);
    let outcome = build(&lab, &quick, 1).ok();
    assert!(
        !outcome.stderr.contains("waiting for"),
        "{}",
        outcome.stderr
    );
    assert!(!waiting.has_ended());
    drop(gate);
    waiting.wait().succeeded();
}
