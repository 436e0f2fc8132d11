//! Where the bytes of a blob go while they are fetched.

use std::io::{self, Write as _};

use bytes::Bytes;
use futures_util::future::join;
use kiln_cache::{BlobWriter, Store, StoreError};
use kiln_graph::Digest;
use kiln_registry::BlobSink;
use kiln_solver::blocking;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Chunks in flight between a connection and the disk.
const CHUNKS: usize = 32;

/// Lets `fetch` write a blob into the store, where it appears if it is the one that was asked for.
/// What `fetch` says of its failure is returned inside; an error of the store counts more.
pub(crate) async fn fetch_into<E>(
    store: &Store,
    digest: &Digest,
    fetch: impl AsyncFnOnce(&mut Channel) -> Result<(), E>,
) -> Result<Result<(), E>, StoreError> {
    let (sender, receiver) = channel(CHUNKS);
    let (writer, digest) = (store.write_blob()?, *digest);
    let write = blocking(move || write_chunks(receiver, writer, digest));
    let fetch = async {
        let mut sink = Channel(Some(sender));
        fetch(&mut sink).await
    };
    let (fetched, written) = join(fetch, write).await;
    // A full disk ends the fetch, too, and is what the user must hear of.
    written?;
    Ok(fetched)
}

/// Keeps a small blob in memory.
pub(crate) struct Memory(pub(crate) Vec<u8>);

impl BlobSink for Memory {
    async fn write(&mut self, chunk: Bytes) -> io::Result<()> {
        self.0.extend_from_slice(&chunk);
        Ok(())
    }

    async fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Hands chunks to the thread that writes them.
pub(crate) struct Channel(pub(crate) Option<Sender<Bytes>>);

impl BlobSink for Channel {
    async fn write(&mut self, chunk: Bytes) -> io::Result<()> {
        let closed = || io::Error::other("the blob could not be written");
        let sender = self.0.as_ref().ok_or_else(closed)?;
        sender.send(chunk).await.map_err(|_| closed())
    }

    async fn finish(&mut self) -> io::Result<()> {
        self.0 = None;
        Ok(())
    }
}

/// Writes chunks to a blob and makes it visible if it is the right one.
///
/// A fetch that failed closes the channel early: the digest is wrong then, and the caller
/// reports the fetch.
fn write_chunks(
    mut receiver: Receiver<Bytes>,
    mut writer: BlobWriter,
    digest: Digest,
) -> Result<(), StoreError> {
    while let Some(chunk) = receiver.blocking_recv() {
        writer.write_all(&chunk).map_err(|source| StoreError::Io {
            what: "write",
            path: digest.to_string().into(),
            source,
        })?;
    }
    match writer.commit(Some(&digest)) {
        Ok(_) | Err(StoreError::WrongDigest { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
