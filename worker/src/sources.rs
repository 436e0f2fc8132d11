//! Remote sources: files of web servers, commits of Git repositories, archives of either.
//!
//! What is fetched becomes a layer, named by its content, so that whoever copies from it has the
//! key it had before when nothing changed. A memo in the store says which layer an address gave
//! the last time, and how to ask whether it still does.

mod archive;
mod error;
mod file;
mod git;
mod http;
mod login;
mod repository;
mod run_git;

use std::ffi::OsString;
use std::path::PathBuf;

use kiln_cache::{Context, KeyLock, KeyTurn, Store};
use kiln_graph::{Digest, Encoder, GitSource, HttpSource};
use kiln_registry::Client;
use kiln_solver::Task;

use crate::copy::now;
use crate::credentials::Credentials;
use crate::error::WorkerError;
use crate::pause::Pause;
use crate::snapshot::Snapshot;

pub use crate::sources::error::SourceError;

/// Fetches remote sources; clones share everything.
#[derive(Debug, Clone)]
pub struct Sources {
    store: Store,
    client: Client,
    git: GitSettings,
    credentials: Credentials,
    /// The socket of the agent to use where none was given.
    ssh_agent: Option<PathBuf>,
}

/// What `git` is started with; nothing else of the environment reaches it.
#[derive(Clone, Default)]
pub struct GitSettings {
    /// `PATH`, where `git` and its own helpers are looked for.
    pub path: OsString,
    /// Proxy variables.
    pub proxies: Vec<(String, String)>,
}

impl std::fmt::Debug for GitSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Proxies may have passwords.
        f.debug_struct("GitSettings")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// What stands behind the name of a context.
#[derive(Debug)]
pub enum ContextFiles {
    /// A folder of this machine.
    Folder(Context),
    /// Files that were fetched already.
    Fetched(Snapshot),
    /// Files of a commit, fetched when somebody needs them.
    Git(GitSource),
    /// A file called `context`, fetched when somebody needs it.
    Http(HttpSource),
}

impl Sources {
    /// Returns what fetches into this store.
    pub fn new(store: Store, client: Client, git: GitSettings) -> Self {
        Self {
            store,
            client,
            git,
            credentials: Credentials::default(),
            ssh_agent: None,
        }
    }

    /// Lets sources use what the user gave.
    #[must_use]
    pub fn with_credentials(self, credentials: Credentials) -> Self {
        Self {
            credentials,
            ..self
        }
    }

    /// Returns the same with an agent for when the user gave none.
    #[must_use]
    pub fn with_ssh_agent(mut self, socket: PathBuf) -> Self {
        self.ssh_agent = Some(socket);
        self
    }

    /// Returns the files of a context that is no folder.
    pub(crate) async fn context(
        &self,
        files: &ContextFiles,
        task: &Task,
    ) -> Result<Snapshot, WorkerError> {
        match files {
            ContextFiles::Folder(_) => Ok(Snapshot::default()),
            ContextFiles::Fetched(snapshot) => Ok(snapshot.clone()),
            ContextFiles::Git(source) => self.git(source, task).await,
            ContextFiles::Http(source) => self.http(source, task).await,
        }
    }

    /// Returns the layer that a memo names, if it is still here.
    fn noted_layer(&self, layer: Option<Digest>) -> Result<Option<Snapshot>, WorkerError> {
        let Some(layer) = layer else { return Ok(None) };
        Ok(self.store.has_layer(&layer)?.then(|| snapshot_of(layer)))
    }
}

/// Returns the snapshot that is one fetched layer.
fn snapshot_of(layer: Digest) -> Snapshot {
    Snapshot::default().with_layer(layer, now().seconds)
}

/// Returns the key of a memo or a lock.
fn key_of(kind: &str, parts: &[&str]) -> Digest {
    let mut encoder = Encoder::new("source");
    encoder.text(kind).number(parts.len() as u64);
    for part in parts {
        encoder.text(part);
    }
    encoder.finish()
}

/// Waits until no other process works on what has this key, and says for whom it waits. `what` is
/// what others are told that we make.
pub(crate) async fn wait_for_key(
    store: &Store,
    key: &Digest,
    what: &str,
    task: &Task,
) -> Result<KeyLock, WorkerError> {
    let mut pause = Pause::first();
    let mut told = None;
    loop {
        let holder = match store.try_lock_key(key, what)? {
            KeyTurn::Mine(lock) => return Ok(lock),
            KeyTurn::Taken(holder) => holder,
        };
        if told.is_none() || holder.is_some() && told.as_ref() != Some(&holder) {
            let own = format!("process {}: ", std::process::id());
            task.status(match &holder {
                Some(who) if who.starts_with(&own) => {
                    "waiting for another platform, which makes the same".to_owned()
                }
                Some(who) => format!("waiting for another build that makes the same, {who}"),
                None => "waiting for another build that makes the same".to_owned(),
            });
            told = Some(holder);
        }
        pause.wait().await;
    }
}
