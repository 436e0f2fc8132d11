//! Device nodes that a step asks for: what stands for them while the step runs.
//!
//! The kernel makes devices for nobody in a user namespace. Where kiln is real root, the filter of
//! a step therefore puts the calls that would make one to stage 1, which has a placeholder made
//! instead. When the step is over, the cache puts nodes in the place of placeholders. Nothing that
//! a step could open is ever a device, and steps cannot open the nodes of layers.
//!
//! A placeholder is a socket that nobody listens on: it can be renamed, linked, removed and given
//! modes and owners as a device can, and not be opened (`ENXIO`). Which device it stands for is
//! remembered by its inode and time of birth. The null device, which steps may use in containers
//! of other engines, and do in roots of their own, is an empty file instead, which can be written
//! to; a file's inode may serve again for one with content, so an attribute tells it from others.
//!
//! The placeholder is made by a child of stage 1 that first becomes as powerless as the caller:
//! namespaces, root, ids, groups, capabilities and umask are the caller's, so it can do nothing
//! with a path of the caller's choice that the caller could not. It also does no more than what
//! was asked: a new name, never an existing one.
//!
//! Whatever cannot be done is left to the kernel, which runs the call with the rights of its
//! caller, as if no one had asked: it refuses for the reason that there is (`EEXIST`, `ENOENT`,
//! `EROFS`), or with `EPERM`. So there is no way to gain anything by confusing this code. Also left
//! to it is the character device 0:0, overlay's mark of deletion.
//!
//! Not here: which calls are put to stage 1, see [`crate::seccomp`].

mod caller;
mod placeholder;
#[cfg(test)]
mod tests;

use std::fmt;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::channel;
use crate::devices::caller::Caller;
use crate::devices::placeholder::Identity;
use crate::plan::Isolation;
use crate::seccomp::{self, NodeCall};
use crate::step::Device;
use crate::sys::{self, Answer, WaitStatus, WaitingCall};

/// A path is resolved and a file is made; longer than that takes only what has gone wrong.
const PATIENCE: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};
/// Why a placeholder cannot be made where the kernel would have found no fault.
const TOLD: [i32; 4] = [libc::ENOSPC, libc::EDQUOT, libc::ENOMEM, libc::EIO];

/// Most sockets of one step that stand for devices.
const MAX_SOCKETS: usize = 1 << 16;

/// Returns true if steps get placeholders: what is made of them needs real root.
pub(crate) fn are_made(isolation: &Isolation) -> bool {
    matches!(isolation, Isolation::Namespace { idmap: true, .. })
}

/// Stage 1's end of the filter.
#[derive(Debug)]
pub(crate) struct Devices {
    listener: Listener,
    made: Vec<Device>,
}

#[derive(Debug)]
enum Listener {
    /// The container will send the listener.
    Awaited(UnixStream),
    /// It did.
    Listening(OwnedFd),
    /// Nobody can ask.
    Nobody,
}

impl Devices {
    /// Returns what listens to a container at the other end of `go`.
    pub(crate) fn new(go: UnixStream, isolation: &Isolation) -> Self {
        let listener = if are_made(isolation) {
            Listener::Awaited(go)
        } else {
            Listener::Nobody
        };
        let made = Vec::new();
        Self { listener, made }
    }

    /// Returns the devices that sockets stand for.
    pub(crate) fn into_made(self) -> Vec<Device> {
        self.made
    }

    /// Returns what to poll.
    pub(crate) fn watched(&self) -> Option<PollFd<'_>> {
        match &self.listener {
            Listener::Awaited(go) => Some(PollFd::new(go, PollFlags::IN)),
            Listener::Listening(listener) => Some(PollFd::new(listener, PollFlags::IN)),
            Listener::Nobody => None,
        }
    }

    /// Does what [`Devices::watched`] is ready for; `process` is the container, `control` leads to
    /// kiln, and neither is kept waiting.
    pub(crate) fn attend(&mut self, ready: PollFlags, process: &OwnedFd, control: &UnixStream) {
        match &self.listener {
            Listener::Awaited(go) => {
                let received = channel::receive_descriptors(go).unwrap_or_default();
                self.listener = match received.into_iter().next() {
                    Some(listener) => Listener::Listening(listener),
                    None => Listener::Nobody,
                };
            }
            Listener::Listening(listener) if ready.contains(PollFlags::IN) => {
                let listener = listener.as_fd();
                // It may be gone by now, and its answer may find nobody.
                let Ok(call) = sys::receive_call(listener) else {
                    return;
                };
                let answer = match Caller::of(&call, listener) {
                    Ok(Some((caller, node))) if self.made.len() < MAX_SOCKETS => {
                        let (answer, device) = make(&caller, node, process, control);
                        self.made.extend(device);
                        answer
                    }
                    Ok(_) | Err(_) => Answer::Kernel,
                };
                let _heard = sys::answer_call(listener, call.id, answer);
            }
            // Every process with the filter is gone.
            Listener::Listening(_) | Listener::Nobody => self.listener = Listener::Nobody,
        }
    }
}

