//! Locks by key: what one process is making, others wait for.
//!
//! A lock is a file in `locks/` with an advisory lock on it, which the kernel drops when its
//! process dies; the file says who holds it, for those who wait. It is removed while the lock is still held; whoever then gets the lock of
//! a file that is no longer in its place starts over.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use kiln_graph::Digest;

use crate::error::StoreError;
use crate::store::Store;

/// Longest text that says who holds a lock, in bytes.
const MAX_HOLDER: u64 = 4096;

/// Held while something is made; released when dropped.
#[derive(Debug)]
pub struct KeyLock {
    path: PathBuf,
    _file: File,
}

/// What came of trying to take a lock.
#[derive(Debug)]
pub enum KeyTurn {
    /// It is ours.
    Mine(KeyLock),
    /// Somebody else holds it: who, in a few words, if that is known.
    Taken(Option<String>),
}

impl Store {
    /// Takes the lock of a key, unless somebody else holds it. `what` is what they are told that
    /// we make.
    pub fn try_lock_key(&self, key: &Digest, what: &str) -> Result<KeyTurn, StoreError> {
        let path = self.root().join("locks").join(key.hex());
        loop {
            // What its holder wrote must stay.
            let mut file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .map_err(StoreError::io("write", &path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(KeyTurn::Taken(holder(&mut file))),
                Err(TryLockError::Error(source)) => {
                    return Err(StoreError::Io {
                        what: "lock",
                        path,
                        source,
                    });
                }
            }
            if is_in_place(&file, &path).map_err(StoreError::io("lock", &path))? {
                say_who(&mut file, what).map_err(StoreError::io("write", &path))?;
                return Ok(KeyTurn::Mine(KeyLock { path, _file: file }));
            }
        }
    }
}

fn say_who(file: &mut File, what: &str) -> io::Result<()> {
    file.set_len(0)?;
    let who = format!("process {}: {what}\n", std::process::id());
    file.write_all(who.as_bytes())
}

/// Returns who holds a lock; nothing if the file was just taken or is about to go.
fn holder(file: &mut File) -> Option<String> {
    let mut text = String::new();
    file.take(MAX_HOLDER).read_to_string(&mut text).ok()?;
    let line = text.strip_suffix('\n')?;
    Some(line.to_owned())
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
        let other = Digest::blake3("other");
        let lock = |store: &Store, key| store.try_lock_key(key, "RUN make").unwrap();
        let KeyTurn::Mine(held) = lock(&one, &key) else {
            panic!("nobody else has it");
        };
        let KeyTurn::Taken(Some(holder)) = lock(&two, &key) else {
            panic!("one has it");
        };
        assert_eq!(holder, format!("process {}: RUN make", std::process::id()));
        assert!(matches!(lock(&two, &other), KeyTurn::Mine(_)));
        drop(held);
        let KeyTurn::Mine(held) = lock(&two, &key) else {
            panic!("it is free");
        };
        assert!(matches!(lock(&one, &key), KeyTurn::Taken(_)));
        drop(held);
        assert_eq!(root.path().join("locks").read_dir().unwrap().count(), 0);
    }
}
