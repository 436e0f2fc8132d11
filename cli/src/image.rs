//! From a solved graph to an image: which layers, which history, which times.

use std::collections::HashMap;
use std::sync::Arc;

use kiln_cache::{Entry, Kind, Layer, Store, StoreError, Tree};
use kiln_exporter::ImageLayer;
use kiln_frontend::Compiled;
use kiln_graph::{HistoryEntry, ImageConfig, Op, VertexId};
use kiln_registry::Reference;
use kiln_remote::INLINE_FIELD;
use kiln_worker::{Snapshot, SnapshotLayer, Value};

/// Written beside every history entry, as BuildKit does.
const COMMENT: &str = "buildkit.dockerfile.v0";

/// Written beside entries for layers that no instruction speaks of.
const EXPORTER_COMMENT: &str = "buildkit.exporter.image.v0";

/// The values of all vertices.
pub(crate) type Values = HashMap<VertexId, Value>;

/// Returns the snapshot that a vertex evaluated to; nothing is the empty one.
pub(crate) fn snapshot_of(values: &Values, vertex: Option<VertexId>) -> Snapshot {
    let value = vertex.and_then(|id| values.get(&id));
    value.and_then(Value::snapshot).cloned().unwrap_or_default()
}

/// Returns a layer in the form that an export starts from.
pub(crate) fn image_layer(store: &Store, layer: &SnapshotLayer) -> Result<ImageLayer, StoreError> {
    let missing = || StoreError::Damaged {
        what: format!("layer {} (it is missing)", layer.id),
    };
    let Some(origin) = &layer.origin else {
        return Ok(ImageLayer::Built(
            store.layer(&layer.id)?.ok_or_else(missing)?,
        ));
    };
    if !store.has_blob(&origin.blob.digest)
        && let Some(id) = store.layer_of_diff_id(&layer.id)?
        && let Some(built) = store.layer(&id)?
    {
        // An image of the local store: kiln made this layer and nobody has its blob.
        return Ok(ImageLayer::Built(built));
    }
    let mount_from: Option<Reference> = origin.reference.parse().ok();
    let descriptor = origin.blob.clone();
    Ok(ImageLayer::Base {
        descriptor,
        diff_id: layer.id,
        mount_from,
    })
}

/// The layers of an image that go into an export, and its config without diff ids.
#[derive(Debug)]
pub(crate) struct Assembly {
    pub(crate) layers: Vec<SnapshotLayer>,
    pub(crate) config: ImageConfig,
}

impl Assembly {
    /// Returns how many layers are those of a base image.
    pub(crate) fn n_base(&self) -> usize {
        let mut layers = self.layers.iter();
        layers
            .position(|layer| layer.origin.is_none())
            .unwrap_or(self.layers.len())
    }

    /// Puts one layer in the place of all that the base does not have.
    pub(crate) fn squashed(&mut self, layer: SnapshotLayer) {
        let n_base = self.n_base();
        let (mut n_told, created) = (0, self.config.created.clone());
        for entry in &mut self.config.history {
            n_told += usize::from(!entry.empty_layer);
            entry.empty_layer |= n_told > n_base;
        }
        self.config.history.push(HistoryEntry {
            created,
            created_by: Some("squash".to_owned()),
            author: None,
            comment: Some(COMMENT.to_owned()),
            empty_layer: false,
        });
        self.layers.truncate(n_base);
        self.layers.push(layer);
    }
}

/// Puts the layers and the history of an image together.
pub(crate) fn assemble(compiled: &Compiled, values: &Values, now: i64) -> Assembly {
    let snapshot = snapshot_of(values, compiled.target);
    let n_made = compiled
        .steps
        .iter()
        .filter(|step| step.layer.is_some())
        .count();
    let n_base = snapshot.len().saturating_sub(n_made);
    let layers = snapshot.layers();
    let (base, made) = layers.split_at(n_base);
    // What each layer came from, for those that the history does not speak of.
    let mut names: Vec<String> = base
        .iter()
        .map(|layer| base_name(compiled, layer))
        .collect();
    let n_base_told = told(&compiled.image.history);
    let mut made = made.iter();
    // For each step: its layer's time, if it has one. A layer without files is one, too.
    let mut times: Vec<Option<i64>> = Vec::new();
    for step in &compiled.steps {
        let Some(vertex) = step.layer else {
            times.push(None);
            continue;
        };
        let layer = made.next().expect("every vertex makes one layer");
        names.push(made_name(compiled, vertex));
        times.push(Some(layer.created));
    }
    let mut config = compiled.image.clone();
    // What is said of the base's layers is not true of this image's.
    for field in ["moby.buildkit.cache.v0", INLINE_FIELD] {
        config.rest.shift_remove(field);
    }
    let base_time = config.created.as_deref().and_then(parse_time);
    let fallback = base_time.filter(|_| compiled.base.is_some()).unwrap_or(now);
    let limit = compiled.source_date_epoch.unwrap_or(i64::MAX);
    let filled = fill_times(&times, fallback);
    for (step, time) in compiled.steps.iter().zip(&filled) {
        config.history.push(HistoryEntry {
            created: Some(format_time((*time).min(limit))),
            created_by: Some(step.created_by.clone()),
            author: None,
            comment: Some(COMMENT.to_owned()),
            empty_layer: step.layer.is_none(),
        });
    }
    let created = filled.last().copied().unwrap_or(fallback);
    let n_missing = layers.len().saturating_sub(told(&config.history));
    for name in names.into_iter().skip(n_base_told + n_made).take(n_missing) {
        config.history.push(HistoryEntry {
            created: Some(format_time(created.min(limit))),
            created_by: Some(name),
            author: None,
            comment: Some(EXPORTER_COMMENT.to_owned()),
            empty_layer: false,
        });
    }
    config.created = Some(format_time(created.min(limit)));
    Assembly { layers, config }
}

