//! Trees: what a chain of layers shows when they lie on each other.
//!
//! Nothing is merged up front. A path is answered by searching the lists from the top; a subtree
//! is merged when it is asked for. Symbolic links are resolved inside the tree and never leave it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::filelist::{Entry, FileList, Kind, compare_paths, join_path, split_path};

/// Symbolic links followed before a path counts as a loop, as Linux does.
const MAX_LINKS: usize = 40;

/// A chain of layers, lowest first.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    layers: Vec<Arc<FileList>>,
}

/// An entry of a tree, and which layer shows it.
#[derive(Debug, Clone, Copy)]
pub struct Node<'a> {
    /// The entry.
    pub entry: &'a Entry,
    /// Number of its layer, from 0.
    pub layer: usize,
}

/// Too many symbolic links on the way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "too many symbolic links on the way to `/{}`",
    String::from_utf8_lossy(path)
)]
pub struct LinkLoop {
    /// The path that was asked for.
    pub path: Vec<u8>,
}

impl Tree {
    /// Returns the tree of these layers, lowest first.
    pub fn new(layers: Vec<Arc<FileList>>) -> Self {
        Self { layers }
    }

    /// Lays another layer on top.
    pub fn push(&mut self, layer: Arc<FileList>) {
        self.layers.push(layer);
    }

    /// Returns what is at a path, links not followed. The root itself may have no entry.
    pub fn get(&self, path: &[u8]) -> Option<Node<'_>> {
        for (at, list) in self.layers.iter().enumerate().rev() {
            if let Some(entry) = list.get(path) {
                return (entry.kind != Kind::Whiteout).then_some(Node { entry, layer: at });
            }
            if hides(list, path) {
                return None;
            }
        }
        None
    }

    /// Returns how many entries all layers have together: what a look at all of it costs.
    pub fn n_entries(&self) -> usize {
        self.layers.iter().map(|list| list.entries().len()).sum()
    }

    /// Returns true if there is a directory at a path; the root always is one.
    pub fn is_dir(&self, path: &[u8]) -> bool {
        path.is_empty() || self.get(path).is_some_and(|node| node.entry.is_dir())
    }

    /// Returns everything below a path, without the path itself, in the order of file lists.
    pub fn below(&self, path: &[u8]) -> Vec<Node<'_>> {
        if let [list] = &self.layers[..] {
            let shown = entries_below(list, path)
                .iter()
                .filter(|e| e.kind != Kind::Whiteout);
            return shown.map(|entry| Node { entry, layer: 0 }).collect();
        }
        let mut merged: BTreeMap<Key<'_>, Node<'_>> = BTreeMap::new();
        for (at, list) in self.layers.iter().enumerate() {
            if hides(list, path) || list.get(path).is_some_and(cuts) {
                merged.clear();
            }
            for entry in entries_below(list, path) {
                let lower = merged
                    .get(&Key(&entry.path))
                    .is_some_and(|node| node.entry.is_dir());
                if lower && cuts(entry) {
                    remove_below(&mut merged, &entry.path);
                }
                if entry.kind == Kind::Whiteout {
                    merged.remove(&Key(&entry.path));
                } else {
                    merged.insert(Key(&entry.path), Node { entry, layer: at });
                }
            }
        }
        merged.into_values().collect()
    }

    /// Returns the file that a hard link names, or the node itself.
    pub fn file_of<'a>(&'a self, node: Node<'a>) -> Node<'a> {
        let Kind::Hardlink { target } = &node.entry.kind else {
            return node;
        };
        match self.layers[node.layer].get(target) {
            Some(entry) => Node {
                entry,
                layer: node.layer,
            },
            None => node,
        }
    }

    /// Returns where a path leads when all symbolic links are followed inside the tree.
    ///
    /// What does not exist is taken as it stands; `..` at the root stays there.
    pub fn resolve(&self, path: &[u8]) -> Result<Vec<u8>, LinkLoop> {
        follow_links(path, true, |path| self.link_target(path))
    }

    /// As [`Tree::resolve`], but a link at the end of the path is not followed.
    pub fn resolve_parent(&self, path: &[u8]) -> Result<Vec<u8>, LinkLoop> {
        follow_links(path, false, |path| self.link_target(path))
    }

    /// Returns where the symbolic link at a path points, if there is one.
    pub fn link_target(&self, path: &[u8]) -> Option<Vec<u8>> {
        match &self.get(path)?.entry.kind {
            Kind::Symlink { target } => Some(target.clone()),
            _ => None,
        }
    }
}

/// Follows symbolic links from a root that nothing leads out of.
///
/// `target_of` says where the link at a path points, if there is one; `last` says whether a link
/// at the end of the path is followed too.
pub fn follow_links(
    path: &[u8],
    last: bool,
    target_of: impl Fn(&[u8]) -> Option<Vec<u8>>,
) -> Result<Vec<u8>, LinkLoop> {
    let mut done = Vec::new();
    // Components still to walk, the next one last.
    let mut todo: Vec<Vec<u8>> = components(path).rev().map(<[u8]>::to_vec).collect();
    let mut links = 0;
    while let Some(name) = todo.pop() {
        if name == b".." {
            done.truncate(split_path(&done).0.len());
            continue;
        }
        let next = join_path(&done, &name);
        let target = if last || !todo.is_empty() {
            target_of(&next)
        } else {
            None
        };
        let Some(target) = target else {
            done = next;
            continue;
        };
        links += 1;
        if links > MAX_LINKS {
            return Err(LinkLoop {
                path: path.to_vec(),
            });
        }
        if target.starts_with(b"/") {
            done.clear();
        }
        todo.extend(components(&target).rev().map(<[u8]>::to_vec));
    }
    Ok(done)
}

