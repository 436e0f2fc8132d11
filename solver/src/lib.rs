//! Evaluates a graph: keys, single flight, parallel run, events; knows no Dockerfile and no Linux.
//!
//! [`solve()`] walks the graph from its sources to the targets. What a vertex means is the business
//! of a [`Worker`]: it says what a vertex's key is, looks for a recorded action, and runs what has
//! none. The solver decides only what is done when, and that nothing is done twice.
//!
//! ```text
//!   graph ──► frontier ── ready ──► key ── claims ──► lookup ── miss ──► run ──► value
//!             (counts of            (who goes         (worker)   (jobs)  (worker)  │
//!              unresolved inputs)    first)                                        │
//!                 ▲────────────────────── one input less ◄─────────────────────────┘
//! ```
//!
//! Progress is data: a [`Reporter`] sends [`Event`]s, renderers live elsewhere. Blocking work
//! crosses from async code by [`blocking()`] and by nothing else.

mod blocking;
mod claims;
mod driver;
mod frontier;
mod progress;
mod reason;
mod solve;
mod worker;

pub use crate::blocking::blocking;
pub use crate::progress::{Direction, Event, Reporter, Stream, Task, TaskId};
pub use crate::reason::{MAX_DIFFERENCES, Reason, age};
pub use crate::solve::{SolveError, SolveOptions, solve};
pub use crate::worker::{Outcome, StepFailure, Worker};
