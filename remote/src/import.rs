//! Reading a cache: its segments, once, when something is first looked up.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use kiln_graph::Digest;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::error::RemoteError;
use crate::expiry::{Merged, merged};
use crate::place::Place;
use crate::segment::{ListAt, Record, Segment, unpack_list};

/// How long a build waits for the records of a cache.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Segments that are read at most, the latest ones.
const MAX_SEGMENTS: usize = 2000;
/// Segments that are read at once.
const AT_ONCE: usize = 4;
/// Records and lists that are kept at most.
const MAX_RECORDS: usize = 500_000;
/// Promises that a cache may break before nothing of it is believed any more.
const MAX_BROKEN: usize = 5;
/// Longest compressed file list.
const MAX_PACKED_LIST: u64 = 64 << 20;

/// A cache that is looked into before a step runs.
#[derive(Debug)]
pub struct RemoteCache {
    place: Place,
    known: OnceCell<Known>,
    // Guards the keys whose records turned out to be useless.
    broken: Mutex<HashSet<Digest>>,
}

/// What a cache has.
#[derive(Debug, Default)]
struct Known {
    records: HashMap<Digest, Arc<Record>>,
    lists: HashMap<Digest, ListAt>,
}

/// What a cache says of itself.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// The segments that count, by name.
    pub(crate) segments: Vec<(String, Segment)>,
    /// Names of segments that another one stands for.
    pub(crate) replaced: Vec<String>,
    /// Why others could not be read.
    pub(crate) problems: Vec<RemoteError>,
    /// There may be more: some went while it was read, or there were too many.
    pub(crate) is_partial: bool,
}

impl Contents {
    /// Reads all segments. One that cannot be read is a problem, and no error.
    pub(crate) async fn read(place: &Place) -> Result<Self, RemoteError> {
        let mut names = place.segments().await?;
        let mut contents = Self {
            is_partial: names.len() > MAX_SEGMENTS,
            ..Self::default()
        };
        names.reverse();
        names.truncate(MAX_SEGMENTS);
        let mut replaced: HashSet<String> = HashSet::new();
        let mut left = names.into_iter().peekable();
        let mut n_records = 0;
        while left.peek().is_some() {
            if n_records > MAX_RECORDS {
                let why = format!("of more than {MAX_RECORDS} records the older are left out");
                contents
                    .problems
                    .push(RemoteError::unusable("the rest", &why));
                break;
            }
            let mut batch = Vec::new();
            while batch.len() < AT_ONCE
                && let Some(name) = left.next()
            {
                match replaced.contains(&name) {
                    true => contents.replaced.push(name),
                    false => batch.push(name),
                }
            }
            let read = join_all(batch.iter().map(|name| read_segment(place, name))).await;
            for (name, segment) in batch.into_iter().zip(read) {
                match segment {
                    Ok(segment) => {
                        n_records += segment.records.len() + segment.lists.len();
                        n_records += segment.replaces.len() + segment.used.len();
                        replaced.extend(segment.replaces.iter().cloned());
                        contents.segments.push((name, segment));
                    }
                    // Another build has just put it together with others.
                    Err(error) if error.is_absent() => contents.is_partial = true,
                    Err(error) => contents.problems.push(error),
                }
            }
        }
        let (segments, late) = contents
            .segments
            .into_iter()
            .partition(|(name, _)| !replaced.contains(name));
        contents.segments = segments;
        let late: Vec<(String, Segment)> = late;
        contents
            .replaced
            .extend(late.into_iter().map(|(name, _)| name));
        Ok(contents)
    }

    /// Returns what all segments hold, each thing once.
    pub(crate) fn merged(&self) -> Merged {
        merged(self.segments.iter().map(|(_, segment)| segment))
    }
}

async fn read_segment(place: &Place, name: &str) -> Result<Segment, RemoteError> {
    let bytes = place.read_segment(name).await?;
    Segment::from_bytes(name, &bytes)
}

