//! One pass from bytes to a blob: hash, compress, hash and write side by side.
//!
//! ```text
//!   producer ── 1 MiB chunks ─┬── SHA-256 (diff id)
//!                             └── compressors ── in order ── SHA-256 (digest), blob file
//! ```
//!
//! Every queue is bounded, so memory is a few chunks a thread however long the layer is.

use std::io::{self, Write};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{ScopedJoinHandle, available_parallelism, scope};

use kiln_cache::{BlobWriter, LayerBlob, Store};
use kiln_graph::{Algorithm, Hasher, MediaKind, media_type};

use crate::error::ExportError;
use crate::gzip;

/// Length of a chunk, and of what a gzip member holds.
const CHUNK: usize = 1 << 20;
/// zstd's threads hold some 16 MiB each.
const MAX_ZSTD_THREADS: usize = 4;
const DEFAULT_LEVEL: u8 = 3;
const WHAT: &str = "the layer's blob";

/// Bytes that several threads read.
pub(crate) type Chunk = Arc<Vec<u8>>;

/// How layers are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, level 0 to 9.
    Gzip {
        /// As gzip counts them.
        level: u8,
    },
    /// zstd, level 0 (zstd's own default) to 22.
    Zstd {
        /// As zstd counts them.
        level: u8,
    },
}

impl Default for Compression {
    fn default() -> Self {
        Self::Gzip {
            level: DEFAULT_LEVEL,
        }
    }
}

impl Compression {
    /// Returns gzip at the usual level.
    pub fn gzip() -> Self {
        Self::default()
    }

    /// Returns zstd at the usual level.
    pub fn zstd() -> Self {
        Self::Zstd {
            level: DEFAULT_LEVEL,
        }
    }

    /// Returns the name under which the store remembers blobs of this form.
    pub fn format(self) -> String {
        match self {
            Self::None => "tar".to_owned(),
            Self::Gzip { level } => format!("gzip-{level}"),
            Self::Zstd { level } => format!("zstd-{level}"),
        }
    }

    /// Returns true if layers of this kind need no recompression.
    pub(crate) fn is_kind(self, kind: MediaKind) -> bool {
        matches!(
            (self, kind),
            (Self::None, MediaKind::LayerTar)
                | (Self::Gzip { .. }, MediaKind::LayerGzip)
                | (Self::Zstd { .. }, MediaKind::LayerZstd)
        )
    }

    /// Returns the media type of OCI for blobs that the store remembers under a format.
    pub fn media_type_of(format: &str) -> &'static str {
        match format.split('-').next() {
            Some("gzip") => media_type::OCI_LAYER_GZIP,
            Some("zstd") => media_type::OCI_LAYER_ZSTD,
            _ => media_type::OCI_LAYER,
        }
    }

    pub(crate) fn media_type(self, oci: bool) -> &'static str {
        match (self, oci) {
            (Self::None, true) => media_type::OCI_LAYER,
            (Self::None, false) => media_type::DOCKER_LAYER,
            (Self::Gzip { .. }, true) => media_type::OCI_LAYER_GZIP,
            (Self::Gzip { .. }, false) => media_type::DOCKER_LAYER_GZIP,
            (Self::Zstd { .. }, true) => media_type::OCI_LAYER_ZSTD,
            (Self::Zstd { .. }, false) => media_type::DOCKER_LAYER_ZSTD,
        }
    }
}

/// Returns how many threads compress by default.
pub(crate) fn default_threads() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// Compresses what `produce` writes into a blob of the store.
pub(crate) fn compress(
    store: &Store,
    compression: Compression,
    n_threads: usize,
    produce: impl FnOnce(&mut dyn Write) -> Result<(), ExportError>,
) -> Result<LayerBlob, ExportError> {
    let writer = store.write_blob()?;
    scope(|scope| {
        let (hashes, hash_queue) = sync_channel::<Chunk>(2);
        let hash = scope.spawn(move || hash_all(&hash_queue));
        let (pack, packed) = match compression {
            Compression::Gzip { level } => {
                let (members, queue) = gzip::start(scope, level, n_threads.max(1));
                (
                    Pack::Members(members),
                    scope.spawn(move || write_members(writer, &queue)),
                )
            }
            Compression::None => {
                let (chunks, queue) = sync_channel(2);
                (
                    Pack::Stream(chunks),
                    scope.spawn(move || write_plain(writer, &queue)),
                )
            }
            Compression::Zstd { level } => {
                let (chunks, queue) = sync_channel(2);
                let write = move || write_zstd(writer, level, n_threads, &queue);
                (Pack::Stream(chunks), scope.spawn(write))
            }
        };
        let mut chunks = ChunkWriter {
            buffer: Vec::with_capacity(CHUNK),
            hashes,
            pack,
        };
        let produced = produce(&mut chunks)
            .and_then(|()| chunks.send_last().map_err(ExportError::write(WHAT)));
        // Closes the queues, which ends the threads.
        drop(chunks);
        let (diff_id, written) = (join(hash), join(packed));
        // If writing failed, the producer only saw that its chunks are no longer taken.
        let writer = written.map_err(ExportError::write(WHAT))?;
        produced?;
        let (digest, size) = writer.commit(None)?;
        Ok(LayerBlob {
            digest,
            size,
            diff_id,
        })
    })
}

