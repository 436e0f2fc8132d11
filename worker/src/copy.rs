//! COPY, ADD and WORKDIR: a plan made on file lists, then written as a layer.

use std::cell::Cell;
use std::fs;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_cache::{FileList, Kind, Layer, Mtime, Store, StoreError, Tree};
use kiln_graph::{Copy, CopySource, Digest, MakeDir, Mode, Owner};

use crate::apply::{Source, write_plan};
use crate::error::{CopyError, WorkerError};
use crate::filter::Query;
use crate::missing::with_hint;
use crate::plan::{Overrides, Plan};
use crate::unarchive::{may_be_archive, unpack_into};
use crate::users::{Ids, needs_files, owner_of_user, resolve, resolve_leniently};

/// Longest `/etc/passwd` or `/etc/group` that is read, in bytes.
const MAX_USER_FILE: u64 = 10 << 20;

/// A file operation on top of unpacked layers.
pub(crate) struct CopyJob {
    store: Store,
    layers: Vec<Layer>,
}

impl CopyJob {
    pub(crate) fn new(store: &Store, layers: Vec<Layer>) -> Self {
        Self {
            store: store.clone(),
            layers,
        }
    }

    pub(crate) fn copy(&self, op: &Copy, sources: &[Source]) -> Result<Digest, WorkerError> {
        let mut below = tree_of(&self.layers);
        let owner = op
            .owner
            .as_ref()
            .map(|owner| self.ids(owner, &below))
            .transpose()?;
        if op.link {
            below = Tree::default();
        }
        let overrides = Overrides {
            owner,
            mode: op.mode.clone(),
        };
        let mut plan = Plan::new(&below, overrides, now());
        let spool = Spool::new(&self.store);
        for source in &op.sources {
            match source {
                CopySource::Inline(file) => plan.copy_inline(file, &op.destination)?,
                CopySource::Path {
                    input,
                    path,
                    unpack,
                } => {
                    let number = input - 1;
                    let job = (op, *unpack);
                    copy_path(&mut plan, job, (number, &sources[number]), path, &spool)?;
                }
            }
        }
        self.write(plan, sources)
    }

    pub(crate) fn make_dir(&self, op: &MakeDir) -> Result<Digest, WorkerError> {
        let below = tree_of(&self.layers);
        let owner = owner_of_user(&op.user);
        let owner = match self.layers.is_empty() {
            true => self.ids(&owner, &below)?,
            // Only a RUN needs to know who the user is.
            false => {
                let passwd = self.user_file(&below, b"etc/passwd")?;
                let group = self.user_file(&below, b"etc/group")?;
                resolve_leniently(&owner, &passwd, &group)
            }
        };
        let overrides = Overrides {
            owner: Some(owner),
            mode: Some(Mode::Bits(op.mode)),
        };
        let mut plan = Plan::new(&below, overrides, now());
        plan.make_dir(&op.path)?;
        self.write(plan, &[])
    }

    fn write(&self, plan: Plan<'_>, sources: &[Source]) -> Result<Digest, WorkerError> {
        let planned = plan.finish();
        let staging = self.store.stage_layer()?;
        write_plan(&staging, &planned, sources)?;
        let entries = planned.into_iter().map(|planned| planned.entry).collect();
        let list = Arc::new(FileList::new(entries));
        let id = list.content_id();
        staging.commit(&id, &list)?;
        Ok(id)
    }

    fn ids(&self, owner: &Owner, tree: &Tree) -> Result<Ids, WorkerError> {
        if !needs_files(owner) {
            return Ok(resolve(owner, "", "")?);
        }
        let passwd = self.user_file(tree, b"etc/passwd")?;
        let group = self.user_file(tree, b"etc/group")?;
        Ok(resolve(owner, &passwd, &group)?)
    }

    /// Reads a small text file of the image; anything that is not one counts as empty.
    fn user_file(&self, tree: &Tree, path: &[u8]) -> Result<String, WorkerError> {
        let path = tree.resolve(path).map_err(CopyError::from)?;
        let Some(node) = tree.get(&path) else {
            return Ok(String::new());
        };
        let file = tree.file_of(node);
        if !matches!(file.entry.kind, Kind::File { size, .. } if size <= MAX_USER_FILE) {
            return Ok(String::new());
        }
        let mut bytes = Vec::new();
        let opened = self.layers[file.layer].open(&file.entry.path);
        let read = opened.and_then(|file| file.take(MAX_USER_FILE).read_to_end(&mut bytes));
        let path = String::from_utf8_lossy(&path).into_owned().into();
        read.map_err(|source| WorkerError::Io {
            what: "read",
            path,
            source,
        })?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// A folder for what archives hold; gone when dropped.
struct Spool {
    path: PathBuf,
    n_folders: Cell<usize>,
}

impl Spool {
    fn new(store: &Store) -> Self {
        Self {
            path: store.temp_path(),
            n_folders: Cell::new(0),
        }
    }

    /// Returns a folder of its own for one archive, which may be selected more than once.
    fn folder(&self) -> Result<PathBuf, WorkerError> {
        self.n_folders.set(self.n_folders.get() + 1);
        let path = self.path.join(self.n_folders.get().to_string());
        let failed = |source| WorkerError::Io {
            what: "write",
            path: path.clone(),
            source,
        };
        fs::create_dir_all(&path).map_err(failed)?;
        Ok(path)
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), %error, "unpacked files stay");
            }
            _ => {}
        }
    }
}

/// Returns true if a copy's layer is another one on another destination.
pub(crate) fn depends_on_destination(op: &Copy) -> bool {
    !op.link || op.owner.as_ref().is_some_and(needs_files)
}

fn copy_path(
    plan: &mut Plan<'_>,
    (op, unpack): (&Copy, bool),
    (number, source): (usize, &Source),
    path: &str,
    spool: &Spool,
) -> Result<(), WorkerError> {
    let query = Query::new(op, path)?;
    for selected in query
        .select(&source.tree)
        .map_err(|e| with_hint(e, source, path))?
    {
        let node = source
            .tree
            .get(&selected.real)
            .map(|node| source.tree.file_of(node));
        if let Some(node) = node.filter(|node| unpack && may_be_archive(node.entry)) {
            let name = String::from_utf8_lossy(&selected.path).into_owned();
            let opened = source.open(node);
            let failed = |error| StoreError::Io {
                what: "read",
                path: name.clone().into(),
                source: error,
            };
            let file = opened.map_err(failed).map_err(WorkerError::Context)?;
            let folder = spool.folder()?;
            if unpack_into(plan, (&name, file), &op.destination, &folder)? {
                continue;
            }
        }
        plan.copy((number, &source.tree, &query), &selected, &op.destination)?;
    }
    // A wildcard that matched nothing still makes the destination.
    if op.destination.ends_with('/') {
        plan.make_dir(&op.destination)?;
    }
    Ok(())
}

/// Returns the time of what is made now.
pub(crate) fn now() -> Mtime {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    Mtime {
        seconds,
        nanoseconds: since.subsec_nanos(),
    }
}

/// Returns the tree that unpacked layers show.
pub(crate) fn tree_of(layers: &[Layer]) -> Tree {
    Tree::new(layers.iter().map(|layer| Arc::clone(&layer.list)).collect())
}
