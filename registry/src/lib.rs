//! The OCI distribution client: references, credentials, pull and push.
//!
//! Speaks version 1.1 of the OCI distribution specification, and what Docker's registry did before
//! it. It moves bytes between a registry and a sink or source that the caller owns; it keeps no
//! image on disk, unpacks nothing, and knows nothing of builds. Files of other servers are fetched with
//! the same means.
//!
//! ```text
//!   Client ── Host (one per registry: TLS, pool, permits) ── attempt (authorize, redirect) ── reqwest
//!     │         └ Auth (challenge, tokens, login) ── Credentials (config.json, helpers)
//!     ├ manifest, resolve, push_manifest      small, whole in memory, at most 8 MiB
//!     ├ blob, has_blob, push_blob             streamed; memory does not grow with the blob
//!     └ open_file, file                       a file of any web server, streamed
//! ```
//!
//! Invariants:
//! - What is pulled may come from a mirror, under its own name there and with the credentials for the
//!   host that is asked; it is the same image. What is pushed goes to the registry of its name.
//! - Bytes that do not have the digest and the size that were asked for never end in `Ok`.
//! - `Authorization` goes to the registry's own origin, and to the token server that this
//!   registry's challenge names, over TLS (or as plainly as the registry itself is reached). It is
//!   never sent after a redirect to another origin.
//! - Every wait has a bound: connecting, silence on a connection, retries, credential helpers.
//! - Requests to one host at a time are bounded by permits; token requests need none, so that a
//!   request that holds a permit can wait for its token.
//! - Dropping a future ends its requests. Nothing runs in the background.
//!
//! Which scheme a host is spoken to in: what [`Config::insecure_hosts`] says; plain `http` for
//! loopback hosts that have no certificate folder of their own, unless there are
//! [`Config::extra_ca_files`] and the host turns out to speak TLS; `https`, verified, for the rest.

mod reference;

mod config;
mod credentials;
mod docker_config;
mod error;
mod helper;
mod mirrors;
mod server;

mod address;
mod auth;
mod challenge;
mod host;
mod retry;
mod scope;
mod tls;
mod token;

mod client;
mod exchange;
mod fetch;
mod manifest;
mod platform;
mod pull;
mod push;
mod sources;
mod tags;
mod upload;

pub use crate::client::Client;
pub use crate::config::Config;
pub use crate::credentials::{Credentials, CredentialsError, Password};
pub use crate::docker_config::{DockerConfig, Kept};
pub use crate::error::{Operation, RegistryError};
pub use crate::fetch::{FileAnswer, FileHead, FileRequest, without_credentials};
pub use crate::manifest::ManifestBytes;
pub use crate::mirrors::{Mirror, MirrorPulls, Registries, RegistryRule};
pub use crate::platform::{PlatformError, choose_manifest};
pub use crate::pull::BlobSink;
pub use crate::push::{BlobSource, Pushed};
pub use crate::reference::{ParseReferenceError, Reference};
pub use crate::server::Server;
