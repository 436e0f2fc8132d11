//! gzip as independent members of 1 MiB, compressed side by side and written in order.
//!
//! A member's bytes depend on its input and the level alone, so the number of threads does not
//! show. The threads are the caller's own scope, not a shared pool: whoever runs several layers at
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
            let mut compressor = Compressor::new(level_of(level));
            loop {
                let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok(job) = job else { return };
                let member = compress(&mut compressor, &job.chunk);
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

fn level_of(level: u8) -> CompressionLvl {
    CompressionLvl::new(level.min(9).into()).unwrap_or_default()
}

fn compress(compressor: &mut Compressor, chunk: &[u8]) -> io::Result<Vec<u8>> {
    let mut member = vec![0; compressor.gzip_compress_bound(chunk.len())];
    let n = compressor
        .gzip_compress(chunk, &mut member)
        .map_err(io::Error::other)?;
    member.truncate(n);
    Ok(member)
}
