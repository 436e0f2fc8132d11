//! Images: from a reference to a manifest, and from blobs to unpacked layers.
//!
//! Resolving needs the manifest and the config only. A blob is fetched when somebody needs its
//! bytes, a layer is unpacked when somebody needs its files: a base image whose files nobody
//! reads is never downloaded.

mod lists;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::try_join_all;
use kiln_cache::{FileList, KeyLock, Layer, Store, StoreError};
use kiln_graph::{Descriptor, Digest, Encoder, ImageConfig, Index, Manifest, MediaKind, Platform};
use kiln_registry::{Client, Reference, choose_manifest};
use kiln_solver::{Direction, Task, blocking};
use tokio::sync::OwnedMutexGuard;

use crate::copy::tree_of;
use crate::error::WorkerError;
use crate::inflate::unpack_blob;
use crate::layout::OciLayout;
use crate::promise::{Promise, Promises};
use crate::sink::{Memory, fetch_into};
use crate::snapshot::{Origin, Snapshot, SnapshotLayer, id_of};
use crate::sources::wait_for_key;

/// Longest image config in bytes.
const MAX_CONFIG: u64 = 16 << 20;

/// Fetches and unpacks images; clones share everything.
#[derive(Debug, Clone)]
pub struct Images {
    store: Store,
    client: Client,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    // Guards the table of locks: one for each blob or layer being made in this process.
    flights: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
    // Guards the layers whose lists were read already.
    layers: Mutex<HashMap<Digest, Layer>>,
    promises: Promises,
    // Guards the file lists that shared caches gave.
    lists: Mutex<HashMap<Digest, Arc<FileList>>>,
}

/// An image of one platform, its blobs still where they are.
#[derive(Debug, Clone)]
pub struct ResolvedImage {
    /// Full name with tag: `docker.io/library/debian:bookworm`.
    pub reference: String,
    /// Digest of the platform's manifest.
    pub manifest: Digest,
    /// The config.
    pub config: ImageConfig,
    /// The layers as a chain.
    pub snapshot: Snapshot,
}

impl Images {
    /// Returns a fetcher into this store.
    pub fn new(store: Store, client: Client) -> Self {
        Self {
            store,
            client,
            shared: Arc::default(),
        }
    }

