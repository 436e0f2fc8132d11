//! Writing a layer's directory, entry by entry, by descriptors.
//!
//! No component of a path is ever followed as a link, so nothing is written outside. Times of
//! directories are set at the end, because writing into a directory changes them.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use kiln_graph::Digest;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, makedev,
};
use rustix::io::Errno;

use crate::filelist::{Entry, Kind, Mtime, split_path};
use crate::layers::open_dir;
use crate::scan::hash_copy;
use crate::xattrs;

/// Writes entries below one directory.
#[derive(Debug)]
pub struct DirWriter {
    root: OwnedFd,
    // The parent of the last entry: neighbours in a list mostly share it.
    parent: Option<(Vec<u8>, OwnedFd)>,
    dirs: Vec<(Vec<u8>, Mtime)>,
}

/// Where the content of a file comes from.
#[expect(missing_debug_implementations, reason = "a reader has none")]
pub enum Content<'a> {
    /// No content: not a regular file.
    None,
    /// Bytes that are hashed while they are written.
    Stream(&'a mut dyn Read),
    /// A file whose digest is known: copied by the kernel.
    Clone(&'a File),
    /// A file on the same file system that nobody else needs: moved here.
    Move(&'a Path),
}

impl DirWriter {
    /// Returns a writer for what is below `dir`.
    pub fn new(dir: &Path) -> io::Result<Self> {
        Ok(Self {
            root: open_dir(dir)?,
            parent: None,
            dirs: Vec::new(),
        })
    }

    /// Writes one entry, whose parent is there already, and returns size and digest of a stream.
    ///
    /// A directory that exists is kept and takes the entry's metadata; anything else in the way
    /// is an error: see [`DirWriter::remove`].
    pub fn put(
        &mut self,
        entry: &Entry,
        content: Content<'_>,
    ) -> io::Result<Option<(u64, Digest)>> {
        let (parent_path, name) = split_path(&entry.path);
        let name = if entry.path.is_empty() { b"." } else { name };
        let name = CString::new(name)?;
        self.open_parent(parent_path)?;
        let parent = self
            .parent
            .as_ref()
            .map_or(self.root.as_fd(), |(_, fd)| fd.as_fd());
        let mut written = None;
        match &entry.kind {
            Kind::File { .. } if let Content::Move(from) = content => {
                rustix::fs::renameat(rustix::fs::CWD, from, parent, &name)?;
            }
            Kind::File { .. } => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let mode = Mode::from_raw_mode(0o600);
                let mut file = File::from(rustix::fs::openat(parent, &name, flags, mode)?);
                written = fill(&mut file, content)?;
            }
            Kind::Dir { .. } => match rustix::fs::mkdirat(parent, &name, Mode::RWXU) {
                Ok(()) => {}
                // A link to a directory would be followed when the mode is set.
                Err(Errno::EXIST) if is_dir(parent, &name)? => {}
                Err(error) => return Err(error.into()),
            },
            Kind::Symlink { target } => rustix::fs::symlinkat(target.as_slice(), parent, &name)?,
            Kind::Hardlink { target } => {
                let (dir, original) = split_path(target);
                let dir = open_below(&self.root, dir)?;
                rustix::fs::linkat(&dir, original, parent, &name, AtFlags::empty())?;
                return Ok(None);
            }
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                let kind = match entry.kind {
                    Kind::CharDevice { .. } => FileType::CharacterDevice,
                    _ => FileType::BlockDevice,
                };
                match make_node(parent, &name, kind, makedev(*major, *minor)) {
                    // Only root may make devices: the list has it, and so have exports.
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                        tracing::debug!(path = %entry.path.escape_ascii(), "device not made");
                        return Ok(None);
                    }
                    other => other?,
                }
            }
            Kind::Fifo => make_node(parent, &name, FileType::Fifo, 0)?,
            Kind::Whiteout => {
                return make_node(parent, &name, FileType::CharacterDevice, 0).map(|()| None);
            }
        }
        set_metadata(parent, &name, entry)?;
        if entry.is_dir() {
            self.dirs.push((entry.path.clone(), entry.mtime));
        }
        Ok(written)
    }

    /// Removes what is at a path, with everything below it.
    pub fn remove(&mut self, path: &[u8]) -> io::Result<()> {
        let (parent_path, name) = split_path(path);
        self.parent = None;
        self.open_parent(parent_path)?;
        let parent = self
            .parent
            .as_ref()
            .map_or(self.root.as_fd(), |(_, fd)| fd.as_fd());
        let result = remove_at(parent, &CString::new(name)?);
        self.parent = None;
        result
    }

    /// Sets the times of directories; to be called last.
    pub fn finish(mut self) -> io::Result<()> {
        for (path, mtime) in std::mem::take(&mut self.dirs).into_iter().rev() {
            let dir = match open_below(&self.root, &path) {
                Ok(dir) => dir,
                // Replaced later in the same layer.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(error) => return Err(error.into()),
            };
            rustix::fs::utimensat(&dir, c".", &times(mtime), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    fn open_parent(&mut self, path: &[u8]) -> io::Result<()> {
        if path.is_empty() {
            self.parent = None;
        } else if self.parent.as_ref().is_none_or(|(open, _)| open != path) {
            self.parent = Some((path.to_vec(), open_below(&self.root, path)?));
        }
        Ok(())
    }
}

/// Opens a directory below `root` without following links.
fn open_below(root: &OwnedFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)
}

fn is_dir(parent: impl std::os::fd::AsFd, name: &CString) -> io::Result<bool> {
    let stat = crate::walk::stat_at(parent, name)?;
    Ok(crate::walk::file_type(&stat) == FileType::Directory)
}

fn make_node(
    parent: impl std::os::fd::AsFd,
    name: &CString,
    kind: FileType,
    device: u64,
) -> io::Result<()> {
    Ok(rustix::fs::mknodat(
        parent,
        name,
        kind,
        Mode::from_raw_mode(0o600),
        device,
    )?)
}

fn fill(file: &mut File, content: Content<'_>) -> io::Result<Option<(u64, Digest)>> {
    match content {
        Content::None | Content::Move(_) => Ok(None),
        Content::Clone(mut from) => {
            if rustix::fs::ioctl_ficlone(&*file, from).is_err() {
                // The standard library uses copy_file_range where it can.
                io::copy(&mut from, file)?;
            }
            Ok(None)
        }
        Content::Stream(stream) => hash_copy(stream, file).map(Some),
    }
}

/// Owner first: changing it clears set-uid bits and capabilities.
fn set_metadata(
    parent: std::os::fd::BorrowedFd<'_>,
    name: &CString,
    entry: &Entry,
) -> io::Result<()> {
    let owner = (
        Some(Uid::from_raw(entry.uid)),
        Some(Gid::from_raw(entry.gid)),
    );
    let follow = AtFlags::SYMLINK_NOFOLLOW;
    match rustix::fs::chownat(parent, name, owner.0, owner.1, follow) {
        Err(Errno::INVAL) => {
            let why = format!(
                "owner {}:{} is not among the ids that you may use (see /etc/subuid and /etc/subgid)",
                entry.uid, entry.gid
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        other => other?,
    }
    let is_link = matches!(entry.kind, Kind::Symlink { .. });
    if !is_link {
        let mode = Mode::from_raw_mode(entry.mode);
        rustix::fs::chmodat(parent, name, mode, AtFlags::empty())?;
    }
    for (key, value) in &entry.xattrs {
        match xattrs::write(parent, name, key, value) {
            // Not every file system keeps every attribute; images must unpack all the same.
            Err(error) if is_unsupported(&error) => {
                let key = String::from_utf8_lossy(key);
                tracing::debug!(%key, %error, "attribute not kept");
            }
            other => other?,
        }
    }
    if entry.kind == (Kind::Dir { opaque: true }) {
        xattrs::write(parent, name, xattrs::OPAQUE, b"y")?;
    }
    rustix::fs::utimensat(parent, name, &times(entry.mtime), follow)?;
    Ok(())
}

fn is_unsupported(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS))
}

fn times(mtime: Mtime) -> Timestamps {
    let time = Timespec {
        tv_sec: mtime.seconds,
        tv_nsec: i64::from(mtime.nanoseconds),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn remove_at(parent: std::os::fd::BorrowedFd<'_>, name: &CString) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(error) => return Err(error.into()),
    }
    let dir = crate::walk::open_sub(parent, name)?;
    for entry in rustix::fs::Dir::read_from(&dir)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            remove_at(dir.as_fd(), &entry.file_name().to_owned())?;
        }
    }
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::scan_upper;
    use crate::tree::Tree;

    #[test]
    fn what_is_written_is_what_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let time = Mtime {
            seconds: 1_000_000_000,
            nanoseconds: 5,
        };
        let mut entries = vec![Entry::dir(b""), Entry::dir(b"d")];
        let link = Kind::Symlink {
            target: b"../x".to_vec(),
        };
        entries.push(Entry::root_owned(b"d/l", link, 0o777));
        entries.push(Entry::root_owned(b"d/p", Kind::Fifo, 0o640));
        let file = Kind::File {
            size: 2,
            digest: Digest::blake3("hi"),
        };
        entries.push(Entry::root_owned(b"f", file, 0o4755));
        let hard = Kind::Hardlink {
            target: b"f".to_vec(),
        };
        entries.push(Entry::root_owned(b"g", hard, 0o4755));
        let owner = std::os::unix::fs::MetadataExt::uid(&dir.path().metadata().unwrap());
        for entry in &mut entries {
            (entry.mtime, entry.uid, entry.gid) = (time, owner, owner);
        }
        let mut writer = DirWriter::new(dir.path()).unwrap();
        for entry in &entries {
            let mut bytes = &b"hi"[..];
            let content = match entry.kind {
                Kind::File { .. } => Content::Stream(&mut bytes),
                _ => Content::None,
            };
            writer.put(entry, content).unwrap();
        }
        writer.finish().unwrap();
        let read = scan_upper(dir.path(), &Tree::default()).unwrap();
        entries.remove(0); // A plain root is not listed.
        assert_eq!(read.entries(), entries);
    }

    #[test]
    fn a_link_in_the_way_is_not_followed() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(outside.path(), dir.path().join("d")).unwrap();
        let mut writer = DirWriter::new(dir.path()).unwrap();
        let entry = Entry::root_owned(b"d/f", Kind::Fifo, 0o644);
        assert!(writer.put(&entry, Content::None).is_err());
        assert_eq!(outside.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn neither_modes_nor_hard_links_lead_through_links() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(outside.path().join("f"), "secret").unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("d")).unwrap();
        let mut writer = DirWriter::new(dir.path()).unwrap();
        assert!(writer.put(&Entry::dir(b"d"), Content::None).is_err());
        for target in [&b"d/f"[..], b"../f", b"/etc/passwd"] {
            let target = target.to_vec();
            let entry = Entry::root_owned(b"l", Kind::Hardlink { target }, 0o644);
            assert!(writer.put(&entry, Content::None).is_err());
        }
    }
}
