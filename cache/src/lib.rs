//! What is kept on disk: blobs, layers, file lists, actions, the stat table.
//!
//! ```text
//!   Store ── blobs      bytes by SHA-256, as a registry knows them
//!     │  ├── layers     unpacked directory + FileList, by content id or diff id
//!     │  ├── actions    key of a vertex -> layer it made (SQLite)
//!     │  ├── contexts   stat tables: what a file's content was when it last looked like this
//!     │  ├── memos      what is known of files and repositories elsewhere
//!     │  └── origins    where blobs can be had that nobody has fetched yet (SQLite)
//!   Tree                what a chain of FileLists shows when they lie on each other
//!   Context             a folder read in place, through patterns and a stat table
//! ```
//!
//! Nothing here knows how a layer comes to be: see the crates `worker` and `exporter`.

mod actions;
mod archive;
mod blobs;
mod codec;
mod collect;
mod context;
mod db;
mod devices;
mod dir_writer;
mod error;
mod filelist;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod history;
mod inventory;
mod layers;
mod ledger;
mod lock;
mod memos;
mod mounts;
mod origins;
mod pattern;
mod reserve;
mod scan;
mod stat_table;
mod store;
mod tree;
mod verify;
mod walk;
mod xattrs;

pub use crate::actions::{Action, NewAction};
pub use crate::archive::{ArchiveError, TarEntry, TarKind, TarReader, decompress, is_archive};
pub use crate::blobs::{BlobWriter, VerifiedBlob};
pub use crate::codec::Damaged;
pub use crate::collect::{Collected, Goal};
pub use crate::context::Context;
pub use crate::db::{DATABASE, LayerBlob, NamedImage};
pub use crate::devices::Placeholder;
pub use crate::dir_writer::{Content, DirWriter};
pub use crate::error::StoreError;
pub use crate::filelist::{Entry, FileList, Kind, Mtime, compare_paths, join_path, split_path};
pub use crate::history::PastBuild;
pub use crate::inventory::{Inventory, Item, ItemKind};
pub use crate::layers::{Layer, Staging, open_beneath, open_dir};
pub use crate::lock::{KeyLock, KeyTurn};
pub use crate::mounts::{CacheFolder, CacheName, CacheSlot, NewCacheFolder};
pub use crate::pattern::{Exclusion, IgnoreList, IgnoreState, PatternError, Wildcard};
pub use crate::scan::{hash_copy, hash_stream, list_mount, scan_step, scan_upper};
pub use crate::store::Store;
pub use crate::tree::{LinkLoop, Node, Tree, components, follow_links};
pub use crate::verify::{Fault, Verified};
pub use crate::xattrs::is_of_image;
