//! What a COPY, ADD or WORKDIR will change, decided before anything is written.
//!
//! The plan is a layer as data: entries, and where the bytes of files come from. Destination
//! links are followed inside the image; what a copied tree holds replaces files, merges
//! directories, and never turns one into the other.

mod overrides;
mod unchanged;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use kiln_cache::{
    Entry, Kind, LinkLoop, Mtime, Node, Tree, components, follow_links, join_path, split_path,
};

use crate::error::CopyError;
use crate::filter::{Item, Query, landing};
use crate::plan::overrides::{NewDirs, apply_owner};
use crate::plan::unchanged::drop_unchanged;
use crate::select::{Selected, is_below};

pub(crate) use crate::plan::overrides::Overrides;

/// An entry of the layer to be, and where its bytes come from.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) entry: Entry,
    pub(crate) bytes: Bytes,
    // Entries of one group are names of one file.
    group: Option<usize>,
}

/// Where the bytes of a file come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bytes {
    /// Not a regular file, or a further name of one.
    None,
    /// A file of a source tree.
    Source {
        /// Which source of the copy.
        source: usize,
        /// Layer and path there.
        layer: usize,
        /// Path in that layer.
        path: Vec<u8>,
    },
    /// Text in the Dockerfile.
    Inline(String),
    /// A file that was unpacked already.
    Spooled(PathBuf),
}

/// A plan in the making.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    below: &'a Tree,
    changes: BTreeMap<Vec<u8>, Planned>,
    overrides: Overrides,
    now: Mtime,
    // Names of one file are kept together within one selected path, as BuildKit does: by the
    // number of that copy, layer and path.
    groups: HashMap<(usize, usize, Vec<u8>), usize>,
    n_copies: usize,
}

impl<'a> Plan<'a> {
    /// Starts a plan on top of a tree; `now` is the time of directories that it makes.
    pub(crate) fn new(below: &'a Tree, overrides: Overrides, now: Mtime) -> Self {
        Self {
            below,
            changes: BTreeMap::new(),
            overrides,
            now,
            groups: HashMap::new(),
            n_copies: 0,
        }
    }

    /// Makes a directory and its missing parents; one that exists is left alone.
    pub(crate) fn make_dir(&mut self, path: &str) -> Result<Vec<u8>, CopyError> {
        let path = self.resolve(path.as_bytes())?;
        self.make_dirs(&path, self.overrides.new_dirs())?;
        Ok(path)
    }

    /// Makes the directory that an archive is unpacked in: `--chown` counts, `--chmod` does not.
    pub(crate) fn make_archive_dir(&mut self, path: &str) -> Result<Vec<u8>, CopyError> {
        let path = self.resolve(path.as_bytes())?;
        self.make_dirs(&path, NewDirs::owned_by(self.overrides.owner))?;
        Ok(path)
    }

    /// Copies what was selected in a source tree to a destination as COPY writes it.
    pub(crate) fn copy(
        &mut self,
        source: (usize, &Tree, &Query),
        selected: &Selected,
        destination: &str,
    ) -> Result<(), CopyError> {
        let (number, tree, query) = source;
        self.n_copies += 1;
        let is_dir = tree.is_dir(&selected.real);
        let target = self.target(destination, is_dir, selected.base_name())?;
        if let Some(node) = tree.get(&selected.real).filter(|_| !is_dir) {
            return self.put_node((number, tree), node, target);
        }
        if !self.is_dir(&target) && self.get(&target).is_some() {
            return Err(CopyError::NotADirectory {
                path: text(&target),
            });
        }
        for item in query.items(tree, selected) {
            let path = landing(&target, &item);
            if item.node.entry.is_dir() {
                self.put_dir(&item, path)?;
            } else {
                self.put_node((number, tree), item.node, path)?;
            }
        }
        Ok(())
    }

    /// Copies text of the Dockerfile into a file.
    pub(crate) fn copy_inline(
        &mut self,
        file: &kiln_graph::InlineFile,
        destination: &str,
    ) -> Result<(), CopyError> {
        let target = self.target(destination, false, file.path.as_bytes())?;
        let digest = kiln_graph::Digest::blake3(&file.content);
        let kind = Kind::File {
            size: file.content.len() as u64,
            digest,
        };
        let mut entry = Entry::root_owned(&target, kind, file.mode);
        entry.mtime = self.now;
        self.overrides.apply(&mut entry);
        self.put_file(entry, Bytes::Inline(file.content.clone()), None)
    }