impl RemoteCache {
    /// Returns the cache at a place. Nothing is read.
    pub fn new(place: Place) -> Self {
        Self {
            place,
            known: OnceCell::new(),
            broken: Mutex::default(),
        }
    }

    /// Returns where it is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Returns what is recorded under a key. A cache that cannot be read has nothing, and says why
    /// to `warn`, once.
    pub async fn find(&self, key: &Digest, warn: impl Fn(String)) -> Option<Arc<Record>> {
        let record = self.known(warn).await.records.get(key)?;
        let broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        let is_believed = broken.len() < MAX_BROKEN && !broken.contains(key);
        is_believed.then(|| record.clone())
    }

    /// Returns the file list of a layer of a base image, by the name of the layer in a store.
    pub async fn base_list(&self, layer: &Digest, warn: impl Fn(String)) -> Option<Vec<u8>> {
        let at = self.known(&warn).await.lists.get(layer)?;
        match self.unpacked(at, layer).await {
            Ok(list) => Some(list),
            Err(error) => {
                let (place, why) = (&self.place, chain(&error));
                warn(format!(
                    "a file list in the cache `{place}` is not used: {why}"
                ));
                None
            }
        }
    }

    /// Reads the cache when this is called first.
    async fn known(&self, warn: impl Fn(String)) -> &Known {
        let read = async || {
            let mut contents = Contents::read(&self.place).await?;
            if contents.segments.is_empty() && contents.problems.is_empty() {
                let inline = self.place.inline().await?;
                let inline = inline.map(|segment| (String::new(), segment));
                contents.segments.extend(inline);
            }
            Ok(contents)
        };
        let load = || async {
            let read = match timeout(PATIENCE, read()).await {
                Ok(read) => read,
                Err(_) => Err(RemoteError::Slow(PATIENCE.as_secs())),
            };
            let contents = read.unwrap_or_else(|error| Contents {
                problems: vec![error],
                ..Contents::default()
            });
            let place = &self.place;
            if let Some(problem) = contents.problems.first() {
                let why = chain(problem);
                warn(format!(
                    "the cache `{place}` is not used, or not all of it: {why}"
                ));
            } else if contents.segments.is_empty() {
                warn(format!("there is no cache `{place}`, or it is empty"));
            }
            let merged = contents.merged();
            let records = merged.records.into_iter();
            let lists = merged.lists.into_iter();
            Known {
                records: records
                    .map(|record| (record.key, Arc::new(record)))
                    .collect(),
                lists: lists.map(|list| (list.layer, list.list)).collect(),
            }
        };
        self.known.get_or_init(load).await
    }

    /// Notes that what a record names could not be had: it is not returned again.
    pub fn refuse(&self, key: &Digest) {
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        broken.insert(*key);
    }

    /// Returns the file list of a record's layer, which has one. The caller compares it with the
    /// content id.
    pub async fn list(&self, record: &Record) -> Result<Vec<u8>, RemoteError> {
        self.unpacked(&record.list, &record.layer).await
    }

    async fn unpacked(&self, at: &ListAt, layer: &Digest) -> Result<Vec<u8>, RemoteError> {
        let what = || format!("the file list of {layer}");
        let packed = match at {
            ListAt::Here(text) => STANDARD
                .decode(text)
                .map_err(|error| RemoteError::unusable(what(), &error))?,
            ListAt::Blob(blob) if blob.size > MAX_PACKED_LIST => {
                return Err(RemoteError::unusable(what(), "it is too large"));
            }
            ListAt::Nowhere => return Err(RemoteError::unusable(what(), "it is not there")),
            ListAt::Blob(blob) => {
                let mut bytes = Vec::new();
                self.place.read_blob(blob, &mut bytes, &|_| ()).await?;
                bytes
            }
        };
        unpack_list(&packed).map_err(|error| RemoteError::unusable(what(), &error))
    }
}

/// Returns an error and its causes in one line.
fn chain(error: &RemoteError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
