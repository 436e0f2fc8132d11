//! Ops, vertices, digests, platforms and the OCI image model: pure data, no I/O.
//!
//! A Dockerfile becomes a [`Graph`]: a DAG of vertices, each an [`Op`] with its inputs. The graph
//! knows nothing of the Dockerfile language, of disks or of Linux. Everything that is hashed is
//! hashed over its canonical encoding (see [`Encoder`]), so a digest is a function of the value
//! and of nothing else: not of field order in JSON, not of the machine.
//!
//! ```text
//!   op        one operation with its own parameters, without its inputs
//!   vertex    an op and its inputs (vertices, or nothing for an empty root)
//!   graph     vertices in topological order; equal vertices are one
//!   digest    algorithm and hash of some bytes
//! ```

mod digest;
mod encode;
mod graph;
mod mode;
mod mount;
mod oci;
mod op;
mod platform;
mod record;
mod redact;
mod render;
mod source;

pub use crate::digest::{Algorithm, Digest, Hasher, ParseDigestError};
pub use crate::encode::{Encode, Encoder};
pub use crate::graph::{Graph, Input, Meta, SourceLines, Vertex, VertexId};
pub use crate::mode::{Mode, ModeChange, ParseModeError};
pub use crate::mount::{CacheMount, Mount, MountKind, NewFolder, SecretMount, Sharing, SshMount};
pub use crate::oci::{
    ConfigSection, Descriptor, HealthCheck, HistoryEntry, ImageConfig, Index, Manifest, MediaKind,
    PlatformField, RootFs, media_type,
};
pub use crate::op::{
    Copy, CopySource, Exec, InlineFile, MakeDir, Network, Op, Owner, Principal, Security,
};
pub use crate::platform::{ParsePlatformError, Platform};
pub use crate::record::{Change, Difference, PartKind, Record, SECRET_WORDS};
pub use crate::redact::redacted;
pub use crate::source::{
    GitSource, GitTimes, HttpSource, ImageSource, LocalSource, is_full_commit,
};
