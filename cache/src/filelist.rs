//! File lists: what a layer holds, entry by entry, without its bytes.
//!
//! A list is made while its layer is written and kept beside it. Every question about content
//! (copy keys, wildcards, owners, "what changed") is answered from lists, without reading,
//! mounting or downloading the layer.
//!
//! # Order
//!
//! Entries are sorted by path, component by component, so a directory comes right before what it
//! holds. Paths are relative, without `.` and `..`; the empty path is the root itself.
//!
//! # Format on disk, version 1
//!
//! ```text
//! "kiln list 1\n"  count  entry*
//! entry  = path kind mode uid gid seconds nanoseconds xattr-count (name value)*
//! kind   = 0 size digest | 1 opaque | 2 target | 3 target | 4 major minor | 5 major minor
//!        | 6 (fifo) | 7 (whiteout)
//! ```
//!
//! Numbers are LEB128 (signed ones zigzag first), byte strings are length and bytes, a digest is
//! 32 bytes of BLAKE3. A list that does not parse to its last byte is damaged and is refused.

use std::cmp::Ordering;

use kiln_graph::{Digest, Encode, Encoder};

use crate::codec::{Damaged, Reader, put_bytes, put_number, put_signed};

/// The entries of a layer, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileList {
    entries: Vec<Entry>,
}

/// One changed, added or deleted path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path from the root, without a leading slash.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, including set-uid, set-gid and sticky.
    pub mode: u32,
    /// Owner, as the image sees it.
    pub uid: u32,
    /// Group, as the image sees it.
    pub gid: u32,
    /// Time of last change of the content; never part of an identity.
    pub mtime: Mtime,
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Seconds and nanoseconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mtime {
    /// Seconds since 1970-01-01 UTC.
    pub seconds: i64,
    /// Nanoseconds within the second.
    pub nanoseconds: u32,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File {
        /// Length in bytes.
        size: u64,
        /// BLAKE3 of the content.
        digest: Digest,
    },
    /// A directory.
    Dir {
        /// Hides what lower layers have inside.
        opaque: bool,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points, as stored.
        target: Vec<u8>,
    },
    /// Another name of a file of the same layer.
    Hardlink {
        /// Path of that file, which sorts before this entry.
        target: Vec<u8>,
    },
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A path of a lower layer that is gone.
    Whiteout,
}

impl Entry {
    /// Returns an entry that is a directory with mode 0755, owned by root.
    pub fn dir(path: &[u8]) -> Self {
        Self::root_owned(path, Kind::Dir { opaque: false }, 0o755)
    }

    /// Returns an entry that hides a path of a lower layer.
    pub fn whiteout(path: &[u8]) -> Self {
        Self::root_owned(path, Kind::Whiteout, 0)
    }

    /// Returns an entry owned by root, without time and attributes.
    pub fn root_owned(path: &[u8], kind: Kind, mode: u32) -> Self {
        let (path, mtime) = (path.to_vec(), Mtime::default());
        Self {
            path,
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime,
            xattrs: Vec::new(),
        }
    }

    /// Returns true for a directory.
    pub fn is_dir(&self) -> bool {
        matches!(self.kind, Kind::Dir { .. })
    }

    /// Returns true if both are the same but for name and time.
    pub fn same_content(&self, other: &Self) -> bool {
        let bits = |e: &Self| (e.mode, e.uid, e.gid);
        self.kind == other.kind && bits(self) == bits(other) && self.xattrs == other.xattrs
    }
}

/// Compares paths component by component: `a`, `a/b`, `a.b`.
pub fn compare_paths(a: &[u8], b: &[u8]) -> Ordering {
    let rank = |byte: &u8| {
        if *byte == b'/' {
            0
        } else {
            u16::from(*byte) + 1
        }
    };
    a.iter().map(rank).cmp(b.iter().map(rank))
}

/// Splits a path into its parent and its last component.
pub fn split_path(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

/// Appends a component to a path.
pub fn join_path(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() {
        return name.to_vec();
    }
    [parent, name].join(&b'/')
}

impl FileList {
    /// First bytes of the format described in this module.
    pub(crate) const MAGIC: [u8; 12] = *b"kiln list 1\n";

    /// Sorts entries into a list; of several entries with one path the last stays.
    pub fn new(mut entries: Vec<Entry>) -> Self {
        entries.reverse();
        entries.sort_by(|a, b| compare_paths(&a.path, &b.path));
        entries.dedup_by(|a, b| a.path == b.path);
        Self { entries }
    }

    /// Returns the entries in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns the entry of a path.
    pub fn get(&self, path: &[u8]) -> Option<&Entry> {
        let at = self
            .entries
            .binary_search_by(|entry| compare_paths(&entry.path, path));
        at.ok().map(|at| &self.entries[at])
    }

    /// Returns true if the layer changes nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the sum of the sizes of all files.
    pub fn content_size(&self) -> u64 {
        let size = |entry: &Entry| match entry.kind {
            Kind::File { size, .. } => size,
            _ => 0,
        };
        self.entries.iter().map(size).sum()
    }

    /// Returns the digest of what the layer holds, without times.
    pub fn content_id(&self) -> Digest {
        let mut encoder = Encoder::new("layer");
        encoder.value(self.entries.as_slice());
        encoder.finish()
    }

    /// Returns the list in the format of this module's documentation.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.entries.len() * 96);
        out.extend_from_slice(&Self::MAGIC);
        put_number(&mut out, self.entries.len() as u64);
        for entry in &self.entries {
            put_entry(&mut out, entry);
        }
        out
    }

    /// Reads a list in the format of this module's documentation.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut reader = Reader::new(bytes);
        if reader.take(Self::MAGIC.len())? != Self::MAGIC {
            return Err(Damaged { at: 0 });
        }
        let count = reader.number()?;
        let mut entries: Vec<Entry> =
            Vec::with_capacity(usize::try_from(count.min(1 << 20)).unwrap_or(0));
        for _ in 0..count {
            let entry = read_entry(&mut reader)?;
            let sorted = entries
                .last()
                .is_none_or(|last| compare_paths(&last.path, &entry.path) == Ordering::Less);
            if !sorted {
                return Err(Damaged { at: reader.at });
            }
            entries.push(entry);
        }
        if reader.at != bytes.len() {
            return Err(Damaged { at: reader.at });
        }
        Ok(Self { entries })
    }
}

