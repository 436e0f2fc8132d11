//! gzip as independent members of 1 MiB, compressed side by side and written in order.
//!
//! A member's bytes depend on its input and the level alone, so the number of threads does not
//! show. A chunk whose middle does not shrink (an archive, a picture, random data) is stored: trying
//! harder would cost most of the time and gain next to nothing. The threads are the caller's own scope, not a shared pool: whoever runs several layers at
//! once on a pool would wait there for work that waits for him.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Scope;

use libdeflater::{CompressionLvl, Compressor};

use crate::compress::Chunk;

/// A chunk to compress, and where its member goes.
struct Job {
    chunk: Chunk,
    done: SyncSender<io::Result<Vec<u8>>>,
}

/// Takes chunks in order; members come out of the other end in the same order.
pub(crate) struct Members {
    jobs: SyncSender<Job>,
    order: SyncSender<Receiver<io::Result<Vec<u8>>>>,
}

/// Starts `n_threads` compressors; returns where chunks go in and where members come out.
pub(crate) fn start<'scope>(
    scope: &'scope Scope<'scope, '_>,
    level: u8,
    n_threads: usize,
) -> (Members, Receiver<Receiver<io::Result<Vec<u8>>>>) {
    let (order, members) = sync_channel(n_threads + 1);
    let (jobs, queue) = sync_channel::<Job>(n_threads);
    // Guards the receiving end, which threads take turns at.
    let queue = Arc::new(Mutex::new(queue));
    for _ in 0..n_threads {
        let queue = Arc::clone(&queue);
        scope.spawn(move || {
            let mut compressors = Compressors::new(level);
            loop {
                let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok(job) = job else { return };
                let member = compressors.member(&job.chunk);
                drop(job.chunk);
                // Nobody waits for it any more if writing has failed.
                drop(job.done.send(member));
            }
        });
    }
    (Members { jobs, order }, members)
}

impl Members {
    /// Hands a chunk over; false if nobody takes members any more.
    pub(crate) fn push(&self, chunk: Chunk) -> bool {
        let (done, member) = sync_channel(1);
        self.order.send(member).is_ok() && self.jobs.send(Job { chunk, done }).is_ok()
    }
}

/// Bytes from the middle of a chunk that are tried first.
const SAMPLE: usize = 32 << 10;

/// What one thread compresses with.
struct Compressors {
    level: u8,
    usual: Compressor,
    trial: Compressor,
    stored: Compressor,
}

impl Compressors {
    fn new(level: u8) -> Self {
        let compressor = |level: u8| {
            Compressor::new(CompressionLvl::new(level.min(9).into()).unwrap_or_default())
        };
        Self {
            level,
            usual: compressor(level),
            trial: compressor(1),
            stored: compressor(0),
        }
    }

    fn member(&mut self, chunk: &[u8]) -> io::Result<Vec<u8>> {
        // Whoever asks for the best pays for it.
        if self.level < 9 && chunk.len() > 4 * SAMPLE && !self.shrinks(chunk)? {
            return compress(&mut self.stored, chunk);
        }
        compress(&mut self.usual, chunk)
    }

    /// Returns true if a sample loses at least one byte in 64.
    fn shrinks(&mut self, chunk: &[u8]) -> io::Result<bool> {
        let middle = (chunk.len() - SAMPLE) / 2;
        let tried = compress(&mut self.trial, &chunk[middle..middle + SAMPLE])?;
        Ok(tried.len() < SAMPLE - SAMPLE / 64)
    }
}

fn compress(compressor: &mut Compressor, chunk: &[u8]) -> io::Result<Vec<u8>> {
    let mut member = vec![0; compressor.gzip_compress_bound(chunk.len())];
    let n = compressor
        .gzip_compress(chunk, &mut member)
        .map_err(io::Error::other)?;
    member.truncate(n);
    Ok(member)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use kiln_cache::decompress;
    use kiln_graph::Digest;

    use super::*;

    /// Bytes that no compressor makes smaller.
    fn noise(n: usize) -> Vec<u8> {
        let block = |at: usize| *Digest::blake3(at.to_le_bytes()).as_bytes();
        (0..n / 32).flat_map(block).collect()
    }

    fn round_trip(chunk: &[u8], level: u8) -> usize {
        let member = Compressors::new(level).member(chunk).unwrap();
        let mut back = Vec::new();
        decompress(&member[..])
            .unwrap()
            .read_to_end(&mut back)
            .unwrap();
        assert!(back == chunk);
        member.len()
    }

    #[test]
    fn what_does_not_shrink_is_stored_and_the_rest_is_not() {
        let noise = noise(1 << 20);
        let size = round_trip(&noise, 3);
        assert!(size > noise.len() && size < noise.len() + 1024, "{size}");
        let text = b"the same again and again ".repeat(40_000);
        assert!(round_trip(&text, 3) < text.len() / 20);
        let mut mixed = noise[..noise.len() / 2].to_vec();
        mixed.extend_from_slice(&text[..noise.len() / 2]);
        assert!(round_trip(&mixed, 9) < mixed.len() * 6 / 10);
    }
}
