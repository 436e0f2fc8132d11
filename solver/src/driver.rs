//! The loop that owns all mutable state of a solve; its invariants are in `solve.rs`.
//!
//! Each step of a vertex is one future. When it is done the loop takes its report, decides what the
//! vertex does next, and starts the next future. Nothing here awaits but the loop itself.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use kiln_graph::{Digest, Graph, Op, Vertex, VertexId};
use tracing::Instrument as _;

use crate::claims::{Claims, Turn};
use crate::frontier::Frontier;
use crate::progress::{Reporter, Task};
use crate::solve::{SolveError, SolveOptions};
use crate::worker::{Outcome, Worker};

/// The state of one solve.
pub(crate) struct Driver<'a, W: Worker, F> {
    graph: &'a Graph,
    worker: &'a W,
    on_value: F,
    frontier: Frontier,
    needed: Vec<VertexId>,
    tasks: HashMap<VertexId, Task>,
    active: HashMap<VertexId, Active<W::Value>>,
    claims: Claims,
    permits: Permits,
    in_flight: FuturesUnordered<InFlight<'a, W>>,
    values: HashMap<VertexId, W::Value>,
}

/// A vertex that was begun and has no value yet.
struct Active<V> {
    inputs: Arc<[Option<V>]>,
    key: Option<Digest>,
    task: Task,
}

/// Who may run now.
struct Permits {
    /// `None` is without bound.
    n_free: Option<usize>,
    waiting: BTreeSet<VertexId>,
}

type InFlight<'a, W> = Pin<Box<dyn Future<Output = (VertexId, Report<W>)> + Send + 'a>>;
type Failure<W> = SolveError<<W as Worker>::Error>;

/// What a step of a vertex has given.
enum Report<W: Worker> {
    Key(Result<Option<Digest>, W::Error>),
    Lookup(Result<Option<W::Value>, W::Error>),
    Run(Result<Outcome<W::Value>, W::Error>),
}

/// How a vertex got its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Found,
    Ran,
}

impl<'a, W: Worker, F: FnMut(VertexId, &W::Value)> Driver<'a, W, F> {
    pub(crate) fn new(
        graph: &'a Graph,
        targets: &[VertexId],
        worker: &'a W,
        options: &SolveOptions,
        on_value: F,
    ) -> Self {
        let (frontier, needed) = Frontier::new(graph, targets);
        Self {
            graph,
            worker,
            on_value,
            frontier,
            tasks: HashMap::with_capacity(needed.len()),
            values: HashMap::with_capacity(needed.len()),
            needed,
            active: HashMap::new(),
            claims: Claims::default(),
            permits: Permits {
                n_free: options.jobs.map(usize::from),
                waiting: BTreeSet::new(),
            },
            in_flight: FuturesUnordered::new(),
        }
    }

    /// Announces all vertices and begins those without inputs.
    pub(crate) fn start(&mut self, reporter: &Reporter) {
        let needed = std::mem::take(&mut self.needed);
        for &id in &needed {
            let vertex = self.graph.vertex(id);
            let task = reporter.task(&vertex.meta.name, Some(vertex.digest));
            self.tasks.insert(id, task);
        }
        for id in needed {
            if self.frontier.is_ready(id) {
                self.begin(id);
            }
        }
    }

    /// Runs until everything has its value or something has failed.
    pub(crate) async fn run(mut self) -> Result<HashMap<VertexId, W::Value>, Failure<W>> {
        while let Some((id, report)) = self.in_flight.next().await {
            if let Err(failure) = self.advance(id, report) {
                return Err(self.earliest(failure));
            }
        }
        debug_assert!(self.tasks.is_empty() && self.active.is_empty());
        Ok(std::mem::take(&mut self.values))
    }

    fn advance(&mut self, id: VertexId, report: Report<W>) -> Result<(), Failure<W>> {
        match report {
            Report::Key(Ok(None)) => self.want_permit(id),
            Report::Key(Ok(Some(key))) => {
                self.active_mut(id).key = Some(key);
                self.enter(id, key);
            }
            Report::Lookup(Ok(Some(value))) => self.resolve(id, value, How::Found),
            Report::Lookup(Ok(None)) => {
                if let Some(key) = self.active_mut(id).key {
                    let turn = self.claims.miss(key, id);
                    self.take_turn(id, turn);
                }
            }
            Report::Run(Ok(Outcome::Done(value))) => {
                self.release_permit(id);
                self.resolve(id, value, How::Ran);
            }
            failed => return self.failure(id, failed).map_or(Ok(()), Err),
        }
        Ok(())
    }

    /// Returns the error that a report stands for, if it does, and tells the task.
    fn failure(&mut self, id: VertexId, report: Report<W>) -> Option<Failure<W>> {
        let (failure, message) = match report {
            Report::Run(Ok(Outcome::Failed(failure))) => {
                let message = failure.message.clone();
                let vertex = id;
                (SolveError::StepFailed { vertex, failure }, message)
            }
            Report::Key(Err(source)) | Report::Lookup(Err(source)) | Report::Run(Err(source)) => {
                let message = chain(&source);
                let name = self.graph.vertex(id).meta.name.clone();
                let vertex = id;
                let error = SolveError::Worker {
                    vertex,
                    name,
                    source,
                };
                (error, message)
            }
            Report::Key(Ok(_)) | Report::Lookup(Ok(_)) | Report::Run(Ok(Outcome::Done(_))) => {
                return None;
            }
        };
        self.active_mut(id).task.failed(message);
        Some(failure)
    }

