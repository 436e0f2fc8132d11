//! Writing a cache: what a build made is sent while it runs, and named at its end.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use kiln_graph::{Descriptor, Digest};
use kiln_registry::{BlobSource, Pushed, Reference};
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::error::RemoteError;
use crate::expiry::{Expiry, Merged};
use crate::import::{Contents, PATIENCE};
use crate::place::Place;
use crate::segment::{LayerList, ListAt, Record, Segment, pack_list, shown};

/// Records in a segment at most: a manifest of a registry must not be longer than 4 MiB.
const MAX_RECORDS: usize = 4000;
/// JSON of a segment at most; a reader takes several times as much.
const SEGMENT_BYTES: usize = 8 << 20;
/// JSON of a record or a list, but for a name: a short list may stand in it.
const RECORD_BYTES: usize = 2 << 10;
/// Small segments from which on they are put together.
const MANY: usize = 12;
/// Use is noted once in so many seconds.
const NOTE_USE: i64 = 24 * 3600;

/// A cache that a build writes to.
#[derive(Debug)]
pub struct Exporter {
    place: Place,
    expiry: Expiry,
    /// What is there, by key or layer.
    known: OnceCell<HashMap<Digest, Known>>,
    // Guards what the build adds.
    added: Mutex<Added>,
}

/// What is there under a key.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// When it was last used, as far as the cache was told.
    used: i64,
    layer: Digest,
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

    /// Reads what is there.
    pub async fn open(&self) -> Result<(), RemoteError> {
        self.known().await.map(drop)
    }

    /// Returns true if it is recorded there already that a key gives this layer, and notes that it is
    /// used.
    pub async fn has(&self, key: &Digest, layer: &Digest) -> Result<bool, RemoteError> {
        let known = self.known().await?.get(key);
        let is_known = known.is_some_and(|known| known.layer == *layer);
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

    async fn known(&self) -> Result<&HashMap<Digest, Known>, RemoteError> {
        let read = || async {
            let read = timeout(PATIENCE, Contents::read(&self.place)).await;
            let contents = read.map_err(|_| RemoteError::Slow(PATIENCE.as_secs()))??;
            for problem in &contents.problems {
                tracing::debug!(%problem, place = %self.place, "a segment is not read");
            }
            let merged = contents.merged();
            let records = merged.records.into_iter().map(|record| {
                let (used, layer) = (record.used, record.layer);
                (record.key, Known { used, layer })
            });
            let lists = merged.lists.into_iter().map(|list| {
                let (used, layer) = (list.used, list.layer);
                (layer, Known { used, layer })
            });
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
        let name = shown(&record.name);
        let record = Record {
            list,
            name,
            ..record
        };
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
        // Often enough that what is used does not expire.
        let max_age = self.expiry.max_age.map_or(i64::MAX, |age| {
            i64::try_from(age.as_secs()).unwrap_or(i64::MAX)
        });
        let often = NOTE_USE.min(max_age / 2);
        let is_due = |key: &&Digest| {
            let noted = known.and_then(|known| known.get(*key));
            noted.is_some_and(|noted| now().saturating_sub(noted.used) >= often)
        };
        let used = added.used.iter().chain(&added.used_lists);
        let mut used: Vec<Digest> = used.filter(is_due).copied().collect();
        used.sort();
        let mut records: Vec<Record> = added.records.into_values().collect();
        records.sort_by_key(|record| record.key);
        let mut lists: Vec<LayerList> = added.lists.into_values().collect();
        lists.sort_by_key(|list| list.layer);
        if !records.is_empty() || !used.is_empty() || !lists.is_empty() {
            let last = Segment {
                used,
                ..Segment::new(now(), Vec::new())
            };
            self.write(Merged { records, lists }, last, 0).await?;
        }
        done.n_expired = self.tidy().await?;
        Ok(done)
    }

    /// Writes records and lists in as many segments as they need, `last` at the end.
    async fn write(&self, all: Merged, last: Segment, after: u64) -> Result<(), RemoteError> {
        let mut segment = Segment::new(now(), Vec::new());
        let mut n_bytes = 0;
        for record in all.records {
            n_bytes += RECORD_BYTES + record.name.len();
            segment.records.push(record);
            if n_bytes > SEGMENT_BYTES || segment.records.len() >= MAX_RECORDS {
                self.write_one(&segment, after).await?;
                (segment, n_bytes) = (Segment::new(now(), Vec::new()), 0);
            }
        }
        for list in all.lists {
            n_bytes += RECORD_BYTES;
            segment.lists.push(list);
            if n_bytes > SEGMENT_BYTES || segment.lists.len() >= MAX_RECORDS {
                self.write_one(&segment, after).await?;
                (segment, n_bytes) = (Segment::new(now(), Vec::new()), 0);
            }
        }
        let last = Segment {
            records: segment.records,
            lists: segment.lists,
            ..last
        };
        self.write_one(&last, after).await
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
        let segments = contents.segments.iter();
        let small = segments.filter(|(_, segment)| segment.records.len() < MAX_RECORDS / 2);
        if small.count() < MANY && n_expired == 0 {
            return Ok(0);
        }
        let names = contents.segments.iter().map(|(name, _)| name);
        let names: Vec<String> = names.chain(&contents.replaced).cloned().collect();
        // Names of what is replaced must sort before what replaces it, whatever the clocks say.
        let after = names.iter().filter_map(|name| time_of(name)).max();
        let after = after.map_or(0, |time| time + 1);
        let last = Segment {
            replaces: names.clone(),
            ..Segment::new(now(), Vec::new())
        };
        self.write(kept, last, after).await?;
        for name in &names {
            if let Err(error) = self.place.remove_segment(name).await
                && !error.is_absent()
            {
                // They are not read any more, so they only cost room.
                tracing::debug!(%error, name, "segments that were replaced stay");
                break;
            }
        }
        self.sweep().await?;
        Ok(n_expired)
    }

    /// Removes blobs that no segment names, if it can be told which these are.
    async fn sweep(&self) -> Result<(), RemoteError> {
        let contents = Contents::read(&self.place).await?;
        if contents.is_partial || !contents.problems.is_empty() {
            return Ok(());
        }
        let blobs = contents.segments.iter();
        let blobs = blobs.flat_map(|(_, segment)| segment.blobs());
        self.place
            .sweep(&blobs.map(|blob| blob.digest).collect())
            .await
    }
}

/// Returns the time in the name of a segment.
fn time_of(name: &str) -> Option<u64> {
    let (time, _) = name.split_once('-')?;
    u64::from_str_radix(time, 16)
        .ok()
        .filter(|time| *time < 1 << 48)
}
