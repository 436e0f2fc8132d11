//! Images: from a reference to a manifest, and from blobs to unpacked layers.
//!
//! Resolving needs the manifest and the config only. A blob is fetched when somebody needs its
//! bytes, a layer is unpacked when somebody needs its files: a base image whose files nobody
//! reads is never downloaded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::try_join_all;
use kiln_cache::{FileList, Layer, Store, StoreError, Tree};
use kiln_graph::{Descriptor, Digest, Encoder, ImageConfig, Index, Manifest, MediaKind, Platform};
use kiln_registry::{Client, Reference, choose_manifest};
use kiln_solver::{Direction, Task, blocking};

use crate::copy::tree_of;
use crate::error::WorkerError;
use crate::inflate::unpack_blob;
use crate::layout::OciLayout;
use crate::sink::{Channel, Memory, write_chunks};
use crate::snapshot::{Origin, Snapshot, SnapshotLayer, id_of};

/// Longest image config in bytes.
const MAX_CONFIG: u64 = 16 << 20;

/// Chunks in flight between a connection and the disk.
const CHUNKS: usize = 32;

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
        let snapshot = match self.is_built_here(&name)? {
            true => Snapshot::of_image(self.stored_layers(reference, &manifest, &config)?),
            false => chain(&name, &manifest, &config)?,
        };
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
        let snapshot = chain(&name, &manifest, &config)?;
        Ok(ResolvedImage {
            reference: format!("{name}@{}", descriptor.digest),
            manifest: descriptor.digest,
            config,
            snapshot,
        })
    }

    /// Returns the layers of an image that was built here, those of its base with the image that
    /// they came from: it has their blobs where the store does not.
    pub fn stored_layers(
        &self,
        name: &Reference,
        manifest: &Manifest,
        config: &ImageConfig,
    ) -> Result<Vec<SnapshotLayer>, WorkerError> {
        let mut layers = chain(&name.to_string(), manifest, config)?.layers();
        for layer in &mut layers {
            let Some(origin) = &layer.origin else {
                continue;
            };
            let memo = self.store.memo(&origin_key(&origin.blob.digest))?;
            if let Some(reference) = memo.and_then(|memo| String::from_utf8(memo).ok()) {
                let blob = origin.blob.clone();
                layer.origin = Some(Arc::new(Origin { reference, blob }));
            }
        }
        Ok(layers)
    }

    /// Notes where the base layers of an image that was built came from.
    pub fn note_origins(&self, layers: &[SnapshotLayer]) -> Result<(), WorkerError> {
        for origin in layers.iter().filter_map(|layer| layer.origin.as_ref()) {
            let (key, reference) = (origin_key(&origin.blob.digest), origin.reference.as_bytes());
            if self.store.memo(&key)?.as_deref() != Some(reference) {
                self.store.set_memo(&key, reference)?;
            }
        }
        Ok(())
    }

    fn is_built_here(&self, name: &str) -> Result<bool, WorkerError> {
        let known = self.store.references()?;
        Ok(known
            .iter()
            .any(|image| image.name == name && !image.is_pulled))
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
        let flight = self.flight(digest);
        let _flying = flight.lock().await;
        if self.store.has_whole_blob(&origin.blob)? {
            return Ok(());
        }
        if let Some(layout) = OciLayout::of_name(&origin.reference) {
            let (store, blob) = (self.store.clone(), origin.blob.clone());
            return blocking(move || layout.copy_blob(&store, &blob)).await;
        }
        let parse = |error| WorkerError::from((origin.reference.clone(), error));
        let reference: Reference = origin.reference.parse().map_err(parse)?;
        loop {
            match self.fetch_from(&reference, &origin.blob, task).await {
                Err(WorkerError::Registry(error)) if error.is_of_mirror() => {}
                done => return done,
            }
        }
    }

    /// Streams a blob from a registry into the store.
    async fn fetch_from(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        task: &Task,
    ) -> Result<(), WorkerError> {
        let digest = blob.digest;
        let (sender, receiver) = tokio::sync::mpsc::channel(CHUNKS);
        let writer = self.store.write_blob()?;
        let write = blocking(move || write_chunks(receiver, writer, digest));
        let (id, total) = (digest.to_string(), Some(blob.size));
        let progress = |done| task.transfer(&id, Direction::Pull, done, total);
        let fetch = async {
            let mut sink = Channel(Some(sender));
            self.client
                .blob(reference, blob, &mut sink, &progress)
                .await
        };
        let (fetched, written) = futures_util::future::join(fetch, write).await;
        // A full disk ends the fetch, too, and is what the user must hear of.
        written?;
        Ok(fetched?)
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
            if let Some(origin) = &layer.origin
                && self.unpacked(&chain[..at], layer)?.is_none()
            {
                fetches.push(self.fetch_blob(origin, task));
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
                (None, None) => {
                    let what = format!("layer {} (it is missing)", layer.id);
                    return Err(StoreError::Damaged { what }.into());
                }
            };
            layers.push(unpacked);
        }
        Ok(layers)
    }

    /// Returns what a snapshot shows. Where the lists of its layers are known, nothing is pulled or
    /// unpacked for that.
    pub(crate) async fn tree(&self, snapshot: &Snapshot, task: &Task) -> Result<Tree, WorkerError> {
        let chain = snapshot.layers();
        let mut lists = Vec::with_capacity(chain.len());
        for (at, layer) in chain.iter().enumerate() {
            match self.list(&chain[..at], layer)? {
                Some(list) => lists.push(list),
                None => return Ok(tree_of(&self.layers(snapshot, task).await?)),
            }
        }
        Ok(Tree::new(lists))
    }

    /// Looks for the list of a layer, which stays when its files are taken away.
    fn list(
        &self,
        below: &[SnapshotLayer],
        layer: &SnapshotLayer,
    ) -> Result<Option<Arc<FileList>>, WorkerError> {
        if let Some(found) = self.unpacked(below, layer)? {
            return Ok(Some(found.list));
        }
        if layer.origin.is_none() {
            return Ok(None);
        }
        match self.store.kept_list(&layer.id)? {
            Some(list) => Ok(Some(list)),
            None => Ok(self.store.kept_list(&id_on(below, &layer.id))?),
        }
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
        let flight = self.flight(layer.id);
        let _flying = flight.lock().await;
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

    /// Returns the lock under which a blob or layer is made.
    fn flight(&self, digest: Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut flights = self
            .shared
            .flights
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Arc::clone(flights.entry(digest).or_default())
    }
}

/// The key of the memo that says which image a blob came from.
fn origin_key(blob: &Digest) -> Digest {
    let mut encoder = Encoder::new("origin of");
    encoder.value(blob);
    encoder.finish()
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

/// Pairs the layers of a manifest with the diff ids of the config.
fn chain(name: &str, manifest: &Manifest, config: &ImageConfig) -> Result<Snapshot, WorkerError> {
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        let (n, m) = (manifest.layers.len(), diff_ids.len());
        let why = format!("its manifest has {n} layers, its config {m}");
        return Err(WorkerError::image(name, why));
    }
    let mut layers = Vec::with_capacity(diff_ids.len());
    for (id, blob) in diff_ids.iter().zip(&manifest.layers) {
        let is_layer = matches!(
            MediaKind::of(&blob.media_type),
            Some(MediaKind::LayerTar | MediaKind::LayerGzip | MediaKind::LayerZstd)
        );
        if !is_layer {
            let why = format!("kiln cannot read layers of type `{}`", blob.media_type);
            return Err(WorkerError::image(name, why));
        }
        let origin = Origin {
            reference: name.to_owned(),
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
