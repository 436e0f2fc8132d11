//! A layer of an image: tar to unpacked directory and file list.
//!
//! Every path is resolved by what the layers hold, in memory, before the disk is touched; the
//! disk is then written by descriptors that follow no link. So an entry cannot climb out, write
//! through a link, or delete anything but what it names.
//!
//! A layer may leave parents out that lower layers have, or name a path through a link of a
//! lower layer. Both are looked up in the tree `below`; [`Unpacked::used_below`] then says that
//! the result holds on top of that tree only.

use std::collections::HashMap;
use std::io::Read;

use kiln_cache::{
    Content, DirWriter, Entry, FileList, Kind, TarEntry, TarKind, TarReader, Tree, components,
    follow_links, is_of_image, join_path, split_path,
};
use kiln_graph::{Algorithm, Digest};

use crate::error::UnpackError;
use crate::select::is_below;

/// What an unpacked layer holds.
#[derive(Debug)]
pub(crate) struct Unpacked {
    pub(crate) list: FileList,
    pub(crate) used_below: bool,
}

struct Unpacker<'a> {
    below: &'a Tree,
    writer: DirWriter,
    entries: HashMap<Vec<u8>, Entry>,
    used_below: bool,
}

/// Unpacks an uncompressed layer into `writer`'s empty directory.
pub(crate) fn unpack_layer(
    tar: impl Read,
    below: &Tree,
    writer: DirWriter,
) -> Result<Unpacked, UnpackError> {
    let mut reader = TarReader::new(tar);
    let mut unpacker = Unpacker {
        below,
        writer,
        entries: HashMap::new(),
        used_below: false,
    };
    while let Some(entry) = reader.next_entry()? {
        unpacker.place(&entry, &mut reader)?;
    }
    // What follows the end mark belongs to the digest.
    std::io::copy(&mut reader.into_inner(), &mut std::io::sink()).map_err(UnpackError::Read)?;
    unpacker.finish()
}

/// Makes the entry of an archive member at a path; contents are hashed later.
pub(crate) fn entry_at(path: &[u8], member: &TarEntry) -> Option<Entry> {
    let (major, minor) = (member.major, member.minor);
    let empty = Digest::new(Algorithm::Blake3, [0; 32]);
    let kind = match member.kind {
        TarKind::File => Kind::File {
            size: member.size,
            digest: empty,
        },
        TarKind::Dir => Kind::Dir { opaque: false },
        TarKind::Symlink => Kind::Symlink {
            target: member.link.clone(),
        },
        TarKind::CharDevice => Kind::CharDevice { major, minor },
        TarKind::BlockDevice => Kind::BlockDevice { major, minor },
        TarKind::Fifo => Kind::Fifo,
        TarKind::Hardlink | TarKind::Other(_) => return None,
    };
    let is_link = member.kind == TarKind::Symlink;
    let xattrs = member
        .xattrs
        .iter()
        .filter(|(name, _)| is_of_image(name))
        .cloned()
        .collect();
    Some(Entry {
        path: path.to_vec(),
        kind,
        mode: if is_link { 0o777 } else { member.mode },
        uid: member.uid,
        gid: member.gid,
        mtime: member.mtime,
        xattrs,
    })
}

