//! Segments: their format, and what a reader refuses. See the crate's documentation.

use std::io::{self, Read as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_graph::{Algorithm, Descriptor, Digest};
use serde::{Deserialize, Serialize};

use crate::error::RemoteError;

/// Version of the format that the crate's documentation describes.
const VERSION: u32 = 1;
/// Media type of a segment.
pub(crate) const SEGMENT: &str = "application/vnd.kiln.cache.segment.v1+zstd";
/// Media type of a file list.
pub(crate) const LIST: &str = "application/vnd.kiln.cache.list.v1+zstd";
/// Media type of a manifest that names a segment, in `artifactType`.
pub(crate) const CACHE: &str = "application/vnd.kiln.cache.v1";

/// Longest segment, compressed and not.
pub(crate) const MAX_PACKED: u64 = 16 << 20;
const MAX_SEGMENT: u64 = 32 << 20;
/// Longest file list before compression.
const MAX_LIST: u64 = 128 << 20;
/// Longest name of a step, in characters.
const MAX_NAME: usize = 500;
/// Longest compressed list that stands in its record.
const MAX_INLINE: usize = 1 << 10;
const LEVEL: i32 = 3;

/// What a build added to a cache, and what it used of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Segment {
    /// Version of the format.
    pub(crate) version: u32,
    /// When it was written, in seconds since 1970.
    pub(crate) written: i64,
    /// Names of segments that it stands for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) replaces: Vec<String>,
    /// Keys and layers that were used and not recorded by the same build.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) used: Vec<Digest>,
    /// What was recorded.
    pub(crate) records: Vec<Record>,
    /// Layers of base images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) lists: Vec<LayerList>,
}

/// The file list of a layer of a base image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerList {
    /// What the unpacked layer is called in a store.
    pub layer: Digest,
    /// When it was last used, as far as the cache was told; seconds since 1970.
    pub used: i64,
    /// Its file list.
    pub list: ListAt,
}

/// What running a vertex gave, and where that can be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What it is keyed by.
    pub key: Digest,
    /// Content id of the layer it made.
    pub layer: Digest,
    /// What it was called.
    pub name: String,
    /// When it ran, in seconds since 1970.
    pub created: i64,
    /// How long it took.
    pub elapsed_ms: i64,
    /// When it was last used, as far as the cache was told; seconds since 1970.
    pub used: i64,
    /// How the blob was made, as the store names it: `gzip-3`.
    pub format: String,
    /// The compressed layer.
    pub blob: Descriptor,
    /// SHA-256 of its tar.
    pub diff_id: Digest,
    /// The file list of the layer.
    pub list: ListAt,
}

/// Where a file list is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ListAt {
    /// Here: base64 of the compressed list.
    Here(String),
    /// A blob.
    Blob(Box<Descriptor>),
    /// It is not known: the layer itself has to be looked at.
    Nowhere,
}

impl ListAt {
    pub(crate) fn blob(&self) -> Option<&Descriptor> {
        match self {
            Self::Here(_) | Self::Nowhere => None,
            Self::Blob(blob) => Some(blob),
        }
    }
}

impl Record {
    /// Returns the blobs that the record needs.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        [Some(&self.blob), self.list.blob()].into_iter().flatten()
    }

    /// Records of other makers are refused where they could only be wrong.
    pub(crate) fn check(&self) -> Result<(), String> {
        let is = |digest: &Digest, algorithm| digest.algorithm() == algorithm;
        if !is(&self.key, Algorithm::Blake3) || !is(&self.layer, Algorithm::Blake3) {
            return Err(format!("the key {} or its layer is no BLAKE3", self.key));
        }
        if !is_format(&self.format) {
            return Err(format!(
                "blobs of the form `{:.40}` are not known",
                self.format
            ));
        }
        if self.created < 0 || self.used < 0 || self.elapsed_ms < 0 {
            return Err(format!("the key {} is from before 1970", self.key));
        }
        let blobs = self.blobs().map(|blob| &blob.digest);
        for digest in blobs.chain([&self.diff_id]) {
            if !is(digest, Algorithm::Sha256) {
                return Err(format!("{digest} is no SHA-256"));
            }
        }
        Ok(())
    }
}

/// Returns true for the name of a form that kiln makes blobs in.
fn is_format(name: &str) -> bool {
    let (kind, level) = name.split_once('-').unwrap_or((name, ""));
    let is_level = level.len() <= 2 && level.bytes().all(|byte| byte.is_ascii_digit());
    matches!(kind, "gzip" | "zstd") && is_level || name == "tar"
}

/// Returns a name as it is shown: on one line, and not longer than a line should be.
pub(crate) fn shown(name: &str) -> String {
    let clean = |char: char| if char.is_control() { ' ' } else { char };
    name.chars().take(MAX_NAME).map(clean).collect()
}

impl Segment {
    pub(crate) fn new(written: i64, records: Vec<Record>) -> Self {
        Self {
            version: VERSION,
            written,
            replaces: Vec::new(),
            used: Vec::new(),
            records,
            lists: Vec::new(),
        }
    }

