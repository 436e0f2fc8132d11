//! A cache inside an image: its config says which keys its layers have.
//!
//! ```text
//! config   kiln.cache.v1   { "records": [ { key, layer, name, created, elapsed_ms, format, at } ] }
//! ```
//!
//! `at` is the place of the layer in the image, lowest first; blob and diff id are what manifest and
//! config say of it. There are no file lists, so a key that needs one costs the layer.

use kiln_graph::{Digest, ImageConfig, Manifest, MediaKind};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::segment::{ListAt, Record, shown};

/// The field of an image's config.
pub const INLINE_FIELD: &str = "kiln.cache.v1";

#[derive(Debug, Default, Serialize, Deserialize)]
struct Inline {
    records: Vec<InlineRecord>,
}

/// What made a layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InlineRecord {
    /// What it is keyed by.
    pub key: Digest,
    /// Content id of the layer.
    pub layer: Digest,
    /// What made it.
    pub name: String,
    /// When it ran, in seconds since 1970.
    pub created: i64,
    /// How long it took.
    pub elapsed_ms: i64,
    /// How the blob was made, as the store names it: `gzip-3`.
    pub format: String,
    /// Which layer of the image, from 0.
    pub at: usize,
}

/// Returns the value of [`INLINE_FIELD`].
pub fn inline_value(records: Vec<InlineRecord>) -> Value {
    serde_json::to_value(Inline { records }).expect("plain data")
}

/// Returns what an image says of its layers; nothing if it says nothing that can be read.
pub(crate) fn records_of(manifest: &Manifest, config: &ImageConfig) -> Vec<Record> {
    let inline = config.rest.get(INLINE_FIELD).cloned();
    let inline: Inline = inline
        .and_then(|value| serde_json::from_value(value).ok())
        .unwrap_or_default();
    let record = |one: InlineRecord| {
        let blob = manifest.layers.get(one.at)?.clone();
        // Several images may have been made at once, in several forms, and the record names one.
        let kind = match MediaKind::of(&blob.media_type)? {
            MediaKind::LayerGzip => "gzip",
            MediaKind::LayerZstd => "zstd",
            _ => "tar",
        };
        let is_named = one.format.split('-').next() == Some(kind);
        let format = if is_named {
            one.format
        } else {
            kind.to_owned()
        };
        let diff_id = *config.rootfs.diff_ids.get(one.at)?;
        Some(Record {
            key: one.key,
            layer: one.layer,
            name: shown(&one.name),
            created: one.created,
            elapsed_ms: one.elapsed_ms,
            used: one.created,
            format,
            blob,
            diff_id,
            list: ListAt::Nowhere,
        })
    };
    inline.records.into_iter().filter_map(record).collect()
}

#[cfg(test)]
mod tests {
    use kiln_graph::{Descriptor, media_type};

    use super::*;

    #[test]
    fn records_name_the_layers_of_their_image() {
        let record = |at| InlineRecord {
            key: Digest::blake3("key"),
            layer: Digest::blake3("layer"),
            name: "RUN x".to_owned(),
            created: 5,
            elapsed_ms: 6,
            format: "gzip-3".to_owned(),
            at,
        };
        let layer = Descriptor::new(media_type::OCI_LAYER_GZIP, Digest::sha256("b"), 7);
        let manifest: Manifest = serde_json::from_value(serde_json::json!({
            "schemaVersion": 2, "config": layer, "layers": [layer, layer],
        }))
        .unwrap();
        let mut config = ImageConfig::default();
        config.rootfs.diff_ids = vec![Digest::sha256("c"), Digest::sha256("d")];
        // One that names a layer that is not there is left out.
        let value = inline_value(vec![record(1), record(2)]);
        config.rest.insert(INLINE_FIELD.to_owned(), value);
        let found = records_of(&manifest, &config);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].diff_id, Digest::sha256("d"));
        for damaged in [Value::Null, "x".into(), serde_json::json!({"records": 1})] {
            config.rest.insert(INLINE_FIELD.to_owned(), damaged);
            assert_eq!(records_of(&manifest, &config), []);
        }
    }
}
