//! One file as a layer: how a downloaded file lies in the store.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use kiln_cache::{Content, DirWriter, Entry, FileList, Kind, Mtime, Staging, Store};
use kiln_graph::{Algorithm, Digest, Hasher};
use tokio::sync::mpsc::Receiver;

use crate::error::WorkerError;
use crate::sources::error::SourceError;

/// Permission bits of a downloaded file, as BuildKit has them.
const MODE: u32 = 0o600;

/// A file that is written and not yet visible.
#[derive(Debug)]
pub(crate) struct WrittenFile {
    staging: Staging,
    list: FileList,
    /// SHA-256 of its content.
    pub(crate) sha256: Digest,
}

impl WrittenFile {
    /// Writes a stream into a layer that holds nothing else; root's, mode 0600.
    pub(crate) fn write(
        store: &Store,
        name: &str,
        mtime: i64,
        stream: impl Read,
    ) -> Result<Self, WorkerError> {
        let keep = || SourceError::keep(name);
        let staging = store.stage_layer()?;
        let mut writer = DirWriter::new(&staging.fs_dir()).map_err(keep())?;
        let unknown = Kind::File {
            size: 0,
            digest: Digest::new(Algorithm::Blake3, [0; 32]),
        };
        let mut entry = Entry::root_owned(name.as_bytes(), unknown, MODE);
        entry.mtime = Mtime {
            seconds: mtime,
            nanoseconds: 0,
        };
        let mut stream = Sha256Reader {
            inner: stream,
            hasher: Hasher::new(Algorithm::Sha256),
        };
        let written = writer
            .put(&entry, Content::Stream(&mut stream))
            .map_err(keep())?;
        let (size, digest) = written.expect("a stream has a size and a digest");
        writer.finish().map_err(keep())?;
        entry.kind = Kind::File { size, digest };
        Ok(Self {
            staging,
            list: FileList::new(vec![entry]),
            sha256: stream.hasher.finish(),
        })
    }

    /// Makes the layer visible and returns its id.
    pub(crate) fn commit(self) -> Result<Digest, WorkerError> {
        let list = Arc::new(self.list);
        let id = list.content_id();
        self.staging.commit(&id, &list)?;
        Ok(id)
    }
}

struct Sha256Reader<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> Read for Sha256Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        Ok(n)
    }
}

/// Reads what a connection sends; ends early when the sender goes.
pub(crate) struct Chunks {
    receiver: Receiver<Bytes>,
    chunk: Bytes,
}

impl Chunks {
    pub(crate) fn new(receiver: Receiver<Bytes>) -> Self {
        Self {
            receiver,
            chunk: Bytes::new(),
        }
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(0),
            }
        }
        let n = buffer.len().min(self.chunk.len());
        buffer[..n].copy_from_slice(&self.chunk.split_to(n));
        Ok(n)
    }
}
