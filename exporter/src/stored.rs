//! Images of the local store, made ready to be pushed.
//!
//! A manifest that only stayed here names built layers by tars that nobody made. Such layers are
//! compressed now, and named as they go out: their image gets another manifest, with the same config
//! and so the same id. What has its blobs, here or where it came from, keeps its bytes.

use kiln_cache::Store;
use kiln_graph::{Descriptor, Digest, Index, Manifest, Platform, media_type};

use crate::compress::Compression;
use crate::config::manifest_bytes;
use crate::error::ExportError;
use crate::image::{Bundle, PreparedImage, describe, unwritable};
use crate::layer::{ImageLayer, PreparedLayer, layer_blob};

/// An image of one platform, as the store has it.
#[derive(Debug, Clone)]
pub struct StoredImage {
    /// What it runs on.
    pub platform: Platform,
    /// Names the manifest, as the index has it if there is one.
    pub descriptor: Descriptor,
    /// The manifest.
    pub manifest: Manifest,
    /// The manifest's bytes.
    pub bytes: Vec<u8>,
    /// The config's bytes.
    pub config: Vec<u8>,
    /// Where its layers are, lowest first.
    pub layers: Vec<ImageLayer>,
}

/// Makes images of the store ready: one that stands for itself, or all those of an index.
pub fn prepare_stored(
    store: &Store,
    images: Vec<StoredImage>,
    index: Option<(Descriptor, Index, Vec<u8>)>,
) -> Result<Bundle, ExportError> {
    let mut prepared = Vec::new();
    let mut renamed = Vec::new();
    for image in images {
        let old = image.descriptor.digest;
        let image = prepare(store, image)?;
        renamed.push((old, image.descriptor.clone()));
        prepared.push(image);
    }
    let index = match index {
        Some((root, index, bytes)) => {
            let bytes = index_of(index, bytes, &renamed)?;
            Some((renewed(&root, &bytes), bytes))
        }
        None => None,
    };
    Bundle::of_parts(prepared, index)
}

fn prepare(store: &Store, image: StoredImage) -> Result<PreparedImage, ExportError> {
    let mut manifest = image.manifest;
    let is_oci = image.descriptor.media_type == media_type::OCI_MANIFEST;
    let mut layers = Vec::new();
    for (layer, named) in image.layers.iter().zip(&mut manifest.layers) {
        let prepared = prepare_layer(store, layer, named, is_oci)?;
        named.clone_from(&prepared.descriptor);
        layers.push(prepared);
    }
    let bytes = rewritten(&manifest, image.bytes)?;
    Ok(PreparedImage {
        platform: image.platform,
        created: None,
        layers,
        config_descriptor: manifest.config,
        config: image.config,
        descriptor: renewed(&image.descriptor, &bytes),
        manifest: bytes,
    })
}

/// Passes on what has its blob, and compresses what was only promised.
fn prepare_layer(
    store: &Store,
    layer: &ImageLayer,
    named: &Descriptor,
    is_oci: bool,
) -> Result<PreparedLayer, ExportError> {
    let layer = match layer {
        ImageLayer::Built(layer) => layer,
        ImageLayer::Base {
            diff_id,
            mount_from,
            ..
        } => {
            return Ok(PreparedLayer {
                descriptor: named.clone(),
                diff_id: *diff_id,
                mount_from: mount_from.clone(),
            });
        }
    };
    let compression = Compression::default();
    let blob = layer_blob(store, layer, compression)?;
    let media_type = compression.media_type(is_oci);
    Ok(PreparedLayer {
        descriptor: Descriptor::new(media_type, blob.digest, blob.size),
        diff_id: blob.diff_id,
        mount_from: None,
    })
}

fn index_of(
    mut index: Index,
    bytes: Vec<u8>,
    renamed: &[(Digest, Descriptor)],
) -> Result<Vec<u8>, ExportError> {
    for named in &mut index.manifests {
        let new = renamed.iter().find(|(old, _)| *old == named.digest);
        if let Some((_, descriptor)) = new {
            named.clone_from(descriptor);
        }
    }
    rewritten(&index, bytes)
}

/// Returns the bytes of a document; they stay as they are where they say the same.
fn rewritten<T>(document: &T, bytes: Vec<u8>) -> Result<Vec<u8>, ExportError>
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq,
{
    let is_same = serde_json::from_slice::<T>(&bytes).is_ok_and(|old| old == *document);
    match is_same {
        true => Ok(bytes),
        false => manifest_bytes(document).map_err(unwritable),
    }
}

/// Names other bytes in the way of an old descriptor.
fn renewed(old: &Descriptor, bytes: &[u8]) -> Descriptor {
    let described = describe(&old.media_type, bytes);
    Descriptor {
        digest: described.digest,
        size: described.size,
        ..old.clone()
    }
}
