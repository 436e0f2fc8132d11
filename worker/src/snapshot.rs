//! Snapshots: ordered chains of layers, and what else a vertex can evaluate to.

use std::sync::Arc;

use kiln_graph::{Descriptor, Digest, Encoder};

/// What a vertex evaluates to.
#[derive(Debug, Clone)]
pub enum Value {
    /// A file system made of layers.
    Snapshot(Snapshot),
    /// A folder of this machine, by the name it has in the graph.
    Local(Arc<str>),
}

/// An ordered chain of layers; the empty one is `FROM scratch`.
///
/// Chains share what they have in common: a copy, a layer more and the id cost the same however
/// many layers there are.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    top: Option<Arc<Link>>,
}

/// The top of a chain, and what is below.
#[derive(Debug)]
struct Link {
    layer: SnapshotLayer,
    below: Snapshot,
    id: Digest,
    length: usize,
}

/// One layer of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotLayer {
    /// Content id of a layer that kiln made, diff id of a layer of an image.
    pub id: Digest,
    /// Where the layer came from, if it came from an image.
    pub origin: Option<Arc<Origin>>,
    /// When kiln made it, in seconds since 1970; never part of an id.
    pub created: i64,
}

/// A layer as its image describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The image: name and digest of the manifest.
    pub reference: String,
    /// The blob.
    pub blob: Descriptor,
}

impl Value {
    /// Returns the snapshot; a local folder is none.
    pub fn snapshot(&self) -> Option<&Snapshot> {
        match self {
            Self::Snapshot(snapshot) => Some(snapshot),
            Self::Local(_) => None,
        }
    }
}

impl Snapshot {
    /// Returns the snapshot of an image.
    pub fn of_image(layers: Vec<SnapshotLayer>) -> Self {
        let empty = Self::default();
        layers.into_iter().fold(empty, |below, top| below.with(top))
    }

    /// Returns the layers, lowest first.
    pub fn layers(&self) -> Vec<SnapshotLayer> {
        let mut layers: Vec<_> = self.chain().map(|link| link.layer.clone()).collect();
        layers.reverse();
        layers
    }

    /// Returns how many layers there are.
    pub fn len(&self) -> usize {
        self.top.as_ref().map_or(0, |top| top.length)
    }

    /// Returns true for the snapshot without layers.
    pub fn is_empty(&self) -> bool {
        self.top.is_none()
    }

    /// Returns the highest layer.
    pub fn top(&self) -> Option<&SnapshotLayer> {
        self.top.as_ref().map(|top| &top.layer)
    }

    /// Returns the name and digest of the image that the snapshot begins with.
    pub fn image(&self) -> Option<&str> {
        let origin = self.chain().find_map(|link| link.layer.origin.as_deref());
        origin.map(|origin| origin.reference.as_str())
    }

    /// Returns this snapshot with a layer that kiln made on top.
    pub fn with_layer(&self, id: Digest, created: i64) -> Self {
        self.clone().with(SnapshotLayer {
            id,
            origin: None,
            created,
        })
    }

    fn with(self, layer: SnapshotLayer) -> Self {
        let link = Link {
            id: id_on(&self.id(), &layer.id),
            length: self.len() + 1,
            below: self,
            layer,
        };
        Self {
            top: Some(Arc::new(link)),
        }
    }

    /// Returns the digest of the chain: a function of the parent's id and the top layer's id.
    pub fn id(&self) -> Digest {
        self.top.as_ref().map_or_else(empty_id, |top| top.id)
    }

    /// Returns the links, highest first.
    fn chain(&self) -> impl Iterator<Item = &Link> {
        std::iter::successors(self.top.as_deref(), |link| link.below.top.as_deref())
    }
}

impl Drop for Snapshot {
    /// Takes long chains apart link by link: the depth of the stack does not grow with them.
    fn drop(&mut self) {
        let mut top = self.top.take();
        while let Some(mut link) = top.and_then(Arc::into_inner) {
            top = link.below.top.take();
        }
    }
}

fn empty_id() -> Digest {
    Encoder::new("snapshot").finish()
}

fn id_on(parent: &Digest, layer: &Digest) -> Digest {
    let mut encoder = Encoder::new("snapshot");
    encoder.value(parent).value(layer);
    encoder.finish()
}

/// Returns the digest of a chain of layers.
pub(crate) fn id_of(layers: &[SnapshotLayer]) -> Digest {
    let ids = layers.iter().map(|layer| &layer.id);
    ids.fold(empty_id(), |parent, id| id_on(&parent, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_depends_on_every_layer_and_their_order() {
        let (a, b) = (Digest::blake3("a"), Digest::blake3("b"));
        let empty = Snapshot::default();
        let ab = empty.with_layer(a, 1).with_layer(b, 2);
        assert_eq!(ab.id(), empty.with_layer(a, 3).with_layer(b, 4).id());
        assert_ne!(ab.id(), empty.with_layer(b, 1).with_layer(a, 2).id());
        assert_ne!(ab.id(), empty.with_layer(b, 1).id());
        assert_ne!(empty.with_layer(a, 1).id(), empty.id());
    }

    #[test]
    fn a_long_chain_is_walked_and_dropped_without_a_deep_stack() {
        let layer = Digest::blake3("layer");
        let long = (0..200_000).fold(Snapshot::default(), |below, _| below.with_layer(layer, 0));
        assert_eq!(long.len(), 200_000);
        assert_eq!(id_of(&long.layers()), long.id());
        drop(long);
    }
}