/// Returns how many layers a history speaks of.
fn told(history: &[HistoryEntry]) -> usize {
    history.iter().filter(|entry| !entry.empty_layer).count()
}

/// Says where a layer below all instructions came from: an image, or a folder.
fn base_name(compiled: &Compiled, layer: &SnapshotLayer) -> String {
    if let Some(origin) = &layer.origin {
        return format!("pulled from {}", origin.reference);
    }
    let mut at = compiled.target;
    let mut folder = String::new();
    while let Some(vertex) = at.map(|id| compiled.graph.vertex(id)) {
        if let (Op::Copy(_), [None, Some(source)]) = (&vertex.op, &vertex.inputs[..])
            && let Op::Local(local) = &compiled.graph.vertex(*source).op
        {
            folder.clone_from(&local.name);
        }
        at = vertex.inputs.first().copied().flatten();
    }
    format!("local source for {folder}")
}

/// Says what made a layer.
fn made_name(compiled: &Compiled, vertex: VertexId) -> String {
    let vertex = compiled.graph.vertex(vertex);
    match &vertex.op {
        Op::Exec(exec) => format!("mount / from exec {}", exec.args.join(" ")),
        _ => vertex.meta.name.clone(),
    }
}

/// An entry without a layer has the time of the layer before it, else of the one after it.
fn fill_times(times: &[Option<i64>], fallback: i64) -> Vec<i64> {
    let first = times.iter().find_map(|time| *time);
    let mut last = first.unwrap_or(fallback);
    let mut filled = Vec::with_capacity(times.len());
    for time in times {
        last = time.map_or(last, |time| time.max(last));
        filled.push(last);
    }
    filled
}

fn parse_time(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>()
        .ok()
        .map(jiff::Timestamp::as_second)
}

fn format_time(seconds: i64) -> String {
    let time = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.to_string()
}

/// Returns the files that a chain of layers shows, each with the layer it is in. Of the names of
/// one file the first is the file, the others link to it.
pub(crate) fn merged_entries(layers: &[Layer]) -> Vec<(Entry, usize)> {
    let tree = Tree::new(layers.iter().map(|layer| Arc::clone(&layer.list)).collect());
    let mut first_names: HashMap<(usize, Vec<u8>), Vec<u8>> = HashMap::new();
    let mut entries = Vec::new();
    if let Some(root) = tree.get(b"") {
        entries.push((root.entry.clone(), root.layer));
    }
    for node in tree.below(b"") {
        let file = tree.file_of(node);
        let mut entry = Entry {
            path: node.entry.path.clone(),
            ..file.entry.clone()
        };
        match &mut entry.kind {
            Kind::Dir { opaque } => *opaque = false,
            Kind::File { .. } => {
                let key = (file.layer, file.entry.path.clone());
                if let Some(first) = first_names.get(&key) {
                    entry.kind = Kind::Hardlink {
                        target: first.clone(),
                    };
                } else {
                    first_names.insert(key, entry.path.clone());
                }
            }
            _ => {}
        }
        entries.push((entry, node.layer));
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_without_a_layer_take_a_neighbours_time() {
        let times = [None, Some(5), None, Some(3), Some(9)];
        assert_eq!(fill_times(&times, 1), [5, 5, 5, 5, 9]);
        assert_eq!(fill_times(&[None], 7), [7]);
    }

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(format_time(1_500_000_000), "2017-07-14T02:40:00Z");
        assert_eq!(parse_time("2017-07-14T02:40:00.5Z"), Some(1_500_000_000));
    }
}
