//! Images of the local store, by name.

use kiln_cache::Store;
use kiln_graph::{Descriptor, ImageConfig, Index, Manifest, MediaKind, Platform};
use kiln_registry::{Reference, choose_manifest};

use crate::report::Failure;

/// An image of the local store.
#[derive(Debug)]
pub(crate) struct LocalImage {
    pub(crate) name: Reference,
    pub(crate) descriptor: Descriptor,
    pub(crate) manifest: Manifest,
    pub(crate) config: ImageConfig,
}

/// Finds an image by its name.
pub(crate) fn find(
    store: &Store,
    written: &str,
    platform: &Platform,
) -> Result<LocalImage, Failure> {
    let name: Reference = written
        .parse()
        .map_err(|error| Failure::usage(format!("`{written}`: {error}")))?;
    let mut descriptor = find_root(store, &name)?;
    if MediaKind::of(&descriptor.media_type) == Some(MediaKind::Index) {
        let index: Index = read(store, &descriptor)?;
        descriptor = choose_manifest(&index, platform)
            .map_err(Failure::user)?
            .clone();
    }
    let manifest: Manifest = read(store, &descriptor)?;
    let config = read(store, &manifest.config)?;
    Ok(LocalImage {
        name,
        descriptor,
        manifest,
        config,
    })
}

/// Returns what a name stands for: a manifest, or an index.
pub(crate) fn find_root(store: &Store, name: &Reference) -> Result<Descriptor, Failure> {
    let found = store.reference(&name.to_string()).map_err(Failure::user)?;
    found.ok_or_else(|| {
        let error = anyhow::anyhow!("there is no image `{name}` in the local store");
        Failure::user(error).with_hint("`kiln images` lists what is there")
    })
}

/// Returns the bytes of a manifest, an index or a config.
pub(crate) fn read_bytes(store: &Store, descriptor: &Descriptor) -> Result<Vec<u8>, Failure> {
    let digest = descriptor.digest;
    let bytes = store.read_blob(&digest).map_err(Failure::user)?;
    bytes.ok_or_else(|| Failure::user(anyhow::anyhow!("blob {digest} is not in the local store")))
}

/// Returns what a manifest, an index or a config says.
pub(crate) fn read<T: serde::de::DeserializeOwned>(
    store: &Store,
    descriptor: &Descriptor,
) -> Result<T, Failure> {
    let digest = descriptor.digest;
    serde_json::from_slice(&read_bytes(store, descriptor)?).map_err(|error| {
        Failure::user(anyhow::Error::new(error).context(format!("blob {digest} is malformed")))
    })
}
