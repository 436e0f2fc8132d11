//! Collecting: taking away what is not needed, least recently used first.
//!
//! Nothing that a living process holds is taken (see `ledger`), nor what an image that was built
//! here consists of. Every other item stands for itself: a layer does not keep the layers below
//! it, because keys are made of ids, not of content. What is taken is found missing by the next
//! build that wants it, which makes it again.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use kiln_graph::{Descriptor, Digest, ImageConfig, Index, Manifest, MediaKind};

use crate::db::{NamedImage, now};
use crate::error::StoreError;
use crate::inventory::{Item, ItemKind};
use crate::ledger::{LEASES, blob_name, layer_name, leases};
use crate::lock::KeyTurn;
use crate::reserve::free_bytes;
use crate::store::{Store, lock_gate, open_gate, remove_tree};

/// The gate that lets one process collect at a time.
const COLLECT: &str = "collect";

/// Deepest nesting of indexes that is followed.
const MAX_DEPTH: usize = 4;

/// When to stop taking away. Without any of them, everything goes that may go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Goal {
    /// Room that the store may take in all.
    pub max_used: Option<u64>,
    /// Room that it may take in any case.
    pub reserved: Option<u64>,
    /// Room that should be free on its disk.
    pub min_free: Option<u64>,
}

/// What was taken away.
#[derive(Debug, Clone, Default)]
pub struct Collected {
    /// The items, in the order in which they went.
    pub items: Vec<Item>,
    /// Room that what belongs to them took, in bytes.
    pub beside: u64,
}

/// What an image or an index consists of.
#[derive(Debug, Default)]
struct Parts {
    /// Blobs that are here or not, manifests among them.
    blobs: Vec<Digest>,
    /// The manifests that are here.
    manifests: Vec<Manifest>,
}

impl Collected {
    /// Returns how much room is free again.
    pub fn bytes(&self) -> u64 {
        self.beside + self.items.iter().map(|item| item.bytes).sum::<u64>()
    }
}

impl Goal {
    /// Returns how much room items may take when they take `total` now; `None` is without limit.
    fn limit(&self, total: u64, free: u64) -> Option<u64> {
        if *self == Self::default() {
            return Some(0);
        }
        let mut limit = self.max_used;
        if let Some(missing) = self.min_free.and_then(|wanted| wanted.checked_sub(free)) {
            let left = total.saturating_sub(missing);
            limit = Some(limit.map_or(left, |limit| limit.min(left)));
        }
        limit.map(|limit| limit.max(self.reserved.unwrap_or(0)))
    }
}

impl Store {
    /// Takes away items that `may_go` accepts until the goal is reached, least recently used
    /// first.
    pub fn collect(
        &self,
        goal: Goal,
        unused_for: Duration,
        may_go: impl Fn(&Item) -> bool,
    ) -> Result<Collected, StoreError> {
        let _turn = lock_gate(self.root(), COLLECT)?;
        self.collect_alone(goal, unused_for, may_go)
    }

    /// Takes away so much that the limit is kept, if there is one and nobody else does so already.
    pub(crate) fn keep_limit(&self) -> Result<(), StoreError> {
        let Some(max_used) = self.limit() else {
            return Ok(());
        };
        let used = self.used_bytes()?;
        if used <= max_used || used < self.next_attempt().load(Ordering::Relaxed) {
            return Ok(());
        }
        let turn = open_gate(self.root(), COLLECT)?;
        if turn.try_lock().is_err() {
            return Ok(());
        }
        let goal = Goal {
            max_used: Some(max_used),
            ..Goal::default()
        };
        self.collect_alone(goal, Duration::ZERO, |_| true)?;
        let used = self.used_bytes()?;
        if used <= max_used {
            return Ok(());
        }
        // Looking again at each layer would cost more than it could give.
        let next = used.saturating_add(max_used / 20);
        if self.next_attempt().swap(next, Ordering::Relaxed) == 0 {
            tracing::warn!(
                "the cache takes {used} bytes, more than its limit of {max_used}: \
                 all of it is in use, or images built here need it"
            );
        }
        Ok(())
    }

    /// Says that this process uses nothing of the store any more, and keeps the limit once more.
    pub fn end_use(&self) -> Result<(), StoreError> {
        self.note_uses()?;
        self.leases().release()?;
        self.next_attempt().store(0, Ordering::Relaxed);
        self.keep_limit()
    }

