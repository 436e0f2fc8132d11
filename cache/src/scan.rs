//! What a step changed: an overlay upper directory read back as a file list.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use kiln_graph::{Algorithm, Digest, Hasher};
use rayon::prelude::*;
use rustix::fs::FileType;

use crate::devices::{self, Placeholder};
use crate::dir_writer::{Content, DirWriter};
use crate::error::StoreError;
use crate::filelist::{Entry, FileList, Kind, Mtime, split_path};
use crate::layers::{open_beneath, open_dir};
use crate::tree::Tree;
use crate::walk::{Found, WalkError, born, entry_as, entry_of, file_type, stat_at, walk};
use crate::xattrs;

/// Reads an upper directory; `below` is what lay under it.
///
/// Left out is what overlay copied up without a change: directories that differ in time only,
/// and files that differ in nothing. Kept are the parents of everything that is listed. What is left
/// out is taken out of the directory, too. Files that stand for devices become devices, in the list
/// and in the directory.
pub fn scan_upper(dir: &Path, below: &Tree) -> Result<FileList, StoreError> {
    scan_step(dir, below, &[])
}

/// As [`scan_upper`], for a step that made devices for which these sockets stand.
pub fn scan_step(
    dir: &Path,
    below: &Tree,
    sockets: &[Placeholder],
) -> Result<FileList, StoreError> {
    let (entries, placeholders) = read_dir(dir, sockets)?;
    devices::make_nodes(dir, &entries, &placeholders)
        .map_err(StoreError::io("make the devices of", dir))?;
    let changed = changed_entries(&entries, below);
    remove_unlisted(dir, &entries, &changed).map_err(StoreError::io("tidy", dir))?;
    Ok(FileList::new(changed))
}

/// Takes what is not listed out of a directory, which keeps the times of what holds it.
fn remove_unlisted(dir: &Path, entries: &[Entry], listed: &[Entry]) -> io::Result<()> {
    let listed: HashSet<&[u8]> = listed.iter().map(|entry| &*entry.path).collect();
    let is_unlisted = |path: &[u8]| !path.is_empty() && !listed.contains(path);
    if !entries.iter().any(|entry| is_unlisted(&entry.path)) {
        return Ok(());
    }
    let dirs = entries.iter().filter(|entry| entry.is_dir());
    let dirs: HashMap<&[u8], &Entry> = dirs.map(|entry| (&*entry.path, entry)).collect();
    let mut writer = DirWriter::new(dir)?;
    // The directory whose times the writer was last told.
    let mut held = None;
    for entry in entries.iter().filter(|entry| is_unlisted(&entry.path)) {
        let above = split_path(&entry.path).0;
        if is_unlisted(above) {
            // It went with the directory that held it.
            continue;
        }
        if held != Some(above)
            && let Some(dir) = dirs.get(above)
        {
            writer.put(dir, Content::None)?;
        }
        held = Some(above);
        writer.remove(&entry.path)?;
    }
    writer.finish()
}

/// Returns what is in a directory, as a layer would hold it.
pub(crate) fn list_dir(dir: &Path) -> Result<FileList, StoreError> {
    read_dir(dir, &[]).map(|(entries, _)| FileList::new(entries))
}

/// Returns what is in the folder of a cache mount, nothing hashed: sorted, the folder's own entry
/// first, every digest 0. Devices and deletions are left out; a cache has none.
pub fn list_mount(dir: &Path) -> Result<Vec<Entry>, StoreError> {
    let failed = || StoreError::io("read", dir);
    let root = open_dir(dir).map_err(StoreError::io("open", dir))?;
    let (mut entries, _) = read_entries(&root, &[]).map_err(|error| failed()(error.source))?;
    let mut left_out = HashSet::new();
    entries.retain(|entry| {
        let is_left_out = match &entry.kind {
            Kind::CharDevice { .. } | Kind::BlockDevice { .. } | Kind::Whiteout => true,
            Kind::Hardlink { target } => left_out.contains(target),
            _ => false,
        };
        if is_left_out {
            left_out.insert(entry.path.clone());
        }
        !is_left_out
    });
    for entry in &mut entries {
        if entry.is_dir() {
            entry.kind = Kind::Dir { opaque: false };
        }
    }
    Ok(entries)
}

/// Reads and hashes all entries, and tells which of the devices are placeholders.
fn read_dir(
    dir: &Path,
    sockets: &[Placeholder],
) -> Result<(Vec<Entry>, HashSet<Vec<u8>>), StoreError> {
    let root = open_dir(dir).map_err(StoreError::io("open", dir))?;
    let (mut entries, placeholders) = read_entries(&root, sockets).map_err(|error| {
        let path = dir.join(String::from_utf8_lossy(&error.path).as_ref());
        StoreError::Io {
            what: "read",
            path,
            source: error.source,
        }
    })?;
    hash_files(&root, &mut entries).map_err(StoreError::io("read", dir))?;
    Ok((entries, placeholders))
}

/// Hashes a stream with BLAKE3 and returns its length and digest.
pub fn hash_stream(stream: impl io::Read) -> io::Result<(u64, Digest)> {
    hash_copy(stream, io::sink())
}

