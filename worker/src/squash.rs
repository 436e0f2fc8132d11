//! `--squash`: the layers above an image's base become one.
//!
//! What the new layer holds is decided on file lists: what is shown of the layers that go, and
//! what of the base is gone. A file that a later layer deleted is in no layer at all then.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use kiln_cache::{
    Content, DirWriter, Entry, FileList, Kind, Layer, NewAction, Store, Tree, compare_paths,
    join_path, split_path,
};
use kiln_graph::Encoder;
use kiln_solver::{Task, blocking};

use crate::copy::tree_of;
use crate::error::WorkerError;
use crate::images::Images;
use crate::snapshot::{Snapshot, SnapshotLayer, id_of};

/// An entry of the new layer, and where its bytes are: number of the layer, and path there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Squashed {
    entry: Entry,
    bytes: Option<(usize, Vec<u8>)>,
}

/// Makes one layer of all layers of an image but its first `n_base`.
///
/// The base must be there to see what of it is gone; it is fetched if it is not.
pub async fn squash(
    images: &Images,
    store: &Store,
    layers: &[SnapshotLayer],
    n_base: usize,
    task: &Task,
) -> Result<SnapshotLayer, WorkerError> {
    let started = Instant::now();
    let mut encoder = Encoder::new("squash");
    encoder
        .value(&id_of(&layers[..n_base]))
        .value(&id_of(layers));
    let key = encoder.finish();
    let made = match store.action(&key)? {
        Some(action) if store.has_layer(&action.layer)? => action,
        _ => {
            let snapshot = Snapshot::of_image(layers.to_vec());
            let unpacked = images.layers(&snapshot, task).await?;
            let staged = store.clone();
            let id = blocking(move || write(&staged, &unpacked, n_base)).await?;
            store.record_action(NewAction {
                key: &key,
                layer: &id,
                name: "squash",
                elapsed: started.elapsed(),
                origin: "",
                record: None,
            })?
        }
    };
    Ok(SnapshotLayer {
        id: made.layer,
        origin: None,
        created: made.created,
    })
}

fn write(
    store: &Store,
    layers: &[Layer],
    n_base: usize,
) -> Result<kiln_graph::Digest, WorkerError> {
    let squashed = merged(&tree_of(layers), &tree_of(&layers[..n_base]), n_base);
    let staging = store.stage_layer()?;
    let dir = staging.fs_dir();
    let failed = |path: &[u8]| {
        let path = dir.join(String::from_utf8_lossy(path).as_ref());
        move |source| WorkerError::Io {
            what: "write",
            path,
            source,
        }
    };
    let mut writer = DirWriter::new(&dir).map_err(failed(b""))?;
    for Squashed { entry, bytes } in &squashed {
        let file = bytes
            .as_ref()
            .map(|(layer, path)| layers[*layer].open(path));
        let file = file.transpose().map_err(failed(&entry.path))?;
        let content = file.as_ref().map_or(Content::None, Content::Clone);
        writer.put(entry, content).map_err(failed(&entry.path))?;
    }
    writer.finish().map_err(failed(b""))?;
    let entries = squashed.into_iter().map(|squashed| squashed.entry);
    let list = Arc::new(FileList::new(entries.collect()));
    let id = list.content_id();
    staging.commit(&id, &list)?;
    Ok(id)
}

/// Returns what `all` shows of its layers from `n_base` on, and what it hides of `base`.
fn merged(all: &Tree, base: &Tree, n_base: usize) -> Vec<Squashed> {
    let mut merged: BTreeMap<Vec<u8>, Squashed> = BTreeMap::new();
    if let Some(root) = all.get(b"").filter(|node| node.layer >= n_base) {
        merged.insert(Vec::new(), plain(root.entry));
    }
    // What of the base is still shown; what is not was hidden, replaced, or deleted.
    let nodes = all.below(b"");
    for node in nodes.iter().filter(|node| node.layer >= n_base) {
        let file = all.file_of(*node);
        let mut squashed = plain(&Entry {
            path: node.entry.path.clone(),
            ..file.entry.clone()
        });
        if matches!(squashed.entry.kind, Kind::File { .. }) {
            squashed.bytes = Some((file.layer, file.entry.path.clone()));
        }
        merged.insert(node.entry.path.clone(), squashed);
    }
    for path in base.below(b"").iter().map(|node| &node.entry.path) {
        let parent = split_path(path).0;
        // Below what is no directory any more there is nothing to delete.
        if all.get(path).is_none() && all.is_dir(parent) && base.is_dir(parent) {
            merged.insert(path.clone(), plain(&Entry::whiteout(path)));
        }
    }
    add_parents(&mut merged, all);
    let mut squashed: Vec<Squashed> = merged.into_values().collect();
    squashed.sort_by(|a, b| compare_paths(&a.entry.path, &b.entry.path));
    link_names(&mut squashed);
    squashed
}

fn plain(entry: &Entry) -> Squashed {
    let mut entry = entry.clone();
    if let Kind::Dir { opaque } = &mut entry.kind {
        // What it hid is told one by one.
        *opaque = false;
    }
    Squashed { entry, bytes: None }
}

