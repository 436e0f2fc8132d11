//! What to run and how it ended: plain data.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::mount::Mount;

/// One process to run in an isolated root.
#[derive(Debug, Clone)]
pub struct Step {
    /// Layer folders, lowest first; may be empty.
    pub lowers: Vec<PathBuf>,
    /// Folder that receives what the step changes; its own mode and owner become those of `/`.
    pub upper: PathBuf,
    /// Empty folder beside `upper`, on the same file system, for the kernel's use; empty again
    /// afterwards.
    pub work: PathBuf,
    /// Program and arguments; a program without a slash is looked up in `PATH` of `env`.
    pub args: Vec<String>,
    /// The complete environment, where the last value of a name counts; `HOME` is added if it is
    /// not in it, or empty.
    pub env: Vec<(String, String)>,
    /// Working directory, created if missing; empty for `/`.
    pub cwd: String,
    /// `USER` as written: empty, a name or an id, each optionally followed by `:group`.
    pub user: String,
    /// What the step can reach.
    pub network: Network,
    /// Host name that the step sees.
    pub hostname: String,
    /// Further lines of `/etc/hosts`: name, then address.
    pub extra_hosts: Vec<(String, String)>,
    /// Files shown to the step that never enter `upper`.
    pub files: Vec<InlineFile>,
    /// Size of `/dev/shm` in bytes, if not the usual 64 MiB.
    pub shm_size: Option<u64>,
    /// What the step is shown besides; none of it enters `upper`.
    pub mounts: Vec<Mount>,
    /// What the step may do.
    pub security: Security,
}

/// What a step may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Security {
    /// What container engines allow by default.
    Sandbox,
    /// Everything that its own user namespace allows: all capabilities, every system call.
    Insecure,
}

/// What a step can reach over the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// Everything that this process can.
    Host,
    /// Nothing but itself.
    None,
}

/// A file shown read-only to a step.
#[derive(Debug, Clone)]
pub struct InlineFile {
    /// Absolute path inside the root.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Content.
    pub content: Vec<u8>,
}

/// Where output was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a step's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// It was killed by this signal.
    Signal(i32),
}

/// A step that ran, well or not.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How it ended.
    pub exit: Exit,
    /// Wall-clock time from the start of its init to the end of its last process.
    pub elapsed: Duration,
    /// CPU time of the process and the children it waited for, set-up included.
    pub cpu_time: Duration,
    /// Largest resident set of any one of them, in bytes.
    pub max_rss: u64,
}

impl Outcome {
    /// Returns whether the process exited with code 0.
    pub fn is_success(&self) -> bool {
        self.exit == Exit::Code(0)
    }
}
