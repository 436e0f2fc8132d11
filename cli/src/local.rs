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
    let unknown = || {
        let error = anyhow::anyhow!("there is no image `{name}` in the local store");
        Failure::user(error).with_hint("`kiln images` lists what is there")
    };
    let found = store.reference(&name.to_string()).map_err(Failure::user)?;
    let mut descriptor = found.ok_or_else(unknown)?;
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

fn read<T: serde::de::DeserializeOwned>(
    store: &Store,
    descriptor: &Descriptor,
) -> Result<T, Failure> {
    let digest = descriptor.digest;
    let bytes = store.read_blob(&digest).map_err(Failure::user)?;
    let missing = || Failure::user(anyhow::anyhow!("blob {digest} is not in the local store"));
    serde_json::from_slice(&bytes.ok_or_else(missing)?).map_err(|error| {
        Failure::user(anyhow::Error::new(error).context(format!("blob {digest} is malformed")))
    })
}
