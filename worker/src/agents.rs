//! Agents that sign for SSH: what of them a step can reach.
//!
//! ```text
//!   step ── socket in the store's tmp ── filter ──┬── socket of the user's agent
//!                                                 └── keys that were read from files
//! ```
//!
//! A step can list identities and have things signed, and nothing else: it cannot add, remove or
//! lock keys, and it never sees one. Messages are bounded, and so are connections. The sockets and
//! all that serves them end with the step.

mod key;
mod key_file;
mod protocol;
mod serve;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::agents::key::Key;
pub use crate::agents::key_file::KeyError;
pub(crate) use crate::agents::serve::{Served, Socket};

/// The largest file of a key in bytes.
const MAX_KEY_FILE: u64 = 100 << 10;

/// The agents of a build, by id; clones are cheap.
#[derive(Debug, Clone, Default)]
pub struct Agents {
    by_id: Arc<BTreeMap<String, Agent>>,
}

/// Something that signs.
#[derive(Debug, Clone)]
pub struct Agent(Signer);

#[derive(Debug, Clone)]
enum Signer {
    /// An agent that listens on a socket of the machine.
    Socket(PathBuf),
    /// Keys that were read from files.
    Keys(Arc<[Key]>),
}

/// An agent that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A path cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A socket beside other paths.
    #[error("`{}` is a socket: an agent is a single socket, or key files", path.display())]
    Mixed {
        /// The socket.
        path: PathBuf,
    },
    /// A file is not a key that can be used.
    #[error("cannot use `{}`", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: KeyError,
    },
    /// A step needs an agent that nobody gave.
    #[error("SSH agent `{id}` is required, but was not given")]
    Missing {
        /// Which agent.
        id: String,
    },
    /// The socket for a step could not be made.
    #[error("cannot make a socket for SSH agent `{id}`")]
    Serve {
        /// Which agent.
        id: String,
        /// Why not.
        source: io::Error,
    },
}

impl Agents {
    /// Returns agents by id.
    pub fn new(agents: impl IntoIterator<Item = (String, Agent)>) -> Self {
        Self {
            by_id: Arc::new(agents.into_iter().collect()),
        }
    }

    /// Returns the agent of an id, if there is one.
    pub fn get(&self, id: &str) -> Option<&Agent> {
        self.by_id.get(id)
    }
}

impl Agent {
    /// Returns the agent behind one socket, or an agent that has the keys of these files.
    pub fn open(paths: &[PathBuf]) -> Result<Self, AgentError> {
        let mut keys = Vec::new();
        for path in paths {
            let failed = |source| AgentError::Read {
                path: path.clone(),
                source,
            };
            let metadata = fs::metadata(path).map_err(failed)?;
            if !metadata.file_type().is_socket() {
                keys.push(read_key(path)?);
            } else if paths.len() == 1 {
                return Ok(Self(Signer::Socket(path.clone())));
            } else {
                return Err(AgentError::Mixed { path: path.clone() });
            }
        }
        Ok(Self(Signer::Keys(keys.into())))
    }
}

impl Agent {
    /// Returns the socket of an agent that listens on one.
    pub(crate) fn socket(&self) -> Option<&Path> {
        match &self.0 {
            Signer::Socket(path) => Some(path),
            Signer::Keys(_) => None,
        }
    }
}

impl AgentError {
    /// Returns what the user can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { id } if id == "default" => {
                Some("give it with --ssh default; SSH_AUTH_SOCK says where it is".to_owned())
            }
            Self::Missing { id } => Some(format!("give it with --ssh {id}=SOCKET, or key files")),
            Self::Key { source, .. } => source.hint().map(str::to_owned),
            Self::Read { .. } | Self::Mixed { .. } | Self::Serve { .. } => None,
        }
    }
}

fn read_key(path: &Path) -> Result<Key, AgentError> {
    let failed = |source| AgentError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let mut text = Zeroizing::new(Vec::new());
    let mut limited = file.take(MAX_KEY_FILE);
    limited.read_to_end(&mut text).map_err(failed)?;
    key_file::parse(&text).map_err(|source| AgentError::Key {
        path: path.to_owned(),
        source,
    })
}
