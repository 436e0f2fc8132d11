//! Layers to an image to a destination: registry, OCI layout, Docker archive, tar, directory.
//!
//! ```text
//!   OutputSpec                 what `--output` says
//!   layer_blob                 FileList + contents -> tar -> hash, compress, hash -> blob in the store
//!   prepare_layer, assemble    layers + config -> manifest (PreparedImage)
//!   Bundle                     one manifest, or an index of several
//!   export_archive, export_layout, export_tar, export_dir, push_layer, push_bundle
//! ```
//!
//! Invariants:
//! - The bytes of a layer depend on its file list, its contents and the compression asked for, and
//!   on nothing else: not on the number of threads, the machine or the time.
//! - Tar, hash, compression and the second hash run side by side; memory does not grow with the
//!   layer. A file that is not as long as its list says is an error, never a silent change.
//! - A layer that came from a registry is passed on as it came, unless it must be recompressed.
//! - A file appears at its destination complete or not at all. Nothing is written through a
//!   symbolic link that lies in the image or in the destination directory.
//!
//! Cache mounts go the same ways, and come back: see the module `mounts`.
//!
//! It does not decide what an image holds, does not unpack layers, and prints nothing.

mod error;

mod annotation;
mod csv;
mod spec;

mod tar;
mod tree_tar;

mod compress;
mod gzip;
mod layer;

mod config;
mod image;

mod archive;
mod destination;
mod directory;
mod layout;
mod push;
mod stored;

mod mounts;

pub use crate::annotation::{Annotation, AnnotationTarget};
pub use crate::archive::{ArchiveFormat, export_archive};
pub use crate::compress::Compression;
pub use crate::csv::fields as csv_fields;
pub use crate::destination::Destination;
pub use crate::directory::export_dir;
pub use crate::error::ExportError;
pub use crate::image::{Bundle, Image, ImageOptions, PreparedImage, assemble, prepare_image};
pub use crate::layer::{ImageLayer, PreparedLayer, layer_blob, missing_blobs, prepare_layer};
pub use crate::layout::export_layout;
pub use crate::mounts::{
    MOUNT_CONFIG, MountChunk, MountInfo, MountPlace, MountUnpacker, PlaceError, Synced,
    export_mount_dir, export_mount_tar, mount_chunks, open_mount_dir, open_mount_tar,
};
pub use crate::push::{Progress, StoredBlob, push_bundle, push_layer};
pub use crate::spec::{OutputKind, OutputSpec, SpecError};
pub use crate::stored::{StoredImage, prepare_stored};
pub use crate::tar::{LayerTarWriter, write_layer_tar};
pub use crate::tree_tar::export_tar;