    fn collect_alone(
        &self,
        goal: Goal,
        unused_for: Duration,
        may_go: impl Fn(&Item) -> bool,
    ) -> Result<Collected, StoreError> {
        let newest = now().saturating_sub(i64::try_from(unused_for.as_secs()).unwrap_or(i64::MAX));
        // A clock that was wrong may have left times that are yet to come.
        let is_old = |item: &Item| unused_for.is_zero() || item.used <= newest;
        let (mut collected, moved) = loop {
            let images = self.references()?;
            let mut items = self.take_stock(false)?.items;
            let total: u64 = items.iter().map(|item| item.bytes).sum();
            let total = total + self.database_bytes();
            let Some(limit) = goal.limit(total, free_bytes(self.root())?) else {
                return Ok(Collected::default());
            };
            items.retain(|item| is_old(item) && may_go(item));
            // Of what was used last together, logs go first: nobody has to make them again.
            let age = |item: &Item| (item.used, item.kind != ItemKind::Log, item.created);
            items.sort_by(|a, b| (age(a), &a.id).cmp(&(age(b), &b.id)));
            if let Some(moved) = self.move_away(items, (total, limit), &images)? {
                break moved;
            }
        };
        for (item, path) in collected.items.iter().zip(moved) {
            if let Some(layer) = item.id.strip_prefix("layers/") {
                let layer = layer.replacen('-', ":", 1);
                match self.is_made(&layer)? {
                    true => collected.beside += self.forget_records(&layer)?,
                    // One without a list is only half of a layer.
                    false => drop(self.keep_list(&item.id, &path)),
                }
            }
            remove_tree(&path).map_err(StoreError::io("remove", &path))?;
        }
        // Afterwards, as the database needs room for this, too.
        self.forget_content(collected.items.iter().map(|item| item.id.as_str()))?;
        Ok(collected)
    }

