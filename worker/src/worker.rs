//! The worker: keys, lookups and runs of vertices on one machine.
//!
//! Keys, by op (`H` hashes the canonical encoding, under the name of the op):
//! - exec: `H(op, snapshot, settings of all steps, what its mounts show of other inputs)`;
//! - copy: `H(op, destination snapshot, what is selected as it will land)`; a linked copy is not
//!   made with a look at its destination, and its key is without it;
//! - make directory: `H(op, snapshot)`;
//! - image, local: none; they are found anew each time, without reading any content;
//! - file, repository: none; whether they changed is asked each time, see `sources`.
//!
//! Every action's layer is content-addressed, so a step that ran again and changed nothing gives
//! its followers the same key as before.

mod context;
mod keys;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures_util::future::join;
use kiln_cache::{Context, NewAction, Store, Tree};
use kiln_graph::{Digest, Encoder, Graph, Op, Vertex};
use kiln_remote::RemoteCache;
use kiln_solver::{Outcome, Reason, Task, Worker, blocking};
use tokio::sync::OnceCell;

use crate::apply::{Source, SourceBytes};
use crate::copy::{CopyJob, depends_on_destination, tree_of};
use crate::error::WorkerError;
use crate::images::{Images, ResolvedImage};
use crate::mounts;
use crate::promise::Promise;
use crate::reuse::Reuse;
use crate::snapshot::{Snapshot, Value};
use crate::sources::{ContextFiles, Sources, wait_for_key};
use crate::step::{LazySandbox, StepSettings, run_step};
use crate::worker::context::{load_context, selected_paths};
use crate::worker::keys::{domain_of, input_names};

/// Works on vertices with this machine's store, sandbox and registries.
#[derive(Debug)]
pub struct LocalWorker {
    store: Store,
    images: Images,
    sandbox: Arc<LazySandbox>,
    settings: StepSettings,
    resolved: HashMap<Digest, ResolvedImage>,
    contexts: HashMap<String, LocalContext>,
    sources: Sources,
    /// Contexts that are no folders, by name.
    elsewhere: HashMap<String, ContextFiles>,
    /// What the inputs of a vertex are called, by its digest.
    input_names: HashMap<Digest, Vec<Arc<str>>>,
    reuse: Reuse,
    caches: Vec<Arc<RemoteCache>>,
    // Guards what was told of vertices, by digest.
    told: Mutex<HashMap<Digest, Explanation>>,
    // Guards the vertices whose keys rest on the word of a shared cache, by digest.
    believed: Mutex<HashSet<Digest>>,
}

/// The key of a vertex, and why the vertex ran or was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The key.
    pub key: Digest,
    /// Why.
    pub reason: Reason,
}

/// A context, and what of it the graph can select.
#[derive(Debug)]
struct LocalContext {
    context: Arc<Context>,
    paths: Vec<Vec<u8>>,
    loaded: OnceCell<Source>,
}

/// The parts that a worker is made of.
#[derive(Debug)]
pub struct Parts {
    /// Where everything is kept.
    pub store: Store,
    /// Where images come from.
    pub images: Images,
    /// Where steps run.
    pub sandbox: Arc<LazySandbox>,
    /// What steps have in common.
    pub settings: StepSettings,
    /// The images of the graph, by manifest.
    pub resolved: HashMap<Digest, ResolvedImage>,
    /// What fetches files and repositories.
    pub sources: Sources,
    /// The contexts of the graph, by name.
    pub contexts: HashMap<String, ContextFiles>,
    /// What of the cache is used.
    pub reuse: Reuse,
    /// Caches that are looked into after the store.
    pub caches: Vec<Arc<RemoteCache>>,
}

impl LocalWorker {
    /// Returns a worker for the vertices of a graph.
    pub fn new(parts: Parts, graph: &Graph) -> Self {
        let (mut contexts, mut elsewhere) = (HashMap::new(), HashMap::new());
        for (name, files) in parts.contexts {
            let context = match files {
                ContextFiles::Folder(context) => Arc::new(context),
                files => {
                    elsewhere.insert(name, files);
                    continue;
                }
            };
            let local = LocalContext {
                context,
                paths: selected_paths(graph, &name),
                loaded: OnceCell::new(),
            };
            contexts.insert(name, local);
        }
        Self {
            contexts,
            elsewhere,
            input_names: input_names(graph),
            reuse: parts.reuse,
            caches: parts.caches,
            told: Mutex::default(),
            believed: Mutex::default(),
            sources: parts.sources,
            store: parts.store,
            images: parts.images,
            sandbox: parts.sandbox,
            settings: parts.settings,
            resolved: parts.resolved,
        }
    }

