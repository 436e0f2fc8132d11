//! What a file system tree looks like, as text: one line for each path.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use kiln_graph::Digest;

/// Paths with kind, mode, owner, size and content; without times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tree(BTreeMap<String, String>);

impl Tree {
    /// Reads a folder.
    pub(crate) fn read(root: &Path) -> Self {
        let mut tree = Self::empty();
        tree.add(root, root);
        tree
    }

    fn add(&mut self, root: &Path, path: &Path) {
        let shown = path.strip_prefix(root).unwrap().as_os_str().as_bytes();
        let shown = format!("/{}", String::from_utf8_lossy(shown));
        self.0.insert(shown, describe(path));
        if fs::symlink_metadata(path).unwrap().is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                self.add(root, &entry.unwrap().path());
            }
        }
    }

    /// Returns what is said of a path; empty if it is not there.
    pub(crate) fn get(&self, path: &str) -> &str {
        self.0.get(path).map(String::as_str).unwrap_or_default()
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(crate) fn empty() -> Self {
        Self(BTreeMap::new())
    }

    /// Forgets these paths.
    pub(crate) fn without(mut self, paths: &[&str]) -> Self {
        self.0.retain(|path, _| !paths.contains(&path.as_str()));
        self
    }

    /// Returns the lines that are not in `base`, and those that are gone.
    pub(crate) fn difference(&self, base: &Self) -> String {
        let changed = self
            .0
            .iter()
            .filter(|(path, what)| base.0.get(*path) != Some(*what));
        let changed = changed.map(|(path, what)| format!("{path} {what}\n"));
        let gone = base.0.keys().filter(|path| !self.0.contains_key(*path));
        let gone = gone.map(|path| format!("{path} gone\n"));
        changed.chain(gone).collect()
    }
}

fn describe(path: &Path) -> String {
    let meta = fs::symlink_metadata(path).unwrap();
    let kind = meta.file_type();
    let what = match () {
        () if kind.is_dir() => "dir".to_owned(),
        () if kind.is_symlink() => format!("link {}", fs::read_link(path).unwrap().display()),
        () if kind.is_file() => {
            let digest = Digest::sha256(fs::read(path).unwrap()).to_string();
            format!("file {} {}", meta.size(), &digest[..15])
        }
        () if kind.is_fifo() => "fifo".to_owned(),
        () => {
            let name = if kind.is_block_device() {
                "block"
            } else {
                "char"
            };
            let (major, minor) = (
                rustix::fs::major(meta.rdev()),
                rustix::fs::minor(meta.rdev()),
            );
            format!("{name} {major}:{minor}")
        }
    };
    // The mode of a link means nothing.
    let mode = if kind.is_symlink() {
        0o777
    } else {
        meta.mode() & 0o7777
    };
    format!("{mode:04o} {}:{} {what}", meta.uid(), meta.gid())
}
