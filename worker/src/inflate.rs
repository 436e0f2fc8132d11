//! From a compressed blob to an unpacked layer, with two threads: one inflates, one writes files.

use std::fs::File;
use std::io::{self, Read};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::scope;

use kiln_cache::{DirWriter, Layer, Staging, Store, StoreError, Tree, decompress};
use kiln_graph::{Algorithm, Descriptor, Digest, Hasher};

use crate::error::{UnpackError, WorkerError};
use crate::snapshot::Origin;
use crate::unpack::{Unpacked, unpack_layer};

/// Chunks in flight between the threads.
const CHUNKS: usize = 16;

/// Unpacks the blob of a layer of an image.
pub(crate) fn unpack_blob(
    store: &Store,
    origin: &Origin,
    below: &Tree,
    (diff_id, on_id): (Digest, Digest),
) -> Result<Layer, WorkerError> {
    let (staging, unpacked) = unpack(store, &origin.blob, &diff_id, below)?;
    let id = if unpacked.used_below { on_id } else { diff_id };
    Ok(staging.commit(&id, &Arc::new(unpacked.list))?)
}

/// A layer that kiln made elsewhere.
pub(crate) struct Promised<'a> {
    pub(crate) blob: &'a Descriptor,
    pub(crate) diff_id: Digest,
    pub(crate) content_id: Digest,
}

/// Unpacks the blob of a layer that kiln made elsewhere; one with other content is refused.
pub(crate) fn unpack_promised(store: &Store, layer: &Promised<'_>) -> Result<Layer, WorkerError> {
    let nothing = Tree::default();
    let (staging, unpacked) = unpack(store, layer.blob, &layer.diff_id, &nothing)?;
    let actual = unpacked.list.content_id();
    if actual != layer.content_id {
        return Err(WorkerError::Unpack {
            layer: layer.diff_id,
            source: UnpackError::WrongDigest {
                expected: layer.content_id,
                actual,
            },
        });
    }
    Ok(staging.commit(&actual, &Arc::new(unpacked.list))?)
}

/// Unpacks a blob: one thread inflates and hashes, the other one writes files.
fn unpack(
    store: &Store,
    blob: &Descriptor,
    diff_id: &Digest,
    below: &Tree,
) -> Result<(Staging, Unpacked), WorkerError> {
    let failed = |source| WorkerError::Unpack {
        layer: *diff_id,
        source,
    };
    let missing = || StoreError::Damaged {
        what: format!("blob {}", blob.digest),
    };
    let file = store.open_blob(&blob.digest)?.ok_or_else(missing)?;
    let staging = store.stage_layer()?;
    let dir = staging.fs_dir();
    let open = |source| WorkerError::Io {
        what: "open",
        path: dir.clone(),
        source,
    };
    let writer = DirWriter::new(&dir).map_err(open)?;
    let (sender, receiver) = sync_channel(CHUNKS);
    let (digest, unpacked) = scope(|scope| {
        let inflate = scope.spawn(move || inflate(file, &sender));
        let unpacked = unpack_layer(
            Chunks {
                receiver,
                chunk: Vec::new(),
                at: 0,
            },
            below,
            writer,
        );
        (inflate.join(), unpacked)
    });
    let digest = digest.unwrap_or_else(|panic| resume_unwind(panic));
    if !matches!((&digest, &unpacked), (Ok(digest), Ok(_)) if digest == diff_id) {
        // If the blob is to blame, it goes, and the next build fetches it again.
        store.verify_blob(&blob.digest)?;
    }
    // An archive that ends early is malformed because the blob was.
    let digest = digest.map_err(failed)?;
    let unpacked = unpacked.map_err(failed)?;
    if digest != *diff_id {
        return Err(failed(UnpackError::WrongDigest {
            expected: *diff_id,
            actual: digest,
        }));
    }
    Ok((staging, unpacked))
}

/// Sends the uncompressed bytes of a blob and returns their SHA-256.
fn inflate(blob: File, sender: &SyncSender<Vec<u8>>) -> Result<Digest, UnpackError> {
    let mut stream = decompress(blob)?;
    let mut hasher = Hasher::new(Algorithm::Sha256);
    loop {
        let mut chunk = vec![0; 256 * 1024];
        let mut filled = 0;
        while filled < chunk.len() {
            match stream.read(&mut chunk[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(UnpackError::Read(error)),
            }
        }
        chunk.truncate(filled);
        if chunk.is_empty() {
            return Ok(hasher.finish());
        }
        hasher.update(&chunk);
        // The other side gave up and says why.
        if sender.send(chunk).is_err() {
            return Ok(hasher.finish());
        }
    }
}

/// Reads what [`inflate`] sends.
struct Chunks {
    receiver: Receiver<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() {
            let Ok(chunk) = self.receiver.recv() else {
                return Ok(0);
            };
            (self.chunk, self.at) = (chunk, 0);
        }
        let n = buffer.len().min(self.chunk.len() - self.at);
        buffer[..n].copy_from_slice(&self.chunk[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}
