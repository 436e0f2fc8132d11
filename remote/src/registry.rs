//! A cache in a registry: each segment is a manifest with a tag of its own.
//!
//! The manifest names all blobs of its segment, so that the registry keeps them. The tag that the
//! user gave says that there is such a cache, and is never needed to read it.

use bytes::Bytes;
use kiln_graph::{Descriptor, Digest, Index, Manifest, MediaKind, media_type};
use kiln_registry::{BlobSink, Client, Reference, RegistryError};
use serde::de::DeserializeOwned;

use crate::error::RemoteError;
use crate::inline::records_of;
use crate::segment::{CACHE, MAX_PACKED, SEGMENT, Segment};

const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// Images of an index that are looked at.
const MAX_IMAGES: usize = 16;
/// A tag may have 128 characters.
const MAX_TAG: usize = 80;

/// A repository that holds a cache, under the names that begin with a tag.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    client: Client,
    pub(crate) name: Reference,
    /// What the tags of segments begin with.
    prefix: String,
}

impl Registry {
    pub(crate) fn new(client: Client, name: Reference) -> Self {
        let tag = name.tag().unwrap_or("latest");
        let prefix = match tag.len() <= MAX_TAG {
            true => format!("{tag}.kiln-"),
            false => format!("{}.kiln-", &Digest::blake3(tag).hex()[..32]),
        };
        Self {
            client,
            name,
            prefix,
        }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) async fn segments(&self) -> Result<Vec<String>, RemoteError> {
        let tags = self.client.tags(&self.name, &self.prefix).await?;
        let names = tags.iter().filter_map(|tag| tag.strip_prefix(&self.prefix));
        Ok(names.map(str::to_owned).collect())
    }

    fn segment(&self, name: &str) -> Result<Reference, RemoteError> {
        let tagged = self.name.with_tag(&format!("{}{name}", self.prefix));
        tagged.map_err(|error| RemoteError::unusable(format!("segment `{name}`"), &error))
    }

    pub(crate) async fn read_segment(&self, name: &str) -> Result<Vec<u8>, RemoteError> {
        let at = self.segment(name)?;
        let found = self.client.manifest(&at, None).await?;
        let unusable = |why: String| RemoteError::unusable(format!("`{at}`"), &why);
        let manifest: Manifest = self.parse(&found.bytes)?;
        let blob = manifest
            .layers
            .iter()
            .find(|blob| blob.media_type == SEGMENT);
        let blob = blob.ok_or_else(|| unusable("it names no segment".to_owned()))?;
        if blob.size > MAX_PACKED {
            return Err(unusable("its segment is too large".to_owned()));
        }
        let mut bytes = Vec::new();
        self.client.blob(&at, blob, &mut bytes, &|_| ()).await?;
        Ok(bytes)
    }

    /// Returns the records of an image, or of all images of an index, that has the cache's name.
    pub(crate) async fn inline(&self) -> Result<Option<Segment>, RemoteError> {
        let top = match self.client.manifest(&self.name, None).await {
            Ok(top) => top,
            Err(RegistryError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut manifests = vec![top.bytes];
        if MediaKind::of(&top.media_type) == Some(MediaKind::Index) {
            let index: Index = self.parse(&manifests[0])?;
            manifests.clear();
            let images = index.manifests.iter();
            let images =
                images.filter(|one| MediaKind::of(&one.media_type) != Some(MediaKind::Index));
            for image in images.take(MAX_IMAGES) {
                let found = self.client.manifest(&self.name, Some(image.digest)).await?;
                manifests.push(found.bytes);
            }
        }
        let mut records = Vec::new();
        for manifest in manifests {
            let manifest: Manifest = self.parse(&manifest)?;
            let is_image = MediaKind::of(&manifest.config.media_type) == Some(MediaKind::Config);
            if !is_image || manifest.config.size > MAX_PACKED {
                continue;
            }
            let mut bytes = Vec::new();
            self.read_blob(&manifest.config, &mut bytes, &|_| ())
                .await?;
            records.extend(records_of(&manifest, &self.parse(&bytes)?));
        }
        records.retain(|record| record.check().is_ok());
        Ok((!records.is_empty()).then(|| Segment::new(0, records)))
    }

    fn parse<T: DeserializeOwned>(&self, json: &[u8]) -> Result<T, RemoteError> {
        let unusable = |error| RemoteError::unusable(format!("`{}`", self.name), &error);
        serde_json::from_slice(json).map_err(unusable)
    }

    pub(crate) async fn write_segment(
        &self,
        name: &str,
        bytes: Bytes,
        blobs: &[Descriptor],
    ) -> Result<(), RemoteError> {
        let size = bytes.len() as u64;
        let segment = Descriptor::new(SEGMENT, Digest::sha256(&bytes), size);
        self.push(&segment, bytes).await?;
        let layers: Vec<Descriptor> = [&segment].into_iter().chain(blobs).cloned().collect();
        let at = self.segment(name)?;
        let manifest = self.manifest(&at, layers).await?;
        self.put(&at, &manifest).await?;
        // What people see. An image that has the name stays.
        match self.client.resolve(&self.name).await {
            Err(RegistryError::NotFound { .. }) => {
                let marker = self.manifest(&self.name, Vec::new()).await?;
                self.put(&self.name, &marker).await
            }
            other => Ok(other.map(drop)?),
        }
    }

    async fn push(&self, blob: &Descriptor, bytes: Bytes) -> Result<(), RemoteError> {
        let pushed = self
            .client
            .push_blob(&self.name, blob, bytes, None, &|_| ());
        pushed.await?;
        Ok(())
    }

    /// Returns a manifest with these layers, after it was seen to that its config is there.
    /// Each has its own name in it: two tags of one manifest would be removed together.
    async fn manifest(
        &self,
        at: &Reference,
        layers: Vec<Descriptor>,
    ) -> Result<Vec<u8>, RemoteError> {
        let empty = Descriptor::new(EMPTY, Digest::sha256("{}"), 2);
        self.push(&empty, Bytes::from_static(b"{}")).await?;
        let layers = match layers.is_empty() {
            true => vec![empty.clone()],
            false => layers,
        };
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "artifactType": CACHE,
            "config": empty,
            "layers": layers,
            "annotations": { "org.opencontainers.image.ref.name": at.tag().unwrap_or_default() },
        });
        Ok(serde_json::to_vec(&manifest).expect("plain data"))
    }

    async fn put(&self, at: &Reference, manifest: &[u8]) -> Result<(), RemoteError> {
        let pushed = self
            .client
            .push_manifest(at, media_type::OCI_MANIFEST, manifest);
        pushed.await?;
        Ok(())
    }

    pub(crate) async fn remove_segment(&self, name: &str) -> Result<(), RemoteError> {
        Ok(self.client.remove_tag(&self.segment(name)?).await?)
    }

    pub(crate) async fn read_blob(
        &self,
        blob: &Descriptor,
        sink: &mut impl BlobSink,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), RemoteError> {
        Ok(self.client.blob(&self.name, blob, sink, progress).await?)
    }
}
