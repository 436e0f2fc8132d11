//! What a folder holds, for messages: names only, and no more than a given number of them.

use std::collections::VecDeque;

use rustix::fs::FileType;

use crate::context::Context;
use crate::filelist::join_path;
use crate::walk::{file_type, list, stat_at};

impl Context {
    /// Returns true if there is something at a path, ignored or not; links are not followed.
    pub fn holds(&self, path: &[u8]) -> bool {
        matches!(self.stat(path), Ok(Some(_)))
    }

    /// Returns up to `limit` paths that are not ignored, nearest to the root first, and whether
    /// each is a directory: for messages. What cannot be read is left out.
    pub fn glimpse(&self, limit: usize) -> Vec<(Vec<u8>, bool)> {
        let mut found = Vec::new();
        let mut dirs = VecDeque::from([(Vec::new(), self.ignore.root())]);
        while let Some((dir, state)) = dirs.pop_front() {
            let Ok(names) = self.open_dir(&dir).and_then(|fd| Ok((list(&fd)?, fd))) else {
                continue;
            };
            let (names, fd) = names;
            for name in names.into_iter().rev() {
                if found.len() == limit {
                    return found;
                }
                let path = join_path(&dir, name.as_bytes());
                let Ok(stat) = stat_at(&fd, &name) else {
                    continue;
                };
                let is_dir = file_type(&stat) == FileType::Directory;
                let (ignored, below) = self.ignore.check(&path, &state);
                if !ignored {
                    found.push((path.clone(), is_dir));
                }
                if is_dir && (!ignored || self.ignore.has_exceptions()) {
                    dirs.push_back((path, below));
                }
            }
        }
        found
    }
}
