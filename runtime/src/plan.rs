//! What kiln and a step's init say to each other.
//!
//! They share a stream socket. kiln sends one [`Plan`] and the contents of its files; stage 1 and
//! the container's first process answer with [`Report`]s, and the end of stream means that both
//! are gone. kiln closing its writing side means "kill the step". A message is a length (four
//! bytes, little-endian) and JSON; both ends are the same binary, so there is no version.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::RunError;
use crate::mount::Content;
use crate::step::{Network, Security};

/// Everything stage 1 needs to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub isolation: Isolation,
    /// Supplementary groups can be set.
    pub has_groups: bool,
    pub overlay: OverlayInterface,
    pub layers: Layers,
    pub network: Network,
    pub hostname: String,
    pub hosts: String,
    pub resolv_conf: String,
    pub shm_size: u64,
    pub files: Vec<File>,
    /// In the order in which they are mounted.
    pub mounts: Vec<PlannedMount>,
    pub security: Security,
    pub user: String,
    pub cwd: String,
    pub env: Vec<(String, String)>,
    /// What to execute; nothing in a probe, which ends when the root is set up.
    pub args: Vec<String>,
}

/// Which user namespace the step runs in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Isolation {
    /// Its own, with these maps in the kernel's format.
    Namespace {
        uid_map: String,
        gid_map: String,
        /// Layers hold ids as the step sees them and are shown through idmapped mounts.
        idmap: bool,
    },
    /// The one of kiln: the kernel refuses the above.
    Shared,
}

/// How the overlay is described to the kernel; newer ways have fewer limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum OverlayInterface {
    /// mount(2): one page of options, some 200 layers.
    MountString,
    /// fsconfig(2) with one path per layer (Linux 6.8).
    Paths,
    /// fsconfig(2) with one descriptor per layer (Linux 6.13).
    Descriptors,
}

/// The layers as places in mounts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Layers {
    /// Folders that together hold all layers, one per mount they lie in.
    pub bases: Vec<PathBuf>,
    pub scratch: Place,
    /// Those of the root, the skeleton being the lowest.
    pub root: Stack,
}

/// Layers that lie on each other.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Stack {
    /// Lowest first.
    pub lowers: Vec<Place>,
    pub upper: Place,
    pub work: Place,
}

/// A folder below one of the bases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub base: usize,
    /// Relative; empty for the base itself.
    pub path: PathBuf,
}

/// A file shown to the step; its content follows the plan.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct File {
    pub path: String,
    pub mode: u32,
    #[serde(skip)]
    pub content: Vec<u8>,
}

/// Something mounted for the time of the step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PlannedMount {
    pub target: String,
    pub source: PlannedSource,
    pub read_only: bool,
}

/// What a mount shows; the content of a file follows the plan.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum PlannedSource {
    Layers {
        stack: Stack,
        path: String,
    },
    Folder {
        folder: Place,
        path: String,
    },
    Tmpfs {
        size: Option<u64>,
    },
    File {
        mode: u32,
        uid: u32,
        gid: u32,
        #[serde(skip)]
        content: Content,
    },
}

/// What init says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The root is complete; the program is executed next.
    Ready { stubs: Vec<Stub> },
    /// The step cannot be run.
    Failed { failure: Failure, stubs: Vec<Stub> },
    /// The container is gone. Exactly one of code and signal is there.
    Ended {
        code: Option<i32>,
        signal: Option<i32>,
        cpu_us: u64,
        max_rss: u64,
    },
}

/// A mount point that had to be made in the root because no layer had it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stub {
    /// Names from the root down; no symbolic links among them.
    pub path: Vec<OsString>,
    pub is_dir: bool,
    /// Modification time of the folder above, before and after the stub was made.
    pub parent_before: Time,
    pub parent_after: Time,
}

/// Seconds and nanoseconds.
pub(crate) type Time = (i64, u32);

/// Why a step cannot be run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub kind: FailureKind,
    /// Set-up: what was being done. User: why. Exec: nothing.
    pub what: String,
    pub errno: i32,
}

/// Which error a failure becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FailureKind {
    Setup,
    User,
    Exec,
}

impl Failure {
    /// Returns the error of a step with these arguments and user.
    pub(crate) fn into_error(self, args: &[String], user: &str) -> RunError {
        let source = io::Error::from_raw_os_error(self.errno);
        match self.kind {
            FailureKind::Setup => RunError::Setup {
                operation: self.what,
                source,
            },
            FailureKind::User => RunError::User {
                user: user.to_owned(),
                reason: self.what,
            },
            FailureKind::Exec => RunError::exec(args.first().cloned().unwrap_or_default(), source),
        }
    }
}

/// Adds to an error what was being done.
pub(crate) trait Context<T> {
    fn during(self, what: &str) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn during(self, what: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure {
            kind: FailureKind::Setup,
            what: what.to_owned(),
            errno: error.into().raw_os_error().unwrap_or(libc::EINVAL),
        })
    }
}

/// Sends the plan and its files' contents.
pub(crate) fn send_plan(mut to: impl Write, plan: &Plan) -> io::Result<()> {
    let mut bytes = encode(plan)?;
    for file in &plan.files {
        bytes.extend(frame(&file.content)?);
    }
    for mount in &plan.mounts {
        if let PlannedSource::File { content, .. } = &mount.source {
            bytes.extend(frame(&content.0)?);
        }
    }
    to.write_all(&bytes)
}

/// Receives what [`send_plan`] sent.
pub(crate) fn receive_plan(mut from: impl Read) -> io::Result<Plan> {
    let mut plan: Plan = receive(&mut from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    for file in &mut plan.files {
        file.content = receive_bytes(&mut from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    }
    for mount in &mut plan.mounts {
        if let PlannedSource::File { content, .. } = &mut mount.source {
            content.0 = receive_bytes(&mut from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        }
    }
    Ok(plan)
}

/// Sends one message.
pub(crate) fn send(mut to: impl Write, message: &impl Serialize) -> io::Result<()> {
    to.write_all(&encode(message)?)
}

/// Receives one message, or `None` at the end of the stream.
pub(crate) fn receive<T: DeserializeOwned>(from: impl Read) -> io::Result<Option<T>> {
    match receive_bytes(from)? {
        Some(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        None => Ok(None),
    }
}

fn receive_bytes(mut from: impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    if let Err(error) = from.read_exact(&mut length) {
        let at_end = error.kind() == io::ErrorKind::UnexpectedEof;
        return if at_end { Ok(None) } else { Err(error) };
    }
    let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
    from.read_exact(&mut bytes)?;
    Ok(Some(bytes))
}

fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    frame(&serde_json::to_vec(message)?)
}

fn frame(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut framed = length.to_le_bytes().to_vec();
    framed.extend(bytes);
    Ok(framed)
}