/// A device that is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Node {
    /// Permission bits as asked for, without the umask.
    mode: u32,
    is_block: bool,
    major: u32,
    minor: u32,
}

impl Node {
    /// Takes mode and device as the kernel takes them: 16 bits, and 32 as `new_encode_dev` has
    /// them. Returns `None` for what is no device or has to stay the kernel's.
    fn new(mode: u64, device: u64) -> Option<Self> {
        let (mode, device) = (low(mode) & 0xffff, low(device));
        let is_block = match FileType::from_raw_mode(mode) {
            FileType::BlockDevice => true,
            FileType::CharacterDevice => false,
            _ => return None,
        };
        let major = (device & 0x000f_ff00) >> 8;
        let minor = (device & 0xff) | ((device & 0xfff0_0000) >> 12);
        let is_whiteout = !is_block && device == 0;
        (!is_whiteout).then_some(Self {
            mode: mode & 0o7777,
            is_block,
            major,
            minor,
        })
    }

    /// Returns true for what `/dev/null` is.
    fn is_null(self) -> bool {
        (self.is_block, self.major, self.minor) == (false, 1, 3)
    }
}

/// The value of the attribute of a file that stands for it.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_block { 'b' } else { 'c' };
        write!(f, "{kind} {}:{}", self.major, self.minor)
    }
}

/// What a call asks for, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Request {
    /// Descriptor of the caller that relative paths begin at, or `AT_FDCWD`.
    dir: i32,
    /// Address of the path in the caller's memory.
    path: u64,
    node: Node,
}

impl Request {
    fn new(call: &WaitingCall) -> Option<Self> {
        let [first, second, third, fourth, ..] = call.args;
        let (dir, path, mode, device) = match seccomp::node_call(call.arch, call.number)? {
            NodeCall::Mknod => (libc::AT_FDCWD, first, second, third),
            NodeCall::Mknodat => (low(first).cast_signed(), second, third, fourth),
        };
        let node = Node::new(mode, device)?;
        Some(Self { dir, path, node })
    }
}

/// The part of a register that holds a 32-bit argument.
fn low(argument: u64) -> u32 {
    let [a, b, c, d, ..] = argument.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// Has a child make the placeholder; returns what a socket stands for.
fn make(
    caller: &Caller,
    node: Node,
    process: &OwnedFd,
    control: &UnixStream,
) -> (Answer, Option<Device>) {
    let Ok((told, tell)) = pipe_with(PipeFlags::CLOEXEC) else {
        return (Answer::Kernel, None);
    };
    match sys::fork() {
        Ok(Some(child)) => {
            drop(tell);
            let answer = answer(wait(child, process, control));
            let identity = Identity::receive(&told).filter(|_| answer == Answer::Done);
            (answer, identity.map(|identity| identity.of(node)))
        }
        Ok(None) => sys::exit_now(match placeholder::make(caller, node, process, &tell) {
            Ok(()) => 0,
            Err(error) => error.raw_os_error().unwrap_or(libc::EPERM),
        }),
        Err(_) => (Answer::Kernel, None),
    }
}

/// Returns what the end of a child means.
fn answer(status: Option<WaitStatus>) -> Answer {
    match status {
        Some(WaitStatus::Code(0)) => Answer::Done,
        Some(WaitStatus::Code(errno)) if TOLD.contains(&errno) => Answer::Failed(errno),
        _ => Answer::Kernel,
    }
}

/// Waits for the child; kills it when it takes too long, or when the container or kiln ends.
fn wait(child: Pid, process: &OwnedFd, control: &UnixStream) -> Option<WaitStatus> {
    let end = pidfd_open(child, PidfdFlags::empty()).ok()?;
    let mut watched = [
        PollFd::new(&end, PollFlags::IN),
        PollFd::new(process, PollFlags::IN),
        PollFd::new(control, PollFlags::IN | PollFlags::RDHUP),
    ];
    while let Err(rustix::io::Errno::INTR) = poll(&mut watched, Some(&PATIENCE)) {}
    if watched[0].revents().is_empty() {
        // It fails only for a process that is gone already.
        let _gone = pidfd_send_signal(&end, Signal::KILL);
    }
    let (status, _usage) = sys::wait_with_usage(child).ok()?;
    Some(status)
}
