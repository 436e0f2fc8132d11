//! `push=true`: blobs and manifests to the registries of an image's names.
//!
//! A layer can be pushed as soon as it is prepared, long before the image is complete; pushing
//! the bundle then finds it there. Manifests go last, the one with the tag at the very end.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Cursor};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kiln_cache::Store;
use kiln_graph::{Descriptor, Digest};
use kiln_registry::{BlobSource, Client, ParseReferenceError, Pushed, Reference};
use tokio::task::JoinSet;

use crate::error::ExportError;
use crate::image::Bundle;
use crate::layer::PreparedLayer;

/// Is told how many bytes of a blob have been sent.
#[derive(Clone)]
pub struct Progress(Arc<Tell>);

type Tell = dyn Fn(&Descriptor, u64) + Send + Sync;

impl Progress {
    /// Returns a progress that calls `tell`.
    pub fn new(tell: impl Fn(&Descriptor, u64) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    /// Returns a progress that nobody looks at.
    pub fn silent() -> Self {
        Self::new(|_, _| ())
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Progress")
    }
}

/// A blob of the store, opened when it must be sent.
#[derive(Debug, Clone)]
pub struct StoredBlob {
    store: Store,
    digest: Digest,
    /// Set when the bytes were asked for and not there.
    is_missing: Arc<AtomicBool>,
}

impl StoredBlob {
    /// Returns the blob with a digest. Nothing is opened.
    pub fn new(store: &Store, digest: Digest) -> Self {
        Self {
            store: store.clone(),
            digest,
            is_missing: Arc::default(),
        }
    }
}

impl BlobSource for StoredBlob {
    type Reader = tokio::fs::File;

    async fn open(&self) -> io::Result<Self::Reader> {
        match self
            .store
            .open_blob(&self.digest)
            .map_err(io::Error::other)?
        {
            Some(file) => Ok(tokio::fs::File::from_std(file)),
            None => {
                self.is_missing.store(true, Ordering::Relaxed);
                Err(io::ErrorKind::NotFound.into())
            }
        }
    }
}

/// Bytes in memory.
#[derive(Debug)]
struct MemoryBlob(Vec<u8>);

impl BlobSource for MemoryBlob {
    type Reader = Cursor<Vec<u8>>;

    async fn open(&self) -> io::Result<Self::Reader> {
        Ok(Cursor::new(self.0.clone()))
    }
}

/// Pushes a layer to the target's repository.
///
/// If the registry has the blob, here or where the layer may be mounted from, the store need not
/// have it. Otherwise [`ExportError::Missing`] says that it has to be pulled first.
pub async fn push_layer(
    client: &Client,
    store: &Store,
    target: &Reference,
    layer: &PreparedLayer,
    progress: &Progress,
) -> Result<Pushed, ExportError> {
    let digest = layer.descriptor.digest;
    let source = StoredBlob::new(store, digest);
    let is_missing = Arc::clone(&source.is_missing);
    let tell = |sent| (progress.0)(&layer.descriptor, sent);
    let mount_from = layer.mount_from.as_ref();
    let pushed = client
        .push_blob(target, &layer.descriptor, source, mount_from, &tell)
        .await;
    match pushed {
        Err(_) if is_missing.load(Ordering::Relaxed) => Err(ExportError::Missing { digest }),
        other => Ok(other?),
    }
}

/// Pushes an image under all its names, one name after another; returns its digest.
///
/// With `by_digest` no tag is moved: the image can only be found by its digest.
pub async fn push_bundle(
    client: &Client,
    store: &Store,
    bundle: &Bundle,
    names: &[Reference],
    by_digest: bool,
    progress: &Progress,
) -> Result<Digest, ExportError> {
    if names.is_empty() {
        return Err(ExportError::refused("an image needs a name to be pushed"));
    }
    let root = bundle.root();
    let mut filled = BTreeSet::new();
    for name in names {
        if filled.insert(name.name()) {
            push_contents(client, store, bundle, name, progress).await?;
        }
        let target = if by_digest {
            without_tag(name, root.digest)?
        } else {
            name.clone()
        };
        client
            .push_manifest(&target, &root.media_type, bundle.root_bytes())
            .await?;
    }
    Ok(root.digest)
}

/// Pushes everything but the tagged manifest to one repository.
async fn push_contents(
    client: &Client,
    store: &Store,
    bundle: &Bundle,
    name: &Reference,
    progress: &Progress,
) -> Result<(), ExportError> {
    // Dropped with this future, the set ends its tasks.
    let mut tasks = JoinSet::new();
    let mut started = BTreeSet::new();
    for layer in bundle.images().iter().flat_map(|image| &image.layers) {
        if !started.insert(layer.descriptor.digest) {
            continue;
        }
        let (client, store, name) = (client.clone(), store.clone(), name.clone());
        let (layer, progress) = (layer.clone(), progress.clone());
        tasks.spawn(async move {
            push_layer(&client, &store, &name, &layer, &progress)
                .await
                .map(drop)
        });
    }
    for image in bundle.images() {
        let config = MemoryBlob(image.config.clone());
        let descriptor = &image.config_descriptor;
        client
            .push_blob(name, descriptor, config, None, &|_| ())
            .await?;
    }
    while let Some(pushed) = tasks.join_next().await {
        pushed.map_err(|error| ExportError::write("the image")(error.into()))??;
    }
    if bundle.is_index() {
        for image in bundle.images() {
            let target = without_tag(name, image.descriptor.digest)?;
            let media_type = &image.descriptor.media_type;
            client
                .push_manifest(&target, media_type, &image.manifest)
                .await?;
        }
    }
    Ok(())
}

/// Names a manifest by its digest alone: under a reference with a tag, the tag would move.
fn without_tag(name: &Reference, digest: Digest) -> Result<Reference, ExportError> {
    let text = format!("{}@{digest}", name.name());
    text.parse()
        .map_err(|error: ParseReferenceError| ExportError::refused(error.to_string()))
}
