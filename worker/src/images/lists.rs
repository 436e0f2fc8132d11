//! File lists of layers: what keys are made of, wherever the files are.

use std::sync::{Arc, PoisonError};

use kiln_cache::{FileList, Tree};
use kiln_graph::Digest;
use kiln_remote::RemoteCache;
use kiln_solver::Task;

use crate::copy::tree_of;
use crate::error::WorkerError;
use crate::images::{Images, id_on};
use crate::snapshot::{Snapshot, SnapshotLayer};

impl Images {
    /// Returns what a snapshot shows, and whether that rests on the word of a shared cache. Where the lists of its layers are known, nothing is pulled or
    /// unpacked for that.
    pub(crate) async fn tree(
        &self,
        snapshot: &Snapshot,
        caches: &[Arc<RemoteCache>],
        task: &Task,
    ) -> Result<(Tree, bool), WorkerError> {
        let chain = snapshot.layers();
        let mut lists = Vec::with_capacity(chain.len());
        let mut is_believed = false;
        for (at, layer) in chain.iter().enumerate() {
            let promise = self.promise(&layer.id);
            let promise = promise.filter(|one| layer.origin.is_none() && one.has_list());
            if let Some(list) = self.list(&chain[..at], layer)? {
                lists.push(list);
            } else if let Some(promise) = promise {
                lists.push(self.shared.promises.list(&promise, task).await?);
            } else if let Some(list) = self.shared_list(&chain[..at], layer, caches, task).await {
                is_believed = true;
                lists.push(list);
            } else {
                return Ok((tree_of(&self.layers(snapshot, task).await?), false));
            }
        }
        Ok((Tree::new(lists), is_believed))
    }

    /// Looks for the list of a base image's layer in shared caches. It is their word only, so it is
    /// used by this build and not kept.
    async fn shared_list(
        &self,
        below: &[SnapshotLayer],
        layer: &SnapshotLayer,
        caches: &[Arc<RemoteCache>],
        task: &Task,
    ) -> Option<Arc<FileList>> {
        let lists = || {
            let lists = self.shared.lists.lock();
            lists.unwrap_or_else(PoisonError::into_inner)
        };
        let warn = |text| task.reporter().warn(text);
        for id in [layer.id, id_on(below, &layer.id)] {
            if let Some(list) = lists().get(&id) {
                return Some(list.clone());
            }
            for cache in caches {
                let Some(bytes) = cache.base_list(&id, warn).await else {
                    continue;
                };
                match FileList::from_bytes(&bytes) {
                    Ok(list) => {
                        let list = Arc::new(list);
                        lists().insert(id, list.clone());
                        return Some(list);
                    }
                    Err(error) => tracing::debug!(%error, %id, "a shared file list is damaged"),
                }
            }
        }
        None
    }

    /// Returns the lists of an image's layers, as far as they are here, with the names that the
    /// layers have in the store.
    pub fn known_lists(
        &self,
        image: &Snapshot,
    ) -> Result<Vec<(Digest, Arc<FileList>)>, WorkerError> {
        let chain = image.layers();
        let mut found = Vec::new();
        for (at, layer) in chain.iter().enumerate() {
            for id in [layer.id, id_on(&chain[..at], &layer.id)] {
                let list = match self.known(&id)? {
                    Some(layer) => Some(layer.list),
                    None => self.store.kept_list(&id)?,
                };
                found.extend(list.map(|list| (id, list)));
            }
        }
        Ok(found)
    }

    /// Looks for the list of a layer, which stays when its files are taken away.
    fn list(
        &self,
        below: &[SnapshotLayer],
        layer: &SnapshotLayer,
    ) -> Result<Option<Arc<FileList>>, WorkerError> {
        if let Some(found) = self.unpacked(below, layer)? {
            return Ok(Some(found.list));
        }
        if layer.origin.is_none() {
            return Ok(None);
        }
        match self.store.kept_list(&layer.id)? {
            Some(list) => Ok(Some(list)),
            None => Ok(self.store.kept_list(&id_on(below, &layer.id))?),
        }
    }
}
