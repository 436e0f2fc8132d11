//! Promises: layers that are known by their content id and are still in a shared cache.
//!
//! A step that a cache has recorded is not run; its layer is a promise until somebody needs its
//! file list, its blob or its files. What comes is compared with what was promised. A promise that
//! cannot be kept ends the attempt, and is not made again: the next attempt runs that step.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kiln_cache::{FileList, Layer, Store};
use kiln_graph::Digest;
use kiln_remote::{ListAt, Record, RemoteCache, RemoteError};
use kiln_solver::{Direction, Task, blocking};
use tokio::sync::OnceCell;

use crate::error::{UnpackError, WorkerError};
use crate::inflate::{Promised, unpack_promised};
use crate::sink::fetch_into;

/// A layer that a cache can give.
#[derive(Debug)]
pub struct Promise {
    cache: Arc<RemoteCache>,
    record: Arc<Record>,
    list: OnceCell<Arc<FileList>>,
}

/// The promises of a build, by content id.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    // Guards the table; nothing waits while it is held.
    made: Mutex<HashMap<Digest, Arc<Promise>>>,
    n_broken: AtomicUsize,
}

impl Promise {
    pub(crate) fn new(cache: Arc<RemoteCache>, record: Arc<Record>) -> Self {
        Self {
            cache,
            record,
            list: OnceCell::new(),
        }
    }

    /// Returns what the cache says of the layer.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Returns true if its file list can be had without the layer.
    pub(crate) fn has_list(&self) -> bool {
        self.record.list != ListAt::Nowhere
    }

    /// Returns the cache that has it.
    pub fn cache(&self) -> &RemoteCache {
        &self.cache
    }
}

impl Promises {
    pub(crate) fn make(&self, promise: Promise) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let layer = promise.record.layer;
        made.entry(layer).or_insert_with(|| Arc::new(promise));
    }

    pub(crate) fn get(&self, layer: &Digest) -> Option<Arc<Promise>> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.get(layer).cloned()
    }

    pub(crate) fn n_broken(&self) -> usize {
        self.n_broken.load(Ordering::Relaxed)
    }

    /// Takes back a promise that could not be kept, and returns the error that says so.
    fn broken(&self, promise: &Promise, source: RemoteError, task: &Task) -> WorkerError {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.remove(&promise.record.layer);
        promise.cache.refuse(&promise.record.key);
        self.n_broken.fetch_add(1, Ordering::Relaxed);
        let error = WorkerError::Promise {
            cache: promise.cache.place().to_string(),
            name: promise.record.name.clone(),
            source: Box::new(source),
        };
        let reason = std::error::Error::source(&error).map(ToString::to_string);
        let reason = reason.unwrap_or_default();
        task.reporter().warn(format!("{error}: {reason}"));
        error
    }

    /// Returns the file list of a promised layer.
    pub(crate) async fn list(
        &self,
        promise: &Promise,
        task: &Task,
    ) -> Result<Arc<FileList>, WorkerError> {
        let fetch = || async {
            let bytes = promise.cache.list(&promise.record).await?;
            let unusable = |why: String| RemoteError::Unusable {
                what: format!("the file list of {}", promise.record.layer),
                why,
            };
            let list = FileList::from_bytes(&bytes).map_err(|error| unusable(error.to_string()))?;
            match list.content_id() == promise.record.layer {
                true => Ok(Arc::new(list)),
                false => Err(unusable("it is that of another layer".to_owned())),
            }
        };
        let list = promise.list.get_or_try_init(fetch).await;
        list.cloned()
            .map_err(|error| self.broken(promise, error, task))
    }

    /// Makes sure that the blob of a promised layer is in the store.
    pub(crate) async fn fetch(
        &self,
        promise: &Promise,
        store: &Store,
        task: &Task,
    ) -> Result<(), WorkerError> {
        let record = &promise.record;
        if store.has_whole_blob(&record.blob)? {
            return Ok(());
        }
        let place = promise.cache.place();
        let (id, total) = (record.blob.digest.to_string(), Some(record.blob.size));
        let progress = |done| task.transfer(&id, Direction::Pull, done, total);
        let fetched = fetch_into(store, &record.blob.digest, async |sink| {
            place.read_blob(&record.blob, sink, &progress).await
        });
        let fetched = fetched.await?;
        // That this is the blob of that layer is the cache's word, and not noted in the store.
        fetched.map_err(|error| self.broken(promise, error, task))
    }

    /// Unpacks the blob of a promised layer, which was fetched.
    pub(crate) async fn unpack(
        &self,
        promise: &Arc<Promise>,
        store: &Store,
        task: &Task,
    ) -> Result<Layer, WorkerError> {
        let (store, record) = (store.clone(), promise.record.clone());
        let unpacked = blocking(move || {
            let promised = Promised {
                blob: &record.blob,
                diff_id: record.diff_id,
                content_id: record.layer,
            };
            let layer = unpack_promised(&store, &promised)?;
            store.describe_layer(&layer.id, &record.name)?;
            Ok::<_, WorkerError>(layer)
        });
        let unusable = |why: UnpackError| {
            let mut text = why.to_string();
            let mut cause = std::error::Error::source(&why);
            while let Some(error) = cause {
                text = format!("{text}: {error}");
                cause = error.source();
            }
            RemoteError::Unusable {
                what: format!("layer {}", promise.record.layer),
                why: text,
            }
        };
        unpacked.await.map_err(|error| match error {
            WorkerError::Unpack { source, .. } => self.broken(promise, unusable(source), task),
            other => other,
        })
    }
}
