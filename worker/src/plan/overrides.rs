//! Metadata that a COPY gives: `--chown`, `--chmod`, and what directories on the way get.

use kiln_cache::{Entry, Kind};
use kiln_graph::Mode;

use crate::users::Ids;

/// Metadata that the op gives to everything it copies.
#[derive(Debug, Clone, Default)]
pub(crate) struct Overrides {
    pub(crate) owner: Option<Ids>,
    pub(crate) mode: Option<Mode>,
}

/// Metadata of directories that nothing is copied to.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewDirs {
    pub(super) owner: Option<Ids>,
    pub(super) mode: u32,
}

impl NewDirs {
    pub(super) const fn owned_by(owner: Option<Ids>) -> Self {
        Self { owner, mode: 0o755 }
    }
}

impl Overrides {
    pub(super) fn apply(&self, entry: &mut Entry) {
        self.apply_owner(entry);
        if let Some(mode) = &self.mode
            && !matches!(entry.kind, Kind::Symlink { .. })
        {
            entry.mode = mode.apply(entry.mode, entry.is_dir());
        }
    }

    pub(super) fn apply_owner(&self, entry: &mut Entry) {
        apply_owner(self.owner, entry);
    }

    /// What is made for the copy to land in has no bits to change, and gets no set-id bits.
    pub(super) fn new_dirs(&self) -> NewDirs {
        let mode = match self.mode {
            Some(Mode::Bits(bits)) => bits & 0o777,
            Some(Mode::Change(_)) | None => 0o755,
        };
        NewDirs {
            owner: self.owner,
            mode,
        }
    }
}

pub(super) fn apply_owner(owner: Option<Ids>, entry: &mut Entry) {
    if let Some(ids) = owner {
        (entry.uid, entry.gid) = (ids.uid, ids.gid);
    }
}
