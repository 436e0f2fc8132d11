//! The seam between deciding and doing: what the solver asks of whoever does the work.

use std::future::Future;

use kiln_graph::{Digest, Vertex};

use crate::progress::Task;

/// Does the work of a graph's vertices.
///
/// `inputs` stand in the order of the vertex's inputs, `None` for an empty root. A future may be
/// dropped at any await: it then leaves no process, mount, temporary file or lock behind. All
/// futures of a solve are polled by one task: what takes long crosses by
/// [`blocking`](crate::blocking()).
///
/// One solve never runs a key twice at once. That two processes do not either is the worker's
/// business: a lock for each key, held in [`Worker::run`], which looks again once it has it.
pub trait Worker: Send + Sync {
    /// What a vertex evaluates to: a snapshot, or a local folder. Clones are cheap.
    type Value: Clone + Send + Sync + 'static;
    /// Says why the worker could not do its work; a step that ran and failed is no error.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Returns the key of a vertex: the hash of its op and of what it can see of its inputs.
    ///
    /// Two vertices with equal keys would make equal layers. `None` means that there is nothing to
    /// look up: the vertex always runs (sources).
    fn key(
        &self,
        vertex: &Vertex,
        inputs: &[Option<Self::Value>],
        task: &Task,
    ) -> impl Future<Output = Result<Option<Digest>, Self::Error>> + Send;

    /// Returns the value that a recorded action with this key gives on these inputs.
    fn lookup(
        &self,
        key: &Digest,
        vertex: &Vertex,
        inputs: &[Option<Self::Value>],
        task: &Task,
    ) -> impl Future<Output = Result<Option<Self::Value>, Self::Error>> + Send;

    /// Runs a vertex and, where it has a key, records the action.
    fn run(
        &self,
        vertex: &Vertex,
        inputs: &[Option<Self::Value>],
        key: Option<&Digest>,
        task: &Task,
    ) -> impl Future<Output = Result<Outcome<Self::Value>, Self::Error>> + Send;
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<V> {
    /// With a value.
    Done(V),
    /// The step itself failed.
    Failed(StepFailure),
}

/// How a step failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepFailure {
    /// What happened: `process "/bin/sh -c x" did not complete successfully: exit code: 1`.
    pub message: String,
    /// The exit code of the process, if it ended by itself.
    pub exit_code: Option<i32>,
    /// The end of what the step wrote, both streams in order of arrival.
    pub log_tail: Vec<u8>,
}
