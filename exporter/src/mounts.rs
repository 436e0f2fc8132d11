//! Cache mounts on their way between stores.
//!
//! ```text
//! folder, tar    mount.json    {"version":1,"name":"HEX","id":"/go","entries":N}
//!                fs/…          what steps see
//! registry       manifest ─┬─ config: the same JSON, of type MOUNT_CONFIG
//!                          └─ layers: tar archives of fs/…, compressed with zstd; the first has
//!                             all folders, the others a chunk of the files each
//! ```
//!
//! `name` is the folder's name in the store, which is a function of what the Dockerfile says, so
//! the next build finds it on any machine. Archives keep owners as images have them, modes, times
//! to the nanosecond, attributes, links; devices are left out, and refused when they come in.
//!
//! What comes in is not trusted: a path that is absolute, climbs, leads through a link, or comes
//! twice ends the import. Memory grows with the number of files only. Who unpacks does so into a
//! staged folder, and drops it on an error.

mod archive;
mod chunks;
mod place;
mod sync;
mod unpack;

use kiln_cache::CacheName;
use serde::{Deserialize, Serialize};

use crate::error::ExportError;

pub use crate::mounts::archive::export_mount_tar;
pub use crate::mounts::chunks::{MountChunk, mount_chunks};
pub use crate::mounts::place::{MountPlace, PlaceError};
pub use crate::mounts::sync::{Synced, export_mount_dir};
pub use crate::mounts::unpack::{MountUnpacker, open_mount_dir, open_mount_tar};

/// Media type of the config of a cache mount in a registry.
pub const MOUNT_CONFIG: &str = "application/vnd.kiln.cache-mount.config.v1+json";

/// Version of the format.
const VERSION: u32 = 1;
/// Name of the file that says what a cache mount is called.
const INFO: &str = "mount.json";
/// Name of the folder of its files.
const FS: &[u8] = b"fs";
/// Longest `mount.json`.
const MAX_INFO: u64 = 64 << 10;

/// What `mount.json` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountInfo {
    /// What the folder is called.
    pub name: CacheName,
    /// How many entries it has, its own included; an export that is not whole has fewer.
    pub n_entries: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    name: String,
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    entries: Option<u64>,
}

impl MountInfo {
    /// Returns what describes a folder with so many entries.
    pub fn new(name: &CacheName, n_entries: usize) -> Self {
        Self {
            name: name.clone(),
            n_entries: u64::try_from(n_entries).ok(),
        }
    }

    /// Returns the text of `mount.json`.
    pub fn to_json(&self) -> Vec<u8> {
        let written = Written {
            version: VERSION,
            name: self.name.digest.hex(),
            id: self.name.id.clone(),
            entries: self.n_entries,
        };
        serde_json::to_vec(&written).expect("plain data")
    }

    /// Reads the text of `mount.json`.
    pub fn parse(json: &[u8]) -> Result<Self, ExportError> {
        let bad = |why: &str| ExportError::refused(format!("`{INFO}` is malformed: {why}"));
        let written: Written =
            serde_json::from_slice(json).map_err(|error| bad(&error.to_string()))?;
        if written.version != VERSION {
            return Err(ExportError::refused(format!(
                "the cache mount was exported by another version of kiln (format {}, not {VERSION})",
                written.version
            )));
        }
        let digest = format!("blake3:{}", written.name).parse();
        let name = CacheName {
            digest: digest.map_err(|_| bad("its `name` is no digest"))?,
            id: written.id,
        };
        Ok(Self {
            name,
            n_entries: written.entries,
        })
    }
}

#[cfg(test)]
mod tests;
