//! From a layer to its blob: once for each compression, remembered by the store.

use std::io;

use kiln_cache::{Layer, LayerBlob, Store, decompress, open_beneath};
use kiln_graph::{Descriptor, Digest, MediaKind, media_type};
use kiln_registry::Reference;

use crate::compress::{Compression, compress, default_threads, hash_only};
use crate::error::ExportError;
use crate::image::ImageOptions;
use crate::tar::write_layer_tar;

/// The form in which the store remembers a tar that it does not keep.
const DIFF: &str = "diff";

/// A layer of an image that is to be exported.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "an image has few layers")]
pub enum ImageLayer {
    /// A layer of a base image, as its registry has it. Its bytes may not be in the store.
    Base {
        /// The blob.
        descriptor: Descriptor,
        /// SHA-256 of its uncompressed tar.
        diff_id: Digest,
        /// A repository that has the blob, from which a registry can mount it.
        mount_from: Option<Reference>,
    },
    /// A layer that was built, unpacked in the store.
    Built(Layer),
}

/// A layer as a manifest names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedLayer {
    /// The blob.
    pub descriptor: Descriptor,
    /// SHA-256 of its uncompressed tar.
    pub diff_id: Digest,
    /// A repository that has the blob, from which a registry can mount it.
    pub mount_from: Option<Reference>,
}

/// Returns the compressed blob of a layer, and makes it if the store does not have it.
pub fn layer_blob(
    store: &Store,
    layer: &Layer,
    compression: Compression,
) -> Result<LayerBlob, ExportError> {
    if let Some(blob) = remembered(store, &layer.id, compression)? {
        return Ok(blob);
    }
    let root = layer
        .open_root()
        .map_err(ExportError::read(format!("layer `{}`", layer.id)))?;
    // More compressors than chunks would only be started to end.
    let n_chunks = usize::try_from(layer.list.content_size() >> 20).unwrap_or(usize::MAX);
    let n_threads = default_threads().min(n_chunks.saturating_add(1));
    let blob = compress(store, compression, n_threads, |out| {
        write_layer_tar(
            &layer.list,
            &mut |entry| open_beneath(&root, &entry.path),
            out,
        )
    })?;
    store.record_layer_blob(&layer.id, &compression.format(), &blob)?;
    Ok(blob)
}

/// Returns digest and size of a layer's uncompressed tar, which is hashed and not kept.
fn layer_diff(store: &Store, layer: &Layer) -> Result<LayerBlob, ExportError> {
    if let Some(blob) = store.layer_blob(&layer.id, DIFF)? {
        return Ok(blob);
    }
    let root = layer
        .open_root()
        .map_err(ExportError::read(format!("layer `{}`", layer.id)))?;
    let blob = hash_only(|out| {
        write_layer_tar(
            &layer.list,
            &mut |entry| open_beneath(&root, &entry.path),
            out,
        )
    })?;
    store.record_layer_blob(&layer.id, DIFF, &blob)?;
    Ok(blob)
}

/// Makes a layer ready for a manifest: compresses what was built, passes on what was pulled.
pub fn prepare_layer(
    store: &Store,
    layer: &ImageLayer,
    options: &ImageOptions,
) -> Result<PreparedLayer, ExportError> {
    let compression = options.compression;
    let blob = match layer {
        ImageLayer::Built(layer) if options.promise => {
            let diff = layer_diff(store, layer)?;
            let media_type = Compression::None.media_type(options.is_oci());
            let descriptor = Descriptor::new(media_type, diff.digest, diff.size);
            return Ok(PreparedLayer {
                descriptor,
                diff_id: diff.diff_id,
                mount_from: None,
            });
        }
        ImageLayer::Built(layer) => layer_blob(store, layer, compression)?,
        ImageLayer::Base {
            descriptor,
            diff_id,
            mount_from,
        } => {
            if !options.must_recompress(descriptor) {
                return Ok(PreparedLayer {
                    descriptor: as_asked(descriptor, options.is_oci()),
                    diff_id: *diff_id,
                    mount_from: mount_from.clone(),
                });
            }
            recompress(store, descriptor, diff_id, compression)?
        }
    };
    let media_type = compression.media_type(options.is_oci());
    let descriptor = Descriptor::new(media_type, blob.digest, blob.size);
    Ok(PreparedLayer {
        descriptor,
        diff_id: blob.diff_id,
        mount_from: None,
    })
}

