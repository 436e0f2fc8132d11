//! Keys: what decides about what a vertex makes, and why no recorded action had the same.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use kiln_graph::{Digest, Encoder, Exec, Graph, Input, Op, PartKind, Record, Vertex};
use kiln_solver::{Reason, Task, blocking};

use crate::apply::{Source, SourceBytes};
use crate::error::WorkerError;
use crate::filter::Query;
use crate::missing::with_hint;
use crate::mounts::{self, Seen};
use crate::select::{self, encode_selection};
use crate::snapshot::Value;
use crate::worker::context::paths_of;
use crate::worker::{Explanation, LocalWorker, base_of, needs_base};

impl LocalWorker {
    /// Returns the names in a value, for a key: without any bytes if they are not at hand.
    async fn names(
        &self,
        vertex: &Vertex,
        value: Option<&Value>,
        task: &Task,
    ) -> Result<Source, WorkerError> {
        let Some(Value::Snapshot(snapshot)) = value else {
            return self.source(value, task).await;
        };
        let (tree, is_believed) = self.images.tree(snapshot, &self.caches, task).await?;
        if is_believed {
            let believed = self.believed.lock();
            let mut believed = believed.unwrap_or_else(PoisonError::into_inner);
            believed.insert(vertex.digest);
        }
        Ok(Source {
            tree,
            bytes: SourceBytes::Layers(Arc::new([])),
        })
    }

    /// Returns the key of a vertex that is about to run. One that rests on the word of a shared
    /// cache is made again of the files themselves, so that nothing is recorded under it.
    pub(super) async fn own_key(
        &self,
        key: Digest,
        vertex: &Vertex,
        inputs: &[Option<Value>],
        task: &Task,
    ) -> Result<Digest, WorkerError> {
        let is_believed = {
            let believed = self.believed.lock();
            let mut believed = believed.unwrap_or_else(PoisonError::into_inner);
            believed.remove(&vertex.digest)
        };
        if !is_believed {
            return Ok(key);
        }
        // Unpacks what the key is made of.
        self.sources(inputs, task).await?;
        let encoder = Encoder::new(domain_of(&vertex.op).unwrap_or_default());
        let own = self.encode(encoder, vertex, inputs, task).await?.finish();
        if own != key {
            let name = &vertex.meta.name;
            let text =
                format!("a shared cache has a wrong file list, which `{name}` was looked up by");
            task.reporter().warn(text);
        }
        Ok(own)
    }

    /// Writes everything that decides about what a vertex makes.
    pub(super) async fn encode(
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
            encoder.note("image", || base.image().map(str::to_owned));
        }
        match &vertex.op {
            Op::Exec(op) => {
                self.settings.encode(&mut encoder);
                self.encode_mounts(encoder, (vertex, op), inputs, task)
                    .await
            }
            Op::Copy(op) => {
                let mut sources = Vec::new();
                for input in inputs.iter().skip(1) {
                    sources.push(self.names(vertex, input.as_ref(), task).await?);
                }
                let op = op.clone();
                let size = sources.iter().map(|source| source.tree.n_entries()).sum();
                here_if_small(size, move || {
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
                    let source = self.names(vertex, inputs[input].as_ref(), task).await?;
                    let path = path.to_owned();
                    encoder.part(PartKind::Shape, || "files".to_owned());
                    encoder.variant(1);
                    let size = source.tree.n_entries();
                    encoder = here_if_small(size, move || {
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

    /// Says why a vertex has to run, and returns what went into its key. That neither can be said
    /// is no reason to stop a build.
    pub(super) async fn explain(
        &self,
        vertex: &Vertex,
        inputs: &[Option<Value>],
        key: &Digest,
        task: &Task,
    ) -> Option<Record> {
        match self.reason_and_record(vertex, inputs, key, task).await {
            Ok((reason, record)) => {
                self.note(vertex, key, || reason);
                Some(record)
            }
            Err(error) => {
                tracing::warn!(name = vertex.meta.name, %error, "cannot say why this runs");
                None
            }
        }
    }

    async fn reason_and_record(
        &self,
        vertex: &Vertex,
        inputs: &[Option<Value>],
        key: &Digest,
        task: &Task,
    ) -> Result<(Reason, Record), WorkerError> {
        let domain = domain_of(&vertex.op).unwrap_or_default();
        let encoder = Encoder::recording(domain);
        let encoder = self.encode(encoder, vertex, inputs, task).await?;
        let (store, reuse) = (self.store.clone(), self.reuse.clone());
        let (meta, recorded) = (vertex.meta.clone(), *key);
        blocking(move || {
            let (again, record) = encoder.finish_with_record();
            debug_assert_eq!(again, recorded, "what is told is what was looked up");
            let reason = match meta.ignore_cache {
                true => Reason::Asked,
                false => reuse.reason(&store, (&recorded, &record), &meta.name)?,
            };
            Ok((reason, record))
        })
        .await
    }

    pub(super) fn note(&self, vertex: &Vertex, key: &Digest, reason: impl FnOnce() -> Reason) {
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
}

/// Entries of a tree that are looked at on the spot: to hand them to another thread costs more.
const SMALL: usize = 2000;

/// Runs `f`, which looks at `size` entries: here if they are few, else on a thread that may block.
async fn here_if_small<T: Send + 'static>(
    size: usize,
    f: impl FnOnce() -> Result<T, WorkerError> + Send + 'static,
) -> Result<T, WorkerError> {
    if size <= SMALL {
        return f();
    }
    blocking(f).await
}

/// Returns the kind of key that an op has; a source has none.
pub(super) fn domain_of(op: &Op) -> Option<&'static str> {
    match op {
        Op::Image(_) | Op::Local(_) | Op::Http(_) | Op::Git(_) => None,
        Op::Exec(_) => Some("exec"),
        Op::Copy(_) => Some("copy"),
        Op::MakeDir(_) => Some("make directory"),
    }
}

pub(super) fn input_names(graph: &Graph) -> HashMap<Digest, Vec<Arc<str>>> {
    let shared = |(_, vertex): (_, &Vertex)| Arc::<str>::from(vertex.meta.name.as_str());
    let names: Vec<_> = graph.vertices().map(shared).collect();
    let named = |(_, vertex): (_, &Vertex)| {
        let name =
            |input: &Input| input.map_or_else(|| "scratch".into(), |id| Arc::clone(&names[id.0]));
        (vertex.digest, vertex.inputs.iter().map(name).collect())
    };
    graph.vertices().map(named).collect()
}