    /// Returns the earliest of the failures that are known, starting nothing new.
    fn earliest(&mut self, first: Failure<W>) -> Failure<W> {
        let mut earliest = first;
        while let Some(Some((id, report))) = self.in_flight.next().now_or_never() {
            if let Report::Run(Ok(Outcome::Done(_))) = &report {
                self.active_mut(id).task.finished();
            } else if let Some(failure) = self.failure(id, report)
                && failure.vertex() < earliest.vertex()
            {
                earliest = failure;
            }
        }
        earliest
    }

    /// Begins a vertex whose inputs have values.
    fn begin(&mut self, id: VertexId) {
        let vertex = self.graph.vertex(id);
        let inputs = vertex.inputs.iter();
        let inputs = inputs.map(|input| input.map(|input| self.values[&input].clone()));
        let active = Active {
            inputs: inputs.collect(),
            key: None,
            task: self.tasks.remove(&id).expect("a vertex begins once"),
        };
        let (worker, inputs, task) = (self.worker, active.inputs.clone(), active.task.clone());
        self.active.insert(id, active);
        self.spawn(id, vertex, async move {
            Report::Key(worker.key(vertex, &inputs, &task).await)
        });
    }

    fn enter(&mut self, id: VertexId, key: Digest) {
        let ignore_cache = self.graph.vertex(id).meta.ignore_cache;
        let turn = self.claims.enter(key, id, ignore_cache);
        self.take_turn(id, turn);
    }

    fn take_turn(&mut self, id: VertexId, turn: Turn) {
        match turn {
            Turn::Lookup => self.look_up(id),
            Turn::Run => self.want_permit(id),
            Turn::Wait => tracing::debug!(vertex = id.0, "joins a vertex with an equal key"),
        }
    }

    fn look_up(&mut self, id: VertexId) {
        let (vertex, worker) = (self.graph.vertex(id), self.worker);
        let active = self.active_mut(id);
        let (inputs, task) = (active.inputs.clone(), active.task.clone());
        let key = active.key.expect("only a vertex with a key is looked up");
        self.spawn(id, vertex, async move {
            Report::Lookup(worker.lookup(&key, vertex, &inputs, &task).await)
        });
    }

    fn want_permit(&mut self, id: VertexId) {
        if !takes_permit(self.graph.vertex(id)) {
            return self.start_run(id);
        }
        self.permits.waiting.insert(id);
        self.grant_permits();
    }

    fn release_permit(&mut self, id: VertexId) {
        if !takes_permit(self.graph.vertex(id)) {
            return;
        }
        if let Some(n_free) = &mut self.permits.n_free {
            *n_free += 1;
        }
        self.grant_permits();
    }

    fn grant_permits(&mut self) {
        while let Some(id) = self.permits.next() {
            self.start_run(id);
        }
    }

    fn start_run(&mut self, id: VertexId) {
        let (vertex, worker) = (self.graph.vertex(id), self.worker);
        let active = self.active_mut(id);
        active.task.started();
        let (inputs, task) = (active.inputs.clone(), active.task.clone());
        let key = active.key;
        self.spawn(id, vertex, async move {
            Report::Run(worker.run(vertex, &inputs, key.as_ref(), &task).await)
        });
    }

    /// Gives a vertex its value and begins what waited for it.
    fn resolve(&mut self, id: VertexId, value: W::Value, how: How) {
        let active = self.active.remove(&id).expect("a vertex resolves once");
        match how {
            How::Found => active.task.cached(),
            How::Ran => active.task.finished(),
        }
        tracing::debug!(vertex = id.0, ?how, key = ?active.key, "resolved");
        (self.on_value)(id, &value);
        self.values.insert(id, value);
        for ready in self.frontier.resolve(id) {
            self.begin(ready);
        }
        let Some(key) = active.key else {
            return;
        };
        for joined in self.claims.settle(key, id, how == How::Ran) {
            self.enter(joined, key);
        }
    }

    fn spawn(
        &self,
        id: VertexId,
        vertex: &Vertex,
        step: impl Future<Output = Report<W>> + Send + 'a,
    ) {
        let span = tracing::debug_span!("vertex", id = id.0, name = vertex.meta.name);
        let flight = async move { (id, step.await) };
        self.in_flight.push(Box::pin(flight.instrument(span)));
    }

    fn active_mut(&mut self, id: VertexId) -> &mut Active<W::Value> {
        self.active
            .get_mut(&id)
            .expect("a vertex in flight is active")
    }
}

impl<W: Worker, F> Drop for Driver<'_, W, F> {
    /// What is under way is gone before its task says so.
    fn drop(&mut self) {
        self.in_flight.clear();
        for active in self.active.values() {
            active.task.canceled();
        }
    }
}

impl Permits {
    /// Returns who may run next, in graph order.
    fn next(&mut self) -> Option<VertexId> {
        if self.n_free == Some(0) {
            return None;
        }
        let id = self.waiting.pop_first()?;
        if let Some(n_free) = &mut self.n_free {
            *n_free -= 1;
        }
        Some(id)
    }
}

/// Sources wait for networks and disks, which have limits of their own.
fn takes_permit(vertex: &Vertex) -> bool {
    match vertex.op {
        Op::Image(_) | Op::Local(_) | Op::Http(_) | Op::Git(_) => false,
        Op::Exec(_) | Op::Copy(_) | Op::MakeDir(_) => true,
    }
}

/// Returns an error with its sources, for people.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
