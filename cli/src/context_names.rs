//! The names in the build context, for checks that need them.
//!
//! Lists folders only when a check asks, and then once. Reads no file, follows no link, and stops
//! in a context of very many files: a check that sees no more of it says nothing of the rest.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::OnceLock;

use kiln_cache::{IgnoreList, join_path, open_dir};
use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, openat2};

/// Most names that are looked at.
const MAX_NAMES: usize = 50_000;

/// A folder and its ignore file.
#[derive(Debug)]
pub(crate) struct ContextNames {
    dir: PathBuf,
    ignore: IgnoreList,
    files: OnceLock<Vec<String>>,
}

impl ContextNames {
    pub(crate) fn new(dir: PathBuf, ignore: IgnoreList) -> Self {
        Self {
            dir,
            ignore,
            files: OnceLock::new(),
        }
    }

    /// Returns the files that are not ignored; folders that cannot be read are left out, since
    /// the build itself tells of them.
    fn list(&self) -> Vec<String> {
        let mut files = Vec::new();
        let Ok(root) = self.dir.canonicalize().and_then(|dir| open_dir(&dir)) else {
            return files;
        };
        let (mut pending, mut n_names) = (vec![(Vec::new(), self.ignore.root())], 0);
        while let Some((dir, state)) = pending.pop() {
            for (name, kind) in entries(&root, &dir) {
                n_names += 1;
                if n_names > MAX_NAMES {
                    return files;
                }
                let path = join_path(&dir, &name);
                let (is_ignored, below) = self.ignore.check(&path, &state);
                match kind {
                    // Something below an ignored folder may be an exception.
                    FileType::Directory if !is_ignored || self.ignore.has_exceptions() => {
                        pending.push((path, below));
                    }
                    FileType::RegularFile if !is_ignored => {
                        files.extend(String::from_utf8(path));
                    }
                    _ => {}
                }
            }
        }
        files.sort_unstable();
        files
    }
}

/// Returns the entries of a folder below `root`.
fn entries(root: &OwnedFd, dir: &[u8]) -> Vec<(Vec<u8>, FileType)> {
    let path: &[u8] = if dir.is_empty() { b"." } else { dir };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let opened = openat2(root, path, flags, Mode::empty(), resolve);
    let Ok(listing) = opened.and_then(Dir::new) else {
        return Vec::new();
    };
    let entries = listing.filter_map(Result::ok);
    let entries = entries.map(|entry| (entry.file_name().to_bytes().to_vec(), entry.file_type()));
    entries
        .filter(|(name, _)| name != b"." && name != b"..")
        .collect()
}

impl kiln_frontend::ContextNames for ContextNames {
    fn is_ignored(&self, path: &str) -> bool {
        self.ignore.excluded_by(path.as_bytes()).is_some()
    }

    fn has_exceptions(&self) -> bool {
        self.ignore.has_exceptions()
    }

    fn ignores_everything(&self) -> bool {
        // No pattern but one for all names has this one in mind.
        self.ignore.excluded_by(b"\x01any name\x01").is_some()
    }

    fn files(&self, is_wanted: &dyn Fn(&str) -> bool) -> Vec<String> {
        let files = self.files.get_or_init(|| self.list());
        let wanted = files.iter().filter(|path| is_wanted(path));
        wanted.cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use kiln_frontend::ContextNames as _;

    use super::*;

    #[test]
    fn ignored_files_are_not_listed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for path in ["a/.env", "a/b/c", "x/y", "x/kept"] {
            std::fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            std::fs::write(root.join(path), "").unwrap();
        }
        std::os::unix::fs::symlink("/etc", root.join("link")).unwrap();
        let names = |ignore: &str| {
            let ignore = IgnoreList::parse(ignore.as_bytes()).unwrap();
            ContextNames::new(root.to_owned(), ignore)
        };
        assert_eq!(
            names("").files(&|_| true),
            ["a/.env", "a/b/c", "x/kept", "x/y"]
        );
        assert_eq!(
            names("x\n!x/kept\n**/c").files(&|_| true),
            ["a/.env", "x/kept"]
        );
        assert!(names("*").ignores_everything() && names("**").ignores_everything());
        assert!(!names("a*").ignores_everything());
    }
}