    /// Puts an entry of an archive; what is in the way goes, directories merge.
    ///
    /// `--chown` replaces the archive's owners; parents that the archive leaves out are root's.
    pub(crate) fn put_unpacked(&mut self, mut entry: Entry, bytes: Bytes) -> Result<(), CopyError> {
        let path = entry.path.clone();
        self.overrides.apply_owner(&mut entry);
        if !(entry.is_dir() && self.is_dir(&path)) {
            self.changes.retain(|key, _| !is_below(key, &path));
        }
        self.make_dirs(split_path(&path).0, NewDirs::owned_by(None))?;
        self.insert(entry, bytes, None);
        Ok(())
    }

    /// Makes `link` another name of the file at `first`, and gives the file the link's metadata;
    /// false if there is no such file here.
    pub(crate) fn put_link(&mut self, first: &[u8], mut link: Entry) -> Result<bool, CopyError> {
        let Some(planned) = self.changes.get(first) else {
            return Ok(false);
        };
        let next = self.groups.len();
        let key = (usize::MAX, usize::MAX, first.to_vec());
        let known = planned.group;
        let group = known.unwrap_or_else(|| *self.groups.entry(key).or_insert(next));
        self.overrides.apply_owner(&mut link);
        link.kind = planned.entry.kind.clone();
        let second = Planned {
            entry: link,
            bytes: planned.bytes.clone(),
            group: Some(group),
        };
        for (path, other) in &mut self.changes {
            if path.as_slice() == first || other.group == Some(group) {
                other.entry = Entry {
                    path: path.clone(),
                    ..second.entry.clone()
                };
                other.group = Some(group);
            }
        }
        let path = second.entry.path.clone();
        self.make_dirs(split_path(&path).0, NewDirs::owned_by(None))?;
        self.changes.insert(path, second);
        Ok(true)
    }

    /// Returns where a path leads, links followed inside the image.
    pub(crate) fn resolve(&self, path: &[u8]) -> Result<Vec<u8>, LinkLoop> {
        follow_links(path, true, |path| self.link_target(path))
    }

    /// As [`Plan::resolve`] for what is inside a directory that nothing leads out of.
    pub(crate) fn resolve_inside(
        &self,
        root: &[u8],
        path: &[u8],
        last: bool,
    ) -> Result<Vec<u8>, LinkLoop> {
        let inside = follow_links(path, last, |path| self.link_target(&join(root, path)))?;
        Ok(join(root, &inside))
    }

    /// Returns true if there is anything.
    pub(crate) fn exists(&self, path: &[u8]) -> bool {
        path.is_empty() || self.get(path).is_some()
    }

    /// Returns true if there is a directory.
    pub(crate) fn is_dir(&self, path: &[u8]) -> bool {
        path.is_empty() || self.get(path).is_some_and(Entry::is_dir)
    }

    /// Returns the layer: entries in order, parents of all of them included.
    pub(crate) fn finish(mut self) -> Vec<Planned> {
        drop_unchanged(&mut self.changes, self.below);
        self.add_parents();
        let mut planned: Vec<Planned> = self.changes.into_values().collect();
        planned.sort_by(|a, b| kiln_cache::compare_paths(&a.entry.path, &b.entry.path));
        // The first name of a file carries its bytes, later ones are links to it.
        let mut first_names: HashMap<usize, Vec<u8>> = HashMap::new();
        for planned in &mut planned {
            let Some(group) = planned.group else { continue };
            match first_names.get(&group) {
                None => {
                    first_names.insert(group, planned.entry.path.clone());
                }
                Some(first) => {
                    planned.entry.kind = Kind::Hardlink {
                        target: first.clone(),
                    };
                    planned.bytes = Bytes::None;
                }
            }
        }
        planned
    }

    /// Decides the path that a source lands on, and makes the directories on the way.
    fn target(&mut self, written: &str, is_dir: bool, name: &[u8]) -> Result<Vec<u8>, CopyError> {
        let (folder, last) = written
            .rsplit_once('/')
            .map_or(("", written), |(d, f)| (d, f));
        let must_exist = if matches!(last, "" | ".") {
            written
        } else {
            folder
        };
        let folder = self.resolve(must_exist.as_bytes())?;
        let new_dirs = self.overrides.new_dirs();
        self.make_dirs(&folder, new_dirs)?;
        let mut target = self.resolve(written.as_bytes())?;
        if is_dir {
            if self.get(&target).is_none() {
                self.make_dirs(&target, new_dirs)?;
            }
        } else if self.is_dir(&target) {
            target = join_path(&target, name);
        }
        self.make_dirs(split_path(&target).0, new_dirs)?;
        Ok(target)
    }

    fn make_dirs(&mut self, path: &[u8], new: NewDirs) -> Result<(), CopyError> {
        let mut at = Vec::new();
        for part in components(path) {
            at = join_path(&at, part);
            match self.get(&at) {
                Some(entry) if entry.is_dir() => {}
                Some(_) => return Err(CopyError::NotADirectory { path: text(&at) }),
                None => {
                    let mut entry = Entry::dir(&at);
                    entry.mtime = self.now;
                    entry.mode = new.mode;
                    apply_owner(new.owner, &mut entry);
                    self.insert(entry, Bytes::None, None);
                }
            }
        }
        Ok(())
    }

