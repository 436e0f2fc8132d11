//! Gives the solver real hands: images, contexts, copies and steps.
//!
//! [`LocalWorker`] implements the solver's `Worker` with a store, registries and the runtime.
//! It is the only crate that knows what an op does to files.
//!
//! ```text
//!   image       reference -> manifest, config; blobs and files when somebody needs them
//!   http, git   address -> what is there -> a layer of its files, named by their content
//!   copy        select (pure) -> plan (pure) -> apply (disk) -> layer
//!   exec        layers -> overlay -> process -> what it changed -> layer
//! ```

mod agents;
mod apply;
mod copy;
mod credentials;
mod error;
mod filter;
mod images;
mod inflate;
mod layout;
mod mask;
mod missing;
mod mounts;
mod pause;
mod plan;
mod promise;
mod reuse;
mod secrets;
mod select;
mod sink;
mod snapshot;
mod sources;
mod squash;
mod step;
mod unarchive;
mod unpack;
mod users;
mod worker;

pub use crate::agents::{Agent, AgentError, Agents, KeyError};
pub use crate::credentials::{CredentialError, Credentials};
pub use crate::error::{CopyError, UnpackError, WorkerError};
pub use crate::images::{Images, ResolvedImage};
pub use crate::layout::OciLayout;
pub use crate::promise::Promise;
pub use crate::reuse::Reuse;
pub use crate::secrets::{MAX_SECRET, SecretError, SecretSource, SecretValue, Secrets};
pub use crate::snapshot::{Origin, Snapshot, SnapshotLayer, Value};
pub use crate::sources::{ContextFiles, GitSettings, SourceError, Sources};
pub use crate::squash::squash;
pub use crate::step::{LazySandbox, StepSettings};
pub use crate::worker::{Explanation, LocalWorker, Parts};