    /// Returns the segment in the format of the crate's documentation.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        pack(&serde_json::to_vec(self).expect("a segment is plain data"))
    }

    /// Reads a segment; what does not follow the format is refused.
    pub(crate) fn from_bytes(name: &str, bytes: &[u8]) -> Result<Self, RemoteError> {
        let refused = |why: String| RemoteError::unusable(format!("segment `{name}`"), &why);
        let json = unpack(bytes, MAX_SEGMENT).map_err(|error| refused(error.to_string()))?;
        let mut segment: Self =
            serde_json::from_slice(&json).map_err(|error| refused(error.to_string()))?;
        if segment.version != VERSION {
            let version = segment.version;
            let why = format!("it has format {version}, and this kiln reads {VERSION}");
            return Err(refused(why));
        }
        for record in &mut segment.records {
            record.check().map_err(refused)?;
            record.name = shown(&record.name);
        }
        for blob in segment.lists.iter().filter_map(|list| list.list.blob()) {
            if blob.digest.algorithm() != Algorithm::Sha256 {
                return Err(refused(format!("{} is no SHA-256", blob.digest)));
            }
        }
        Ok(segment)
    }

    /// Returns the blobs that the records need, each once, sorted by digest.
    pub(crate) fn blobs(&self) -> Vec<Descriptor> {
        let blobs = self.records.iter().flat_map(Record::blobs);
        let lists = self.lists.iter().filter_map(|list| list.list.blob());
        let mut blobs: Vec<Descriptor> = blobs.chain(lists).cloned().collect();
        blobs.sort_by_key(|blob| blob.digest);
        blobs.dedup_by_key(|blob| blob.digest);
        blobs
    }
}

/// Puts a file list where it belongs: into its record, or into a blob that is returned, too.
pub(crate) fn pack_list(list: &[u8]) -> (ListAt, Option<Vec<u8>>) {
    let packed = pack(list);
    if packed.len() <= MAX_INLINE {
        return (ListAt::Here(STANDARD.encode(&packed)), None);
    }
    let blob = Descriptor::new(LIST, Digest::sha256(&packed), packed.len() as u64);
    (ListAt::Blob(Box::new(blob)), Some(packed))
}

/// Returns a file list from what [`pack_list`] made of it.
pub(crate) fn unpack_list(packed: &[u8]) -> io::Result<Vec<u8>> {
    unpack(packed, MAX_LIST)
}

fn pack(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, LEVEL).expect("memory can be written")
}

fn unpack(packed: &[u8], limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let decoder = zstd::Decoder::new(packed)?;
    decoder.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!("it is longer than {limit} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    pub(crate) fn record(key: &str, created: i64, size: u64) -> Record {
        let blob = Descriptor::new("application/x", Digest::sha256(key), size);
        Record {
            key: Digest::blake3(key),
            layer: Digest::blake3(format!("layer {key}")),
            name: format!("RUN {key}"),
            created,
            elapsed_ms: 7,
            used: created,
            format: "gzip-3".to_owned(),
            blob,
            diff_id: Digest::sha256(format!("tar {key}")),
            list: pack_list(key.as_bytes()).0,
        }
    }

    #[test]
    fn a_segment_comes_back_as_it_was() {
        let mut segment = Segment::new(9, vec![record("a", 1, 2), record("b", 3, 4)]);
        segment.replaces.push("old".to_owned());
        segment.used.push(Digest::blake3("c"));
        let bytes = segment.to_bytes();
        assert_eq!(Segment::from_bytes("s", &bytes).unwrap(), segment);
        assert_eq!(segment.blobs().len(), 2);
    }

    #[test]
    fn what_is_no_segment_is_refused() {
        let mut other = Segment::new(9, Vec::new());
        other.version = 2;
        let mut swapped = record("a", 1, 2);
        swapped.diff_id = swapped.key;
        let long = vec![b' '; usize::try_from(MAX_SEGMENT).unwrap() + 1];
        for (bytes, expected) in [
            (b"<html>".to_vec(), "unusable"),
            (pack(b"{}"), "missing field"),
            (other.to_bytes(), "it has format 2"),
            (Segment::new(1, vec![swapped]).to_bytes(), "is no SHA-256"),
            (pack(&long), "longer than"),
        ] {
            let error = Segment::from_bytes("s", &bytes).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    proptest! {
        #[test]
        fn damaged_segments_are_refused_or_make_sense(at in any::<usize>(), byte in any::<u8>()) {
            let segment = Segment::new(9, vec![record("a", 1, 2), record("b", 3, 4)]);
            let mut json = serde_json::to_vec(&segment).unwrap();
            let at = at % json.len();
            json[at] = byte;
            if let Ok(read) = Segment::from_bytes("s", &pack(&json)) {
                prop_assert!(read.records.iter().all(|record| record.check().is_ok()));
                prop_assert_eq!(Segment::from_bytes("s", &read.to_bytes()).unwrap(), read);
            }
        }

        #[test]
        fn any_bytes_are_no_panic(bytes in vec(any::<u8>(), 0..200)) {
            prop_assert!(Segment::from_bytes("s", &bytes).is_err());
        }
    }

    #[test]
    fn long_lists_are_blobs() {
        let (here, none) = pack_list(b"short");
        assert!(none.is_none());
        let ListAt::Here(text) = here else {
            panic!("it is short");
        };
        let packed = STANDARD.decode(text).unwrap();
        assert_eq!(unpack_list(&packed).unwrap(), b"short");
        let long: Vec<u8> = (0..4000u32)
            .flat_map(|n| Digest::blake3(n.to_le_bytes()).as_bytes().to_vec())
            .collect();
        let (at, blob) = pack_list(&long);
        let blob = blob.unwrap();
        assert!(matches!(at, ListAt::Blob(found) if found.digest == Digest::sha256(&blob)));
        assert_eq!(unpack_list(&blob).unwrap(), long);
    }
}
