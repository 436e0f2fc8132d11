//! Resolution of paths inside a step's root, creating what is missing.
//!
//! The root's content is hostile: any name may be a symbolic link to anywhere. Every look-up is
//! relative to the root's descriptor and confined to it by the kernel; what is created is
//! recorded by its path free of links, so that [`crate::stubs`] can find it again.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, Uid};
use rustix::io::Errno;

use crate::plan::{Stub, Time};

/// As many links as the kernel follows.
const MAX_LINKS: usize = 40;
/// Confined, and through no link at all.
const PLAIN: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);

/// What a missing last name becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// An empty file.
    File,
    /// A folder.
    Folder,
}

/// Opens (as `O_PATH`) what a path means inside a root, following links within it.
pub(crate) fn find(root: impl AsFd, path: &str, more: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    open(root.as_fd(), Path::new(path), OFlags::PATH | more, resolve)
}

/// Opens for reading what a path means inside a root; never waits for a pipe's other end.
pub(crate) fn find_readable(root: impl AsFd, path: &str) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    open(root.as_fd(), Path::new(path), flags, resolve)
}

/// Opens a path free of links below a folder.
pub(crate) fn find_plain(root: impl AsFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    open(root.as_fd(), path, flags, PLAIN)
}

fn open(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    resolve: ResolveFlags,
) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    let flags = flags | OFlags::CLOEXEC;
    loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            // A rename elsewhere raced with the look-up of `..`; the kernel wants a retry.
            Err(Errno::AGAIN) => {}
            other => return Ok(other?),
        }
    }
}

/// Opens what a path means inside a root and makes what is missing, links followed.
/// Adds what it made to `made`.
pub(crate) fn find_or_make(
    root: impl AsFd,
    path: &str,
    missing: Missing,
    made: &mut Vec<Stub>,
) -> io::Result<OwnedFd> {
    match find(&root, path, OFlags::empty()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let mut walk = Walk {
        root: root.as_fd(),
        here: Vec::new(),
        pending: names(Path::new(path)).collect(),
        n_links: 0,
    };
    while let Some(name) = walk.pending.pop_front() {
        walk.enter(name, missing, made)?;
    }
    find_plain(&root, &walk.here_path(), OFlags::PATH)
}

struct Walk<'a> {
    root: BorrowedFd<'a>,
    /// Where the walk is; free of links.
    here: Vec<OsString>,
    pending: VecDeque<OsString>,
    n_links: usize,
}

impl Walk<'_> {
    fn enter(&mut self, name: OsString, missing: Missing, made: &mut Vec<Stub>) -> io::Result<()> {
        if name == ".." {
            self.here.pop();
            return Ok(());
        }
        let folder = find_plain(
            self.root,
            &self.here_path(),
            OFlags::PATH | OFlags::DIRECTORY,
        )?;
        if rustix::fs::fstatfs(&folder)?.f_type == PROC_SUPER_MAGIC {
            // Nothing can be made there, and its links are not what their text says.
            return Err(Errno::NOENT.into());
        }
        match rustix::fs::statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                return self.follow(&folder, &name);
            }
            Ok(_) => self.here.push(name),
            Err(Errno::NOENT) => {
                let is_dir = missing == Missing::Folder || !self.pending.is_empty();
                let parent_before = modified(&folder)?;
                make(&folder, &name, is_dir)?;
                let parent_after = modified(&folder)?;
                self.here.push(name);
                made.push(Stub {
                    path: self.here.clone(),
                    is_dir,
                    parent_before,
                    parent_after,
                });
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn follow(&mut self, folder: &OwnedFd, name: &OsStr) -> io::Result<()> {
        self.n_links += 1;
        if self.n_links > MAX_LINKS {
            return Err(Errno::LOOP.into());
        }
        let target = rustix::fs::readlinkat(folder, name, Vec::new())?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        if target.is_absolute() {
            self.here.clear();
        }
        for name in names(&target).collect::<Vec<_>>().into_iter().rev() {
            self.pending.push_front(name);
        }
        Ok(())
    }

    fn here_path(&self) -> PathBuf {
        self.here.iter().collect()
    }
}

/// Returns the names of a path; `..` stays, `.` and empty names go.
fn names(path: &Path) -> impl Iterator<Item = OsString> {
    path.as_os_str()
        .as_bytes()
        .split(|&byte| byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .map(|name| OsStr::from_bytes(name).to_owned())
}

fn make(folder: &OwnedFd, name: &OsStr, is_dir: bool) -> io::Result<()> {
    if is_dir {
        return Ok(rustix::fs::mkdirat(folder, name, Mode::from(0o755))?);
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let _file = rustix::fs::openat(folder, name, flags, Mode::from(0o644))?;
    Ok(())
}

/// Returns when a folder was last modified.
pub(crate) fn modified(folder: impl AsFd) -> io::Result<Time> {
    let stat = rustix::fs::statat(folder.as_fd(), c"", AtFlags::EMPTY_PATH)?;
    Ok(modified_time(&stat))
}

/// Returns the modification time in `stat`.
pub(crate) fn modified_time(stat: &rustix::fs::Stat) -> Time {
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    (stat.st_mtime, nanoseconds)
}

/// Gives a new folder to its owner.
pub(crate) fn give(root: impl AsFd, stub: &Stub, uid: Uid, gid: Gid) -> io::Result<()> {
    let path: PathBuf = stub.path.iter().collect();
    let folder = find_plain(root, &path, OFlags::RDONLY | OFlags::DIRECTORY)?;
    Ok(rustix::fs::fchown(folder, Some(uid), Some(gid))?)
}
