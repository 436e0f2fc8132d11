//! Folders of cache mounts: which ones a step uses, and how it waits for them.
//!
//! A folder's name is the digest of its id, of the snapshot that it began as, and of how an
//! empty one was made. A step takes all of its folders or none and waits, so two steps cannot
//! wait for each other; a name that it mounts twice is one folder.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use kiln_cache::{CacheFolder, CacheSlot, Entry, Kind, NewCacheFolder, Store};
use kiln_graph::{CacheMount, Digest, Encoder, Exec, MountKind, NewFolder};
use kiln_solver::{Task, blocking};

use crate::apply::Source;
use crate::error::WorkerError;
use crate::mounts::bind::{copy_all, set_metadata};
use crate::pause::Pause;
use crate::select::encode_all;
use crate::snapshot::Value;

/// Who waits for longer says so.
const SILENT_PAUSE: Duration = Duration::from_millis(16);

/// The folders that a step uses.
#[derive(Debug, Default)]
pub(super) struct Folders {
    /// The name of each cache mount's folder, by the mount's place in the step.
    names: BTreeMap<usize, Digest>,
    by_name: BTreeMap<Digest, CacheFolder>,
}

/// A folder that is wanted.
#[derive(Debug, Clone)]
struct Wanted {
    mount: CacheMount,
    /// What it begins as.
    base: Option<Source>,
}

/// What a step wants.
#[derive(Debug, Clone, Default)]
struct Request {
    names: BTreeMap<usize, Digest>,
    /// In an order that all steps share.
    by_name: BTreeMap<Digest, Wanted>,
}

impl Folders {
    /// Returns the folder of the cache mount at this place.
    pub(super) fn of(&self, number: usize) -> Option<PathBuf> {
        let name = self.names.get(&number)?;
        self.by_name.get(name).map(CacheFolder::fs_dir)
    }
}

/// Takes the folders of a step; waits as long as somebody is in the way.
pub(super) async fn take(
    store: &Store,
    op: &Exec,
    inputs: &[Option<Value>],
    sources: &[Source],
    task: &Task,
) -> Result<Folders, WorkerError> {
    let request = Request::new(op, inputs, sources);
    let mut pause = Pause::first();
    loop {
        let (store, all) = (store.clone(), request.clone());
        let busy = match blocking(move || take_all(&store, all)).await? {
            Ok(folders) => return Ok(folders),
            Err(busy) => busy,
        };
        if pause.length() >= SILENT_PAUSE {
            let id = busy.trim_start_matches('/');
            task.status(format!(
                "waiting for another step that uses the cache mount `{id}`"
            ));
        }
        pause.wait().await;
    }
}

impl Request {
    fn new(op: &Exec, inputs: &[Option<Value>], sources: &[Source]) -> Self {
        let mut request = Self::default();
        for (number, mount) in op.mounts.iter().enumerate() {
            let MountKind::Cache(cache) = &mount.kind else {
                continue;
            };
            let base = cache.input.and_then(|input| {
                let value = inputs[input].as_ref()?;
                Some((value, &sources[input - 1]))
            });
            let name = name_of(cache, base);
            request.names.insert(number, name);
            request.by_name.entry(name).or_insert_with(|| Wanted {
                mount: cache.clone(),
                base: base.map(|(_, source)| source.clone()),
            });
        }
        request
    }
}

fn name_of(cache: &CacheMount, base: Option<(&Value, &Source)>) -> Digest {
    let mut encoder = Encoder::new("cache mount");
    encoder.text(&cache.id).value(&cache.new);
    match base {
        None => encoder.variant(0),
        Some((Value::Snapshot(snapshot), _)) => encoder.variant(1).value(&snapshot.id()),
        Some((Value::Local(_), source)) => {
            encode_all(encoder.variant(2), &source.tree, b"");
            &mut encoder
        }
    };
    encoder.finish()
}

/// Takes all folders, or returns the id of one that is not to be had now.
fn take_all(store: &Store, request: Request) -> Result<Result<Folders, String>, WorkerError> {
    let mut by_name = BTreeMap::new();
    for (name, wanted) in &request.by_name {
        let folder = match store.cache_folder(name, &wanted.mount.id, wanted.mount.sharing)? {
            CacheSlot::Ready(folder) => folder,
            CacheSlot::Absent(place) => make(store, place, wanted)?,
            CacheSlot::Busy => return Ok(Err(wanted.mount.id.clone())),
        };
        by_name.insert(*name, folder);
    }
    let names = request.names;
    Ok(Ok(Folders { names, by_name }))
}

/// Makes a folder; one with an owner or mode of its own is empty.
fn make(store: &Store, place: NewCacheFolder, wanted: &Wanted) -> Result<CacheFolder, WorkerError> {
    let staging = store.stage_layer()?;
    match (&wanted.mount.new, &wanted.base) {
        (None, Some(base)) => copy_all(&staging, base)?,
        (new, _) => {
            let entry = new.map(|new| empty_folder(&new));
            set_metadata(&staging.fs_dir(), entry.as_ref())?;
        }
    }
    Ok(place.create(&staging)?)
}

fn empty_folder(new: &NewFolder) -> Entry {
    Entry {
        uid: new.uid,
        gid: new.gid,
        ..Entry::root_owned(b"", Kind::Dir { opaque: false }, new.mode)
    }
}
