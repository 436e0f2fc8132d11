//! The evaluator against a worker that counts.

use std::collections::HashMap;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use kiln_graph::{
    Digest, Encoder, Exec, Graph, Input, LocalSource, Meta, Network, Op, Vertex, VertexId,
};
use tokio::sync::Barrier;

use super::*;
use crate::progress::{Event, Reporter, Task, TaskId};
use crate::worker::{Outcome, StepFailure};

/// What a run of a vertex does; the default is to hash what the vertex sees.
#[derive(Clone)]
enum Act {
    /// Gives this value.
    Give(&'static str),
    /// Waits for others that meet here.
    Meet(Arc<Barrier>),
    /// Meets, then never ends.
    MeetAndHang(Arc<Barrier>),
    /// Fails as a step.
    Fail,
    /// Fails as an engine.
    Break,
    /// Gives way many times.
    Dawdle,
}

#[derive(Debug, thiserror::Error)]
#[error("no space")]
struct Broken;

#[derive(Default)]
struct Fake {
    acts: HashMap<&'static str, Act>,
    /// Nothing is recorded.
    read_only: bool,
    records: Mutex<HashMap<Digest, String>>,
    calls: Mutex<Vec<String>>,
    n_running: AtomicUsize,
    max_running: AtomicUsize,
}

struct Running<'a>(&'a Fake);