/// Splits a path of an archive into components; what would climb above the root stays there.
pub(crate) fn member_path(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in components(path) {
        if part == b".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    parts.join(&b'/')
}

impl Unpacker<'_> {
    fn place(&mut self, member: &TarEntry, content: &mut impl Read) -> Result<(), UnpackError> {
        let path = member_path(&member.path);
        let (parent, name) = split_path(&path);
        let parent = self.open_parent(parent, &member.path)?;
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            return self.hide(&parent, hidden, &member.path);
        }
        let path = if path.is_empty() {
            path
        } else {
            join_path(&parent, name)
        };
        if member.kind == TarKind::Hardlink {
            return self.link(&path, member);
        }
        let Some(entry) = entry_at(&path, member) else {
            let why = "its type is not one that an image can hold";
            return Err(self.misplaced(&member.path, why));
        };
        self.make_room(&entry)?;
        self.write(entry, Content::Stream(content))
    }

    /// Returns the real path of a parent directory, and makes it if it is missing.
    fn open_parent(&mut self, path: &[u8], name: &[u8]) -> Result<Vec<u8>, UnpackError> {
        let real = follow_links(path, true, |path| self.link_target(path))
            .map_err(|error| self.misplaced(name, &error.to_string()))?;
        if real != path {
            self.used_below |= !self.leads_by_itself(path);
        }
        let mut at = Vec::new();
        for part in components(&real) {
            at = join_path(&at, part);
            match self.entries.get(&at) {
                Some(entry) if entry.is_dir() => {}
                Some(_) => return Err(self.misplaced(name, "its parent is not a directory")),
                None => self.make_implied(&at)?,
            }
        }
        Ok(real)
    }

    /// Returns true if the links on the way are this layer's own.
    fn leads_by_itself(&self, path: &[u8]) -> bool {
        let own = |path: &[u8]| match &self.entries.get(path)?.kind {
            Kind::Symlink { target } => Some(target.clone()),
            _ => None,
        };
        let with_below = follow_links(path, true, |path| self.link_target(path));
        follow_links(path, true, own) == with_below
    }

    /// Makes a parent that the archive leaves out: as it is below, or root's with mode 0755.
    fn make_implied(&mut self, path: &[u8]) -> Result<(), UnpackError> {
        let mut entry = Entry::dir(path);
        if let Some(node) = self.below.get(path).filter(|node| node.entry.is_dir()) {
            self.used_below |= !node.entry.same_content(&entry);
            entry = Entry {
                kind: Kind::Dir { opaque: false },
                ..node.entry.clone()
            };
        }
        self.write(entry, Content::None)
    }

    fn link_target(&self, path: &[u8]) -> Option<Vec<u8>> {
        match self.entries.get(path) {
            Some(entry) => match &entry.kind {
                Kind::Symlink { target } => Some(target.clone()),
                _ => None,
            },
            None => self.below.link_target(path),
        }
    }

    /// Notes a whiteout (`.wh.NAME`) or an opaque directory (`.wh..wh..opq`).
    fn hide(&mut self, parent: &[u8], name: &[u8], member: &[u8]) -> Result<(), UnpackError> {
        match name {
            b".wh..opq" => {
                let Some(dir) = self.entries.get(parent) else {
                    return Ok(());
                };
                let entry = Entry {
                    kind: Kind::Dir { opaque: true },
                    ..dir.clone()
                };
                self.write(entry, Content::None)
            }
            // Other marks of AUFS mean nothing in an image.
            name if name.starts_with(b".wh.") => Ok(()),
            b"" | b"." | b".." => Err(self.misplaced(member, "it names nothing to delete")),
            name => {
                let path = join_path(parent, name);
                // A file of this layer is newer than what the whiteout hides.
                if self.entries.contains_key(&path) {
                    return Ok(());
                }
                self.write(Entry::whiteout(&path), Content::None)
            }
        }
    }

    fn link(&mut self, path: &[u8], member: &TarEntry) -> Result<(), UnpackError> {
        let target = member_path(&member.link);
        let (parent, name) = split_path(&target);
        let parent = follow_links(parent, true, |path| self.link_target(path))
            .map_err(|error| self.misplaced(&member.path, &error.to_string()))?;
        let target = join_path(&parent, name);
        let target = match self.entries.get(&target).map(|entry| &entry.kind) {
            Some(Kind::Hardlink { target }) => target.clone(),
            Some(Kind::Dir { .. } | Kind::Whiteout) | None => {
                let why = "it is a hard link to something that is no file of this layer";
                return Err(self.misplaced(&member.path, why));
            }
            Some(_) => target,
        };
        if target == path {
            return Ok(());
        }
        let original = self.entries[&target].clone();
        let kind = Kind::Hardlink { target };
        let entry = Entry {
            path: path.to_vec(),
            kind,
            ..original
        };
        self.make_room(&entry)?;
        self.write(entry, Content::None)
    }

    /// Removes what an entry takes the place of; directories merge.
    fn make_room(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        let Some(existing) = self.entries.get(&entry.path) else {
            return Ok(());
        };
        if entry.path.is_empty() || existing.is_dir() && entry.is_dir() {
            return Ok(());
        }
        self.keep_other_names(&entry.path);
        self.entries
            .retain(|path, _| *path != entry.path && !is_below(path, &entry.path));
        let path = entry.path.clone();
        self.writer
            .remove(&path)
            .map_err(|source| written(&path, source))
    }

    /// When the first name of a file goes, its next name takes over.
    fn keep_other_names(&mut self, gone: &[u8]) {
        let is_other = |entry: &&mut Entry| matches!(&entry.kind, Kind::Hardlink { target } if target.as_slice() == gone);
        let Some(original) = self.entries.get(gone).cloned() else {
            return;
        };
        let mut others: Vec<&mut Entry> = self.entries.values_mut().filter(is_other).collect();
        let Some((first, rest)) = others.split_first_mut() else {
            return;
        };
        first.kind = original.kind;
        for other in rest {
            other.kind = Kind::Hardlink {
                target: first.path.clone(),
            };
        }
    }

    fn write(&mut self, mut entry: Entry, content: Content<'_>) -> Result<(), UnpackError> {
        let is_file = matches!(entry.kind, Kind::File { .. });
        let content = if is_file { content } else { Content::None };
        let result = self.writer.put(&entry, content);
        match result.map_err(|source| written(&entry.path, source))? {
            Some((size, digest)) => entry.kind = Kind::File { size, digest },
            None => debug_assert!(!is_file, "a file has content"),
        }
        self.entries.insert(entry.path.clone(), entry);
        Ok(())
    }

    fn misplaced(&self, name: &[u8], why: &str) -> UnpackError {
        let name = String::from_utf8_lossy(name).into_owned();
        UnpackError::Entry {
            name,
            why: why.to_owned(),
        }
    }

    fn finish(mut self) -> Result<Unpacked, UnpackError> {
        self.writer
            .finish()
            .map_err(|source| written(b"", source))?;
        let mut groups: HashMap<Vec<u8>, Vec<Vec<u8>>> = HashMap::new();
        for entry in self.entries.values() {
            if let Kind::Hardlink { target } = &entry.kind {
                groups
                    .entry(target.clone())
                    .or_default()
                    .push(entry.path.clone());
            }
        }
        for (original, names) in groups {
            rename_first(&mut self.entries, &original, names);
        }
        let list = FileList::new(self.entries.into_values().collect());
        Ok(Unpacked {
            list,
            used_below: self.used_below,
        })
    }
}

/// In a list, the first name of a file in order is the file, whatever the archive's order was.
fn rename_first(entries: &mut HashMap<Vec<u8>, Entry>, original: &[u8], names: Vec<Vec<u8>>) {
    let mut all = names;
    all.push(original.to_vec());
    all.sort_by(|a, b| kiln_cache::compare_paths(a, b));
    let Some(kind) = entries.get(original).map(|entry| entry.kind.clone()) else {
        return;
    };
    let first = all[0].clone();
    for path in all {
        if let Some(entry) = entries.get_mut(&path) {
            entry.kind = match path == first {
                true => kind.clone(),
                false => Kind::Hardlink {
                    target: first.clone(),
                },
            };
        }
    }
}

fn written(path: &[u8], source: std::io::Error) -> UnpackError {
    UnpackError::Write {
        name: String::from_utf8_lossy(path).into_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