/// Hashes what `produce` writes and keeps nothing.
pub(crate) fn hash_only(
    produce: impl FnOnce(&mut dyn Write) -> Result<(), ExportError>,
) -> Result<LayerBlob, ExportError> {
    let mut counter = Counter {
        hasher: Hasher::new(Algorithm::Sha256),
        size: 0,
    };
    produce(&mut counter)?;
    let digest = counter.hasher.finish();
    Ok(LayerBlob {
        digest,
        size: counter.size,
        diff_id: digest,
    })
}

struct Counter {
    hasher: Hasher,
    size: u64,
}

impl Write for Counter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.hasher.update(data);
        self.size += data.len() as u64;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// Where chunks go to be compressed.
enum Pack {
    Members(gzip::Members),
    Stream(SyncSender<Chunk>),
}

/// Cuts what is written into chunks; where they are cut depends on nothing but their number.
struct ChunkWriter {
    buffer: Vec<u8>,
    hashes: SyncSender<Chunk>,
    pack: Pack,
}

impl ChunkWriter {
    fn send(&mut self) -> io::Result<()> {
        let chunk = Arc::new(std::mem::replace(
            &mut self.buffer,
            Vec::with_capacity(CHUNK),
        ));
        let taken = self.hashes.send(Arc::clone(&chunk)).is_ok()
            && match &self.pack {
                Pack::Members(members) => members.push(chunk),
                Pack::Stream(chunks) => chunks.send(chunk).is_ok(),
            };
        if taken {
            return Ok(());
        }
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn send_last(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.send()
    }
}

impl Write for ChunkWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let n = data.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&data[..n]);
        if self.buffer.len() == CHUNK {
            self.send()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn hash_all(queue: &Receiver<Chunk>) -> kiln_graph::Digest {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    for chunk in queue {
        hasher.update(&chunk);
    }
    hasher.finish()
}

fn write_plain(mut writer: BlobWriter, queue: &Receiver<Chunk>) -> io::Result<BlobWriter> {
    for chunk in queue {
        writer.write_all(&chunk)?;
    }
    Ok(writer)
}

fn write_members(
    mut writer: BlobWriter,
    queue: &Receiver<Receiver<io::Result<Vec<u8>>>>,
) -> io::Result<BlobWriter> {
    for member in queue {
        let member = member
            .recv()
            .map_err(|_| io::Error::other("a compressor stopped"))??;
        writer.write_all(&member)?;
    }
    Ok(writer)
}

/// Without worker threads zstd makes other bytes than with any number of them.
fn write_zstd(
    writer: BlobWriter,
    level: u8,
    n_threads: usize,
    queue: &Receiver<Chunk>,
) -> io::Result<BlobWriter> {
    let mut encoder = zstd::Encoder::new(writer, level.into())?;
    let n_workers = n_threads.clamp(1, MAX_ZSTD_THREADS);
    encoder.multithread(u32::try_from(n_workers).unwrap_or(1))?;
    for chunk in queue {
        encoder.write_all(&chunk)?;
    }
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use kiln_cache::decompress;
    use kiln_graph::Digest;

    use super::*;

    const ALL: [Compression; 3] = [
        Compression::None,
        Compression::Gzip { level: 3 },
        Compression::Zstd { level: 3 },
    ];

    /// Text that compresses somewhat, a few chunks and a bit.
    fn text() -> Vec<u8> {
        let line = |n: u32| format!("{n} {:x}\n", n.wrapping_mul(2_654_435_761)).into_bytes();
        (0..300_000).flat_map(line).collect()
    }

    fn blob(store: &Store, form: Compression, n_threads: usize, piece: usize) -> LayerBlob {
        let produce = |out: &mut dyn Write| {
            let mut pieces = text()
                .chunks(piece)
                .map(<[u8]>::to_vec)
                .collect::<Vec<_>>()
                .into_iter();
            pieces
                .try_for_each(|p| out.write_all(&p))
                .map_err(ExportError::write("x"))
        };
        compress(store, form, n_threads, produce).unwrap()
    }

    #[test]
    fn bytes_do_not_depend_on_threads_or_on_how_they_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for form in ALL {
            let first = blob(&store, form, 1, 1 << 16);
            for (n_threads, piece) in [(2, 1000), (3, 1 << 21), (8, 77_777)] {
                assert_eq!(blob(&store, form, n_threads, piece), first, "{form:?}");
            }
        }
    }

    #[test]
    fn what_goes_in_comes_out() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for form in ALL {
            let blob = blob(&store, form, 2, 4096);
            assert_eq!(blob.diff_id, Digest::sha256(text()));
            let file = store.open_blob(&blob.digest).unwrap().unwrap();
            assert_eq!(file.metadata().unwrap().len(), blob.size);
            let mut back = Vec::new();
            decompress(file).unwrap().read_to_end(&mut back).unwrap();
            assert!(back == text(), "{form:?}");
            assert_eq!(
                blob.size < 4_000_000,
                form != Compression::None,
                "{}",
                blob.size
            );
        }
    }

    #[test]
    fn hashing_alone_gives_what_an_uncompressed_blob_has() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let kept = blob(&store, Compression::None, 1, 1 << 16);
        let write = |out: &mut dyn Write| out.write_all(&text()).map_err(ExportError::write("x"));
        assert_eq!(hash_only(write).unwrap(), kept);
    }

    #[test]
    fn a_producer_that_fails_leaves_no_blob() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for form in ALL {
            let result = compress(&store, form, 2, |out| {
                out.write_all(&text()).map_err(ExportError::write("x"))?;
                Err(ExportError::refused("stop"))
            });
            assert_eq!(result.unwrap_err().to_string(), "stop");
        }
        assert_eq!(
            dir.path().join("blobs/sha256").read_dir().unwrap().count(),
            0
        );
    }
}