/// Splits a path into its components, `.` and empty ones left out.
pub fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&b| b == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
}

/// Returns true if the entry hides what lower layers have below its path.
fn cuts(entry: &Entry) -> bool {
    !matches!(entry.kind, Kind::Dir { opaque: false })
}

/// Returns true if some parent of `path` in this layer hides what lower layers have there.
fn hides(list: &FileList, path: &[u8]) -> bool {
    let mut parent = path;
    while !parent.is_empty() {
        parent = split_path(parent).0;
        if list.get(parent).is_some_and(cuts) {
            return true;
        }
    }
    false
}

/// The entries of one list that lie below a path.
fn entries_below<'a>(list: &'a FileList, path: &[u8]) -> &'a [Entry] {
    let entries = list.entries();
    let is_below = |entry: &Entry| {
        path.is_empty()
            || entry
                .path
                .strip_prefix(path)
                .is_some_and(|rest| rest.starts_with(b"/"))
    };
    let start = entries.partition_point(|e| compare_paths(&e.path, path).is_le());
    let len = entries[start..].partition_point(is_below);
    &entries[start..start + len]
}

fn remove_below<'a>(merged: &mut BTreeMap<Key<'a>, Node<'a>>, path: &'a [u8]) {
    let inside = |key: &&'a [u8]| {
        key.strip_prefix(path)
            .is_some_and(|rest| rest.starts_with(b"/"))
    };
    let doomed: Vec<&'a [u8]> = merged
        .range(Key(path)..)
        .map(|(key, _)| key.0)
        .skip(1)
        .take_while(inside)
        .collect();
    // The keys borrow from the lists, not from the map.
    for path in doomed {
        merged.remove(&Key(path));
    }
}

/// A path in the order of file lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key<'a>(&'a [u8]);

impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        compare_paths(self.0, other.0)
    }
}

impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use kiln_graph::Digest;

    use super::*;

    fn entry(text: &str) -> Entry {
        // `d/` is a directory, `d!/` an opaque one, `-x` a whiteout, `a>b` a link, else a file.
        if let Some(path) = text.strip_suffix("!/") {
            let kind = Kind::Dir { opaque: true };
            return Entry::root_owned(path.as_bytes(), kind, 0o755);
        }
        if let Some(path) = text.strip_suffix('/') {
            return Entry::dir(path.as_bytes());
        }
        if let Some(path) = text.strip_prefix('-') {
            return Entry::whiteout(path.as_bytes());
        }
        if let Some((path, target)) = text.split_once('>') {
            let kind = Kind::Symlink {
                target: target.as_bytes().to_vec(),
            };
            return Entry::root_owned(path.as_bytes(), kind, 0o777);
        }
        let kind = Kind::File {
            size: 0,
            digest: Digest::blake3(""),
        };
        Entry::root_owned(text.as_bytes(), kind, 0o644)
    }

    fn tree(layers: &[&str]) -> Tree {
        let list = |l: &&str| Arc::new(FileList::new(l.split_whitespace().map(entry).collect()));
        Tree::new(layers.iter().map(list).collect())
    }

    fn show(tree: &Tree, path: &str) -> String {
        let show = |n: &Node<'_>| format!("{}@{}", String::from_utf8_lossy(&n.entry.path), n.layer);
        tree.below(path.as_bytes())
            .iter()
            .map(show)
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn upper_layers_replace_hide_and_delete() {
        let tree = tree(&["a/ a/x a/y b/ b/z c", "a!/ a/y -b/z c/ c/in", "-c"]);
        assert_eq!(show(&tree, ""), "a@1 a/y@1 b@0");
        assert!(tree.get(b"a/x").is_none() && tree.get(b"c/in").is_none());
        assert_eq!(tree.get(b"a/y").map(|n| n.layer), Some(1));
        assert_eq!(show(&tree, "a"), "a/y@1");
        assert_eq!(show(&tree, "c"), "");
    }

    #[test]
    fn a_file_hides_a_directory_below_it() {
        let tree = tree(&["d/ d/x", "d"]);
        assert_eq!(show(&tree, ""), "d@1");
        assert!(tree.get(b"d/x").is_none());
        assert_eq!(show(&tree, "d"), "");
    }

    #[test]
    fn names_that_share_a_prefix_are_not_below() {
        assert_eq!(show(&tree(&["a/ a/x a.b ab"]), "a"), "a/x@0");
    }

    #[test]
    fn links_stay_inside() {
        let tree = tree(&["u/ u/lib/ lib>u/lib up>../../etc abs>/u loop>loop d/ d/back>../lib"]);
        let resolve = |path: &str| {
            tree.resolve(path.as_bytes())
                .map(|p| String::from_utf8(p).unwrap())
        };
        assert_eq!(resolve("lib/x").unwrap(), "u/lib/x");
        assert_eq!(resolve("up/passwd").unwrap(), "etc/passwd");
        assert_eq!(resolve("/abs/../x").unwrap(), "x");
        assert_eq!(resolve("d/back/y").unwrap(), "u/lib/y");
        assert_eq!(resolve("../../q").unwrap(), "q");
        assert!(resolve("loop").is_err());
        assert_eq!(tree.resolve_parent(b"d/back").unwrap(), b"d/back");
    }
}
