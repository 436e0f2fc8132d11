//! Layers: an unpacked directory with its file list, complete or not there.
//!
//! A layer's folder holds `fs`, which overlay takes as it is (whiteouts are 0:0 character
//! devices, opaque directories carry `user.overlay.opaque`), and `list`. A [`Staging`] is a
//! layer being written; it becomes visible under its id by one rename, or goes when dropped.
//! The id is the content id for layers that kiln made, and the diff id for layers of an image.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_graph::Digest;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::error::StoreError;
use crate::filelist::{Entry, FileList, Kind};
use crate::inventory::room_of;
use crate::ledger::{LEASES, layer_name, on_disk};
use crate::store::{Store, lock_gate, remove_tree};
use crate::verify::is_whole;

/// An unpacked layer in the store.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Its name in the store.
    pub id: Digest,
    /// What it holds.
    pub list: Arc<FileList>,
    dir: PathBuf,
}

/// A layer being written.
#[derive(Debug)]
pub struct Staging {
    store: Store,
    dir: PathBuf,
    done: bool,
}

impl Layer {
    /// Returns the unpacked directory.
    pub fn fs_dir(&self) -> PathBuf {
        self.dir.join("fs")
    }

    /// Opens a regular file of this layer for reading; links are never followed.
    pub fn open(&self, path: &[u8]) -> io::Result<File> {
        open_beneath(&open_dir(&self.fs_dir())?, path)
    }

    /// Opens the unpacked directory, for many [`open_beneath`] calls.
    pub fn open_root(&self) -> io::Result<OwnedFd> {
        open_dir(&self.fs_dir())
    }
}

/// Opens a directory that is not a link.
pub fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Opens a regular file below a directory; no component may be a link.
pub fn open_beneath(root: &OwnedFd, path: &[u8]) -> io::Result<File> {
    // Without NONBLOCK, opening a pipe that took a file's place would hang.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let file = File::from(rustix::fs::openat2(
        root,
        path,
        flags,
        Mode::empty(),
        resolve,
    )?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "not a regular file",
        ));
    }
    Ok(file)
}

impl Store {
    fn layer_dir(&self, id: &Digest) -> PathBuf {
        self.root().join(layer_name(id))
    }

    /// Returns true if the layer is here and whole; it then stays until this process ends.
    ///
    /// Layers are not written through to the disk before they appear, so the power can take part
    /// of one. A layer that is not known to be whole since the machine was started is therefore
    /// read once, all of it; of others only the beginning is looked at.
    pub fn has_layer(&self, id: &Digest) -> Result<bool, StoreError> {
        let name = layer_name(id);
        self.hold(&name)?;
        let dir = self.root().join(&name);
        // Seen before it is looked into: what appears in between is never taken for damaged.
        while let Some(inode) = inode_of(&dir) {
            if begins_well(&dir) && self.is_known_whole(&name, &dir)? {
                return Ok(true);
            }
            if self.set_aside(&dir, inode)? {
                break;
            }
        }
        Ok(false)
    }

    fn is_known_whole(&self, name: &str, dir: &Path) -> Result<bool, StoreError> {
        if self.is_known_to_be_whole(name)? {
            return Ok(true);
        }
        let since = self.known_since(name)?;
        if since
            .as_deref()
            .is_some_and(|boot| !boot.is_empty() && boot == self.boot())
        {
            return Ok(true);
        }
        if !is_whole(dir) {
            return Ok(false);
        }
        match since {
            Some(_) => self.note_whole(name)?,
            None => self.note_content(name, room_of(dir).unwrap_or_default())?,
        }
        Ok(true)
    }

    /// Returns a layer with its list, if it is here; a damaged one is set aside.
    pub fn layer(&self, id: &Digest) -> Result<Option<Layer>, StoreError> {
        if !self.has_layer(id)? {
            return Ok(None);
        }
        let dir = self.layer_dir(id);
        let path = dir.join("list");
        let bytes = fs::read(&path).map_err(StoreError::io("read", &path))?;
        match FileList::from_bytes(&bytes) {
            Ok(list) => Ok(Some(Layer {
                id: *id,
                list: Arc::new(list),
                dir,
            })),
            Err(_) => {
                if let Some(inode) = inode_of(&dir) {
                    self.set_aside(&dir, inode)?;
                }
                Ok(None)
            }
        }
    }

