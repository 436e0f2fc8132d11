//! What a build leaves in shared caches: sent while it runs, named when it ends.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use kiln_cache::{LayerBlob, Store};
use kiln_exporter::{Compression, StoredBlob, layer_blob};
use kiln_frontend::Compiled;
use kiln_graph::{Descriptor, Digest, Op, Vertex, VertexId};
use kiln_remote::{
    Exporter, INLINE_FIELD, InlineRecord, ListAt, Record, RemoteCache, RemoteError, inline_value,
};
use kiln_solver::{Direction, Task, blocking};
use kiln_worker::{LocalWorker, Snapshot, SnapshotLayer, Value, WorkerError};
use tokio::sync::OnceCell;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::commands::build::{Build, is_image};
use crate::image::Assembly;
use crate::plan::caches::CacheTo;
use crate::report::Failure;
use crate::session::Session;

/// Layers that are on their way to a cache at a time.
const AT_ONCE: usize = 4;

/// The caches of a build, opened.
#[derive(Debug, Default)]
pub(crate) struct Caches {
    pub(crate) from: Vec<Arc<RemoteCache>>,
    to: Vec<Export>,
    // Guards the first failure: it is told when the image has gone where it was to go.
    failed: Mutex<Option<Failure>>,
}

/// A cache that is written to.
#[derive(Debug)]
struct Export {
    exporter: Exporter,
    plan: CacheTo,
    compression: Compression,
    task: Task,
    /// The cache could be read when something was first to be sent; else nothing more is tried.
    opened: OnceCell<bool>,
}

/// A vertex that has its layer.
struct Done<'a> {
    vertex: &'a Vertex,
    key: Digest,
    layer: SnapshotLayer,
    did_run: bool,
}

impl Caches {
    /// Forgets that something failed: the build is evaluated again.
    pub(crate) fn forget_failure(&self) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        *failed = None;
    }

    fn note(&self, sent: Result<(), Failure>) {
        if let Err(failure) = sent {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.get_or_insert(failure);
        }
    }
}

impl Build<'_> {
    /// Opens the caches that the command line names. Nothing is read.
    pub(crate) fn open_caches(&self) -> Result<Caches, Failure> {
        let client = &self.session.client;
        let mut caches = Caches::default();
        for place in &self.plan.caches.from {
            let cache = RemoteCache::new(place.open(client)?);
            caches.from.push(Arc::new(cache));
        }
        let image = self.compression();
        for plan in &self.plan.caches.to {
            let exporter = Exporter::new(plan.place.open(client)?, plan.expiry);
            let name = format!("exporting cache to {}", exporter.place());
            caches.to.push(Export {
                task: self.reporter.task(name, None),
                compression: plan.compression.unwrap_or(image),
                opened: OnceCell::new(),
                exporter,
                plan: plan.clone(),
            });
        }
        Ok(caches)
    }

    /// Returns how the layers of the image are compressed.
    pub(super) fn compression(&self) -> Compression {
        let mut images = self.plan.outputs.iter().filter(|one| is_image(one.kind));
        let image = images.next().map(|output| output.image.compression);
        image.unwrap_or_default()
    }

    /// Sends what is done to the caches, until nothing more comes.
    pub(super) async fn send_to_caches(
        &self,
        caches: &Caches,
        (compiled, worker): (&Compiled, &LocalWorker),
        mut done: UnboundedReceiver<(VertexId, Value)>,
    ) {
        let in_image: HashSet<VertexId> = compiled.steps.iter().filter_map(|s| s.layer).collect();
        let mut running = FuturesUnordered::new();
        let mut images = Vec::new();
        let mut open = !caches.to.is_empty();
        while open || !running.is_empty() {
            tokio::select! {
                value = done.recv(), if open && running.len() < AT_ONCE => match value {
                    None => open = false,
                    Some((id, value)) => {
                        let vertex = compiled.graph.vertex(id);
                        if let (Op::Image(_), Value::Snapshot(image)) = (&vertex.op, &value) {
                            images.push(image.clone());
                        }
                        for export in &caches.to {
                            let is_wanted = export.plan.all_stages || in_image.contains(&id);
                            if is_wanted && let Some(done) = done_of(worker, vertex, &value) {
                                running.push(self.send_to_cache(caches, export, done));
                            }
                        }
                    }
                },
                Some(sent) = running.next(), if !running.is_empty() => caches.note(sent),
            }
        }
        // By now all is known of base images that the build had to look into.
        for export in caches.to.iter().filter(|one| one.is_open()) {
            let sent = export.send_lists(self.session, &images).await;
            caches.note(sent.or_else(|failure| self.cache_failure(export, failure)));
        }
    }

    async fn send_to_cache(
        &self,
        caches: &Caches,
        export: &Export,
        done: Done<'_>,
    ) -> Result<(), Failure> {
        export.task.started();
        let open = || async {
            let opened = export.exporter.open().await;
            let is_open = opened.is_ok();
            if let Err(error) = opened {
                caches.note(self.cache_failure(export, Failure::user(error)));
            }
            is_open
        };
        if !*export.opened.get_or_init(open).await {
            return Ok(());
        }
        match export.send(self.session, &done).await {
            Ok(()) => Ok(()),
            Err(failure) => self.cache_failure(export, failure),
        }
    }

    /// A cache that cannot be written ends the build, unless the user does not mind.
    fn cache_failure(&self, export: &Export, failure: Failure) -> Result<(), Failure> {
        if !export.plan.ignore_error {
            export.task.failed(failure.error.to_string());
            let place = export.exporter.place();
            let context = format!("cannot export the cache to `{place}`");
            let failure = Failure::user(failure.error.context(context));
            let hint = "add ignore-error=true to --cache-to to build without it";
            return Err(failure.with_hint(hint));
        }
        let place = export.exporter.place();
        self.reporter.warn(format!(
            "the cache `{place}` lacks something: {:#}",
            failure.error
        ));
        Ok(())
    }

    /// Names what was sent, so that others find it.
    pub(crate) async fn finish_caches(&self, caches: &Caches) -> Result<(), Failure> {
        for export in caches
            .to
            .iter()
            .filter(|one| one.opened.get() != Some(&false))
        {
            let task = &export.task;
            task.started();
            match export.exporter.finish().await {
                Ok(done) => {
                    let (added, known) = (done.n_added, done.n_known);
                    task.status(format!("{added} steps added, {known} were there"));
                    if done.n_expired > 0 {
                        task.status(format!("{} steps expired", done.n_expired));
                    }
                    task.finished();
                }
                Err(error) => {
                    caches.note(self.cache_failure(export, Failure::user(error)));
                    task.finished();
                }
            }
        }
        let mut failed = caches.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.take().map_or(Ok(()), Err)
    }
}

