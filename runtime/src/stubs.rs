//! Removes what mount points left behind in a step's upper folder.
//!
//! The folder's content was written by the step, so nothing of it is trusted: a stub is looked up
//! by the links-free path at which it was made, confined to the folder and through no link, and
//! removed only if it is still the empty thing that was made. A folder that was only copied up to
//! hold a stub, and is still the same as below, goes too.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, Timespec, Timestamps};

use crate::place::{find_plain, modified, modified_time};
use crate::plan::{Stub, Time};

const OVERLAY_ATTRIBUTES: &[u8] = b"user.overlay.";
/// The kernel lists no more bytes of names for a file.
const MAX_ATTRIBUTE_NAMES: usize = 64 << 10;

/// Removes the stubs, last made first; `lowers` are the layers below, lowest first.
pub(crate) fn remove(stubs: &[Stub], upper: &Path, lowers: &[PathBuf]) -> io::Result<()> {
    if stubs.is_empty() {
        return Ok(());
    }
    let upper = open_folder(upper)?;
    for stub in stubs.iter().rev() {
        remove_one(stub, &upper)?;
    }
    for stub in stubs.iter().rev() {
        prune(stub, &upper, lowers)?;
    }
    Ok(())
}

fn remove_one(stub: &Stub, upper: &OwnedFd) -> io::Result<()> {
    let Some((name, parent)) = stub.path.split_last() else {
        return Ok(());
    };
    let parent: PathBuf = parent.iter().collect();
    // The step may have moved or replaced the folder; then this is not our stub any more.
    let Ok(folder) = find_plain(upper, &parent, OFlags::RDONLY | OFlags::DIRECTORY) else {
        return Ok(());
    };
    let modified_now = modified(&folder)?;
    if !remove_if_empty(&folder, name, stub.is_dir)? {
        return Ok(());
    }
    let is_ours = modified_now == stub.parent_after;
    let time = if is_ours {
        stub.parent_before
    } else {
        modified_now
    };
    set_modified(&folder, time)
}

fn remove_if_empty(folder: &OwnedFd, name: &OsStr, is_dir: bool) -> io::Result<bool> {
    let Ok(stat) = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else {
        return Ok(false);
    };
    let kind = FileType::from_raw_mode(stat.st_mode);
    if is_dir {
        // The kernel checks that it is a folder and empty.
        return Ok(rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR).is_ok());
    }
    if kind != FileType::RegularFile || stat.st_size != 0 || stat.st_nlink != 1 {
        return Ok(false);
    }
    rustix::fs::unlinkat(folder, name, AtFlags::empty())?;
    Ok(true)
}

fn set_modified(folder: &OwnedFd, (seconds, nanoseconds): Time) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds.into(),
        },
    };
    Ok(rustix::fs::futimens(folder, &times)?)
}

/// Removes the folders above a stub that hold nothing and are the same as below.
fn prune(stub: &Stub, upper: &OwnedFd, lowers: &[PathBuf]) -> io::Result<()> {
    let mut path: &[_] = &stub.path;
    while let Some((_, parent)) = path.split_last().filter(|(_, parent)| !parent.is_empty()) {
        let (name, above) = parent.split_last().expect("it is not empty");
        let folder: PathBuf = parent.iter().collect();
        if !is_same_as_below(upper, &folder, lowers)? {
            return Ok(());
        }
        let above: PathBuf = above.iter().collect();
        let above = find_plain(upper, &above, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let time = modified(&above)?;
        if rustix::fs::unlinkat(&above, name, AtFlags::REMOVEDIR).is_err() {
            return Ok(());
        }
        set_modified(&above, time)?;
        path = parent;
    }
    Ok(())
}

fn is_same_as_below(upper: &OwnedFd, folder: &Path, lowers: &[PathBuf]) -> io::Result<bool> {
    let Ok(copied) = find_plain(upper, folder, OFlags::RDONLY | OFlags::DIRECTORY) else {
        return Ok(false);
    };
    for lower in lowers.iter().rev() {
        let lower = open_folder(lower)?;
        match find_plain(&lower, folder, OFlags::PATH | OFlags::NOFOLLOW) {
            Ok(original) => return is_same_folder(&copied, &original, &lower, folder),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // A name above it is not a folder in this layer, and hides all below.
            Err(_) => return Ok(false),
        }
    }
    Ok(false)
}

fn is_same_folder(
    copied: &OwnedFd,
    original: &OwnedFd,
    lower: &OwnedFd,
    folder: &Path,
) -> io::Result<bool> {
    let (a, b) = (rustix::fs::fstat(copied)?, rustix::fs::fstat(original)?);
    if FileType::from_raw_mode(b.st_mode) != FileType::Directory {
        return Ok(false);
    }
    let facts = |s: &Stat| (s.st_mode, s.st_uid, s.st_gid, modified_time(s));
    if facts(&a) != facts(&b) {
        return Ok(false);
    }
    let original = find_plain(lower, folder, OFlags::RDONLY | OFlags::DIRECTORY)?;
    // Attributes of its own are rare; a folder that has any is kept rather than compared.
    let is_plain = has_only(copied, is_copy_mark)?
        && has_only(&original, |name| name.starts_with(OVERLAY_ATTRIBUTES))?;
    Ok(is_plain)
}

fn has_only(folder: &OwnedFd, is_expected: impl Fn(&[u8]) -> bool) -> io::Result<bool> {
    let mut names = vec![0; MAX_ATTRIBUTE_NAMES];
    let length = rustix::fs::flistxattr(folder, &mut names[..])?;
    let mut names = names[..length].split(|&byte| byte == 0);
    Ok(names.all(|name| name.is_empty() || is_expected(name)))
}

/// `origin` and `impure` only say that it was copied; `opaque` says that it hides what is below.
fn is_copy_mark(name: &[u8]) -> bool {
    name.strip_prefix(OVERLAY_ATTRIBUTES)
        .is_some_and(|mark| mark == b"origin" || mark == b"impure")
}

fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}
