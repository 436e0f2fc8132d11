//! The thread whose call waits: what it means by a path, and how another process becomes as
//! powerless as it.
//!
//! Everything is read below one descriptor of the thread's folder in `/proc`, which leads to no
//! other thread even if its number is used again; that it is the right one from the start is
//! known from the call still waiting after it was opened.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::{Signal, chroot, fchdir, set_parent_process_death_signal, umask};
use rustix::thread::{
    CapabilitySet, CapabilitySets, Gid, ThreadNameSpaceType, Uid, move_into_thread_name_spaces,
    set_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use crate::devices::{Node, Request};
use crate::sys::{self, WaitingCall};

/// Longest path with the byte that ends it.
const PATH_MAX: u64 = 4096;
/// Size of the smallest page: what is mapped is mapped up to a multiple of it.
const PAGE: usize = 4096;
/// Longest `status`; supplementary groups can fill most of it.
const MAX_STATUS: u64 = 1 << 20;

/// A thread that waits for the answer to its call.
#[derive(Debug)]
pub(super) struct Caller {
    /// Its folder in `/proc`.
    proc: OwnedFd,
    root: OwnedFd,
    /// Where `path` begins.
    pub(super) dir: OwnedFd,
    pub(super) path: Vec<u8>,
}

impl Caller {
    /// Returns who makes a call and what it asks for; `None` if the kernel is to deal with it.
    pub(super) fn of(
        call: &WaitingCall,
        listener: BorrowedFd<'_>,
    ) -> io::Result<Option<(Self, Node)>> {
        let Some(request) = Request::new(call).filter(|_| call.thread != 0) else {
            return Ok(None);
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = openat(CWD, format!("/proc/{}", call.thread), flags, Mode::empty())?;
        if !sys::is_waiting(listener, call.id) {
            return Ok(None);
        }
        let path = read_path(&open(&proc, "mem", OFlags::RDONLY)?, request.path)?;
        let from = match request.dir {
            _ if path.first() == Some(&b'/') => "root".to_owned(),
            libc::AT_FDCWD => "cwd".to_owned(),
            fd => format!("fd/{fd}"),
        };
        let dir = open(&proc, &from, OFlags::PATH)?.into();
        let root = open(&proc, "root", OFlags::PATH)?.into();
        let caller = Self {
            proc,
            root,
            dir,
            path,
        };
        Ok(sys::is_waiting(listener, call.id).then_some((caller, request.node)))
    }

    /// Makes this process, a child of stage 1, as powerless as the caller; `container` is the
    /// process whose namespaces the caller is in. Of all else that is open, only `kept` stays.
    pub(super) fn become_it(&self, container: &OwnedFd, kept: BorrowedFd<'_>) -> io::Result<()> {
        let own = [container, &self.proc, &self.root, &self.dir].map(OwnedFd::as_fd);
        sys::close_all_but(&[own.as_slice(), &[kept]].concat())?;
        let namespaces = ThreadNameSpaceType::USER | ThreadNameSpaceType::MOUNT;
        move_into_thread_name_spaces(container.as_fd(), namespaces)?;
        // Opened by a process in the user namespace, it shows ids as they are there.
        let mut status = String::new();
        let file = open(&self.proc, "status", OFlags::RDONLY)?;
        file.take(MAX_STATUS).read_to_string(&mut status)?;
        let credentials = Credentials::parse(&status)
            .filter(|credentials| credentials.capabilities.contains(CapabilitySet::MKNOD))
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EPERM))?;
        fchdir(&self.root)?;
        chroot(c".")?;
        credentials.assume()
    }
}

/// Opens what is in the folder of a thread.
fn open(proc: &OwnedFd, name: &str, flags: OFlags) -> io::Result<File> {
    let fd = openat(proc, name, flags | OFlags::CLOEXEC, Mode::empty())?;
    Ok(fd.into())
}

/// Reads the path at an address, page by page, because what follows it may not be mapped.
fn read_path(memory: &File, address: u64) -> io::Result<Vec<u8>> {
    let mut path = Vec::new();
    let end = address
        .checked_add(PATH_MAX)
        .ok_or(io::ErrorKind::InvalidInput)?;
    let mut at = address;
    while at < end {
        let mut page = [0; PAGE];
        let length = (PAGE as u64 - at % PAGE as u64).min(end - at);
        let part = &mut page[..usize::try_from(length).map_err(io::Error::other)?];
        memory.read_exact_at(part, at)?;
        if let Some(length) = part.iter().position(|&byte| byte == 0) {
            path.extend_from_slice(&part[..length]);
            return Ok(path);
        }
        path.extend_from_slice(part);
        at += length;
    }
    Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG))
}

/// What decides on access to files.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    pub(super) capabilities: CapabilitySet,
    pub(super) umask: u32,
}

impl Credentials {
    /// Reads the `status` of a thread: the ids for files, which are the fourth ones, and the
    /// effective capabilities.
    pub(super) fn parse(status: &str) -> Option<Self> {
        let line = |name: &str| {
            let rest = status.lines().find_map(|line| line.strip_prefix(name));
            rest.and_then(|rest| rest.strip_prefix(':')).map(str::trim)
        };
        let fourth = |name| line(name)?.split_whitespace().nth(3)?.parse().ok();
        let groups = line("Groups")?.split_whitespace().map(str::parse);
        let capabilities = u64::from_str_radix(line("CapEff")?, 16).ok()?;
        Some(Self {
            uid: fourth("Uid")?,
            gid: fourth("Gid")?,
            groups: groups.collect::<Result<_, _>>().ok()?,
            capabilities: CapabilitySet::from_bits_retain(capabilities),
            umask: u32::from_str_radix(line("Umask")?, 8).ok()?,
        })
    }

    /// Gives this process these credentials and no more.
    fn assume(&self) -> io::Result<()> {
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        set_thread_groups(&groups)?;
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
        set_capabilities(
            None,
            CapabilitySets {
                effective: self.capabilities,
                permitted: self.capabilities,
                inheritable: CapabilitySet::empty(),
            },
        )?;
        umask(Mode::from_raw_mode(self.umask));
        // A change of ids clears it.
        Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
    }
}