impl Encode for Entry {
    fn encode(&self, encoder: &mut Encoder) {
        encoder.bytes(&self.path).value(&self.kind);
        encoder
            .number(self.mode.into())
            .number(self.uid.into())
            .number(self.gid.into());
        encoder.number(self.xattrs.len() as u64);
        for (name, value) in &self.xattrs {
            encoder.bytes(name).bytes(value);
        }
    }
}

impl Encode for Kind {
    fn encode(&self, encoder: &mut Encoder) {
        match self {
            Self::File { size, digest } => encoder.variant(0).number(*size).value(digest),
            Self::Dir { opaque } => encoder.variant(1).flag(*opaque),
            Self::Symlink { target } => encoder.variant(2).bytes(target),
            Self::Hardlink { target } => encoder.variant(3).bytes(target),
            Self::CharDevice { major, minor } => encoder
                .variant(4)
                .number((*major).into())
                .number((*minor).into()),
            Self::BlockDevice { major, minor } => encoder
                .variant(5)
                .number((*major).into())
                .number((*minor).into()),
            Self::Fifo => encoder.variant(6),
            Self::Whiteout => encoder.variant(7),
        };
    }
}

fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    put_bytes(out, &entry.path);
    match &entry.kind {
        Kind::File { size, digest } => {
            out.push(0);
            put_number(out, *size);
            out.extend_from_slice(digest.as_bytes());
        }
        Kind::Dir { opaque } => out.extend_from_slice(&[1, u8::from(*opaque)]),
        Kind::Symlink { target } => {
            out.push(2);
            put_bytes(out, target);
        }
        Kind::Hardlink { target } => {
            out.push(3);
            put_bytes(out, target);
        }
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
            out.push(if matches!(entry.kind, Kind::CharDevice { .. }) {
                4
            } else {
                5
            });
            put_number(out, (*major).into());
            put_number(out, (*minor).into());
        }
        Kind::Fifo => out.push(6),
        Kind::Whiteout => out.push(7),
    }
    for number in [entry.mode, entry.uid, entry.gid] {
        put_number(out, number.into());
    }
    put_signed(out, entry.mtime.seconds);
    put_number(out, entry.mtime.nanoseconds.into());
    put_number(out, entry.xattrs.len() as u64);
    for (name, value) in &entry.xattrs {
        put_bytes(out, name);
        put_bytes(out, value);
    }
}

fn read_entry(reader: &mut Reader<'_>) -> Result<Entry, Damaged> {
    let path = reader.string()?;
    let kind = read_kind(reader)?;
    let (mode, uid, gid) = (reader.small()?, reader.small()?, reader.small()?);
    let zigzag = reader.number()?;
    let seconds = (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed();
    let mtime = Mtime {
        seconds,
        nanoseconds: reader.small()?,
    };
    let mut xattrs = Vec::new();
    for _ in 0..reader.number()? {
        xattrs.push((reader.string()?, reader.string()?));
    }
    Ok(Entry {
        path,
        kind,
        mode,
        uid,
        gid,
        mtime,
        xattrs,
    })
}

fn read_kind(reader: &mut Reader<'_>) -> Result<Kind, Damaged> {
    Ok(match reader.byte()? {
        0 => {
            let size = reader.number()?;
            Kind::File {
                size,
                digest: reader.digest()?,
            }
        }
        1 => Kind::Dir {
            opaque: reader.byte()? != 0,
        },
        2 => Kind::Symlink {
            target: reader.string()?,
        },
        3 => Kind::Hardlink {
            target: reader.string()?,
        },
        4 => Kind::CharDevice {
            major: reader.small()?,
            minor: reader.small()?,
        },
        5 => Kind::BlockDevice {
            major: reader.small()?,
            minor: reader.small()?,
        },
        6 => Kind::Fifo,
        7 => Kind::Whiteout,
        _ => return Err(Damaged { at: reader.at - 1 }),
    })
}

#[cfg(test)]
mod tests;
