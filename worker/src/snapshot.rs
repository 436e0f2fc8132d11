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
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    layers: Vec<SnapshotLayer>,
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
        Self { layers }
    }

    /// Returns the layers, lowest first.
    pub fn layers(&self) -> &[SnapshotLayer] {
        &self.layers
    }

    /// Returns this snapshot with a layer that kiln made on top.
    pub fn with_layer(&self, id: Digest, created: i64) -> Self {
        let mut layers = self.layers.clone();
        layers.push(SnapshotLayer {
            id,
            origin: None,
            created,
        });
        Self { layers }
    }

    /// Returns the digest of the chain: a function of the parent's id and the top layer's id.
    pub fn id(&self) -> Digest {
        id_of(&self.layers)
    }
}

/// Returns the digest of a chain of layers.
pub(crate) fn id_of(layers: &[SnapshotLayer]) -> Digest {
    layers
        .iter()
        .fold(Encoder::new("snapshot").finish(), |parent, layer| {
            let mut encoder = Encoder::new("snapshot");
            encoder.value(&parent).value(&layer.id);
            encoder.finish()
        })
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
}
