//! What a step is shown besides its root: plain data.
//!
//! Nothing of a mount is ever in the step's upper folder. Where to mount is looked up inside the
//! root, and what to mount inside its source, both confined by the kernel.

use std::fmt;
use std::path::PathBuf;

/// Something mounted for the time of a step.
#[derive(Debug, Clone)]
pub struct Mount {
    /// Absolute path inside the root, links followed within the root. What is missing of it is
    /// made, and removed afterwards. Of two mounts with one target the last one counts; the one
    /// nearer to the root comes first, so that one can lie in another.
    pub target: String,
    /// What is mounted.
    pub source: MountSource,
    /// The step cannot write.
    pub read_only: bool,
}

/// What a [`Mount`] shows.
#[derive(Debug, Clone)]
pub enum MountSource {
    /// A file or folder of layers that lie on each other.
    Layers {
        /// Layer folders, lowest first; may be empty.
        lowers: Vec<PathBuf>,
        /// Empty folder that receives what the step changes; its own mode and owner become
        /// those of the layers' root.
        upper: PathBuf,
        /// Empty folder beside `upper`, on the same file system; empty again afterwards.
        work: PathBuf,
        /// Path from the root of the layers, links followed within that root.
        path: String,
    },
    /// A file or folder of a folder of the host, in which ids are those that the step sees.
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Path from the root of the folder, links followed within it.
        path: String,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Its largest size in bytes.
        size: Option<u64>,
    },
    /// A file that is only ever held in memory.
    File(SecretFile),
    /// An existing socket of the host. It should lie on the file system of the layers: its owner
    /// and mode are those that the step sees.
    Socket {
        /// The socket.
        path: PathBuf,
    },
}

/// A file that is only ever held in memory.
#[derive(Debug, Clone)]
pub struct SecretFile {
    /// Content.
    pub content: Content,
    /// Permission bits.
    pub mode: u32,
    /// Owner, as the step sees it.
    pub uid: u32,
    /// Group, as the step sees it.
    pub gid: u32,
}

/// Bytes that are never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Content(pub Vec<u8>);

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Content(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_not_printed() {
        let file = SecretFile {
            content: Content(b"hunter2".to_vec()),
            mode: 0o400,
            uid: 0,
            gid: 0,
        };
        let shown = format!("{file:?}");
        assert!(!shown.contains("104"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
