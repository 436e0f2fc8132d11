//! Writing a cache: what a build made is sent while it runs, and named at its end.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use kiln_graph::{Descriptor, Digest};
use kiln_registry::{BlobSource, Pushed, Reference};
use tokio::sync::OnceCell;

use crate::error::RemoteError;
use crate::expiry::Expiry;
use crate::import::Contents;
use crate::place::Place;
use crate::segment::{LayerList, ListAt, Record, Segment, pack_list};

/// Records in a segment at most: a manifest of a registry must not be longer than 4 MiB.
const MAX_RECORDS: usize = 4000;
/// Segments from which on they are put together.
const MANY: usize = 12;
/// Use is noted once in so many seconds.
const NOTE_USE: i64 = 24 * 3600;

/// A cache that a build writes to.
#[derive(Debug)]
pub struct Exporter {
    place: Place,
    expiry: Expiry,
    /// When what is known was last used, by key or layer.
    known: OnceCell<HashMap<Digest, i64>>,
    // Guards what the build adds.
    added: Mutex<Added>,
}

#[derive(Debug, Default)]
struct Added {
    records: HashMap<Digest, Record>,
    lists: HashMap<Digest, LayerList>,
    /// Keys that were there.
    used: HashSet<Digest>,
    /// Layers of base images that were there.
    used_lists: HashSet<Digest>,
}

/// What an export did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exported {
    /// Records that were added.
    pub n_added: usize,
    /// Records of others that the build used.
    pub n_known: usize,
    /// Records that went because they were too old or too much.
    pub n_expired: usize,
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
}

impl Exporter {
    /// Returns an export to a place. Nothing is read or written.
    pub fn new(place: Place, expiry: Expiry) -> Self {
        Self {
            place,
            expiry,
            known: OnceCell::new(),
            added: Mutex::default(),
        }
    }

    /// Returns where it goes.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Returns true if a key is recorded there already, and notes that it is used.
    pub async fn has(&self, key: &Digest) -> Result<bool, RemoteError> {
        let is_known = self.known().await?.contains_key(key);
        let mut added = self.added();
        if is_known {
            added.used.insert(*key);
        }
        Ok(is_known || added.records.contains_key(key))
    }

    /// Returns true if the file list of a base image's layer is there already.
    pub async fn has_list(&self, layer: &Digest) -> Result<bool, RemoteError> {
        let is_known = self.known().await?.contains_key(layer);
        let mut added = self.added();
        if is_known {
            added.used_lists.insert(*layer);
        }
        Ok(is_known || added.lists.contains_key(layer))
    }

    async fn known(&self) -> Result<&HashMap<Digest, i64>, RemoteError> {
        let read = || async {
            let contents = Contents::read(&self.place).await?;
            for problem in &contents.problems {
                tracing::debug!(%problem, place = %self.place, "a segment is not read");
            }
            let merged = contents.merged();
            let records = merged.records.into_iter();
            let records = records.map(|record| (record.key, record.used));
            let lists = merged.lists.into_iter();
            let lists = lists.map(|list| (list.layer, list.used));
            Ok::<_, RemoteError>(records.chain(lists).collect())
        };
        self.known.get_or_try_init(read).await
    }