    /// Finds the image that a reference names for a platform.
    ///
    /// A name that the store knows is taken from there; with `refresh` the registry is asked.
    pub async fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
        refresh: bool,
    ) -> Result<ResolvedImage, WorkerError> {
        let name = reference.to_string();
        let (descriptor, bytes) = self.top_manifest(reference, &name, refresh).await?;
        let (descriptor, bytes) = match MediaKind::of(&descriptor.media_type) {
            Some(MediaKind::Index) => {
                let index: Index = parse(&name, "index", &bytes)?;
                let chosen = choose_manifest(&index, platform)
                    .map_err(|error| WorkerError::image(&name, error.to_string()))?;
                let bytes = self.manifest_bytes(reference, chosen.digest).await?;
                (chosen.clone(), bytes)
            }
            _ => (descriptor, bytes),
        };
        let manifest: Manifest = parse(&name, "manifest", &bytes)?;
        if MediaKind::of(&manifest.config.media_type) != Some(MediaKind::Config) {
            let why = format!("`{}` is not an image config", manifest.config.media_type);
            return Err(WorkerError::image(&name, why));
        }
        let config = self.config(reference, &name, &manifest.config).await?;
        let origins = self.origins(&name, &manifest)?;
        let snapshot = chain((&name, &origins), &manifest, &config)?;
        Ok(ResolvedImage {
            reference: name,
            manifest: descriptor.digest,
            config,
            snapshot,
        })
    }

    /// Finds the image that a descriptor of an OCI layout names, for a platform.
    pub async fn resolve_layout(
        &self,
        layout: &OciLayout,
        top: &Descriptor,
        platform: &Platform,
    ) -> Result<ResolvedImage, WorkerError> {
        let name = layout.name();
        let mut descriptor = top.clone();
        if MediaKind::of(&top.media_type) == Some(MediaKind::Index) {
            let index: Index = parse(&name, "index", &layout.read_blob(&top.digest)?)?;
            let chosen = choose_manifest(&index, platform);
            descriptor = chosen
                .map_err(|error| WorkerError::image(&name, error.to_string()))?
                .clone();
        }
        let bytes = layout.read_blob(&descriptor.digest)?;
        let manifest: Manifest = parse(&name, "manifest", &bytes)?;
        let config = layout.read_blob(&manifest.config.digest)?;
        let config: ImageConfig = parse(&name, "config", &config)?;
        let origins = vec![name.clone(); manifest.layers.len()];
        self.note_origins(&name, &manifest)?;
        let snapshot = chain((&name, &origins), &manifest, &config)?;
        Ok(ResolvedImage {
            reference: format!("{name}@{}", descriptor.digest),
            manifest: descriptor.digest,
            config,
            snapshot,
        })
    }

    /// Returns the references that the layers of an image can be had from. The name of one that was
    /// built here says nothing of that: its base is where it was when it was resolved.
    fn origins(&self, name: &str, manifest: &Manifest) -> Result<Vec<String>, WorkerError> {
        let mut origins = vec![name.to_owned(); manifest.layers.len()];
        if !self.store.is_built_here(name)? {
            self.note_origins(name, manifest)?;
            return Ok(origins);
        }
        for (origin, layer) in origins.iter_mut().zip(&manifest.layers) {
            if let Some(known) = self.store.origin_of(&layer.digest)? {
                *origin = known;
            }
        }
        Ok(origins)
    }

    fn note_origins(&self, name: &str, manifest: &Manifest) -> Result<(), WorkerError> {
        let blobs = manifest.layers.iter().map(|layer| &layer.digest);
        Ok(self.store.note_origins(blobs, name)?)
    }

    /// Returns the layers of an image of the store, each with where its blob can be had.
    pub fn stored_layers(
        &self,
        name: &Reference,
        manifest: &Manifest,
        config: &ImageConfig,
    ) -> Result<Vec<SnapshotLayer>, WorkerError> {
        let name = name.to_string();
        let origins = self.origins(&name, manifest)?;
        Ok(chain((&name, &origins), manifest, config)?.layers())
    }

    async fn top_manifest(
        &self,
        reference: &Reference,
        name: &str,
        refresh: bool,
    ) -> Result<(Descriptor, Vec<u8>), WorkerError> {
        if !refresh
            && let Some(descriptor) = self.store.reference(name)?
            && let Some(bytes) = self.store.read_blob(&descriptor.digest)?
        {
            return Ok((descriptor, bytes));
        }
        let manifest = self.client.manifest(reference, reference.digest()).await?;
        self.store.put_blob(&manifest.bytes)?;
        let descriptor = manifest.descriptor();
        self.store.set_reference(name, &descriptor, true)?;
        Ok((descriptor, manifest.bytes))
    }

    async fn manifest_bytes(
        &self,
        reference: &Reference,
        digest: Digest,
    ) -> Result<Vec<u8>, WorkerError> {
        if let Some(bytes) = self.store.read_blob(&digest)? {
            return Ok(bytes);
        }
        let manifest = self.client.manifest(reference, Some(digest)).await?;
        self.store.put_blob(&manifest.bytes)?;
        Ok(manifest.bytes)
    }

    async fn config(
        &self,
        reference: &Reference,
        name: &str,
        descriptor: &Descriptor,
    ) -> Result<ImageConfig, WorkerError> {
        if descriptor.size > MAX_CONFIG {
            return Err(WorkerError::image(name, "its config is too large"));
        }
        if let Some(bytes) = self.store.read_blob(&descriptor.digest)? {
            return parse(name, "config", &bytes);
        }
        let bytes = loop {
            let mut sink = Memory(Vec::new());
            let fetched = self.client.blob(reference, descriptor, &mut sink, &|_| ());
            match fetched.await {
                Ok(()) => break sink.0,
                Err(error) if error.is_of_mirror() => {}
                Err(error) => return Err(error.into()),
            }
        };
        self.store.put_blob(&bytes)?;
        parse(name, "config", &bytes)
    }

    /// Makes sure that a layer's blob is in the store.
    pub async fn fetch_blob(&self, origin: &Origin, task: &Task) -> Result<(), WorkerError> {
        let digest = origin.blob.digest;
        let _turn = self.turn(&digest, &origin.reference, task).await?;
        if self.store.has_whole_blob(&origin.blob)? {
            return Ok(());
        }
        let fetched = self.fetch_from(&origin.reference, &origin.blob, task).await;
        let Err(error) = fetched else {
            return Ok(());
        };
        match self.store.origin_of(&digest)? {
            Some(other)
                if other != origin.reference && matches!(error, WorkerError::Registry(_)) =>
            {
                tracing::debug!(%digest, other, "asked elsewhere");
                let fetched = self.fetch_from(&other, &origin.blob, task).await;
                // The first one is what the user knows.
                fetched.map_err(|_| error)
            }
            _ => Err(error),
        }
    }

    /// Fetches a blob from the registry or the layout that a reference names.
    async fn fetch_from(
        &self,
        reference: &str,
        blob: &Descriptor,
        task: &Task,
    ) -> Result<(), WorkerError> {
        let digest = blob.digest;
        if let Some(layout) = OciLayout::of_name(reference) {
            let (store, blob) = (self.store.clone(), blob.clone());
            return blocking(move || layout.copy_blob(&store, &blob)).await;
        }
        let parse = |error| WorkerError::from((reference.to_owned(), error));
        let reference: Reference = reference.parse().map_err(parse)?;
        let (id, total) = (digest.to_string(), Some(blob.size));
        let progress = |done| task.transfer(&id, Direction::Pull, done, total);
        loop {
            let fetched = fetch_into(&self.store, &digest, async |sink| {
                self.client.blob(&reference, blob, sink, &progress).await
            });
            match fetched.await? {
                Err(error) if error.is_of_mirror() => {}
                done => return Ok(done?),
            }
        }
    }

    /// Returns all layers of a snapshot, unpacked, lowest first.
    pub async fn layers(
        &self,
        snapshot: &Snapshot,
        task: &Task,
    ) -> Result<Vec<Layer>, WorkerError> {
        let chain = snapshot.layers();
        let mut fetches = Vec::new();
        for (at, layer) in chain.iter().enumerate() {
            if self.unpacked(&chain[..at], layer)?.is_none() {
                fetches.push(self.fetch(layer, task));
            }
        }
        try_join_all(fetches).await?;
        let mut layers: Vec<Layer> = Vec::with_capacity(chain.len());
        for (at, layer) in chain.iter().enumerate() {
            let found = self.unpacked(&chain[..at], layer)?;
            let unpacked = match (found, &layer.origin) {
                (Some(found), _) => found,
                (None, Some(origin)) => {
                    self.unpack(&chain[..at], &layers, layer, origin, task)
                        .await?
                }
                (None, None) => self.unpack_promised(layer, task).await?,
            };
            layers.push(unpacked);
        }
        Ok(layers)
    }

    /// Makes sure that the bytes of a layer that is not unpacked are in the store.
    pub async fn fetch(&self, layer: &SnapshotLayer, task: &Task) -> Result<(), WorkerError> {
        match (&layer.origin, self.promise(&layer.id)) {
            (Some(origin), _) => self.fetch_blob(origin, task).await,
            (None, Some(promise)) => {
                let record = promise.record();
                let _turn = self.turn(&record.blob.digest, &record.name, task).await?;
                let promises = &self.shared.promises;
                promises.fetch(&promise, &self.store, task).await
            }
            (None, None) => Err(missing(layer)),
        }
    }

    async fn unpack_promised(
        &self,
        layer: &SnapshotLayer,
        task: &Task,
    ) -> Result<Layer, WorkerError> {
        let promise = self.promise(&layer.id).ok_or_else(|| missing(layer))?;
        let _turn = self.turn(&layer.id, &promise.record().name, task).await?;
        if let Some(found) = self.known(&layer.id)? {
            return Ok(found);
        }
        let promises = &self.shared.promises;
        promises.unpack(&promise, &self.store, task).await
    }

    /// Returns the promise of a layer that kiln made elsewhere.
    pub fn promise(&self, layer: &Digest) -> Option<Arc<Promise>> {
        self.shared.promises.get(layer)
    }

    pub(crate) fn promises(&self) -> &Promises {
        &self.shared.promises
    }

    /// Returns how many promises of caches could not be kept so far. A build that fails because of
    /// one can be tried again.
    pub fn n_broken_promises(&self) -> usize {
        self.shared.promises.n_broken()
    }

    /// Looks for the unpacked form of a layer on top of the layers below it.
    fn unpacked(
        &self,
        below: &[SnapshotLayer],
        layer: &SnapshotLayer,
    ) -> Result<Option<Layer>, WorkerError> {
        if let Some(found) = self.known(&layer.id)? {
            return Ok(Some(found));
        }
        if layer.origin.is_none() {
            return Ok(None);
        }
        if let Some(found) = self.known(&id_on(below, &layer.id))? {
            return Ok(Some(found));
        }
        match self.store.layer_of_diff_id(&layer.id)? {
            Some(id) => self.known(&id),
            None => Ok(None),
        }
    }

    fn known(&self, id: &Digest) -> Result<Option<Layer>, WorkerError> {
        let layers = || {
            self.shared
                .layers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        if let Some(layer) = layers().get(id) {
            return Ok(Some(layer.clone()));
        }
        let Some(layer) = self.store.layer(id)? else {
            return Ok(None);
        };
        layers().insert(*id, layer.clone());
        Ok(Some(layer))
    }

    async fn unpack(
        &self,
        below: &[SnapshotLayer],
        lower: &[Layer],
        layer: &SnapshotLayer,
        origin: &Arc<Origin>,
        task: &Task,
    ) -> Result<Layer, WorkerError> {
        let _turn = self.turn(&layer.id, &origin.reference, task).await?;
        if let Some(found) = self.unpacked(below, layer)? {
            return Ok(found);
        }
        let tree = tree_of(lower);
        let (store, origin, diff_id) = (self.store.clone(), Arc::clone(origin), layer.id);
        let (task, on_id) = (task.clone(), id_on(below, &layer.id));
        blocking(move || {
            let label = origin.blob.digest.to_string();
            let size = origin.blob.size;
            task.transfer(&label, Direction::Extract, 0, Some(size));
            let layer = unpack_blob(&store, &origin, &tree, (diff_id, on_id))?;
            store.describe_layer(&layer.id, &origin.reference)?;
            task.transfer(&label, Direction::Extract, size, Some(size));
            Ok(layer)
        })
        .await
    }

    /// Waits until nobody else makes a blob or a layer, in this process or another one that shares
    /// the store. `name` is what others are told who wait.
    async fn turn(&self, what: &Digest, name: &str, task: &Task) -> Result<Turn, WorkerError> {
        let flight = {
            let flights = self.shared.flights.lock();
            let mut flights = flights.unwrap_or_else(PoisonError::into_inner);
            Arc::clone(flights.entry(*what).or_default())
        };
        let flight = flight.lock_owned().await;
        let mut encoder = Encoder::new("turn");
        encoder.value(what);
        let lock = wait_for_key(&self.store, &encoder.finish(), name, task).await?;
        Ok(Turn {
            _lock: lock,
            _flight: flight,
        })
    }
}

