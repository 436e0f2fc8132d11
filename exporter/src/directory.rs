//! `type=local`: the merged root file system as a directory.
//!
//! A directory that does not exist appears complete. Into one that exists, entries are put one by
//! one, each complete: what the image does not name stays, and a directory never makes way for
//! something else. Parents are opened below the destination without following any link, so
//! neither a link in the image nor one in the destination leads outside.
//!
//! Owners and device nodes need root. Without it everything belongs to the caller, set-uid and
//! set-gid bits are dropped, and devices are left out.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use kiln_cache::{Entry, Kind, Layer, Mtime, open_dir, split_path};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
    makedev,
};
use rustix::io::Errno;

use crate::error::{ExportError, shown};
use crate::tar::open_entry;

const SET_ID: u32 = 0o6000;

/// Writes a merged tree as a directory.
///
/// The entries are sorted, deletions are applied, and a hard link's target stands before it. The
/// layer of an entry is where its content is. The destination's own mode and owner stay.
pub fn export_dir(entries: &[(Entry, &Layer)], dir: &Path) -> Result<(), ExportError> {
    let failed = || ExportError::write_path(dir);
    if dir.exists() {
        // The user named it; only what is below is beyond their control.
        let dir = fs::canonicalize(dir).map_err(failed())?;
        return write_tree(entries, open_dir(&dir).map_err(failed())?);
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(failed())?;
    let tmp = tempfile::Builder::new()
        .prefix(".kiln-")
        .permissions(fs::Permissions::from_mode(0o777))
        .tempdir_in(parent)
        .map_err(failed())?;
    write_tree(entries, open_dir(tmp.path()).map_err(failed())?)?;
    fs::rename(tmp.path(), dir).map_err(failed())?;
    // It is not temporary any more.
    let _renamed = tmp.keep();
    Ok(())
}

fn write_tree(entries: &[(Entry, &Layer)], root: OwnedFd) -> Result<(), ExportError> {
    let mut writer = TreeWriter {
        root,
        parent: None,
        keep_owners: rustix::process::geteuid().is_root(),
        temporary: format!(".kiln-export-{}", std::process::id()),
    };
    let named = |(entry, _): &&(Entry, &Layer)| !entry.path.is_empty();
    for (entry, layer) in entries.iter().filter(named) {
        check_path(&entry.path)?;
        writer.put(entry, layer)?;
    }
    // Writing into a directory changes its time, and may need a mode that the image forbids.
    let dirs = entries
        .iter()
        .filter(named)
        .filter(|(entry, _)| entry.is_dir());
    for (entry, _) in dirs.rev() {
        let finished = writer.finish_dir(entry);
        finished.map_err(ExportError::write(format!("`{}`", shown(&entry.path))))?;
    }
    Ok(())
}

/// File lists hold clean paths; a damaged one must not lead outside.
fn check_path(path: &[u8]) -> Result<(), ExportError> {
    let is_bad = |part: &[u8]| matches!(part, b"" | b"." | b"..") || part.contains(&0);
    if path.split(|&byte| byte == b'/').any(is_bad) {
        return Err(ExportError::entry(path, "its path is not a plain path"));
    }
    Ok(())
}

struct TreeWriter {
    root: OwnedFd,
    /// The parent of the last entry: neighbours mostly share it.
    parent: Option<(Vec<u8>, OwnedFd)>,
    keep_owners: bool,
    /// Name of what is not complete yet.
    temporary: String,
}

impl TreeWriter {
    fn put(&mut self, entry: &Entry, layer: &Layer) -> Result<(), ExportError> {
        let (parent_path, name) = split_path(&entry.path);
        let failed = || ExportError::write(format!("`{}`", shown(&entry.path)));
        self.open_parent(parent_path).map_err(failed())?;
        let parent = self
            .parent
            .as_ref()
            .map_or(self.root.as_fd(), |(_, fd)| fd.as_fd());
        match &entry.kind {
            Kind::Dir { .. } => return make_dir(parent, name).map_err(failed()),
            Kind::Whiteout => {
                return Err(ExportError::entry(&entry.path, "it stands for a deletion"));
            }
            Kind::File { size, .. } => {
                let content = open_entry(entry, &mut |entry| layer.open(&entry.path))?;
                self.file(parent, entry, content, *size)?;
            }
            _ => {
                if !self.special(parent, entry).map_err(failed())? {
                    return Ok(());
                }
            }
        }
        let tmp = self.temporary.as_str();
        rustix::fs::renameat(parent, tmp, parent, name).map_err(|errno| {
            self.discard(parent);
            let source = match errno {
                Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST => {
                    io::Error::other("the destination has a directory of this name")
                }
                other => other.into(),
            };
            failed()(source)
        })
    }

    /// Writes a file under the temporary name.
    fn file(
        &self,
        parent: BorrowedFd<'_>,
        entry: &Entry,
        content: File,
        size: u64,
    ) -> Result<(), ExportError> {
        let failed = || ExportError::write(format!("`{}`", shown(&entry.path)));
        self.discard(parent);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let created = rustix::fs::openat(parent, &self.temporary, flags, Mode::RUSR | Mode::WUSR);
        let mut file = File::from(created.map_err(|errno| failed()(errno.into()))?);
        let written = copy(content, &mut file, size)
            .map_err(failed())
            .and_then(|complete| {
                if !complete {
                    return Err(ExportError::Changed {
                        path: shown(&entry.path),
                    });
                }
                self.set_metadata(file.as_fd(), entry).map_err(failed())
            });
        if written.is_err() {
            self.discard(parent);
        }
        written
    }

    /// Makes a link, pipe or device under the temporary name; false if it is left out.
    fn special(&self, parent: BorrowedFd<'_>, entry: &Entry) -> io::Result<bool> {
        self.discard(parent);
        let name = self.temporary.as_str();
        // Group and others get what the umask leaves them; the mode is set below.
        let node = |kind, device| {
            rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(0o600), device)
        };
        let made = match &entry.kind {
            Kind::Hardlink { target } => {
                let (dir, target) = split_path(target);
                let dir = open_below(&self.root, dir, OFlags::PATH)?;
                rustix::fs::linkat(&dir, target, parent, name, AtFlags::empty())?;
                // It has its target's metadata.
                return Ok(true);
            }
            Kind::Symlink { target } => rustix::fs::symlinkat(&target[..], parent, name),
            Kind::Fifo => node(FileType::Fifo, 0),
            Kind::CharDevice { major, minor } => {
                node(FileType::CharacterDevice, makedev(*major, *minor))
            }
            Kind::BlockDevice { major, minor } => {
                node(FileType::BlockDevice, makedev(*major, *minor))
            }
            Kind::File { .. } | Kind::Dir { .. } | Kind::Whiteout => return Ok(false),
        };
        match made {
            Err(Errno::PERM) if !self.keep_owners || is_device(&entry.kind) => {
                tracing::warn!(
                    path = shown(&entry.path),
                    "left out: only root makes devices"
                );
                return Ok(false);
            }
            other => other?,
        }
        let follow = AtFlags::SYMLINK_NOFOLLOW;
        let owned = self.set_owner(entry, |uid, gid| {
            rustix::fs::chownat(parent, name, uid, gid, follow)
        })?;
        if !matches!(entry.kind, Kind::Symlink { .. }) {
            rustix::fs::chmodat(parent, name, mode_of(entry, owned), AtFlags::empty())?;
        }
        rustix::fs::utimensat(parent, name, &times(entry.mtime), follow)?;
        Ok(true)
    }

    /// Gives a finished directory its owner, mode, attributes and time.
    fn finish_dir(&self, entry: &Entry) -> io::Result<()> {
        let dir = open_below(&self.root, &entry.path, OFlags::RDONLY)?;
        self.set_metadata(dir.as_fd(), entry)
    }

    /// Owner first: changing it clears set-uid bits and capabilities.
    fn set_metadata(&self, file: BorrowedFd<'_>, entry: &Entry) -> io::Result<()> {
        let owned = self.set_owner(entry, |uid, gid| rustix::fs::fchown(file, uid, gid))?;
        rustix::fs::fchmod(file, mode_of(entry, owned))?;
        for (name, value) in &entry.xattrs {
            match rustix::fs::fsetxattr(file, &name[..], value, XattrFlags::empty()) {
                // Not every file system keeps every attribute, nor may everybody set it.
                Err(errno @ (Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS | Errno::INVAL)) => {
                    let name = String::from_utf8_lossy(name);
                    tracing::debug!(path = shown(&entry.path), %name, %errno, "attribute left out");
                }
                other => other?,
            }
        }
        Ok(rustix::fs::futimens(file, &times(entry.mtime))?)
    }

    /// Returns whether the entry belongs to whom the image says.
    fn set_owner(
        &self,
        entry: &Entry,
        chown: impl FnOnce(Option<Uid>, Option<Gid>) -> rustix::io::Result<()>,
    ) -> io::Result<bool> {
        if !self.keep_owners {
            return Ok(false);
        }
        match chown(
            Some(Uid::from_raw(entry.uid)),
            Some(Gid::from_raw(entry.gid)),
        ) {
            Ok(()) => Ok(true),
            // Root of a user namespace that does not map this owner.
            Err(Errno::PERM | Errno::INVAL) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Removes what is left under the temporary name, mostly nothing.
    fn discard(&self, parent: BorrowedFd<'_>) {
        match rustix::fs::unlinkat(parent, &self.temporary, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => tracing::warn!(name = self.temporary, %errno, "temporary file stays"),
        }
    }

    /// Opens the directory that the next entry goes to, and makes what is missing of it.
    fn open_parent(&mut self, path: &[u8]) -> io::Result<()> {
        if path.is_empty() {
            self.parent = None;
            return Ok(());
        }
        if self.parent.as_ref().is_some_and(|(open, _)| open == path) {
            return Ok(());
        }
        let opened = match open_below(&self.root, path, OFlags::PATH) {
            Err(Errno::NOENT) => {
                let (above, name) = split_path(path);
                let above_dir = match above {
                    b"" => rustix::io::dup(&self.root)?,
                    above => {
                        self.open_parent(above)?;
                        open_below(&self.root, above, OFlags::PATH)?
                    }
                };
                make_dir(above_dir.as_fd(), name)?;
                rustix::fs::chmodat(
                    &above_dir,
                    name,
                    Mode::from_raw_mode(0o755),
                    AtFlags::empty(),
                )?;
                open_below(&self.root, path, OFlags::PATH)?
            }
            other => other?,
        };
        self.parent = Some((path.to_vec(), opened));
        Ok(())
    }
}

/// Makes a directory; a link or file in its place is replaced, a directory is kept.
fn make_dir(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Err(Errno::EXIST) => {}
        other => return Ok(other?),
    }
    let found = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
        return Ok(());
    }
    rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
    Ok(rustix::fs::mkdirat(parent, name, Mode::RWXU)?)
}

/// Opens a directory below `root`; no component may be a link.
fn open_below(root: &OwnedFd, path: &[u8], access: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = access | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)
}

/// Copies a file; false if it is not exactly `size` bytes long.
fn copy(content: File, file: &mut File, size: u64) -> io::Result<bool> {
    if content.metadata()?.len() != size {
        return Ok(false);
    }
    // The standard library uses copy_file_range where it can.
    let n = io::copy(&mut content.take(size), file)?;
    Ok(n == size)
}

fn is_device(kind: &Kind) -> bool {
    matches!(kind, Kind::CharDevice { .. } | Kind::BlockDevice { .. })
}

fn mode_of(entry: &Entry, owned: bool) -> Mode {
    let dropped = if owned { 0 } else { SET_ID };
    Mode::from_raw_mode(entry.mode & 0o7777 & !dropped)
}

fn times(mtime: Mtime) -> Timestamps {
    let time = Timespec {
        tv_sec: mtime.seconds,
        tv_nsec: mtime.nanoseconds.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

#[cfg(test)]
mod tests;