/// Copies a stream, hashes it on the way, and returns its length and digest.
pub fn hash_copy(mut from: impl io::Read, mut to: impl io::Write) -> io::Result<(u64, Digest)> {
    let mut hasher = Hasher::new(Algorithm::Blake3);
    let mut buffer = vec![0; 128 * 1024];
    let mut size = 0;
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) => return Ok((size, hasher.finish())),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&buffer[..n]);
        to.write_all(&buffer[..n])?;
        size += n as u64;
    }
}

/// What stands for the content of a file until it is hashed.
fn unhashed(size: u64) -> Kind {
    Kind::File {
        size,
        digest: Digest::new(Algorithm::Blake3, [0; 32]),
    }
}

/// What is remembered from one entry to the next.
#[derive(Debug, Default)]
struct Seen {
    /// Sockets that stand for devices: inode, birth, device.
    sockets: HashMap<(u64, Mtime), Kind>,
    /// The first path of every file that has several names.
    links: HashMap<u64, Vec<u8>>,
    /// Paths of what stands for devices, the first of each.
    placeholders: HashSet<Vec<u8>>,
}

impl Seen {
    fn new(sockets: &[Placeholder]) -> Self {
        let devices = sockets.iter().filter(|it| devices::is_device(&it.kind));
        let devices = devices.map(|it| ((it.inode, it.born), it.kind.clone()));
        Self {
            sockets: devices.collect(),
            ..Self::default()
        }
    }

    /// Returns what a file is in a layer: itself, or another name of one that was there before.
    fn name(&mut self, found: &Found<'_>, kind: Kind) -> Kind {
        if found.stat.stx_nlink < 2 {
            return kind;
        }
        match self.links.get(&found.stat.stx_ino) {
            Some(first) => Kind::Hardlink {
                target: first.clone(),
            },
            None => {
                self.links.insert(found.stat.stx_ino, found.path.to_vec());
                kind
            }
        }
    }

    /// Returns the entry of a socket that stands for a device.
    fn read_socket(&mut self, found: &Found<'_>) -> Option<Entry> {
        if self.sockets.is_empty() || file_type(found.stat) != FileType::Socket {
            return None;
        }
        let key = (found.stat.stx_ino, born(found.stat));
        let device = self.sockets.get(&key)?.clone();
        let kind = self.name(found, device);
        if !matches!(kind, Kind::Hardlink { .. }) {
            self.placeholders.insert(found.path.to_vec());
        }
        Some(entry_as(found, kind))
    }
}

/// Reads all entries, the root's own first, and tells which of the devices are placeholders.
fn read_entries(
    root: &OwnedFd,
    sockets: &[Placeholder],
) -> Result<(Vec<Entry>, HashSet<Vec<u8>>), WalkError> {
    let at_root = |source: io::Error| WalkError {
        path: Vec::new(),
        source,
    };
    let mut seen = Seen::new(sockets);
    let dot = CString::from(c".");
    let stat = stat_at(root, &dot).map_err(|error| at_root(error.into()))?;
    let parent = std::os::fd::AsFd::as_fd(root);
    let found = Found {
        path: b"",
        parent,
        name: &dot,
        stat: &stat,
    };
    let mut entries: Vec<Entry> = read_entry(&found, &mut seen)
        .map_err(at_root)?
        .into_iter()
        .collect();
    let dir = crate::walk::open_sub(root, &dot).map_err(at_root)?;
    walk(dir, b"", &mut |found: &Found<'_>| {
        let failed = |source| WalkError {
            path: found.path.to_vec(),
            source,
        };
        entries.extend(read_entry(found, &mut seen).map_err(failed)?);
        Ok::<_, WalkError>(())
    })?;
    Ok((entries, seen.placeholders))
}

fn read_entry(found: &Found<'_>, seen: &mut Seen) -> io::Result<Option<Entry>> {
    if let Some(device) = seen.read_socket(found) {
        return Ok(Some(device));
    }
    let size = found.stat.stx_size;
    let entry = entry_of(found, || Ok(seen.name(found, unhashed(size))))?;
    let Some(mut entry) = entry else {
        return Ok(None);
    };
    if entry.kind == (Kind::CharDevice { major: 0, minor: 0 }) {
        return Ok(Some(Entry::whiteout(found.path)));
    }
    let xattrs = xattrs::read(found.parent, found.name)?;
    entry.xattrs = xattrs.of_image;
    match entry.kind {
        Kind::Dir { .. } => {
            entry.kind = Kind::Dir {
                opaque: xattrs.is_opaque,
            };
        }
        Kind::File { .. } if let Some(device) = device_of(xattrs.device) => {
            entry.kind = device;
            entry.xattrs.clear();
            seen.placeholders.insert(entry.path.clone());
        }
        _ => {}
    }
    Ok(Some(entry))
}

fn device_of(attribute: Option<Vec<u8>>) -> Option<Kind> {
    devices::parse(&attribute?)
}