impl<'a> Running<'a> {
    fn new(fake: &'a Fake) -> Self {
        let n_running = fake.n_running.fetch_add(1, Ordering::SeqCst) + 1;
        fake.max_running.fetch_max(n_running, Ordering::SeqCst);
        Self(fake)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.n_running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Fake {
    fn with(acts: impl IntoIterator<Item = (&'static str, Act)>) -> Self {
        Self {
            acts: acts.into_iter().collect(),
            ..Self::default()
        }
    }

    fn note(&self, verb: &str, vertex: &Vertex) {
        let call = format!("{verb} {}", vertex.meta.name);
        self.calls.lock().unwrap().push(call);
    }

    /// Returns the names with which `verb` was called, sorted, and forgets all calls.
    fn take(&self, verb: &str) -> Vec<String> {
        let calls = std::mem::take(&mut *self.calls.lock().unwrap());
        let mut names: Vec<_> = calls
            .iter()
            .filter_map(|call| call.strip_prefix(verb)?.strip_prefix(' '))
            .map(str::to_owned)
            .collect();
        names.sort();
        names
    }
}

fn seen(vertex: &Vertex, inputs: &[Option<String>]) -> Digest {
    let mut encoder = Encoder::new("test");
    encoder.value(&vertex.op);
    for input in inputs {
        encoder.text(input.as_deref().unwrap_or_default());
    }
    encoder.finish()
}

impl Worker for Fake {
    type Value = String;
    type Error = Broken;

    async fn key(
        &self,
        vertex: &Vertex,
        inputs: &[Option<String>],
        _task: &Task,
    ) -> Result<Option<Digest>, Broken> {
        self.note("key", vertex);
        let is_source = matches!(vertex.op, Op::Local(_));
        Ok((!is_source).then(|| seen(vertex, inputs)))
    }

    async fn lookup(
        &self,
        key: &Digest,
        vertex: &Vertex,
        _inputs: &[Option<String>],
        _task: &Task,
    ) -> Result<Option<String>, Broken> {
        self.note("lookup", vertex);
        Ok(self.records.lock().unwrap().get(key).cloned())
    }

    async fn run(
        &self,
        vertex: &Vertex,
        inputs: &[Option<String>],
        key: Option<&Digest>,
        _task: &Task,
    ) -> Result<Outcome<String>, Broken> {
        self.note("run", vertex);
        let _running = Running::new(self);
        let mut value = seen(vertex, inputs).to_string();
        match self.acts.get(vertex.meta.name.as_str()) {
            Some(Act::Give(given)) => (*given).clone_into(&mut value),
            Some(Act::Meet(barrier)) => {
                barrier.wait().await;
            }
            Some(Act::MeetAndHang(barrier)) => {
                barrier.wait().await;
                pending::<()>().await;
            }
            Some(Act::Fail) => return Ok(Outcome::Failed(failure(&vertex.meta.name))),
            Some(Act::Break) => return Err(Broken),
            Some(Act::Dawdle) => {
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
            }
            None => {}
        }
        if let Some(key) = key.filter(|_| !self.read_only) {
            self.records.lock().unwrap().insert(*key, value.clone());
        }
        Ok(Outcome::Done(value))
    }
}

fn failure(name: &str) -> StepFailure {
    StepFailure {
        message: format!("process \"{name}\" did not complete successfully: exit code: 3"),
        exit_code: Some(3),
        log_tail: b"last words\n".to_vec(),
    }
}

fn meta(name: &str) -> Meta {
    Meta {
        name: name.to_owned(),
        ..Meta::default()
    }
}

fn source(graph: &mut Graph, name: &str) -> VertexId {
    let op = LocalSource {
        name: name.to_owned(),
    };
    graph.add(Op::Local(op), vec![], meta(name))
}

/// A step called `name` that executes `args`.
fn exec_as(graph: &mut Graph, name: &str, args: &str, inputs: &[Input]) -> VertexId {
    add_exec(graph, meta(name), args, inputs)
}

fn exec(graph: &mut Graph, name: &str, inputs: &[Input]) -> VertexId {
    exec_as(graph, name, name, inputs)
}

fn add_exec(graph: &mut Graph, meta: Meta, args: &str, inputs: &[Input]) -> VertexId {
    let op = Exec {
        args: vec![args.to_owned()],
        env: vec![],
        unkeyed_env: vec![],
        cwd: "/".to_owned(),
        user: String::new(),
        network: Network::None,
        files: vec![],
        mounts: vec![],
        security: kiln_graph::Security::Sandbox,
    };
    graph.add(Op::Exec(op), inputs.to_vec(), meta)
}

const UNBOUNDED: SolveOptions = SolveOptions { jobs: None };

type Solved = Result<HashMap<VertexId, String>, SolveError<Broken>>;

async fn solve_all(graph: &Graph, targets: &[VertexId], fake: &Fake) -> Solved {
    let reporter = Reporter::silent();
    solve(graph, targets, fake, &UNBOUNDED, &reporter, |_, _| {}).await
}

#[tokio::test]
async fn diamond_runs_each_vertex_once() {
    let mut graph = Graph::new();
    let base = source(&mut graph, "base");
    let left = exec(&mut graph, "left", &[Some(base)]);
    let right = exec(&mut graph, "right", &[Some(base), None]);
    let top = exec(&mut graph, "top", &[Some(left), Some(right), Some(left)]);
    let fake = Fake::default();
    let values = solve_all(&graph, &[top, left], &fake).await.unwrap();
    assert_eq!(fake.take("run"), ["base", "left", "right", "top"]);
    assert_eq!(values.len(), 4);
    let inputs = [left, right, left].map(|id| Some(values[&id].clone()));
    assert_eq!(values[&top], seen(graph.vertex(top), &inputs).to_string());

    let again = solve_all(&graph, &[top], &fake).await.unwrap();
    assert_eq!(fake.take("run"), ["base"], "the rest is recorded");
    assert_eq!(again, values);
}

#[tokio::test]
async fn what_no_target_needs_is_not_touched() {
    let mut graph = Graph::new();
    let base = source(&mut graph, "base");
    let other = source(&mut graph, "other");
    let top = exec(&mut graph, "top", &[Some(base)]);
    exec(&mut graph, "unused", &[Some(other), Some(top)]);
    let fake = Fake::default();
    solve_all(&graph, &[top], &fake).await.unwrap();
    assert_eq!(fake.take("key"), ["base", "top"]);
    assert!(solve_all(&graph, &[], &fake).await.unwrap().is_empty());
}

#[tokio::test]
async fn same_value_from_a_step_that_ran_again_cuts_off() {
    let mut graph = Graph::new();
    let base = source(&mut graph, "base");
    let compile = exec(&mut graph, "compile", &[Some(base)]);
    let test = exec(&mut graph, "test", &[Some(compile)]);
    let mut fake = Fake::with([
        ("base", Act::Give("sources")),
        ("compile", Act::Give("object file")),
    ]);
    solve_all(&graph, &[test], &fake).await.unwrap();
    fake.take("run");
    fake.acts
        .insert("base", Act::Give("sources with a comment"));
    solve_all(&graph, &[test], &fake).await.unwrap();
    assert_eq!(fake.take("run"), ["base", "compile"]);
}

#[tokio::test]
async fn equal_keys_in_flight_join() {
    let mut graph = Graph::new();
    let (one, two) = (source(&mut graph, "one"), source(&mut graph, "two"));
    let a = exec_as(&mut graph, "a", "make", &[Some(one)]);
    let b = exec_as(&mut graph, "b", "make", &[Some(two)]);
    assert_ne!(a, b);
    let fake = Fake::with([
        ("one", Act::Give("same")),
        ("two", Act::Give("same")),
        ("a", Act::Dawdle),
        ("b", Act::Dawdle),
    ]);
    let values = solve_all(&graph, &[a, b], &fake).await.unwrap();
    assert_eq!(values[&a], values[&b]);
    let runs = fake.take("run");
    assert_eq!(runs.len(), 3, "{runs:?}");
}

#[tokio::test]
async fn joined_vertex_runs_when_nothing_was_recorded() {
    let mut graph = Graph::new();
    let (one, two) = (source(&mut graph, "one"), source(&mut graph, "two"));
    let a = exec_as(&mut graph, "a", "make", &[Some(one)]);
    let b = exec_as(&mut graph, "b", "make", &[Some(two)]);
    let mut fake = Fake::with([("one", Act::Give("same")), ("two", Act::Give("same"))]);
    fake.read_only = true;
    solve_all(&graph, &[a, b], &fake).await.unwrap();
    assert_eq!(fake.take("run"), ["a", "b", "one", "two"]);
}

#[tokio::test]
async fn ignore_cache_runs_what_is_recorded_but_once() {
    let mut graph = Graph::new();
    let (one, two) = (source(&mut graph, "one"), source(&mut graph, "two"));
    let ignoring = |name: &str| Meta {
        ignore_cache: true,
        ..meta(name)
    };
    let a = add_exec(&mut graph, ignoring("a"), "make", &[Some(one)]);
    let b = add_exec(&mut graph, ignoring("b"), "make", &[Some(two)]);
    let child = exec(&mut graph, "child", &[Some(a), Some(b)]);
    let fake = Fake::with([("one", Act::Give("same")), ("two", Act::Give("same"))]);
    for expected in [&["a", "child", "one", "two"][..], &["a", "one", "two"]] {
        solve_all(&graph, &[child], &fake).await.unwrap();
        assert_eq!(fake.take("run"), expected);
    }
}

#[tokio::test]
async fn independent_steps_run_together() {
    let mut graph = Graph::new();
    let barrier = Arc::new(Barrier::new(8));
    let names = ["1", "2", "3", "4", "5", "6", "7", "8"];
    let steps = names.map(|name| exec(&mut graph, name, &[None]));
    let fake = Fake::with(names.map(|name| (name, Act::Meet(barrier.clone()))));
    let values = solve_all(&graph, &steps, &fake).await.unwrap();
    assert_eq!(values.len(), 8);
}

#[tokio::test]
async fn jobs_bounds_steps() {
    let mut graph = Graph::new();
    let names = ["1", "2", "3", "4", "5", "6", "7", "8"];
    let steps = names.map(|name| exec(&mut graph, name, &[None]));
    for jobs in [1, 3] {
        let fake = Fake::with(names.map(|name| (name, Act::Dawdle)));
        let options = SolveOptions {
            jobs: NonZeroUsize::new(jobs),
        };
        let reporter = Reporter::silent();
        let solved = solve(&graph, &steps, &fake, &options, &reporter, |_, _| {});
        assert_eq!(solved.await.unwrap().len(), 8);
        assert_eq!(fake.max_running.load(Ordering::SeqCst), jobs);
    }
}

#[tokio::test]
async fn jobs_does_not_bound_sources() {
    let mut graph = Graph::new();
    let barrier = Arc::new(Barrier::new(4));
    let names = ["1", "2", "3", "4"];
    let inputs = names.map(|name| Some(source(&mut graph, name)));
    let top = exec(&mut graph, "top", &inputs);
    let fake = Fake::with(names.map(|name| (name, Act::Meet(barrier.clone()))));
    let options = SolveOptions {
        jobs: NonZeroUsize::new(1),
    };
    let reporter = Reporter::silent();
    let targets = [top];
    let solved = solve(&graph, &targets, &fake, &options, &reporter, |_, _| {});
    assert_eq!(solved.await.unwrap().len(), 5);
}

#[tokio::test]
async fn failure_cancels_siblings_and_names_the_step() {
    let mut graph = Graph::new();
    let barrier = Arc::new(Barrier::new(2));
    let sibling = exec(&mut graph, "sibling", &[None]);
    let before = exec(&mut graph, "before", &[None]);
    let bad = exec(&mut graph, "bad", &[Some(before)]);
    let after = exec(&mut graph, "after", &[Some(bad)]);
    let fake = Fake::with([
        ("sibling", Act::MeetAndHang(barrier.clone())),
        ("before", Act::Meet(barrier)),
        ("bad", Act::Fail),
    ]);
    let (reporter, receiver) = Reporter::new();
    let targets = [after, sibling];
    let error = solve(&graph, &targets, &fake, &UNBOUNDED, &reporter, |_, _| {})
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "process \"bad\" did not complete successfully: exit code: 3"
    );
    let SolveError::StepFailed { vertex, failure } = error else {
        panic!("{error:?}");
    };
    assert_eq!((vertex, failure.exit_code), (bad, Some(3)));
    assert_eq!(fake.n_running.load(Ordering::SeqCst), 0);
    assert_eq!(fake.take("run"), ["bad", "before", "sibling"]);

    drop(reporter);
    let ends: Vec<_> = receiver.iter().filter_map(|event| end(&event)).collect();
    let expected = [(1, "finished"), (2, "failed"), (0, "canceled")];
    assert_eq!(ends, expected.map(|(id, end)| (TaskId(id), end)));
}

fn end(event: &Event) -> Option<(TaskId, &'static str)> {
    match event {
        Event::Cached { task, .. } => Some((*task, "cached")),
        Event::Finished { task, .. } => Some((*task, "finished")),
        Event::Failed { task, .. } => Some((*task, "failed")),
        Event::Canceled { task, .. } => Some((*task, "canceled")),
        _ => None,
    }
}

#[tokio::test]
async fn of_several_failures_the_earliest_counts() {
    let mut graph = Graph::new();
    let barrier = Arc::new(Barrier::new(2));
    let first = exec(&mut graph, "first", &[None]);
    let second = exec(&mut graph, "second", &[None]);
    let early = exec(&mut graph, "early", &[Some(first)]);
    let late = exec(&mut graph, "late", &[Some(second)]);
    let fake = Fake::with([
        ("first", Act::Meet(barrier.clone())),
        ("second", Act::Meet(barrier)),
        ("early", Act::Break),
        ("late", Act::Fail),
    ]);
    let error = solve_all(&graph, &[late, early], &fake).await.unwrap_err();
    assert_eq!(error.vertex(), early);
    assert_eq!(error.to_string(), "cannot evaluate `early`");
}

#[tokio::test]
async fn values_are_told_while_others_still_run() {
    let mut graph = Graph::new();
    let barrier = Arc::new(Barrier::new(2));
    let early = exec(&mut graph, "early", &[None]);
    let late = exec(&mut graph, "late", &[None]);
    let fake = Fake::with([("late", Act::Meet(barrier.clone()))]);
    let reporter = Reporter::silent();
    let (told, mut told_early) = tokio::sync::mpsc::unbounded_channel();
    let on_value = move |id, value: &String| drop(told.send((id, value.clone())));
    let targets = [early, late];
    let solving = solve(&graph, &targets, &fake, &UNBOUNDED, &reporter, on_value);
    let watching = async {
        let (id, value) = told_early.recv().await.unwrap();
        assert_eq!(id, early);
        barrier.wait().await;
        value
    };
    let (values, value) = tokio::join!(solving, watching);
    assert_eq!(values.unwrap()[&early], value);
}

#[tokio::test]
async fn dropping_the_solve_cancels_what_runs() {
    let mut graph = Graph::new();
    let barrier = Arc::new(Barrier::new(3));
    let steps = ["a", "b"].map(|name| exec(&mut graph, name, &[None]));
    let act = Act::MeetAndHang(barrier.clone());
    let fake = Fake::with([("a", act.clone()), ("b", act)]);
    let (reporter, receiver) = Reporter::new();
    let solving = solve(&graph, &steps, &fake, &UNBOUNDED, &reporter, |_, _| {});
    let watching = async {
        barrier.wait().await;
        fake.n_running.load(Ordering::SeqCst)
    };
    tokio::select! {
        solved = solving => panic!("{solved:?}"),
        n_running = watching => assert_eq!(n_running, 2),
    }
    assert_eq!(fake.n_running.load(Ordering::SeqCst), 0);
    drop(reporter);
    let n_canceled = receiver.iter().filter_map(|event| end(&event)).count();
    assert_eq!(n_canceled, 2);
}

#[tokio::test]
async fn a_vertex_that_was_found_is_cached() {
    let mut graph = Graph::new();
    let top = exec(&mut graph, "top", &[None]);
    let fake = Fake::default();
    solve_all(&graph, &[top], &fake).await.unwrap();
    let (reporter, receiver) = Reporter::new();
    solve(&graph, &[top], &fake, &UNBOUNDED, &reporter, |_, _| {})
        .await
        .unwrap();
    drop(reporter);
    let events: Vec<_> = receiver.iter().collect();
    let digest = Some(graph.vertex(top).digest);
    assert!(
        matches!(&events[..], [Event::Added { name, digest: added, .. }, Event::Cached { .. }]
            if name == "top" && *added == digest),
        "{events:?}"
    );
}

#[tokio::test]
async fn deep_and_wide_graphs_are_evaluated() {
    let mut graph = Graph::new();
    let mut chain = None;
    for at in 0..100_000 {
        chain = Some(exec(&mut graph, &at.to_string(), &[chain]));
    }
    let fake = Fake::default();
    let target = chain.unwrap();
    let values = solve_all(&graph, &[target], &fake).await.unwrap();
    assert_eq!(values.len(), 100_000);
    assert_eq!(fake.take("run").len(), 100_000);
    solve_all(&graph, &[target], &fake).await.unwrap();
    assert_eq!(fake.take("run").len(), 0);
    let all: Vec<_> = graph.vertices().map(|(id, _)| id).step_by(3).collect();
    solve_all(&graph, &all, &fake).await.unwrap();
}

#[tokio::test]
async fn a_solve_can_move_between_threads() {
    let mut graph = Graph::new();
    let top = exec(&mut graph, "top", &[None]);
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { solve_all(&graph, &[top], &Fake::default()).await });
    let solved = tasks.join_next().await.unwrap().unwrap();
    assert_eq!(solved.unwrap().len(), 1);
}