    /// Puts a nested directory: its metadata replaces that of one that exists; if it is only on
    /// the way, its bits do, as they are at the source.
    fn put_dir(&mut self, item: &Item<'_>, path: Vec<u8>) -> Result<(), CopyError> {
        let existing = self.get(&path);
        if existing.is_some_and(|existing| !existing.is_dir()) {
            return Err(CopyError::NotADirectory { path: text(&path) });
        }
        let kind = Kind::Dir { opaque: false };
        let entry = match existing.filter(|_| item.is_on_the_way) {
            Some(existing) => Entry {
                path,
                kind,
                mode: item.node.entry.mode,
                ..existing.clone()
            },
            None => {
                let mut entry = Entry {
                    path,
                    kind,
                    ..item.node.entry.clone()
                };
                self.overrides.apply(&mut entry);
                entry
            }
        };
        self.insert(entry, Bytes::None, None);
        Ok(())
    }

    /// Puts anything but a directory.
    fn put_node(
        &mut self,
        (source, tree): (usize, &Tree),
        node: Node<'_>,
        path: Vec<u8>,
    ) -> Result<(), CopyError> {
        let file = tree.file_of(node);
        let mut entry = Entry {
            path,
            kind: copied_kind(&file.entry.kind),
            ..file.entry.clone()
        };
        self.overrides.apply(&mut entry);
        if !matches!(entry.kind, Kind::File { .. }) {
            return self.put_file(entry, Bytes::None, None);
        }
        let layer = file.layer;
        let from = file.entry.path.clone();
        let next = self.groups.len();
        let group = *self
            .groups
            .entry((self.n_copies, layer, from.clone()))
            .or_insert(next);
        self.put_file(
            entry,
            Bytes::Source {
                source,
                layer,
                path: from,
            },
            Some(group),
        )
    }

    fn put_file(
        &mut self,
        entry: Entry,
        bytes: Bytes,
        group: Option<usize>,
    ) -> Result<(), CopyError> {
        if self.is_dir(&entry.path) {
            return Err(CopyError::IsADirectory {
                path: text(&entry.path),
            });
        }
        if split_path(&entry.path).1.starts_with(b".wh.") {
            return Err(CopyError::WhiteoutName {
                path: text(&entry.path),
            });
        }
        self.insert(entry, bytes, group);
        Ok(())
    }

    fn insert(&mut self, entry: Entry, bytes: Bytes, group: Option<usize>) {
        self.changes.insert(
            entry.path.clone(),
            Planned {
                entry,
                bytes,
                group,
            },
        );
    }

    fn get(&self, path: &[u8]) -> Option<&Entry> {
        if let Some(planned) = self.changes.get(path) {
            return Some(&planned.entry);
        }
        let mut parent = path;
        while !parent.is_empty() {
            parent = split_path(parent).0;
            // What the plan puts in place of a directory hides what was in it.
            if self
                .changes
                .get(parent)
                .is_some_and(|planned| !planned.entry.is_dir())
            {
                return None;
            }
        }
        self.below.get(path).map(|node| node.entry)
    }

    fn link_target(&self, path: &[u8]) -> Option<Vec<u8>> {
        match &self.get(path)?.kind {
            Kind::Symlink { target } => Some(target.clone()),
            _ => None,
        }
    }

    fn add_parents(&mut self) {
        let mut missing: BTreeMap<Vec<u8>, Planned> = BTreeMap::new();
        for path in self.changes.keys() {
            let mut parent = split_path(path).0;
            while !parent.is_empty() && !self.changes.contains_key(parent) {
                if let Some(node) = self.below.get(parent) {
                    let kind = Kind::Dir { opaque: false };
                    let entry = Entry {
                        kind,
                        ..node.entry.clone()
                    };
                    let planned = Planned {
                        entry,
                        bytes: Bytes::None,
                        group: None,
                    };
                    missing.insert(parent.to_vec(), planned);
                }
                parent = split_path(parent).0;
            }
        }
        self.changes.append(&mut missing);
    }
}

fn join(root: &[u8], path: &[u8]) -> Vec<u8> {
    if path.is_empty() {
        root.to_vec()
    } else {
        join_path(root, path)
    }
}

/// BuildKit's copy of a block device is a character device: it clears too many bits of the mode.
/// What would be a mark of deletion is copied as it is.
fn copied_kind(kind: &Kind) -> Kind {
    match *kind {
        Kind::BlockDevice { major, minor } if (major, minor) != (0, 0) => {
            Kind::CharDevice { major, minor }
        }
        _ => kind.clone(),
    }
}

fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

#[cfg(test)]
mod tests;
