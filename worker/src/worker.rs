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

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use kiln_cache::{Context, FileList, NewAction, Store, Tree, Wildcard};
use kiln_graph::{
    Copy, CopySource, Digest, Encoder, Exec, Graph, Input, Op, PartKind, Record, Vertex,
};
use kiln_solver::{Outcome, Reason, Task, Worker, blocking};
use tokio::sync::OnceCell;

use crate::apply::{Source, SourceBytes};
use crate::copy::{CopyJob, depends_on_destination, tree_of};
use crate::error::WorkerError;
use crate::filter::{Query, root_of};
use crate::images::{Images, ResolvedImage};
use crate::missing::with_hint;
use crate::mounts::{self, Seen};
use crate::reuse::Reuse;
use crate::select::{self, Selected, encode_selection, find};
use crate::snapshot::{Snapshot, Value};
use crate::sources::{ContextFiles, Sources, wait_for_key};
use crate::step::{LazySandbox, StepSettings, run_step};

/// How often a context is read again because a wildcard found a link to something else.
const MAX_CONTEXT_ROUNDS: usize = 8;

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
    // Guards what was told of vertices, by digest.
    told: Mutex<HashMap<Digest, Explanation>>,
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
            told: Mutex::default(),
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
        _task: &Task,
    ) -> Result<Option<Value>, WorkerError> {
        let Some(action) = self.store.action(key)? else {
            return Ok(None);
        };
        if self.reuse.is_too_old(&action) || !self.store.has_layer(&action.layer)? {
            return Ok(None);
        }
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
        let _lock = wait_for_key(&self.store, &key, &vertex.meta.name, task).await?;
        if !vertex.meta.ignore_cache
            && let Some(value) = self.lookup(&key, vertex, inputs, task).await?
        {
            // Another process made it while we waited.
            return Ok(Outcome::Done(value));
        }
        let record = self.explain(vertex, inputs, &key, task).await?;
        self.make(vertex, inputs, (&key, &record), task).await
    }
}

impl LocalWorker {
    /// Writes everything that decides about what a vertex makes.
    async fn encode(
        &self,
        mut encoder: Encoder,
        vertex: &Vertex,
        inputs: &[Option<Value>],
        task: &Task,
    ) -> Result<Encoder, WorkerError> {
        match &vertex.op {
            Op::Exec(op) => encoder.value(&Op::Exec(mounts::keyed_op(op))),
            Op::Copy(op) => encoder.value(&Op::Copy(select::keyed_op(op))),
            op => encoder.value(op),
        };
        if needs_base(&vertex.op) {
            let base = base_of(inputs);
            encoder.part(PartKind::Base, || self.input_name(vertex, 0));
            encoder.value(&base.id());
            if let Some(image) = base.image() {
                encoder.note("image", || image.to_owned());
            }
        }
        match &vertex.op {
            Op::Exec(op) => {
                self.settings.encode(&mut encoder);
                self.encode_mounts(encoder, (vertex, op), inputs, task)
                    .await
            }
            Op::Copy(op) => {
                let (op, sources) = (op.clone(), self.sources(inputs, task).await?);
                blocking(move || {
                    for (number, path) in paths_of(&op) {
                        let source = &sources[number];
                        let query = Query::new(&op, path)?;
                        let selection = query.select(&source.tree);
                        let selection = selection.map_err(|e| with_hint(e, source, path))?;
                        encode_selection(&mut encoder, (&source.tree, &query), &selection, &op);
                    }
                    Ok(encoder)
                })
                .await
            }
            _ => Ok(encoder),
        }
    }