/// Returns the blobs of base layers that an export to a file needs and the store does not have.
pub fn missing_blobs(
    store: &Store,
    layers: &[ImageLayer],
    options: &ImageOptions,
) -> Result<Vec<Descriptor>, ExportError> {
    let mut missing = Vec::new();
    for layer in layers {
        let ImageLayer::Base {
            descriptor,
            diff_id,
            ..
        } = layer
        else {
            continue;
        };
        let is_made = options.must_recompress(descriptor)
            && remembered(store, diff_id, options.compression)?.is_some();
        if !is_made && !store.has_whole_blob(descriptor)? {
            missing.push(descriptor.clone());
        }
    }
    Ok(missing)
}

impl ImageOptions {
    fn must_recompress(&self, descriptor: &Descriptor) -> bool {
        let kind = MediaKind::of(&descriptor.media_type);
        self.force_compression && !kind.is_some_and(|kind| self.compression.is_kind(kind))
    }
}

/// Returns what the store remembers, if it still has the bytes.
fn remembered(
    store: &Store,
    layer: &Digest,
    compression: Compression,
) -> Result<Option<LayerBlob>, ExportError> {
    let Some(blob) = store.layer_blob(layer, &compression.format())? else {
        return Ok(None);
    };
    let descriptor = Descriptor::new(compression.media_type(true), blob.digest, blob.size);
    Ok(store.has_whole_blob(&descriptor)?.then_some(blob))
}

fn recompress(
    store: &Store,
    descriptor: &Descriptor,
    diff_id: &Digest,
    compression: Compression,
) -> Result<LayerBlob, ExportError> {
    if let Some(blob) = remembered(store, diff_id, compression)? {
        return Ok(blob);
    }
    let digest = descriptor.digest;
    let file = store
        .open_blob(&digest)?
        .ok_or(ExportError::Missing { digest })?;
    let what = || format!("blob `{digest}`");
    let opened = decompress(file).map_err(io::Error::other);
    let mut tar = opened.map_err(ExportError::read(what()))?;
    let blob = compress(store, compression, default_threads(), |out| {
        io::copy(&mut tar, out).map_err(ExportError::read(what()))?;
        Ok(())
    })?;
    if blob.diff_id != *diff_id {
        return Err(ExportError::Changed {
            path: format!("blob {digest}"),
        });
    }
    store.record_layer_blob(diff_id, &compression.format(), &blob)?;
    Ok(blob)
}

/// Names the same blob in the family of media types that was asked for.
fn as_asked(descriptor: &Descriptor, oci: bool) -> Descriptor {
    let media_type = match (MediaKind::of(&descriptor.media_type), oci) {
        (Some(MediaKind::LayerTar), true) => media_type::OCI_LAYER,
        (Some(MediaKind::LayerTar), false) => media_type::DOCKER_LAYER,
        (Some(MediaKind::LayerGzip), true) => media_type::OCI_LAYER_GZIP,
        (Some(MediaKind::LayerGzip), false) => media_type::DOCKER_LAYER_GZIP,
        (Some(MediaKind::LayerZstd), true) => media_type::OCI_LAYER_ZSTD,
        (Some(MediaKind::LayerZstd), false) => media_type::DOCKER_LAYER_ZSTD,
        _ => &descriptor.media_type,
    };
    let mut out = Descriptor::new(media_type, descriptor.digest, descriptor.size);
    out.annotations.clone_from(&descriptor.annotations);
    out
}
