//! Bind mounts: layers under an upper folder that is thrown away.
//!
//! What is selected of a folder of this machine is first copied into a layer, so that the step
//! sees what its key says and nothing changes under its hands. The layer is named by its content
//! and the times of its files, which build tools look at, so it is written once.

use std::fs::{self, File, FileTimes};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kiln_cache::{Entry, FileList, Layer, Mtime, Staging, Store, Tree};
use kiln_graph::Digest;
use kiln_runtime::MountSource;

use crate::apply::{Source, SourceBytes, write_plan};
use crate::copy::tree_of;
use crate::error::WorkerError;
use crate::filter::Query;
use crate::missing::with_hint;
use crate::plan::{Overrides, Plan, Planned};
use crate::select::{Selected, locate};
use crate::users::Ids;

/// What a single file is called in the layer that is made of it.
const FILE: &str = "file";

/// Returns what shows a path of a source, and the folder that must stay as long.
pub(super) fn show(
    store: &Store,
    source: &Source,
    path: &str,
) -> Result<(MountSource, Staging), WorkerError> {
    let real = locate(&source.tree, path).map_err(|error| with_hint(error, source, path))?;
    let staging = store.stage_layer()?;
    let (layers, path) = match &source.bytes {
        SourceBytes::Layers(layers) => {
            set_metadata(&staging.fs_dir(), tree_of(layers).get(b"").map(|n| n.entry))?;
            (layers.to_vec(), path.to_owned())
        }
        SourceBytes::Context(_) => {
            let node = source.tree.get(&real).map(|node| node.entry);
            let is_dir = node.is_none_or(Entry::is_dir);
            let root = node.filter(|_| is_dir).map(owned_by_root);
            set_metadata(&staging.fs_dir(), root.as_ref())?;
            let path = if is_dir { "/" } else { FILE };
            (
                vec![layer_of(store, source, &real, is_dir)?],
                path.to_owned(),
            )
        }
    };
    let lowers = layers.iter().filter(|layer| !layer.list.is_empty());
    let shown = MountSource::Layers {
        lowers: lowers.map(Layer::fs_dir).collect(),
        upper: staging.fs_dir(),
        work: staging.work_dir(),
        path,
    };
    Ok((shown, staging))
}

fn owned_by_root(entry: &Entry) -> Entry {
    Entry {
        uid: 0,
        gid: 0,
        ..entry.clone()
    }
}

/// Returns the layer that holds what is at a path of a folder of this machine: the content of a
/// directory, or a file.
fn layer_of(
    store: &Store,
    source: &Source,
    real: &[u8],
    is_dir: bool,
) -> Result<Layer, WorkerError> {
    let empty = Tree::default();
    let overrides = Overrides {
        owner: Some(Ids { uid: 0, gid: 0 }),
        mode: None,
    };
    let mut plan = Plan::new(&empty, overrides, Mtime::default());
    let selected = Selected {
        path: real.to_vec(),
        real: real.to_vec(),
    };
    let destination = if is_dir {
        "/".to_owned()
    } else {
        format!("/{FILE}")
    };
    let whole = Query::whole(&destination);
    plan.copy((0, &source.tree, &whole), &selected, &destination)?;
    let planned = plan.finish();
    let list = Arc::new(list_of(&planned));
    let id = Digest::blake3(list.to_bytes());
    if let Some(layer) = store.layer(&id)? {
        return Ok(layer);
    }
    let staging = store.stage_layer()?;
    write_plan(&staging, &planned, std::slice::from_ref(source))?;
    Ok(staging.commit(&id, &list)?)
}

fn list_of(planned: &[Planned]) -> FileList {
    FileList::new(planned.iter().map(|one| one.entry.clone()).collect())
}

/// Writes a copy of all files of a source into a staged folder.
pub(super) fn copy_all(staging: &Staging, source: &Source) -> Result<(), WorkerError> {
    let empty = Tree::default();
    let mut plan = Plan::new(&empty, Overrides::default(), Mtime::default());
    let selected = Selected {
        path: Vec::new(),
        real: Vec::new(),
    };
    plan.copy((0, &source.tree, &Query::whole("/")), &selected, "/")?;
    write_plan(staging, &plan.finish(), std::slice::from_ref(source))?;
    set_metadata(
        &staging.fs_dir(),
        source.tree.get(b"").map(|node| node.entry),
    )
}

/// Gives a folder the owner, mode and time of an entry; without one it is root's, mode 0755.
pub(super) fn set_metadata(dir: &Path, entry: Option<&Entry>) -> Result<(), WorkerError> {
    let (uid, gid, mode) = entry.map_or((0, 0, 0o755), |e| (e.uid, e.gid, e.mode));
    let set = || -> io::Result<()> {
        chown(dir, Some(uid), Some(gid))?;
        fs::set_permissions(dir, fs::Permissions::from_mode(mode))?;
        match entry.and_then(|entry| time_of(entry.mtime)) {
            Some(time) => File::open(dir)?.set_times(FileTimes::new().set_modified(time)),
            None => Ok(()),
        }
    };
    set().map_err(|source| WorkerError::Io {
        what: "prepare",
        path: dir.to_owned(),
        source,
    })
}

/// A time before 1970, or none at all, is left alone.
fn time_of(mtime: Mtime) -> Option<SystemTime> {
    let seconds = u64::try_from(mtime.seconds).ok().filter(|s| *s > 0)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, mtime.nanoseconds))
}
