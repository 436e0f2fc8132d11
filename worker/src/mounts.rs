//! Mounts of a step: what its key says of them, and what they are while it runs.
//!
//! A bind mount shows layers: those of a snapshot, or one that is made of what it selects of a
//! folder and is kept for the next step. A cache mount shows a folder of the store, chosen by name
//! and in use while the step runs. Neither leaves anything in the step's layer.

mod bind;
mod folders;

use kiln_cache::{Staging, Store};
use kiln_graph::{Digest, Encoder, Exec, Mount, MountKind, Sharing};
use kiln_runtime::MountSource;
use kiln_solver::{Task, blocking};

use crate::apply::Source;
use crate::error::WorkerError;
use crate::missing::with_hint;
use crate::mounts::folders::Folders;
use crate::select::{encode_all, locate};
use crate::snapshot::Value;

/// The mounts of a step, and what must stay until it ended.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// One for each mount of the op; none for secrets and agents, which are granted.
    pub(crate) mounts: Vec<Option<kiln_runtime::Mount>>,
    stagings: Vec<Staging>,
    folders: Folders,
}

/// What a mount shows of an input, as far as it decides about the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen<'a> {
    /// All of the snapshot that an input is, known by its name.
    Snapshot(usize, Digest),
    /// What is at a path of an input.
    Content(usize, &'a str),
}

/// Returns what the mounts of a step see of its inputs.
pub(crate) fn seen<'a>(op: &'a Exec, inputs: &[Option<Value>]) -> Vec<Seen<'a>> {
    let shown = op.mounts.iter().filter_map(shown);
    shown
        .map(|(input, path)| match &inputs[input] {
            Some(Value::Snapshot(snapshot)) if path == "/" => Seen::Snapshot(input, snapshot.id()),
            _ => Seen::Content(input, path),
        })
        .collect()
}

/// Returns the paths that mounts of a step show of an input.
pub(crate) fn paths_of(op: &Exec, input: usize) -> impl Iterator<Item = &str> {
    let shown = op.mounts.iter().filter_map(shown);
    shown.filter_map(move |(number, path)| (number == input).then_some(path))
}

/// Returns the input that a mount shows, and the path there.
fn shown(mount: &Mount) -> Option<(usize, &str)> {
    match &mount.kind {
        MountKind::Bind { input, source, .. } => Some((*input, source)),
        MountKind::Cache(cache) => Some((cache.input?, "/")),
        MountKind::Tmpfs { .. } | MountKind::Secret(_) | MountKind::Ssh(_) => None,
    }
}

/// Returns the op as far as it decides: the name of a cache and who shares it do not.
pub(crate) fn keyed_op(op: &Exec) -> Exec {
    let mut op = op.clone();
    for mount in &mut op.mounts {
        if let MountKind::Cache(cache) = &mut mount.kind {
            cache.id.clear();
            cache.sharing = Sharing::Shared;
        }
    }
    op
}

/// Writes what is at a path of a source.
pub(crate) fn encode_content(
    encoder: &mut Encoder,
    source: &Source,
    path: &str,
) -> Result<(), WorkerError> {
    let real = locate(&source.tree, path).map_err(|error| with_hint(error, source, path))?;
    encode_all(encoder, &source.tree, &real);
    Ok(())
}

/// Makes everything that a step's mounts show. `sources` are its inputs after the first, and
/// `inputs` all of them.
pub(crate) async fn prepare(
    store: &Store,
    op: &Exec,
    inputs: &[Option<Value>],
    sources: Vec<Source>,
    task: &Task,
) -> Result<Prepared, WorkerError> {
    let folders = folders::take(store, op, inputs, &sources, task).await?;
    let (store, op) = (store.clone(), op.clone());
    blocking(move || {
        let mut prepared = Prepared {
            mounts: Vec::new(),
            stagings: Vec::new(),
            folders,
        };
        for (number, mount) in op.mounts.iter().enumerate() {
            prepared.add(&store, (number, mount), &sources)?;
        }
        Ok(prepared)
    })
    .await
}

impl Prepared {
    fn add(
        &mut self,
        store: &Store,
        (number, mount): (usize, &Mount),
        sources: &[Source],
    ) -> Result<(), WorkerError> {
        let (source, read_only) = match &mount.kind {
            MountKind::Bind {
                input,
                source,
                writable,
            } => {
                let (shown, staging) = bind::show(store, &sources[input - 1], source)?;
                self.stagings.push(staging);
                (shown, !writable)
            }
            MountKind::Cache(cache) => {
                let folder = self.folders.of(number).unwrap_or_default();
                let path = cache.source.clone();
                (MountSource::Folder { folder, path }, cache.read_only)
            }
            MountKind::Tmpfs { size, read_only } => {
                (MountSource::Tmpfs { size: *size }, *read_only)
            }
            MountKind::Secret(_) | MountKind::Ssh(_) => {
                self.mounts.push(None);
                return Ok(());
            }
        };
        let target = mount.target.clone().unwrap_or_default();
        self.mounts.push(Some(kiln_runtime::Mount {
            target,
            source,
            read_only,
        }));
        Ok(())
    }
}