/// Adds the directories that entries are in, as they are.
fn add_parents(merged: &mut BTreeMap<Vec<u8>, Squashed>, all: &Tree) {
    let mut missing: BTreeMap<Vec<u8>, Squashed> = BTreeMap::new();
    for path in merged.keys() {
        let mut at = Vec::new();
        for part in kiln_cache::components(split_path(path).0) {
            at = join_path(&at, part);
            if let Some(node) = all.get(&at).filter(|_| !merged.contains_key(&at)) {
                missing.insert(at.clone(), plain(node.entry));
            }
        }
    }
    merged.append(&mut missing);
}

/// Of the names of one file the first carries its bytes, the others link to it.
fn link_names(squashed: &mut [Squashed]) {
    let mut first_names: HashMap<(usize, Vec<u8>), Vec<u8>> = HashMap::new();
    for Squashed { entry, bytes } in squashed {
        let Some(place) = bytes.clone() else { continue };
        match first_names.get(&place) {
            None => {
                first_names.insert(place, entry.path.clone());
            }
            Some(first) => {
                entry.kind = Kind::Hardlink {
                    target: first.clone(),
                };
                *bytes = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use kiln_graph::Digest;

    use super::*;

    /// `d/` is a directory, `d!/` an opaque one, `-x` a whiteout, `a>b` a link, `a=b` a hard
    /// link, else a file.
    fn entry(text: &str) -> Entry {
        let root_owned = |path: &str, kind| Entry::root_owned(path.as_bytes(), kind, 0o644);
        if let Some(path) = text.strip_suffix("!/") {
            return root_owned(path, Kind::Dir { opaque: true });
        }
        if let Some(path) = text.strip_suffix('/') {
            return root_owned(path, Kind::Dir { opaque: false });
        }
        if let Some(path) = text.strip_prefix('-') {
            return Entry::whiteout(path.as_bytes());
        }
        let target = |target: &str| target.as_bytes().to_vec();
        if let Some((path, to)) = text.split_once('>') {
            return root_owned(path, Kind::Symlink { target: target(to) });
        }
        if let Some((path, to)) = text.split_once('=') {
            return root_owned(path, Kind::Hardlink { target: target(to) });
        }
        let digest = Digest::blake3(text);
        root_owned(text, Kind::File { size: 1, digest })
    }

    fn squashed(base: &[&str], ours: &[&str]) -> String {
        let list = |l: &&str| Arc::new(FileList::new(l.split_whitespace().map(entry).collect()));
        let below: Vec<_> = base.iter().map(list).collect();
        let all: Vec<_> = base.iter().chain(ours).map(list).collect();
        let merged = merged(&Tree::new(all), &Tree::new(below), base.len());
        let show = |squashed: &Squashed| {
            let path = String::from_utf8_lossy(&squashed.entry.path).into_owned();
            match (&squashed.entry.kind, &squashed.bytes) {
                (Kind::Dir { .. }, _) => format!("{path}/"),
                (Kind::Whiteout, _) => format!("-{path}"),
                (Kind::Hardlink { target }, _) => {
                    format!("{path}={}", String::from_utf8_lossy(target))
                }
                (_, Some((layer, _))) => format!("{path}@{layer}"),
                _ => path,
            }
        };
        merged.iter().map(show).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_came_and_went_leaves_no_trace() {
        assert_eq!(
            squashed(&[], &["a b d/ d/x", "-a d/ -d/x", "a"]),
            "a@2 b@0 d/"
        );
        assert_eq!(squashed(&["o"], &["a", "-a"]), "");
    }

    #[test]
    fn what_the_base_has_is_deleted_once() {
        let base = &["d/ d/x d/e/ d/e/y f g"][..];
        assert_eq!(squashed(base, &["-f", "-d"]), "-d -f");
        assert_eq!(squashed(base, &["d/ -d/x"]), "d/ -d/x");
        assert_eq!(squashed(base, &["-f", "f"]), "f@2");
        assert_eq!(squashed(base, &["-d", "d/ d/n"]), "d/ -d/e d/n@2 -d/x");
    }

    #[test]
    fn an_opaque_directory_deletes_what_it_hid() {
        let base = &["d/ d/x d/e/ d/e/y"][..];
        assert_eq!(
            squashed(base, &["d!/ d/e/ d/n"]),
            "d/ d/e/ -d/e/y d/n@1 -d/x"
        );
    }

    #[test]
    fn a_file_or_link_replaces_a_directory_and_the_other_way_round() {
        assert_eq!(squashed(&["d/ d/x"], &["d"]), "d@1");
        assert_eq!(squashed(&["d/ d/x"], &["d>y"]), "d");
        assert_eq!(squashed(&["l>x"], &["l/ l/y"]), "l/ l/y@1");
    }

    #[test]
    fn names_of_one_file_stay_together() {
        let ours = &["a b=a c=a", "-a"][..];
        assert_eq!(squashed(&[], ours), "b@0 c=b");
        assert_eq!(squashed(&[], &["a b=a", "b"]), "a@0 b@1");
    }

    #[test]
    fn parents_that_only_the_base_has_are_added() {
        assert_eq!(squashed(&["d/ d/e/"], &["d/e/n"]), "d/ d/e/ d/e/n@1");
    }
}