    /// Returns what fetches blobs and unpacks layers.
    pub fn images(&self) -> &Images {
        &self.images
    }

    async fn source(&self, value: Option<&Value>, task: &Task) -> Result<Source, WorkerError> {
        match value {
            None => Ok(Source {
                tree: Tree::default(),
                bytes: SourceBytes::Layers(Arc::new([])),
            }),
            Some(Value::Snapshot(snapshot)) => {
                let layers = self.images.layers(snapshot, task).await?;
                let tree = tree_of(&layers);
                Ok(Source {
                    tree,
                    bytes: SourceBytes::Layers(layers.into()),
                })
            }
            Some(Value::Local(name)) => self.context(name).await,
        }
    }

    async fn context(&self, name: &str) -> Result<Source, WorkerError> {
        let missing = || WorkerError::image(name, "there is no build context of that name");
        let local = self.contexts.get(name).ok_or_else(missing)?;
        let load = || async {
            let (store, context) = (self.store.clone(), Arc::clone(&local.context));
            let paths = local.paths.clone();
            blocking(move || load_context(&store, context, paths)).await
        };
        local.loaded.get_or_try_init(load).await.cloned()
    }

    /// Returns the sources of a copy, in the order of the vertex's inputs after the first.
    async fn sources(
        &self,
        inputs: &[Option<Value>],
        task: &Task,
    ) -> Result<Vec<Source>, WorkerError> {
        let mut sources = Vec::new();
        for input in inputs.iter().skip(1) {
            sources.push(self.source(input.as_ref(), task).await?);
        }
        Ok(sources)
    }
}

impl Worker for LocalWorker {
    type Value = Value;
    type Error = WorkerError;

    async fn key(
        &self,
        vertex: &Vertex,
        inputs: &[Option<Value>],
        task: &Task,
    ) -> Result<Option<Digest>, WorkerError> {
        let Some(domain) = domain_of(&vertex.op) else {
            return Ok(None);
        };
        let encoder = Encoder::new(domain);
        let encoder = self.encode(encoder, vertex, inputs, task).await?;
        Ok(Some(encoder.finish()))
    }

    async fn lookup(
        &self,
        key: &Digest,
        vertex: &Vertex,
        inputs: &[Option<Value>],
        task: &Task,
    ) -> Result<Option<Value>, WorkerError> {
        let action = self.store.action(key)?;
        let action = action.filter(|action| !self.reuse.is_too_old(action.created));
        let action = match action {
            Some(action) if self.store.has_layer(&action.layer)? => action,
            _ => return Ok(self.lookup_elsewhere(key, vertex, inputs, task).await),
        };
        self.note(vertex, key, || Reason::Cached {
            since: action.created,
            took_ms: action.elapsed_ms,
            from: action.origin,
        });
        Ok(Some(Value::Snapshot(
            base_of(inputs).with_layer(action.layer, action.created),
        )))
    }

    async fn run(
        &self,
        vertex: &Vertex,
        inputs: &[Option<Value>],
        key: Option<&Digest>,
        task: &Task,
    ) -> Result<Outcome<Value>, WorkerError> {
        match &vertex.op {
            Op::Image(op) => {
                let missing = || WorkerError::image(&op.reference, "it was not resolved");
                let image = self.resolved.get(&op.manifest).ok_or_else(missing)?;
                return Ok(Outcome::Done(Value::Snapshot(image.snapshot.clone())));
            }
            Op::Local(op) => {
                return Ok(Outcome::Done(match self.elsewhere.get(&op.name) {
                    Some(files) => Value::Snapshot(self.sources.context(files, task).await?),
                    None => Value::Local(op.name.as_str().into()),
                }));
            }
            Op::Http(op) => {
                let snapshot = self.sources.http(op, task).await?;
                return Ok(Outcome::Done(Value::Snapshot(snapshot)));
            }
            Op::Git(op) => {
                let snapshot = self.sources.git(op, task).await?;
                return Ok(Outcome::Done(Value::Snapshot(snapshot)));
            }
            Op::Exec(_) | Op::Copy(_) | Op::MakeDir(_) => {}
        }
        let key = key.copied().unwrap_or(vertex.digest);
        let key = self.own_key(key, vertex, inputs, task).await?;
        let _lock = wait_for_key(&self.store, &key, &vertex.meta.name, task).await?;
        if !vertex.meta.ignore_cache
            && let Some(value) = self.lookup(&key, vertex, inputs, task).await?
        {
            // Another process, or another platform, made it while we waited.
            task.cached();
            return Ok(Outcome::Done(value));
        }
        let started = Instant::now();
        let make = self.make(vertex, inputs, &key, task);
        let (made, record) = join(make, self.explain(vertex, inputs, &key, task)).await;
        let layer = match made? {
            Outcome::Done(layer) => layer,
            Outcome::Failed(failure) => return Ok(Outcome::Failed(failure)),
        };
        let action = self.store.record_action(NewAction {
            key: &key,
            layer: &layer,
            name: &vertex.meta.name,
            elapsed: started.elapsed(),
            origin: &self.reuse.origin,
            record: record.as_ref(),
        })?;
        Ok(Outcome::Done(Value::Snapshot(
            base_of(inputs).with_layer(layer, action.created),
        )))
    }
}