/// Says in the config of an image what made its layers: the image is a cache then.
pub(super) fn add_inline(
    assembly: &mut Assembly,
    (compiled, worker): (&Compiled, &LocalWorker),
    store: &Store,
    compression: Compression,
) -> Result<(), Failure> {
    let n_made = compiled
        .steps
        .iter()
        .filter(|step| step.layer.is_some())
        .count();
    let first = assembly.layers.len().saturating_sub(n_made);
    let vertices = compiled.steps.iter().filter_map(|step| step.layer);
    let mut records = Vec::new();
    for (at, vertex) in (first..).zip(vertices) {
        let vertex = compiled.graph.vertex(vertex);
        let Some(key) = worker.key_of(&vertex.digest) else {
            continue;
        };
        let action = store.action(&key).map_err(Failure::user)?;
        let layer = &assembly.layers[at];
        records.push(InlineRecord {
            key,
            layer: layer.id,
            name: vertex.meta.name.clone(),
            created: layer.created,
            elapsed_ms: action.map_or(0, |action| action.elapsed_ms),
            format: compression.format(),
            at,
        });
    }
    let rest = &mut assembly.config.rest;
    rest.insert(INLINE_FIELD.to_owned(), inline_value(records));
    Ok(())
}

/// Returns what a cache can record of a vertex: one that has a key, and made a layer.
fn done_of<'a>(worker: &LocalWorker, vertex: &'a Vertex, value: &Value) -> Option<Done<'a>> {
    if !matches!(vertex.op, Op::Exec(_) | Op::Copy(_) | Op::MakeDir(_)) {
        return None;
    }
    let key = worker.key_of(&vertex.digest)?;
    let layer = value.snapshot()?.top()?.clone();
    Some(Done {
        vertex,
        key,
        layer,
        did_run: worker.did_run(&vertex.digest),
    })
}

impl Export {
    fn is_open(&self) -> bool {
        self.opened.get() == Some(&true)
    }