    /// Renames items out of the way until what is left is within the limit. Nobody can begin to
    /// use content meanwhile. `images` are those that it was found out for which items they need;
    /// if others were built since, their builds may have ended and hold nothing: then nothing is
    /// moved, and all must be looked at again.
    fn move_away(
        &self,
        items: Vec<Item>,
        (mut total, limit): (u64, u64),
        images: &[NamedImage],
    ) -> Result<Option<(Collected, Vec<PathBuf>)>, StoreError> {
        let _gate = lock_gate(self.root(), LEASES)?;
        if self.references()? != images {
            return Ok(None);
        }
        let leases = leases(self.root(), None)?;
        let (mut collected, mut moved) = (Collected::default(), Vec::new());
        for item in items {
            if total <= limit {
                break;
            }
            if item.is_pinned || leases.contains(&item.id) {
                continue;
            }
            let Some(_locks) = self.locks_of(&item)? else {
                continue;
            };
            let aside = self.temp_path();
            let path = self.root().join(&item.id);
            match fs::rename(&path, &aside) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(StoreError::io("remove", &path)(error)),
            }
            total -= item.bytes.min(total);
            moved.push(aside);
            collected.items.push(item);
        }
        Ok(Some((collected, moved)))
    }

    /// Returns true if somebody works with an item that has locks of its own.
    pub(crate) fn is_locked(&self, item: &Item) -> Result<bool, StoreError> {
        Ok(self.locks_of(item)?.is_none())
    }

    /// Takes the locks that an item has of its own; `None` while somebody holds one.
    fn locks_of(&self, item: &Item) -> Result<Option<Vec<Box<dyn std::any::Any>>>, StoreError> {
        let path = self.root().join(&item.id);
        let mut locks: Vec<Box<dyn std::any::Any>> = Vec::new();
        match item.kind {
            ItemKind::Layer | ItemKind::Blob | ItemKind::Context | ItemKind::Log => {}
            ItemKind::CacheMount => {
                let parent = path.parent().unwrap_or(Path::new("."));
                for lock in [parent.join("lock"), path.join("lock")] {
                    // Opened without writing: its time tells when the folder was used.
                    let Ok(file) = File::open(&lock) else {
                        continue;
                    };
                    if file.try_lock().is_err() {
                        return Ok(None);
                    }
                    locks.push(Box::new(file));
                }
            }
            ItemKind::Git => {
                let hex = item.id.trim_start_matches("git/");
                let Ok(key) = format!("blake3:{hex}").parse::<Digest>() else {
                    return Ok(None);
                };
                match self.try_lock_key(&key, "room")? {
                    KeyTurn::Mine(lock) => locks.push(Box::new(lock)),
                    KeyTurn::Taken(_) => return Ok(None),
                }
            }
        }
        Ok(Some(locks))
    }

    /// Returns the names of everything that images built here consist of: blobs, and layers whose
    /// blobs nobody needed yet.
    pub(crate) fn pinned(&self) -> Result<HashSet<String>, StoreError> {
        let mut names = HashSet::new();
        for image in self.references()?.iter().filter(|image| !image.is_pulled) {
            let parts = self.parts_of(&image.descriptor)?;
            names.extend(parts.blobs.iter().map(blob_name));
            for manifest in &parts.manifests {
                names.extend(self.layers_without_blobs(manifest)?);
            }
        }
        Ok(names)
    }

    fn layers_without_blobs(&self, manifest: &Manifest) -> Result<Vec<String>, StoreError> {
        let mut names = Vec::new();
        let Some(config) = self.read_blob(&manifest.config.digest)? else {
            return Ok(names);
        };
        let Ok(config) = serde_json::from_slice::<ImageConfig>(&config) else {
            return Ok(names);
        };
        for (blob, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
            if !self.root().join(blob_name(&blob.digest)).exists() {
                names.extend(self.layer_of_diff_id(diff_id)?.as_ref().map(layer_name));
                // A layer of the base, whose blob was taken away earlier.
                names.push(layer_name(diff_id));
            }
        }
        Ok(names)
    }

    /// Returns the digests of all blobs that a manifest or an index leads to, its own first; those
    /// that are not here are among them.
    pub fn blobs_of(&self, top: &Descriptor) -> Result<Vec<Digest>, StoreError> {
        Ok(self.parts_of(top)?.blobs)
    }

    fn parts_of(&self, top: &Descriptor) -> Result<Parts, StoreError> {
        let mut parts = Parts::default();
        self.add_parts_of(top, MAX_DEPTH, &mut parts)?;
        Ok(parts)
    }

    fn add_parts_of(
        &self,
        top: &Descriptor,
        depth: usize,
        parts: &mut Parts,
    ) -> Result<(), StoreError> {
        parts.blobs.push(top.digest);
        let kind = MediaKind::of(&top.media_type);
        if depth == 0 || !matches!(kind, Some(MediaKind::Index | MediaKind::Manifest)) {
            return Ok(());
        }
        let Some(bytes) = self.read_blob(&top.digest)? else {
            return Ok(());
        };
        if kind == Some(MediaKind::Index) {
            let index = serde_json::from_slice::<Index>(&bytes);
            for manifest in index.map(|index| index.manifests).unwrap_or_default() {
                self.add_parts_of(&manifest, depth - 1, parts)?;
            }
        } else if let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) {
            parts.blobs.push(manifest.config.digest);
            let layers = manifest.layers.iter().map(|layer| layer.digest);
            parts.blobs.extend(layers);
            parts.manifests.push(manifest);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::actions::NewAction;
    use crate::filelist::{Entry, FileList};

    fn layer(store: &Store, name: &str) -> Digest {
        let list = Arc::new(FileList::new(vec![Entry::dir(name.as_bytes())]));
        let id = list.content_id();
        let staging = store.stage_layer().unwrap();
        fs::create_dir(staging.fs_dir().join(name)).unwrap();
        staging.commit(&id, &list).unwrap();
        id
    }

    fn age(store: &Store, id: &Digest, seconds: i64) {
        let sql = "UPDATE content SET used = used - ?2 WHERE path = ?1";
        let name = layer_name(id);
        let row = rusqlite::params![name, seconds];
        store.db().lock().execute(sql, row).unwrap();
    }

    fn all(store: &Store) -> Collected {
        let goal = Goal::default();
        store.collect(goal, Duration::ZERO, |_| true).unwrap()
    }

    #[test]
    fn what_a_living_process_uses_stays() {
        let root = tempfile::tempdir().unwrap();
        let (one, two) = (
            Store::open(root.path()).unwrap(),
            Store::open(root.path()).unwrap(),
        );
        let id = layer(&one, "a");
        assert!(all(&two).items.is_empty());
        drop(one);
        assert_eq!(all(&two).items.len(), 1);
        assert!(!two.has_layer(&id).unwrap());
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let (old, new) = (layer(&store, "old"), layer(&store, "new"));
        drop(store);
        let store = Store::open(root.path()).unwrap();
        age(&store, &old, 100);
        let bytes = store.used_bytes().unwrap();
        let goal = Goal {
            max_used: Some(bytes - 1),
            ..Goal::default()
        };
        store.collect(goal, Duration::ZERO, |_| true).unwrap();
        assert!(!store.has_layer(&old).unwrap());
        assert!(store.has_layer(&new).unwrap());
    }

    #[test]
    fn a_limit_is_kept_while_something_is_made_and_after_it() {
        let root = tempfile::tempdir().unwrap();
        let old = layer(&Store::open(root.path()).unwrap(), "old");
        let store = Store::open(root.path()).unwrap();
        age(&store, &old, 100);
        store.set_limit(store.used_bytes().unwrap()).unwrap();
        let new = layer(&store, "new");
        let room = |id: &Digest| root.path().join(layer_name(id)).exists();
        assert!(!room(&old) && room(&new));
        let more = layer(&store, "more");
        assert!(room(&new) && room(&more), "both are in use");
        store.end_use().unwrap();
        assert!(room(&new) != room(&more));
    }

    #[test]
    fn logs_count_and_go_before_what_their_steps_made() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let log = |layer: &Digest| {
            let key = Digest::blake3(layer.to_string());
            fs::write(store.log_path(&key), vec![0; 50_000]).unwrap();
            store.note_log(&key).unwrap();
            let action = NewAction {
                key: &key,
                layer,
                name: "RUN loud",
                elapsed: Duration::ZERO,
                origin: "",
                record: None,
            };
            store.record_action(action).unwrap();
            store.log_path(&key)
        };
        let (old, new) = (layer(&store, "old"), layer(&store, "new"));
        let (of_old, of_new) = (log(&old), log(&new));
        store.end_use().unwrap();
        age(&store, &old, 100);
        let keep = |missing: u64| {
            let max_used = Some(store.used_bytes().unwrap() - missing);
            let goal = Goal {
                max_used,
                ..Goal::default()
            };
            let collected = store.collect(goal, Duration::ZERO, |_| true).unwrap();
            collected.items.into_iter().map(|item| item.note).collect()
        };
        let gone: Vec<String> = keep(1);
        assert_eq!(gone, ["RUN loud"]);
        assert!(!of_old.exists() && of_new.exists());
        let gone: Vec<String> = keep(50_000);
        assert_eq!(gone.len(), 2, "{gone:?}");
        assert!(!of_new.exists() && !store.has_layer(&old).unwrap());
        assert!(store.has_layer(&new).unwrap());
    }

    #[test]
    fn what_was_used_lately_stays() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let (old, new) = (layer(&store, "old"), layer(&store, "new"));
        drop(store);
        let store = Store::open(root.path()).unwrap();
        age(&store, &old, 100);
        let goal = Goal::default();
        let collected = store.collect(goal, Duration::from_secs(50), |_| true);
        assert_eq!(collected.unwrap().items.len(), 1);
        assert!(store.has_layer(&new).unwrap());
    }

    #[test]
    fn the_ledger_follows_the_disk() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let (one, two) = (layer(&store, "one"), layer(&store, "two"));
        let name = layer_name(&one);
        fs::remove_dir_all(root.path().join(&name)).unwrap();
        let unknown = layer_name(&two);
        store.forget_content([unknown.as_str()]).unwrap();
        let items = store.inventory().unwrap().items;
        let ids: Vec<&str> = items.iter().map(|item| item.id.as_str()).collect();
        assert_eq!(ids, [unknown.as_str()]);
        let rows = store.ledger().unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!(
            (rows[0].path.as_str(), rows[0].boot.as_str()),
            (unknown.as_str(), "")
        );
    }

    #[test]
    fn goals_are_those_of_buildkit() {
        let goal = |max_used, reserved, min_free| Goal {
            max_used,
            reserved,
            min_free,
        };
        for (goal, free, expected) in [
            (goal(None, None, None), 50, Some(0)),
            (goal(Some(30), None, None), 50, Some(30)),
            (goal(None, None, Some(40)), 50, None),
            (goal(None, None, Some(70)), 50, Some(80)),
            (goal(None, Some(90), Some(70)), 50, Some(90)),
            (goal(Some(30), Some(40), None), 50, Some(40)),
            (goal(Some(30), None, Some(140)), 50, Some(10)),
        ] {
            assert_eq!(goal.limit(100, free), expected, "{goal:?}");
        }
    }
}