/// The right to make a blob or a layer, until it is dropped.
#[derive(Debug)]
struct Turn {
    _lock: KeyLock,
    _flight: OwnedMutexGuard<()>,
}

fn missing(layer: &SnapshotLayer) -> WorkerError {
    let what = format!("layer {} (it is missing)", layer.id);
    StoreError::Damaged { what }.into()
}

/// The id of a layer whose unpacked form depends on what is below.
fn id_on(below: &[SnapshotLayer], diff_id: &Digest) -> Digest {
    let mut encoder = Encoder::new("layer on");
    encoder.value(&id_of(below)).value(diff_id);
    encoder.finish()
}

fn parse<T: serde::de::DeserializeOwned>(
    name: &str,
    what: &str,
    bytes: &[u8],
) -> Result<T, WorkerError> {
    serde_json::from_slice(bytes)
        .map_err(|error| WorkerError::image(name, format!("its {what} is malformed: {error}")))
}

/// Pairs the layers of a manifest with the diff ids of the config, and with where they can be had.
fn chain(
    (name, origins): (&str, &[String]),
    manifest: &Manifest,
    config: &ImageConfig,
) -> Result<Snapshot, WorkerError> {
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        let (n, m) = (manifest.layers.len(), diff_ids.len());
        let why = format!("its manifest has {n} layers, its config {m}");
        return Err(WorkerError::image(name, why));
    }
    let mut layers = Vec::with_capacity(diff_ids.len());
    for ((id, blob), reference) in diff_ids.iter().zip(&manifest.layers).zip(origins) {
        let is_layer = matches!(
            MediaKind::of(&blob.media_type),
            Some(MediaKind::LayerTar | MediaKind::LayerGzip | MediaKind::LayerZstd)
        );
        if !is_layer {
            let why = format!("kiln cannot read layers of type `{}`", blob.media_type);
            return Err(WorkerError::image(name, why));
        }
        let origin = Origin {
            reference: reference.clone(),
            blob: blob.clone(),
        };
        layers.push(SnapshotLayer {
            id: *id,
            origin: Some(Arc::new(origin)),
            created: 0,
        });
    }
    Ok(Snapshot::of_image(layers))
}