    /// Returns the list of a layer whose files were taken away.
    pub fn kept_list(&self, id: &Digest) -> Result<Option<Arc<FileList>>, StoreError> {
        let path = self.kept_list_path(&layer_name(id));
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("read", &path)(error)),
        };
        match FileList::from_bytes(&bytes) {
            Ok(list) => Ok(Some(Arc::new(list))),
            Err(_) => {
                fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
                Ok(None)
            }
        }
    }

    /// Keeps the list of a layer of an image whose files were moved away to `dir`: keys are still
    /// made of it.
    pub(crate) fn keep_list(&self, name: &str, dir: &Path) -> Result<(), StoreError> {
        let path = self.kept_list_path(name);
        fs::rename(dir.join("list"), &path).map_err(StoreError::io("write", &path))
    }

    fn kept_list_path(&self, layer: &str) -> PathBuf {
        self.root()
            .join("lists")
            .join(layer.trim_start_matches("layers/"))
    }

    /// Moves a damaged layer away, so that it is made or unpacked again; returns false if another
    /// one has taken its place meanwhile. Nobody can begin to use it while it is moved.
    fn set_aside(&self, dir: &Path, inode: u64) -> Result<bool, StoreError> {
        let _gate = lock_gate(self.root(), LEASES)?;
        if inode_of(dir) != Some(inode) {
            return Ok(false);
        }
        tracing::warn!(dir = %dir.display(), "damaged, and made again");
        fs::rename(dir, self.temp_path()).map_err(StoreError::io("set aside", dir))?;
        Ok(true)
    }

    /// Starts a layer: makes an empty `fs` and, for overlay, `work`.
    pub fn stage_layer(&self) -> Result<Staging, StoreError> {
        let dir = self.temp_path();
        let failed = || StoreError::io("make the folder", &dir);
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .map_err(failed())?;
        for name in ["fs", "work"] {
            let path = dir.join(name);
            fs::DirBuilder::new()
                .mode(0o755)
                .create(path)
                .map_err(failed())?;
        }
        Ok(Staging {
            store: self.clone(),
            dir,
            done: false,
        })
    }

    /// Returns the path of the file that keeps a step's output whole.
    pub fn log_path(&self, key: &Digest) -> PathBuf {
        self.root().join("logs").join(key.hex())
    }
}

impl Staging {
    /// Returns the directory that the layer's files are written to.
    pub fn fs_dir(&self) -> PathBuf {
        self.dir.join("fs")
    }

    /// Returns the directory that overlay works in.
    pub fn work_dir(&self) -> PathBuf {
        self.dir.join("work")
    }

    /// Makes the layer visible under `id`; where one is there already, that one stays.
    pub fn commit(mut self, id: &Digest, list: &Arc<FileList>) -> Result<Layer, StoreError> {
        let target = self.store.layer_dir(id);
        if !self.store.has_layer(id)? {
            let path = self.dir.join("list");
            fs::write(&path, list.to_bytes()).map_err(StoreError::io("write", &path))?;
            let work = self.work_dir();
            remove_tree(&work).map_err(StoreError::io("remove", &work))?;
            match fs::rename(&self.dir, &target) {
                Ok(()) => self.done = true,
                // Another process was faster with the same content.
                Err(_) if target.exists() => {}
                Err(source) => {
                    return Err(StoreError::Io {
                        what: "write",
                        path: target,
                        source,
                    });
                }
            }
        }
        if self.done {
            let room = room_of_list(list);
            self.store.note_content(&layer_name(id), room)?;
            return Ok(Layer {
                id: *id,
                list: Arc::clone(list),
                dir: target,
            });
        }
        let what = || format!("layer {id}");
        self.store
            .layer(id)?
            .ok_or_else(|| StoreError::Damaged { what: what() })
    }
}

/// Returns true if a layer looks whole at its beginning.
fn begins_well(dir: &Path) -> bool {
    let mut first = [0; FileList::MAGIC.len()];
    let read = File::open(dir.join("list")).and_then(|mut list| list.read_exact(&mut first));
    read.is_ok() && first == FileList::MAGIC && dir.join("fs").is_dir()
}

/// Returns the number of what is at a path, to tell it from what takes its place.
pub(crate) fn inode_of(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|found| found.ino())
}

/// Returns the room that a layer takes on disk, as its list tells it.
fn room_of_list(list: &FileList) -> u64 {
    let room = |entry: &Entry| match &entry.kind {
        Kind::File { size, .. } => on_disk(*size),
        Kind::Dir { .. } => on_disk(1),
        _ => 0,
    };
    // The folder itself, `fs` and `list`.
    let own = 3 * on_disk(1);
    own + list.entries().iter().map(room).sum::<u64>()
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.done
            && let Err(error) = remove_tree(&self.dir)
        {
            tracing::warn!(dir = %self.dir.display(), %error, "unfinished layer stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_appears_when_committed_and_the_first_one_stays() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let list = Arc::new(FileList::new(vec![Entry::dir(b"a")]));
        let id = list.content_id();
        for content in ["first", "second"] {
            let staging = store.stage_layer().unwrap();
            fs::write(staging.fs_dir().join("f"), content).unwrap();
            let layer = staging.commit(&id, &list).unwrap();
            let mut text = String::new();
            io::Read::read_to_string(&mut layer.open(b"f").unwrap(), &mut text).unwrap();
            assert_eq!(text, "first");
        }
        assert_eq!(store.layer(&id).unwrap().unwrap().list, list);
    }

    #[test]
    fn links_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/hostname", root.path().join("l")).unwrap();
        std::os::unix::fs::symlink("/etc", root.path().join("d")).unwrap();
        let dir = open_dir(root.path()).unwrap();
        assert!(open_beneath(&dir, b"l").is_err());
        assert!(open_beneath(&dir, b"d/hostname").is_err());
    }
}