    /// Writes what the mounts of a step show.
    async fn encode_mounts(
        &self,
        mut encoder: Encoder,
        (vertex, op): (&Vertex, &Exec),
        inputs: &[Option<Value>],
        task: &Task,
    ) -> Result<Encoder, WorkerError> {
        for seen in mounts::seen(op, inputs) {
            match seen {
                Seen::Snapshot(input, id) => {
                    encoder.part(PartKind::Input, || self.input_name(vertex, input));
                    encoder.variant(0).value(&id);
                }
                Seen::Content(input, path) => {
                    let source = self.source(inputs[input].as_ref(), task).await?;
                    let path = path.to_owned();
                    encoder.part(PartKind::Shape, || "files".to_owned());
                    encoder.variant(1);
                    encoder = blocking(move || {
                        mounts::encode_content(&mut encoder, &source, &path).map(|()| encoder)
                    })
                    .await?;
                }
            }
        }
        Ok(encoder)
    }

    fn input_name(&self, vertex: &Vertex, input: usize) -> String {
        let names = self.input_names.get(&vertex.digest);
        let name = names.and_then(|names| names.get(input));
        name.map(ToString::to_string).unwrap_or_default()
    }

    /// Says why a vertex has to run, and returns what went into its key.
    async fn explain(
        &self,
        vertex: &Vertex,
        inputs: &[Option<Value>],
        key: &Digest,
        task: &Task,
    ) -> Result<Record, WorkerError> {
        let domain = domain_of(&vertex.op).unwrap_or_default();
        let encoder = Encoder::recording(domain);
        let encoder = self.encode(encoder, vertex, inputs, task).await?;
        let (store, reuse) = (self.store.clone(), self.reuse.clone());
        let (meta, recorded) = (vertex.meta.clone(), *key);
        let (reason, record) = blocking(move || {
            let (again, record) = encoder.finish_with_record();
            debug_assert_eq!(again, recorded, "what is told is what was looked up");
            let reason = match meta.ignore_cache {
                true => Reason::Asked,
                false => reuse.reason(&store, (&recorded, &record), &meta.name)?,
            };
            Ok::<_, WorkerError>((reason, record))
        })
        .await?;
        self.note(vertex, key, || reason);
        Ok(record)
    }

    fn note(&self, vertex: &Vertex, key: &Digest, reason: impl FnOnce() -> Reason) {
        let explanation = Explanation {
            key: *key,
            reason: reason(),
        };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.insert(vertex.digest, explanation);
    }

    /// Returns why vertices ran or were found, by digest: of all that had a key so far.
    pub fn explanations(&self) -> HashMap<Digest, Explanation> {
        let told = self.told.lock();
        told.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs a vertex that makes a layer, and records the action.
    async fn make(
        &self,
        vertex: &Vertex,
        inputs: &[Option<Value>],
        (key, record): (&Digest, &Record),
        task: &Task,
    ) -> Result<Outcome<Value>, WorkerError> {
        let started = Instant::now();
        let base = &base_of(inputs);
        let layers = match needs_base(&vertex.op) {
            true => self.images.layers(base, task).await?,
            false => Vec::new(),
        };
        let outcome = match &vertex.op {
            Op::Image(_) | Op::Local(_) | Op::Http(_) | Op::Git(_) => {
                unreachable!("sources make no layer")
            }
            Op::Exec(op) => {
                let sources = self.sources(inputs, task).await?;
                let prepared = mounts::prepare(&self.store, op, inputs, sources, task).await?;
                let parts = (&self.store, self.sandbox.as_ref(), &self.settings);
                run_step(parts, op, (layers, prepared), key, task).await?
            }
            Op::Copy(op) => {
                let sources = self.sources(inputs, task).await?;
                let job = CopyJob::new(&self.store, layers);
                let op = op.clone();
                Outcome::Done(blocking(move || job.copy(&op, &sources)).await?)
            }
            Op::MakeDir(op) => {
                let job = CopyJob::new(&self.store, layers);
                let op = op.clone();
                Outcome::Done(blocking(move || job.make_dir(&op)).await?)
            }
        };
        match outcome {
            Outcome::Done(layer) => {
                let action = self.store.record_action(NewAction {
                    key,
                    layer: &layer,
                    name: &vertex.meta.name,
                    elapsed: started.elapsed(),
                    origin: &self.reuse.origin,
                    record: Some(record),
                })?;
                Ok(Outcome::Done(Value::Snapshot(
                    base.with_layer(layer, action.created),
                )))
            }
            Outcome::Failed(failure) => Ok(Outcome::Failed(failure)),
        }
    }
}

/// Returns the kind of key that an op has; a source has none.
fn domain_of(op: &Op) -> Option<&'static str> {
    match op {
        Op::Image(_) | Op::Local(_) | Op::Http(_) | Op::Git(_) => None,
        Op::Exec(_) => Some("exec"),
        Op::Copy(_) => Some("copy"),
        Op::MakeDir(_) => Some("make directory"),
    }
}

