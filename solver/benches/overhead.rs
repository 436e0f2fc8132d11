//! What the solver itself takes for large graphs in which nothing has to run.
//!
//! `cargo bench -p kiln-solver` prints a line a shape: the time for a graph of 10,000 vertices and
//! for one that is eight times as large. The worker finds every vertex recorded and takes no time
//! for it, and progress is sent to a reader, as in a build. It fails if the time grows faster than
//! the graph by more than a factor of three.

#![expect(clippy::print_stdout, reason = "figures are what it is for")]

use std::convert::Infallible;
use std::hint::black_box;
use std::process::ExitCode;
use std::thread::scope;
use std::time::{Duration, Instant};

use kiln_graph::{
    Digest, Encoder, Exec, Graph, Input, Meta, Network, Op, Security, Vertex, VertexId,
};
use kiln_solver::{Outcome, Reporter, SolveOptions, Task, Worker, solve};

const SIZE: usize = 10_000;
/// How many times as large the larger graph is.
const FACTOR: usize = 8;
/// How many times as long it may take.
const ALLOWED: f64 = 3.0 * FACTOR as f64;
const RUNS: usize = 5;

/// Says which step a step is based on.
type Upstream = fn(usize) -> Option<usize>;

/// Has everything.
struct Recorded;

impl Worker for Recorded {
    type Value = Digest;
    type Error = Infallible;

    async fn key(
        &self,
        vertex: &Vertex,
        inputs: &[Option<Digest>],
        _task: &Task,
    ) -> Result<Option<Digest>, Infallible> {
        let mut encoder = Encoder::new("bench");
        encoder.value(&vertex.digest);
        for input in inputs.iter().flatten() {
            encoder.value(input);
        }
        Ok(Some(encoder.finish()))
    }

    async fn lookup(
        &self,
        key: &Digest,
        _vertex: &Vertex,
        _inputs: &[Option<Digest>],
        _task: &Task,
    ) -> Result<Option<Digest>, Infallible> {
        Ok(Some(*key))
    }

    async fn run(
        &self,
        vertex: &Vertex,
        _inputs: &[Option<Digest>],
        _key: Option<&Digest>,
        _task: &Task,
    ) -> Result<Outcome<Digest>, Infallible> {
        unreachable!("`{}` is recorded", vertex.meta.name)
    }
}

fn step(number: usize) -> Op {
    Op::Exec(Exec {
        args: ["/bin/sh", "-c"]
            .map(str::to_owned)
            .into_iter()
            .chain([format!("echo {number}")])
            .collect(),
        env: Vec::new(),
        unkeyed_env: Vec::new(),
        cwd: "/".to_owned(),
        user: String::new(),
        network: Network::None,
        files: Vec::new(),
        mounts: Vec::new(),
        security: Security::Sandbox,
    })
}

fn graph(size: usize, input: impl Fn(usize) -> Option<usize>) -> (Graph, Vec<VertexId>) {
    let mut graph = Graph::new();
    let mut ids: Vec<VertexId> = Vec::with_capacity(size);
    let mut has_follower = vec![false; size];
    for number in 0..size {
        let from = input(number);
        if let Some(from) = from {
            has_follower[from] = true;
        }
        let inputs: Vec<Input> = vec![from.map(|from| ids[from])];
        let meta = Meta {
            name: format!("step {number}"),
            lines: None,
            stage: "0".to_owned(),
            ignore_cache: false,
        };
        ids.push(graph.add(step(number), inputs, meta));
    }
    let targets = ids.iter().zip(has_follower);
    let targets = targets.filter(|(_, has)| !has).map(|(id, _)| *id).collect();
    (graph, targets)
}

/// Returns the shortest time of a solve.
fn measure(size: usize, input: Upstream) -> Duration {
    let (graph, targets) = graph(size, input);
    let runtime = tokio::runtime::Builder::new_multi_thread().build();
    let runtime = runtime.expect("threads can be started");
    let one = || {
        let (reporter, events) = Reporter::new();
        scope(|scope| {
            scope.spawn(|| black_box(events.into_iter().count()));
            let started = Instant::now();
            let options = SolveOptions { jobs: None };
            let solving = solve(&graph, &targets, &Recorded, &options, &reporter, |_, _| ());
            let solved = runtime.block_on(solving);
            let took = started.elapsed();
            assert_eq!(solved.map_or(0, |values| values.len()), size);
            // The reader ends with the last sender.
            drop(reporter);
            took
        })
    };
    (0..RUNS).map(|_| one()).min().unwrap_or_default()
}

fn main() -> ExitCode {
    let shapes: [(&str, Upstream); 3] = [
        ("chain", |number| number.checked_sub(1)),
        ("wide", |number| (number > 0).then_some(0)),
        ("stages of ten", |number| {
            (number % 10 > 0).then(|| number - 1)
        }),
    ];
    let mut is_linear = true;
    for (name, input) in shapes {
        let (small, large) = (measure(SIZE, input), measure(SIZE * FACTOR, input));
        let growth = large.as_secs_f64() / small.as_secs_f64();
        println!(
            "{name:14} {SIZE} vertices: {:6.1} ms, {} times as many: {:7.1} ms ({growth:.1} times)",
            small.as_secs_f64() * 1e3,
            FACTOR,
            large.as_secs_f64() * 1e3,
        );
        is_linear &= growth <= ALLOWED;
    }
    match is_linear {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
