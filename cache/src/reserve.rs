//! The reserve: room that the store keeps for taking things away.
//!
//! On a disk without any room nothing can be removed either: a session is a folder, a lease is a
//! line of a file, and SQLite writes before it forgets. So a store that has room keeps a file that
//! holds nothing, and whoever comes to make room has what it took.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};

use crate::error::StoreError;

/// The file in the store.
const RESERVE: &str = "reserve";

/// What it takes, in bytes: a folder, a few lines, and the log of a transaction.
const BYTES: u64 = 1 << 20;

/// A disk with less room than this is not asked for it.
const MIN_FREE: u64 = 32 << 20;

/// Makes the reserve if it is missing and there is room enough.
pub(crate) fn keep(root: &Path) {
    let path = root.join(RESERVE);
    if path.exists() || free_bytes(root).unwrap_or(0) < MIN_FREE {
        return;
    }
    let made = File::create(&path).and_then(|file| {
        fallocate(&file, FallocateFlags::empty(), 0, BYTES).map_err(io::Error::from)
    });
    if let Err(error) = made {
        // Not every file system can set room apart.
        tracing::debug!(%error, "there is no reserve");
        fs::remove_file(&path).ok();
    }
}

/// Gives the reserve back if the disk has no more room than that.
pub(crate) fn give_back(root: &Path) {
    if free_bytes(root).is_ok_and(|free| free < BYTES)
        && let Err(error) = fs::remove_file(root.join(RESERVE))
    {
        tracing::debug!(%error, "no reserve is given back");
    }
}

/// Returns how much room is free on a folder's disk, in bytes.
pub(crate) fn free_bytes(dir: &Path) -> Result<u64, StoreError> {
    let disk = rustix::fs::statvfs(dir).map_err(StoreError::io("measure", dir))?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}
