//! Evaluates a graph by demand, in parallel, each vertex at most once.
//!
//! # Invariants
//!
//! What is evaluated:
//! - Only what a target needs, and each such vertex once. A vertex begins when all its inputs have
//!   values, never before; it then takes at most these steps, in this order:
//!   key, lookup (or waiting for the vertex that works on the same key), run.
//! - A vertex without a key (a source) has no lookup. A vertex with `ignore_cache` looks up only
//!   what this very solve has produced.
//! - Of one key, at most one vertex is between lookup and value; the others wait, then look up
//!   what it recorded on their own inputs.
//! - Early cut-off needs no code of its own: a key is made of what the vertex sees of its inputs'
//!   values, so an input that ran again and gave the same value gives the same key.
//!
//! Who owns what:
//! - All mutable state belongs to one loop (`driver.rs`): the counts, the claims, the values, the
//!   permits. Futures own their inputs and return a report; they share nothing and hold no lock.
//! - The loop is linear: depth of the graph costs neither stack nor polling. A future is polled only
//!   when it was woken.
//! - `jobs` bounds what runs at once, counted in vertices that make files. Keys, lookups and
//!   sources are not bounded here: they wait for disks and networks, which have their own limits.
//!   Who waits for a permit goes in graph order; who waits for a key holds no permit, so nobody can
//!   wait for each other.
//!
//! How it ends:
//! - With the first failure no new work begins, what is under way is dropped, and of all failures
//!   known at that moment the one earliest in the graph is returned: the one a user would fix first.
//! - Dropping the future of [`solve`] does the same. Tasks that were begun end as canceled, after
//!   their futures are gone.
//! - A failed step is an [`Outcome`](crate::Outcome); an `Err` of a worker says that the engine
//!   could not do its work. Both end the solve, and both name their vertex.

use std::collections::HashMap;
use std::num::NonZeroUsize;

use kiln_graph::{Graph, VertexId};

use crate::driver::Driver;
use crate::progress::Reporter;
use crate::worker::{StepFailure, Worker};

/// What the caller decides about a solve.
#[derive(Debug, Clone, Copy)]
pub struct SolveOptions {
    /// How many vertices that make files may run at once; `None` is without bound.
    pub jobs: Option<NonZeroUsize>,
}

/// Says why a graph has no value.
#[derive(Debug, thiserror::Error)]
pub enum SolveError<E: std::error::Error + 'static> {
    /// A step ran and failed.
    #[error("{}", failure.message)]
    StepFailed {
        /// The step.
        vertex: VertexId,
        /// How it failed.
        failure: StepFailure,
    },
    /// The worker could not do its work.
    #[error("cannot evaluate `{name}`")]
    Worker {
        /// The vertex it worked on.
        vertex: VertexId,
        /// Name of the vertex.
        name: String,
        /// What the worker says.
        source: E,
    },
}

impl<E: std::error::Error + 'static> SolveError<E> {
    /// Returns the vertex that failed.
    pub fn vertex(&self) -> VertexId {
        match self {
            Self::StepFailed { vertex, .. } | Self::Worker { vertex, .. } => *vertex,
        }
    }
}

/// Evaluates `targets` and what they need; returns the values of all of these.
///
/// `on_value` is called as soon as a vertex has its value, so that the caller can begin to use it
/// while later vertices still run; it must not block. Targets are vertices of `graph`, else this
/// panics.
pub async fn solve<W: Worker>(
    graph: &Graph,
    targets: &[VertexId],
    worker: &W,
    options: &SolveOptions,
    reporter: &Reporter,
    on_value: impl FnMut(VertexId, &W::Value),
) -> Result<HashMap<VertexId, W::Value>, SolveError<W::Error>> {
    let mut driver = Driver::new(graph, targets, worker, options, on_value);
    driver.start(reporter);
    driver.run().await
}

#[cfg(test)]
mod tests;
