//! Memos: small facts about what is elsewhere, so that it is not fetched twice.
//!
//! A memo is a small file below `memos/`, replaced as a whole. Losing one costs time, never
//! correctness: whoever reads it checks what it says. Nothing secret is written here, and names
//! are hashes.

use std::fs;
use std::io;
use std::path::PathBuf;

use kiln_graph::Digest;

use crate::error::StoreError;
use crate::store::{Store, make_dir, write_atomically};

/// Longest memo in bytes; what is longer is none.
const MAX_MEMO: u64 = 64 << 10;

impl Store {
    fn memo_path(&self, key: &Digest) -> PathBuf {
        self.root().join("memos").join(key.hex())
    }

    /// Returns what was noted under a key.
    pub fn memo(&self, key: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.memo_path(key);
        match fs::metadata(&path) {
            Ok(found) if found.len() <= MAX_MEMO => {}
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StoreError::io("read", &path)(source)),
        }
        fs::read(&path)
            .map(Some)
            .map_err(StoreError::io("read", &path))
    }

    /// Notes something under a key; what was there is replaced.
    pub fn set_memo(&self, key: &Digest, content: &[u8]) -> Result<(), StoreError> {
        make_dir(&self.root().join("memos"))?;
        write_atomically(&self.memo_path(key), content)
    }

    /// Returns the folder of a kind of things that are kept between builds, made if missing.
    ///
    /// What is inside is the caller's business, under a lock of its own.
    pub fn kept_dir(&self, kind: &str) -> Result<PathBuf, StoreError> {
        let dir = self.root().join(kind);
        make_dir(&dir)?;
        Ok(dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memo_is_replaced_as_a_whole() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let key = Digest::blake3("key");
        assert_eq!(store.memo(&key).unwrap(), None);
        store.set_memo(&key, b"long").unwrap();
        store.set_memo(&key, b"new").unwrap();
        assert_eq!(store.memo(&key).unwrap().as_deref(), Some(&b"new"[..]));
    }
}