fn hash_files(root: &OwnedFd, entries: &mut [Entry]) -> io::Result<()> {
    entries.par_iter_mut().try_for_each(|entry| {
        if let Kind::File { size, digest } = &mut entry.kind {
            let file: File = open_beneath(root, &entry.path)?;
            (*size, *digest) = hash_stream(file)?;
        }
        Ok(())
    })
}

/// Drops what is as it was below, keeps the parents of the rest.
fn changed_entries(entries: &[Entry], below: &Tree) -> Vec<Entry> {
    let linked: HashSet<Vec<u8>> = entries
        .iter()
        .filter_map(|entry| match &entry.kind {
            Kind::Hardlink { target } => Some(target.clone()),
            _ => None,
        })
        .collect();
    let mut kept: Vec<Entry> = Vec::new();
    // Backwards, because a directory comes before what it holds.
    for entry in entries.iter().rev() {
        let is_parent = kept
            .last()
            .is_some_and(|last| is_above(&entry.path, &last.path));
        let is_new = linked.contains(&entry.path) || !is_unchanged(entry, below);
        if is_new || is_parent && !entry.path.is_empty() {
            kept.push(entry.clone());
        }
    }
    kept
}

fn is_above(parent: &[u8], path: &[u8]) -> bool {
    path.strip_prefix(parent)
        .is_some_and(|rest| rest.starts_with(b"/"))
}

fn is_unchanged(entry: &Entry, below: &Tree) -> bool {
    let Some(lower) = below.get(&entry.path) else {
        // A whiteout of nothing, or the root of an image that says nothing of its root.
        let is_plain_root = entry.path.is_empty() && entry.same_content(&Entry::dir(b""));
        return entry.kind == Kind::Whiteout || is_plain_root;
    };
    match entry.kind {
        Kind::Hardlink { .. } => false,
        Kind::Dir { opaque: true } => false,
        Kind::Dir { .. } => entry.same_content(&as_plain_dir(lower.entry)),
        _ => entry.same_content(lower.entry) && entry.mtime == lower.entry.mtime,
    }
}

/// Whether a lower directory is opaque says nothing about the merged one.
fn as_plain_dir(entry: &Entry) -> Entry {
    let mut entry = entry.clone();
    if entry.is_dir() {
        entry.kind = Kind::Dir { opaque: false };
    }
    entry
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;

    use super::*;

    fn paths(list: &FileList) -> Vec<String> {
        list.entries()
            .iter()
            .map(|e| String::from_utf8_lossy(&e.path).into_owned())
            .collect()
    }

    #[test]
    fn what_did_not_change_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::create_dir_all(dir.path().join("untouched")).unwrap();
        fs::write(dir.path().join("a/b/same"), "x").unwrap();
        let below = scan_upper(dir.path(), &Tree::default()).unwrap();
        fs::write(dir.path().join("a/new"), "y").unwrap();
        let list = scan_upper(dir.path(), &Tree::new(vec![Arc::new(below)])).unwrap();
        assert_eq!(paths(&list), ["a", "a/new"]);
    }

    #[test]
    fn what_is_left_out_of_the_list_is_taken_out_of_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir_all(dir.path().join("a/b/c")).unwrap();
        fs::create_dir_all(dir.path().join("untouched")).unwrap();
        fs::write(dir.path().join("a/b/c/same"), "x").unwrap();
        fs::write(dir.path().join("a/same"), "x").unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("a/link")).unwrap();
        let below = scan_upper(dir.path(), &Tree::default()).unwrap();
        fs::write(dir.path().join("a/new"), "y").unwrap();
        let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(9);
        for path in ["a", ""] {
            let dir = File::open(dir.path().join(path)).unwrap();
            dir.set_modified(old).unwrap();
        }
        let list = scan_upper(dir.path(), &Tree::new(vec![Arc::new(below)])).unwrap();
        let left = list_dir(dir.path()).unwrap();
        assert_eq!(paths(&left), ["", "a", "a/new"]);
        assert_eq!(list.get(b"a").unwrap(), left.get(b"a").unwrap());
        assert_eq!(left.get(b"").unwrap().mtime.seconds, 9);
    }

    #[test]
    fn a_touched_file_is_a_change() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), "x").unwrap();
        let below = scan_upper(dir.path(), &Tree::default()).unwrap();
        let file = File::options()
            .write(true)
            .open(dir.path().join("f"))
            .unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        let list = scan_upper(dir.path(), &Tree::new(vec![Arc::new(below.clone())])).unwrap();
        assert!(paths(&list).contains(&"f".to_owned()));
        assert_eq!(
            list.get(b"f").map(|e| &e.kind),
            below.get(b"f").map(|e| &e.kind)
        );
    }

    #[test]
    fn names_of_one_file_stay_together() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("one"), "x").unwrap();
        fs::hard_link(dir.path().join("one"), dir.path().join("two")).unwrap();
        let list = scan_upper(dir.path(), &Tree::default()).unwrap();
        let link = Kind::Hardlink {
            target: b"one".to_vec(),
        };
        assert_eq!(list.get(b"two").map(|e| &e.kind), Some(&link));
    }
}
