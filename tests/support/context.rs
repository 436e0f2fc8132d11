//! A build context in a temporary folder.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A folder with a Dockerfile and what it copies. Removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Context {
    dir: TempDir,
}

impl Context {
    /// Returns a context with this Dockerfile and no other file.
    pub(crate) fn new(dockerfile: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // An ordinary user may have to read it.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let context = Self { dir };
        context.write("Dockerfile", dockerfile);
        context
    }

    pub(crate) fn with(self, path: &str, content: &str) -> Self {
        self.write(path, content);
        self
    }

    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path().join(path)).unwrap()
    }

    /// Replaces text in the Dockerfile, which must be there.
    pub(crate) fn edit(&self, from: &str, to: &str) {
        let old = self.read("Dockerfile");
        assert!(old.contains(from), "no {from:?} in {old}");
        self.write("Dockerfile", old.replace(from, to));
    }

    pub(crate) fn chmod(&self, path: &str, mode: u32) {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(self.path().join(path), mode).unwrap();
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn join(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }
}
