//! Locks by key: what one process is making, others wait for.
//!
//! A lock is a file in `locks/` with an advisory lock on it, which the kernel drops when its
//! process dies. The file is removed while the lock is still held; whoever then gets the lock of
//! a file that is no longer in its place starts over.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use kiln_graph::Digest;

use crate::error::StoreError;
use crate::store::Store;

/// Held while something is made; released when dropped.
#[derive(Debug)]
pub struct KeyLock {
    path: PathBuf,
    _file: File,
}

impl Store {
    /// Takes the lock of a key; `None` while somebody else holds it.
    pub fn try_lock_key(&self, key: &Digest) -> Result<Option<KeyLock>, StoreError> {
        let path = self.root().join("locks").join(key.hex());
        loop {
            let file = File::create(&path).map_err(StoreError::io("write", &path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(source)) => {
                    return Err(StoreError::Io {
                        what: "lock",
                        path,
                        source,
                    });
                }
            }
            if is_in_place(&file, &path).map_err(StoreError::io("lock", &path))? {
                return Ok(Some(KeyLock { path, _file: file }));
            }
        }
    }
}

fn is_in_place(file: &File, path: &Path) -> io::Result<bool> {
    let held = file.metadata()?;
    match fs::metadata(path) {
        Ok(found) => Ok((found.dev(), found.ino()) == (held.dev(), held.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        // A file that stays costs nothing but its name.
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "lock file stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_it_and_others_wait() {
        let root = tempfile::tempdir().unwrap();
        let (one, two) = (
            Store::open(root.path()).unwrap(),
            Store::open(root.path()).unwrap(),
        );
        let key = Digest::blake3("key");
        let held = one.try_lock_key(&key).unwrap().unwrap();
        assert!(two.try_lock_key(&key).unwrap().is_none());
        assert!(
            two.try_lock_key(&Digest::blake3("other"))
                .unwrap()
                .is_some()
        );
        drop(held);
        let held = two.try_lock_key(&key).unwrap().unwrap();
        assert!(one.try_lock_key(&key).unwrap().is_none());
        drop(held);
        assert_eq!(root.path().join("locks").read_dir().unwrap().count(), 0);
    }
}
