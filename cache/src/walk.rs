//! Walking a directory tree on disk by descriptors: names sorted, links never followed.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Statx, StatxFlags};

use crate::filelist::{Entry, Kind, Mtime, join_path};

/// One thing found by [`walk`].
#[derive(Debug)]
pub(crate) struct Found<'a> {
    /// Path from where the walk began.
    pub(crate) path: &'a [u8],
    /// The directory it is in.
    pub(crate) parent: BorrowedFd<'a>,
    /// Its name there.
    pub(crate) name: &'a CString,
    /// Its metadata.
    pub(crate) stat: &'a Statx,
}

/// Visits everything below `dir`, each directory before what it holds.
pub(crate) fn walk<E: From<WalkError>>(
    dir: OwnedFd,
    prefix: &[u8],
    visit: &mut impl FnMut(&Found<'_>) -> Result<(), E>,
) -> Result<(), E> {
    // Directories still open, with the names not yet visited, last name first.
    let names = list(&dir).map_err(|error| WalkError::new(prefix, error))?;
    let mut open = vec![(dir, prefix.to_vec(), names)];
    while let Some((dir, prefix, names)) = open.last_mut() {
        let Some(name) = names.pop() else {
            open.pop();
            continue;
        };
        let path = join_path(prefix, name.as_bytes());
        let failed = |error: io::Error| WalkError::new(&path, error);
        let stat = match stat_at(&*dir, &name) {
            Ok(stat) => stat,
            // Gone since the directory was listed.
            Err(rustix::io::Errno::NOENT) => continue,
            Err(error) => return Err(failed(error.into()).into()),
        };
        let found = Found {
            path: &path,
            parent: dir.as_fd(),
            name: &name,
            stat: &stat,
        };
        visit(&found)?;
        if file_type(&stat) == FileType::Directory {
            let sub = open_sub(&*dir, &name).map_err(failed)?;
            let names = list(&sub).map_err(|error| WalkError::new(&path, error))?;
            open.push((sub, path, names));
        }
    }
    Ok(())
}

/// A path that could not be looked at.
#[derive(Debug)]
pub(crate) struct WalkError {
    /// Path from where the walk began.
    pub(crate) path: Vec<u8>,
    /// Why not.
    pub(crate) source: io::Error,
}

impl WalkError {
    fn new(path: &[u8], source: io::Error) -> Self {
        Self {
            path: path.to_vec(),
            source,
        }
    }
}

/// The names in a directory, sorted descending.
pub(crate) fn list(dir: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
}

/// Opens a directory inside another one.
pub(crate) fn open_sub(dir: impl AsFd, name: &CString) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

/// Returns the metadata of a name, links not followed.
pub(crate) fn stat_at(dir: impl AsFd, name: &CString) -> rustix::io::Result<Statx> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statx(
        dir,
        name,
        flags,
        StatxFlags::BASIC_STATS | StatxFlags::BTIME,
    )
}

/// Returns what kind of file it is.
pub(crate) fn file_type(stat: &Statx) -> FileType {
    FileType::from_raw_mode(stat.stx_mode.into())
}

/// Returns the time of the last change of content.
pub(crate) fn mtime_of(stat: &Statx) -> Mtime {
    Mtime {
        seconds: stat.stx_mtime.tv_sec,
        nanoseconds: stat.stx_mtime.tv_nsec,
    }
}

/// Returns when the inode was made, where the file system keeps it.
pub(crate) fn born(stat: &Statx) -> Mtime {
    Mtime {
        seconds: stat.stx_btime.tv_sec,
        nanoseconds: stat.stx_btime.tv_nsec,
    }
}

/// Makes the entry of something found; files are given no digest here, sockets no entry.
///
/// `digest` decides what stands for a file's content.
pub(crate) fn entry_of(
    found: &Found<'_>,
    file: impl FnOnce() -> io::Result<Kind>,
) -> io::Result<Option<Entry>> {
    let stat = found.stat;
    let (major, minor) = (stat.stx_rdev_major, stat.stx_rdev_minor);
    let kind = match file_type(stat) {
        FileType::RegularFile => file()?,
        FileType::Directory => Kind::Dir { opaque: false },
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(found.parent, found.name, Vec::new())?;
            Kind::Symlink {
                target: target.into_bytes(),
            }
        }
        FileType::Fifo => Kind::Fifo,
        FileType::CharacterDevice => Kind::CharDevice { major, minor },
        FileType::BlockDevice => Kind::BlockDevice { major, minor },
        // An archive cannot hold a socket, and nothing listens on a copied one.
        _ => return Ok(None),
    };
    Ok(Some(entry_as(found, kind)))
}

/// Makes the entry of something found that counts as `kind`.
pub(crate) fn entry_as(found: &Found<'_>, kind: Kind) -> Entry {
    let stat = found.stat;
    Entry {
        path: found.path.to_vec(),
        kind,
        mode: u32::from(stat.stx_mode) & 0o7777,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        mtime: mtime_of(stat),
        xattrs: Vec::new(),
    }
}