    /// Sends the compressed layer of a record. `mount_from` names a repository that may have it.
    pub async fn push_layer(
        &self,
        blob: &Descriptor,
        source: impl BlobSource,
        mount_from: Option<&Reference>,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Pushed, RemoteError> {
        let pushed = self.place.push_blob(blob, source, mount_from, progress);
        pushed.await
    }

    /// Adds a record, whose layer was sent; its list is sent here.
    pub async fn add(&self, record: Record, list: &[u8]) -> Result<(), RemoteError> {
        let list = self.push_list(list).await?;
        let record = Record { list, ..record };
        self.added().records.insert(record.key, record);
        Ok(())
    }

    /// Adds the file list of a layer of a base image, under the name of the layer in the store.
    pub async fn add_list(&self, layer: &Digest, list: &[u8]) -> Result<(), RemoteError> {
        let list = LayerList {
            layer: *layer,
            used: now(),
            list: self.push_list(list).await?,
        };
        self.added().lists.insert(*layer, list);
        Ok(())
    }

    async fn push_list(&self, list: &[u8]) -> Result<ListAt, RemoteError> {
        let (at, bytes) = pack_list(list);
        if let (ListAt::Blob(blob), Some(bytes)) = (&at, bytes) {
            let bytes = Bytes::from(bytes);
            self.place.push_blob(blob, bytes, None, &|_| ()).await?;
        }
        Ok(at)
    }

    fn added(&self) -> std::sync::MutexGuard<'_, Added> {
        self.added.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names what was added, so that others find it, and puts segments together if there are many.
    pub async fn finish(&self) -> Result<Exported, RemoteError> {
        let added = std::mem::take(&mut *self.added());
        let mut done = Exported {
            n_added: added.records.len(),
            n_known: added.used.len(),
            n_expired: 0,
        };
        let known = self.known.get();
        let is_due = |key: &&Digest| {
            let noted = known.and_then(|known| known.get(*key));
            noted.is_some_and(|noted| now() - noted >= NOTE_USE)
        };
        let used = added.used.iter().chain(&added.used_lists);
        let mut used: Vec<Digest> = used.filter(is_due).copied().collect();
        used.sort();
        let mut records: Vec<Record> = added.records.into_values().collect();
        records.sort_by_key(|record| record.key);
        let mut lists: Vec<LayerList> = added.lists.into_values().collect();
        lists.sort_by_key(|list| list.layer);
        if !records.is_empty() || !used.is_empty() || !lists.is_empty() {
            let mut last = self.write(records, 0).await?;
            (last.used, last.lists) = (used, lists);
            self.write_one(&last, 0).await?;
        }
        done.n_expired = self.tidy().await?;
        Ok(done)
    }

    /// Writes records but for those of the last segment, which is returned.
    async fn write(&self, mut records: Vec<Record>, after: u64) -> Result<Segment, RemoteError> {
        while records.len() > MAX_RECORDS {
            let rest = records.split_off(MAX_RECORDS);
            self.write_one(&Segment::new(now(), records), after).await?;
            records = rest;
        }
        Ok(Segment::new(now(), records))
    }

    /// Writes a segment under a name that sorts by time, and after the time `after`.
    async fn write_one(&self, segment: &Segment, after: u64) -> Result<(), RemoteError> {
        let bytes = segment.to_bytes();
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let since = since.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(0));
        let time = since.max(after);
        let name = format!("{time:012x}-{}", &Digest::sha256(&bytes).hex()[..12]);
        let blobs = segment.blobs();
        self.place.write_segment(&name, bytes.into(), &blobs).await
    }

    /// Puts all segments together if they are many or hold what expired; returns how much did.
    async fn tidy(&self) -> Result<usize, RemoteError> {
        let contents = Contents::read(&self.place).await?;
        let all = contents.merged();
        let n_records = all.records.len();
        let kept = self.expiry.kept(all, now());
        let n_expired = n_records - kept.records.len();
        if contents.segments.len() < MANY && n_expired == 0 {
            return Ok(0);
        }
        let keep = kept.records.iter().flat_map(Record::blobs);
        let keep = keep.chain(kept.lists.iter().filter_map(|list| list.list.blob()));
        let keep: HashSet<Digest> = keep.map(|blob| blob.digest).collect();
        let names = contents.segments.iter().map(|(name, _)| name);
        let names: Vec<String> = names.chain(&contents.replaced).cloned().collect();
        // Names of what is replaced must sort before what replaces it, whatever the clocks say.
        let after = names.iter().filter_map(|name| time_of(name)).max();
        let after = after.map_or(0, |time| time + 1);
        let mut last = self.write(kept.records, after).await?;
        last.lists = kept.lists;
        last.replaces.clone_from(&names);
        self.write_one(&last, after).await?;
        for name in &names {
            if let Err(error) = self.place.remove_segment(name).await {
                // It is not read any more, so it only costs room.
                tracing::debug!(%error, name, "a segment that was replaced stays");
            }
        }
        // Without them one cannot tell what is still needed.
        if contents.problems.is_empty() {
            self.place.sweep(&keep).await?;
        }
        Ok(n_expired)
    }
}

/// Returns the time in the name of a segment.
fn time_of(name: &str) -> Option<u64> {
    let (time, _) = name.split_once('-')?;
    u64::from_str_radix(time, 16)
        .ok()
        .filter(|time| *time < 1 << 48)
}
