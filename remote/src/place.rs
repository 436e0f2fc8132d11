//! Where a cache is, and the few things that can be done there.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use bytes::Bytes;
use kiln_graph::{Descriptor, Digest};
use kiln_registry::{BlobSink, BlobSource, Client, Pushed, Reference};

use crate::bucket::Bucket;
use crate::error::RemoteError;
use crate::folder::Folder;
use crate::registry::Registry;
use crate::segment::Segment;

/// A place that holds a cache. Clones share connections.
#[derive(Debug, Clone)]
pub struct Place(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Registry(Registry),
    Folder(Folder),
    Bucket(Bucket),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Registry(registry) => registry.name.fmt(f),
            Kind::Folder(folder) => folder.dir().display().fmt(f),
            Kind::Bucket(bucket) => bucket.fmt(f),
        }
    }
}

impl Place {
    /// A repository of a registry; the tag keeps several caches apart.
    pub fn registry(client: Client, name: Reference) -> Self {
        Self(Kind::Registry(Registry::new(client, name)))
    }

    /// A folder.
    pub fn folder(dir: &Path) -> Self {
        Self(Kind::Folder(Folder::new(dir)))
    }

    /// A bucket of an S3-compatible server.
    pub fn bucket(bucket: Bucket) -> Self {
        Self(Kind::Bucket(bucket))
    }

    /// Returns the repository, from which a registry may mount blobs elsewhere.
    pub fn repository(&self) -> Option<&Reference> {
        match &self.0 {
            Kind::Registry(registry) => Some(&registry.name),
            _ => None,
        }
    }

    /// Streams a blob into a sink, and checks size and digest before it returns `Ok`.
    pub async fn read_blob(
        &self,
        blob: &Descriptor,
        sink: &mut impl BlobSink,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), RemoteError> {
        match &self.0 {
            Kind::Registry(registry) => registry.read_blob(blob, sink, progress).await,
            Kind::Folder(folder) => folder.read_blob(blob, sink, progress).await,
            Kind::Bucket(bucket) => bucket.read_blob(blob, sink, progress).await,
        }
    }

    /// Makes sure that a blob is there. `mount_from` names a repository that may have it.
    pub(crate) async fn push_blob(
        &self,
        blob: &Descriptor,
        source: impl BlobSource,
        mount_from: Option<&Reference>,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Pushed, RemoteError> {
        match &self.0 {
            Kind::Registry(registry) => {
                let (client, name) = (registry.client(), &registry.name);
                let pushed = client.push_blob(name, blob, source, mount_from, progress);
                Ok(pushed.await?)
            }
            Kind::Folder(folder) => folder.push_blob(blob, &source, progress).await,
            Kind::Bucket(bucket) => bucket.push_blob(blob, &source, progress).await,
        }
    }

    /// Lists the names of segments, sorted: those written first come first.
    pub(crate) async fn segments(&self) -> Result<Vec<String>, RemoteError> {
        match &self.0 {
            Kind::Registry(registry) => registry.segments().await,
            Kind::Folder(folder) => folder.segments(),
            Kind::Bucket(bucket) => bucket.segments().await,
        }
    }

    /// Returns what the image of that name says of its layers, where there is one.
    pub(crate) async fn inline(&self) -> Result<Option<Segment>, RemoteError> {
        match &self.0 {
            Kind::Registry(registry) => registry.inline().await,
            _ => Ok(None),
        }
    }

    pub(crate) async fn read_segment(&self, name: &str) -> Result<Vec<u8>, RemoteError> {
        match &self.0 {
            Kind::Registry(registry) => registry.read_segment(name).await,
            Kind::Folder(folder) => folder.read_segment(name).await,
            Kind::Bucket(bucket) => bucket.read_segment(name).await,
        }
    }

    /// Adds a segment, whose blobs are there already.
    pub(crate) async fn write_segment(
        &self,
        name: &str,
        bytes: Bytes,
        blobs: &[Descriptor],
    ) -> Result<(), RemoteError> {
        match &self.0 {
            Kind::Registry(registry) => registry.write_segment(name, bytes, blobs).await,
            Kind::Folder(folder) => folder.write_segment(name, bytes).await,
            Kind::Bucket(bucket) => bucket.write_segment(name, bytes).await,
        }
    }

    pub(crate) async fn remove_segment(&self, name: &str) -> Result<(), RemoteError> {
        match &self.0 {
            Kind::Registry(registry) => registry.remove_segment(name).await,
            Kind::Folder(folder) => folder.remove_segment(name),
            Kind::Bucket(bucket) => bucket.remove_segment(name).await,
        }
    }

    /// Removes blobs that no segment names and that are not new. Registries do so by themselves.
    pub(crate) async fn sweep(&self, keep: &HashSet<Digest>) -> Result<(), RemoteError> {
        match &self.0 {
            Kind::Registry(_) => Ok(()),
            Kind::Folder(folder) => folder.sweep(keep),
            Kind::Bucket(bucket) => bucket.sweep(keep).await,
        }
    }
}
