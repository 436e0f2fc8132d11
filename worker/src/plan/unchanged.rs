//! What a plan would write again although it is there: such entries are no change.
//!
//! A file that is the same down to its time stays the one below, with its other names; so do
//! directories, whose times do not count. Decided on file lists only.

use std::collections::{BTreeMap, HashSet};

use kiln_cache::{Entry, Kind, Tree, split_path};

use crate::plan::Planned;

/// Takes out of `changes` what `below` shows already.
pub(super) fn drop_unchanged(changes: &mut BTreeMap<Vec<u8>, Planned>, below: &Tree) {
    let same: HashSet<Vec<u8>> = changes
        .iter()
        .filter(|(path, planned)| !is_moved(changes, path) && is_there(below, &planned.entry))
        .map(|(path, _)| path.clone())
        .collect();
    // Directories stay where something in them does. What is in one sorts behind it.
    let mut needed: HashSet<Vec<u8>> = HashSet::new();
    let mut dropped: Vec<Vec<u8>> = Vec::new();
    for path in changes.keys().rev() {
        if same.contains(path) && !needed.contains(path) {
            dropped.push(path.clone());
        } else if !path.is_empty() {
            needed.insert(split_path(path).0.to_vec());
        }
    }
    for path in dropped {
        changes.remove(&path);
    }
}

/// Returns true if a directory on the way is another one than below.
fn is_moved(changes: &BTreeMap<Vec<u8>, Planned>, path: &[u8]) -> bool {
    let mut parent = path;
    while !parent.is_empty() {
        parent = split_path(parent).0;
        let planned = changes.get(parent).map(|planned| &planned.entry.kind);
        if planned.is_some_and(|kind| *kind != (Kind::Dir { opaque: false })) {
            return true;
        }
    }
    false
}

fn is_there(below: &Tree, entry: &Entry) -> bool {
    let Some(node) = below.get(&entry.path) else {
        return false;
    };
    let there = below.file_of(node).entry;
    match (&there.kind, &entry.kind) {
        (Kind::Dir { .. }, Kind::Dir { opaque: false }) => {
            let plain = Entry {
                kind: entry.kind.clone(),
                ..there.clone()
            };
            plain.same_content(entry)
        }
        _ => there.same_content(entry) && there.mtime == entry.mtime,
    }
}