fn input_names(graph: &Graph) -> HashMap<Digest, Vec<Arc<str>>> {
    let shared = |(_, vertex): (_, &Vertex)| Arc::<str>::from(vertex.meta.name.as_str());
    let names: Vec<_> = graph.vertices().map(shared).collect();
    let named = |(_, vertex): (_, &Vertex)| {
        let name =
            |input: &Input| input.map_or_else(|| "scratch".into(), |id| Arc::clone(&names[id.0]));
        (vertex.digest, vertex.inputs.iter().map(name).collect())
    };
    graph.vertices().map(named).collect()
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

/// Returns the sources of a copy that are paths: number of the source tree, and the path.
fn paths_of(op: &Copy) -> impl Iterator<Item = (usize, &str)> {
    op.sources.iter().filter_map(|source| match source {
        CopySource::Path { input, path, .. } => Some((input - 1, path.as_str())),
        CopySource::Inline(_) => None,
    })
}

/// Returns all paths that copies and mounts in the graph select in a context.
fn selected_paths(graph: &Graph, context: &str) -> Vec<Vec<u8>> {
    let mut paths = Vec::new();
    for (_, vertex) in graph.vertices() {
        for (input, id) in vertex.inputs.iter().enumerate() {
            let op = id.map(|id| &graph.vertex(id).op);
            if matches!(op, Some(Op::Local(local)) if local.name == context) {
                let found = paths_in(&vertex.op, input);
                paths.extend(found.into_iter().map(|path| path.as_bytes().to_vec()));
            }
        }
    }
    paths.sort();
    paths.dedup();
    paths
}

/// Returns the paths that an op selects in one of its inputs.
fn paths_in(op: &Op, input: usize) -> Vec<&str> {
    match op {
        Op::Copy(op) => paths_of(op)
            .filter_map(|(number, path)| (number + 1 == input).then_some(path))
            .collect(),
        Op::Exec(op) => mounts::paths_of(op, input).collect(),
        _ => Vec::new(),
    }
}

/// Reads what of a context can be selected, links that wildcards find included.
fn load_context(
    store: &Store,
    context: Arc<Context>,
    mut paths: Vec<Vec<u8>>,
) -> Result<Source, WorkerError> {
    for round in 0.. {
        let list: Arc<FileList> =
            Arc::new(context.load(store, &paths).map_err(WorkerError::Context)?);
        let tree = Tree::new(vec![list]);
        let mut missing = Vec::new();
        for path in paths.iter().filter(|path| Wildcard::is_needed(path)) {
            // What cannot be selected is said where it is copied.
            let Ok(found) = find(&tree, root_of(&String::from_utf8_lossy(path))) else {
                continue;
            };
            let dangling = |s: &Selected| !s.real.is_empty() && tree.get(&s.real).is_none();
            missing.extend(found.into_iter().filter(dangling).map(|s| s.real));
        }
        missing.retain(|path| !paths.contains(path));
        if missing.is_empty() || round == MAX_CONTEXT_ROUNDS {
            return Ok(Source {
                tree,
                bytes: SourceBytes::Context(context),
            });
        }
        paths.append(&mut missing);
    }
    unreachable!("the loop ends by its own count")
}

#[cfg(test)]
mod key_tests;