    async fn send(&self, session: &Session, done: &Done<'_>) -> Result<(), Failure> {
        let known = self.exporter.has(&done.key, &done.layer.id).await;
        // What ran just now is recorded anew: it is younger, and its blob may have been lost.
        if known.map_err(Failure::user)? && !done.did_run {
            return Ok(());
        }
        let promise = session.images.promise(&done.layer.id);
        let promised_ms = promise.as_ref().map(|promise| promise.record().elapsed_ms);
        if promise.is_some_and(|promise| promise.record().list == ListAt::Nowhere) {
            let alone = Snapshot::of_image(vec![done.layer.clone()]);
            match session.images.layers(&alone, &self.task).await {
                Err(WorkerError::Promise { .. }) => return Ok(()),
                unpacked => unpacked.map_err(Failure::user)?,
            };
        }
        let (blob, format, list) = match session.store.layer(&done.layer.id) {
            Ok(Some(layer)) => {
                let (store, compression) = (session.store.clone(), self.compression);
                let made = blocking(move || {
                    let blob = layer_blob(&store, &layer, compression)?;
                    Ok::<_, kiln_exporter::ExportError>((blob, layer.list.to_bytes()))
                });
                let (blob, list) = made.await.map_err(Failure::user)?;
                (blob, self.compression.format(), list)
            }
            Ok(None) => match self.fetch_elsewhere(session, done).await? {
                Some(found) => found,
                // It was told that the other cache cannot give it.
                None => return Ok(()),
            },
            Err(error) => return Err(Failure::user(error)),
        };
        let media_type = Compression::media_type_of(&format);
        let descriptor = Descriptor::new(media_type, blob.digest, blob.size);
        self.push(&session.store, &descriptor, done).await?;
        let action = session.store.action(&done.key).map_err(Failure::user)?;
        let elapsed_ms = action.map(|action| action.elapsed_ms).or(promised_ms);
        let record = Record {
            key: done.key,
            layer: done.layer.id,
            name: done.vertex.meta.name.clone(),
            created: done.layer.created,
            elapsed_ms: elapsed_ms.unwrap_or_default(),
            used: crate::commands::why::now(),
            format,
            blob: descriptor,
            diff_id: blob.diff_id,
            // It is put where it belongs when it is sent.
            list: ListAt::Here(String::new()),
        };
        let added = self.exporter.add(record, &list).await;
        added.map_err(Failure::user)
    }

    /// Sends what is known of base images, so that others make keys without pulling them.
    async fn send_lists(&self, session: &Session, images: &[Snapshot]) -> Result<(), Failure> {
        for image in images {
            let lists = session.images.known_lists(image).map_err(Failure::user)?;
            for (id, list) in lists {
                if !self.exporter.has_list(&id).await.map_err(Failure::user)? {
                    let sent = self.exporter.add_list(&id, &list.to_bytes()).await;
                    sent.map_err(Failure::user)?;
                }
            }
        }
        Ok(())
    }

    /// Fetches what another cache has, to be sent on as it is; nothing if that cannot give it.
    async fn fetch_elsewhere(
        &self,
        session: &Session,
        done: &Done<'_>,
    ) -> Result<Option<(LayerBlob, String, Vec<u8>)>, Failure> {
        match session.images.fetch(&done.layer, &self.task).await {
            Err(WorkerError::Promise { .. }) => return Ok(None),
            fetched => fetched.map_err(Failure::user)?,
        }
        let Some(promise) = session.images.promise(&done.layer.id) else {
            return Ok(None);
        };
        let record = promise.record();
        let Ok(list) = promise.cache().list(record).await else {
            return Ok(None);
        };
        let blob = LayerBlob {
            digest: record.blob.digest,
            size: record.blob.size,
            diff_id: record.diff_id,
        };
        Ok(Some((blob, record.format.clone(), list)))
    }

    async fn push(&self, store: &Store, blob: &Descriptor, done: &Done<'_>) -> Result<(), Failure> {
        let source = StoredBlob::new(store, blob.digest);
        let progress = |sent| {
            let id = blob.digest.to_string();
            self.task
                .transfer(&id, Direction::Push, sent, Some(blob.size));
        };
        let pushed = self
            .exporter
            .push_layer(blob, source, None, &progress)
            .await;
        let failed = |error: RemoteError| {
            let context = format!("cannot send what `{}` made", done.vertex.meta.name);
            Failure::user(anyhow::Error::new(error).context(context))
        };
        pushed.map(drop).map_err(failed)
    }
}