impl LocalWorker {
    /// Asks the shared caches, in the order that the user gave.
    async fn lookup_elsewhere(
        &self,
        key: &Digest,
        vertex: &Vertex,
        inputs: &[Option<Value>],
        task: &Task,
    ) -> Option<Value> {
        for cache in &self.caches {
            let warn = |text| task.reporter().warn(text);
            let Some(record) = cache.find(key, warn).await else {
                continue;
            };
            if self.reuse.is_too_old(record.created) {
                continue;
            }
            self.note(vertex, key, || Reason::Imported {
                since: record.created,
                took_ms: record.elapsed_ms,
                cache: cache.place().to_string(),
            });
            let (layer, created) = (record.layer, record.created);
            let promise = Promise::new(Arc::clone(cache), record);
            self.images.promises().make(promise);
            return Some(Value::Snapshot(base_of(inputs).with_layer(layer, created)));
        }
        None
    }

    /// Returns the key that a vertex had, if it had one so far.
    pub fn key_of(&self, vertex: &Digest) -> Option<Digest> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.get(vertex).map(|explanation| explanation.key)
    }

    /// Returns true if a vertex ran, and was not found.
    pub fn did_run(&self, vertex: &Digest) -> bool {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.get(vertex).is_some_and(|told| {
            !matches!(told.reason, Reason::Cached { .. } | Reason::Imported { .. })
        })
    }

    /// Runs a vertex that makes a layer.
    async fn make(
        &self,
        vertex: &Vertex,
        inputs: &[Option<Value>],
        key: &Digest,
        task: &Task,
    ) -> Result<Outcome<Digest>, WorkerError> {
        let layers = match needs_base(&vertex.op) {
            true => self.images.layers(&base_of(inputs), task).await?,
            false => Vec::new(),
        };
        match &vertex.op {
            Op::Image(_) | Op::Local(_) | Op::Http(_) | Op::Git(_) => {
                unreachable!("sources make no layer")
            }
            Op::Exec(op) => {
                let sources = self.sources(inputs, task).await?;
                let prepared = mounts::prepare(&self.store, op, inputs, sources, task).await?;
                let parts = (&self.store, self.sandbox.as_ref(), &self.settings);
                run_step(parts, op, (layers, prepared), key, task).await
            }
            Op::Copy(op) => {
                let sources = self.sources(inputs, task).await?;
                let job = CopyJob::new(&self.store, layers);
                let op = op.clone();
                blocking(move || job.copy(&op, &sources).map(Outcome::Done)).await
            }
            Op::MakeDir(op) => {
                let job = CopyJob::new(&self.store, layers);
                let op = op.clone();
                blocking(move || job.make_dir(&op).map(Outcome::Done)).await
            }
        }
    }
}

/// Returns true if what a vertex makes depends on the snapshot that it works on.
fn needs_base(op: &Op) -> bool {
    match op {
        Op::Copy(op) => depends_on_destination(op),
        _ => true,
    }
}

/// Returns the snapshot that a vertex works on.
fn base_of(inputs: &[Option<Value>]) -> Snapshot {
    let first = inputs.first().and_then(Option::as_ref);
    first.and_then(Value::snapshot).cloned().unwrap_or_default()
}

#[cfg(test)]
mod key_tests;
