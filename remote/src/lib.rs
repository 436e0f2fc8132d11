//! Caches that a team shares: what was built, kept where others can fetch it.
//!
//! A cache is a set of *segments*, each a list of records that one build added, and of the blobs
//! that the records name: layers, and file lists of layers. Segments are only ever added, under
//! names that nobody else uses, so builds that write at the same time lose nothing. When there are
//! many, one that writes puts them together into one that says which it replaces.
//!
//! ```text
//! segment (zstd of JSON)
//!   version      1
//!   written      seconds since 1970
//!   replaces     names of segments whose records are here, or are too old
//!   used         keys and layers that the build used and others had recorded
//!   records      key        of the vertex, as kiln makes keys
//!                layer      content id of what it made
//!                name, created, elapsed_ms, used
//!                format     of the blob: gzip-3
//!                blob       descriptor of the compressed layer
//!                diff_id    of its tar
//!                list       file list of the layer (zstd): in place if short, else a descriptor
//!   lists        file lists of layers of base images, by their id in the store: keys of copies from
//!                a stage need them, and without them the base would have to be pulled
//!     layer, used, list
//!
//! registry   tag TAG.kiln-NAME -> manifest: layers are the segment and all its blobs, so that the
//!            registry keeps what is named; tag TAG says that there is such a cache
//! folder,    segments/NAME
//! bucket     blobs/sha256/HEX
//! ```
//!
//! An image can be a cache, too: see `inline`.
//!
//! A record is a few hundred bytes, and a build reads all of them once, when it first misses
//! something. A list is fetched when a key is made of it, a layer when its bytes are needed. What
//! comes in is verified before it is used: a list against the content id, a blob against its digest,
//! what was unpacked against diff id and content id. Whether a record or the
//! list of a base image's layer is true cannot be seen: who may write to a cache must be trusted. What
//! is only a cache's word is never kept in the store.
//!
//! Refuses to do: deciding what is recorded (`worker`), and printing.

mod error;
mod expiry;
mod inline;
mod segment;

mod bucket;
mod checked;
mod folder;
mod place;
mod registry;

mod export;
mod import;

pub use crate::bucket::{Bucket, BucketSettings};
pub use crate::error::RemoteError;
pub use crate::expiry::Expiry;
pub use crate::export::{Exported, Exporter};
pub use crate::import::RemoteCache;
pub use crate::inline::{INLINE_FIELD, InlineRecord, inline_value};
pub use crate::place::Place;
pub use crate::segment::{LayerList, ListAt, Record};
