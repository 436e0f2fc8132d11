//! Handing on a blob that is checked on its way.

use bytes::Bytes;
use kiln_graph::{Descriptor, Hasher};
use kiln_registry::BlobSink;

use crate::error::RemoteError;

/// Passes a blob to a sink, and says at its end whether it was the right one.
pub(crate) struct Checked<'a, S> {
    blob: &'a Descriptor,
    sink: &'a mut S,
    progress: &'a (dyn Fn(u64) + Send + Sync),
    hasher: Hasher,
    done: u64,
}

impl<'a, S: BlobSink> Checked<'a, S> {
    pub(crate) fn new(
        blob: &'a Descriptor,
        sink: &'a mut S,
        progress: &'a (dyn Fn(u64) + Send + Sync),
    ) -> Self {
        Self {
            hasher: Hasher::new(blob.digest.algorithm()),
            blob,
            sink,
            progress,
            done: 0,
        }
    }

    /// Hands on the next bytes; returns false if there are more than there should be.
    pub(crate) async fn take(&mut self, chunk: Bytes) -> Result<bool, RemoteError> {
        self.done += chunk.len() as u64;
        if self.done > self.blob.size {
            return Ok(false);
        }
        self.hasher.update(&chunk);
        let written = self.sink.write(chunk).await;
        written.map_err(RemoteError::io("keep a blob"))?;
        (self.progress)(self.done);
        Ok(true)
    }

    /// Ends the blob, which came from a place called `what`.
    pub(crate) async fn finish(self, what: String) -> Result<(), RemoteError> {
        let (done, actual) = (self.done, self.hasher.finish());
        if done != self.blob.size || actual != self.blob.digest {
            let why = format!("it has {done} bytes and digest {actual}");
            return Err(RemoteError::unusable(what, &why));
        }
        let finished = self.sink.finish().await;
        finished.map_err(RemoteError::io("keep a blob"))
    }
}
