//! Blobs: bytes stored under their SHA-256, as a registry knows them.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use kiln_graph::{Algorithm, Descriptor, Digest, Hasher};

use crate::error::StoreError;
use crate::ledger::{blob_name, on_disk};
use crate::store::Store;

/// A blob being written: hashed as it comes, invisible until committed, gone when dropped.
#[derive(Debug)]
pub struct BlobWriter {
    store: Store,
    file: tempfile::NamedTempFile,
    hasher: Hasher,
    size: u64,
}

impl Store {
    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root().join(blob_name(digest))
    }

    /// Returns the path of a blob, which, if it is here, stays until this process ends.
    fn held_blob(&self, digest: &Digest) -> Result<PathBuf, StoreError> {
        self.hold(&blob_name(digest))?;
        Ok(self.blob_path(digest))
    }

    /// Returns true if the blob is here; it then stays until this process ends.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.held_blob(digest).is_ok_and(|path| path.exists())
    }

    /// Returns true if the blob is here with its whole length; a piece of one is removed.
    pub fn has_whole_blob(&self, descriptor: &Descriptor) -> Result<bool, StoreError> {
        let path = self.held_blob(&descriptor.digest)?;
        match fs::metadata(&path) {
            Ok(found) if found.len() == descriptor.size => Ok(true),
            Ok(_) => self.drop_damaged(&path).map(|()| false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(StoreError::Io {
                what: "look at",
                path,
                source,
            }),
        }
    }

    /// Removes a file that is not what its name says, so that it is made or fetched again.
    fn drop_damaged(&self, path: &Path) -> Result<(), StoreError> {
        tracing::warn!(path = %path.display(), "damaged, and made again");
        fs::remove_file(path).map_err(StoreError::io("remove", path))
    }

    /// Opens a blob, if it is here.
    pub fn open_blob(&self, digest: &Digest) -> Result<Option<File>, StoreError> {
        let path = self.held_blob(digest)?;
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Io {
                what: "open",
                path,
                source,
            }),
        }
    }

    /// Opens a blob to be read to its end, where [`VerifiedBlob::finish`] says whether it was whole.
    pub fn open_verified(&self, digest: &Digest) -> Result<Option<VerifiedBlob>, StoreError> {
        let (store, expected) = (self.clone(), *digest);
        let hasher = Hasher::new(Algorithm::Sha256);
        let file = self.open_blob(digest)?;
        Ok(file.map(|file| VerifiedBlob {
            store,
            expected,
            file,
            hasher,
        }))
    }

    /// Reads a blob to its end; one that does not match its name is removed and is an error.
    pub fn verify_blob(&self, digest: &Digest) -> Result<(), StoreError> {
        let Some(mut blob) = self.open_verified(digest)? else {
            return Ok(());
        };
        let read = io::copy(&mut blob, &mut io::sink());
        read.map_err(StoreError::io("read", self.blob_path(digest)))?;
        blob.finish()
    }

    /// Reads a small blob; one that does not match its name is removed and counts as missing.
    pub fn read_blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.held_blob(digest)?;
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(StoreError::Io {
                    what: "read",
                    path,
                    source,
                });
            }
        };
        let actual = Digest::sha256(&bytes);
        if actual != *digest {
            return self.drop_damaged(&path).map(|()| None);
        }
        Ok(Some(bytes))
    }

    /// Starts a blob.
    pub fn write_blob(&self) -> Result<BlobWriter, StoreError> {
        let dir = self.temp_dir();
        let file = tempfile::NamedTempFile::new_in(dir).map_err(StoreError::io("write to", dir))?;
        let hasher = Hasher::new(Algorithm::Sha256);
        Ok(BlobWriter {
            store: self.clone(),
            file,
            hasher,
            size: 0,
        })
    }

    /// Stores a small blob.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::sha256(bytes);
        if self.read_blob(&digest)?.is_some() {
            return Ok(digest);
        }
        let mut writer = self.write_blob()?;
        writer
            .write_all(bytes)
            .map_err(StoreError::io("write", self.blob_path(&digest)))?;
        Ok(writer.commit(Some(&digest))?.0)
    }
}

/// A blob that is hashed while it is read.
#[derive(Debug)]
pub struct VerifiedBlob {
    store: Store,
    expected: Digest,
    file: File,
    hasher: Hasher,
}

impl Read for VerifiedBlob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        Ok(n)
    }
}

impl VerifiedBlob {
    /// Returns whether what was read has the right digest; a wrong blob is removed, so that the
    /// next build makes or fetches it again.
    pub fn finish(self) -> Result<(), StoreError> {
        let actual = self.hasher.finish();
        if actual == self.expected {
            return Ok(());
        }
        self.store
            .drop_damaged(&self.store.blob_path(&self.expected))?;
        Err(StoreError::WrongDigest {
            expected: self.expected,
            actual,
        })
    }
}

impl BlobWriter {
    /// Makes the blob visible under its digest and returns digest and size in bytes.
    ///
    /// With `expected`, any other content is refused and nothing stays.
    pub fn commit(mut self, expected: Option<&Digest>) -> Result<(Digest, u64), StoreError> {
        let digest = self.hasher.clone().finish();
        if let Some(&expected) = expected
            && expected != digest
        {
            return Err(StoreError::WrongDigest {
                expected,
                actual: digest,
            });
        }
        let path = self.store.held_blob(&digest)?;
        let failed = || StoreError::io("write", &path);
        self.file.flush().map_err(failed())?;
        self.file.as_file().sync_data().map_err(failed())?;
        self.file
            .persist(&path)
            .map_err(|error| failed()(error.error))?;
        self.store
            .note_content(&blob_name(&digest), on_disk(self.size))?;
        Ok((digest, self.size))
    }
}

impl Write for BlobWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let n = self.file.write(data)?;
        self.hasher.update(&data[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_appears_when_committed_and_not_before() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let digest = Digest::sha256("hello");
        let mut writer = store.write_blob().unwrap();
        writer.write_all(b"hello").unwrap();
        assert!(!store.has_blob(&digest));
        assert_eq!(writer.commit(Some(&digest)).unwrap(), (digest, 5));
        assert_eq!(store.read_blob(&digest).unwrap().unwrap(), b"hello");
    }

    #[test]
    fn other_content_than_expected_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let mut writer = store.write_blob().unwrap();
        writer.write_all(b"other").unwrap();
        let result = writer.commit(Some(&Digest::sha256("hello")));
        assert!(matches!(result, Err(StoreError::WrongDigest { .. })));
        assert!(!store.has_blob(&Digest::sha256("other")));
    }

    #[test]
    fn a_flipped_bit_is_seen_at_the_end_of_reading() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let digest = store.put_blob(b"hello").unwrap();
        store.verify_blob(&digest).unwrap();
        fs::write(store.blob_path(&digest), "hellp").unwrap();
        let result = store.verify_blob(&digest);
        assert!(matches!(result, Err(StoreError::WrongDigest { .. })));
        assert!(!store.has_blob(&digest));
    }

    #[test]
    fn a_flipped_bit_is_seen() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let digest = store.put_blob(b"hello").unwrap();
        fs::write(store.blob_path(&digest), "hellp").unwrap();
        assert_eq!(store.read_blob(&digest).unwrap(), None);
        assert!(!store.has_blob(&digest));
    }
}
