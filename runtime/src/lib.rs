//! Runs one process in an isolated root; all unsafe code and all namespaces live here.
//!
//! ```text
//!  kiln ──spawn──▶ stage 1 (kiln-init) ──clone──▶ container (pid 1) ──exec──▶ the step's program
//!    │  ◀─socket──── watches, kills ◀── wait ────── sets up its root
//!    └── reads stdout and stderr
//! ```
//!
//! A step gets its own user, mount, pid, ipc, uts and cgroup namespaces (and a net namespace if
//! it is to have no network), an overlay of its layers as root, the surroundings that container
//! engines give (`/proc`, `/dev`, `/sys`, `/etc/hosts`, `/etc/resolv.conf`), fourteen
//! capabilities, and their default system call filter.
//!
//! Invariants:
//! - The container is set up by a process with one thread and no memory shared with kiln.
//! - The program is pid 1 of its namespace: when it ends, nothing of the step is left. When kiln
//!   dies, stage 1 kills it; when stage 1 dies, the kernel does.
//! - Layers hold ids as the step sees them. For root they are shown through idmapped mounts, so
//!   that no process of a step has an id that owns anything on the host.
//! - Paths in a root are resolved by the kernel, confined to the root, on descriptors.
//! - A step inherits three descriptors: its own `/dev/null` and two pipes.
//! - Nothing made for a step's surroundings stays in its upper folder.
//!
//! Not here: what a layer is, caching, and every decision on what to run. No async, no printing,
//! no environment.

mod error;
mod mount;
mod step;

mod privilege;
mod subid;

mod cancel;
mod netfiles;
mod placing;
mod plan;
mod reexec;
mod sandbox;
mod stubs;
mod supervise;

mod channel;
mod container;
mod identity;
mod init;
mod mounts;
mod overlay;
mod place;
mod root;
mod seccomp;
mod sys;
mod user;

pub use crate::cancel::Cancel;
pub use crate::error::RunError;
pub use crate::mount::{Content, Mount, MountSource, SecretFile};
pub use crate::plan::OverlayInterface;
pub use crate::privilege::{Privilege, PrivilegeKind, enter_user_namespace};
pub use crate::reexec::intercept;
pub use crate::sandbox::Sandbox;
pub use crate::step::{Exit, InlineFile, Network, Outcome, Security, Step, Stream};
