//! The stat table of a build context: what a file's content was when it last looked like this.
//!
//! As git's index does, a row trusts inode, size, and both times. A file that changed within
//! [`RACY_NS`] of being hashed gets no row: it could change again without looking different.
//!
//! # Format on disk, version 2
//!
//! ```text
//! "kiln stat 2\n"  count  (path inode size mtime-s mtime-ns ctime-s ctime-ns digest)*  sum
//! ```
//!
//! The sum is BLAKE3 of all before it.
//!
//! Rows are sorted by path, byte by byte; numbers and strings are as in file lists. A table that
//! does not parse counts as empty.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use kiln_graph::Digest;
use rustix::fs::Statx;

use crate::codec::{Damaged, Reader, put_bytes, put_number, put_signed};
use crate::error::StoreError;
use crate::store::write_atomically;

const MAGIC: &[u8] = b"kiln stat 2\n";

/// Length of the sum at the end, in bytes.
const SUM_LENGTH: usize = 32;

/// Files changed less than this many nanoseconds before they were hashed are hashed again.
const RACY_NS: i128 = 50_000_000;

/// What a file looks like without being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    inode: u64,
    size: u64,
    mtime: (i64, u32),
    ctime: (i64, u32),
}

impl Look {
    pub(crate) fn of(stat: &Statx) -> Self {
        Self {
            inode: stat.stx_ino,
            size: stat.stx_size,
            mtime: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
            ctime: (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
        }
    }

    /// Returns true if the file last changed well before `now_ns`, in nanoseconds since 1970.
    pub(crate) fn is_settled(&self, now_ns: i128) -> bool {
        let ns = |(s, ns): (i64, u32)| i128::from(s) * 1_000_000_000 + i128::from(ns);
        ns(self.ctime).max(ns(self.mtime)) + RACY_NS < now_ns
    }
}

/// The rows of one context.
#[derive(Debug, Default)]
pub(crate) struct StatTable {
    // Rows that were read, sorted by path; paths lie in `bytes`, where they were read.
    bytes: Vec<u8>,
    rows: Vec<Row>,
    fresh: BTreeMap<Vec<u8>, (Look, Digest)>,
}

#[derive(Debug)]
struct Row {
    path: Range<usize>,
    look: Look,
    digest: Digest,
}

impl StatTable {
    pub(crate) fn path(store_root: &Path, context: &Path) -> PathBuf {
        let name = Digest::blake3(context.as_os_str().as_encoded_bytes()).hex();
        store_root.join("contexts").join(name)
    }

    /// Reads a table; one that is missing or damaged is empty.
    pub(crate) fn read(path: &Path) -> Self {
        let Ok(bytes) = std::fs::read(path) else {
            return Self::default();
        };
        match Self::parse(&bytes) {
            Ok(rows) => Self {
                bytes,
                rows,
                fresh: BTreeMap::new(),
            },
            Err(_) => Self::default(),
        }
    }

    fn parse(bytes: &[u8]) -> Result<Vec<Row>, Damaged> {
        let (rows, sum) = bytes
            .split_last_chunk::<SUM_LENGTH>()
            .ok_or(Damaged { at: 0 })?;
        if Digest::blake3(rows).as_bytes() != sum {
            return Err(Damaged { at: rows.len() });
        }
        let mut reader = Reader::new(rows);
        if reader.take(MAGIC.len())? != MAGIC {
            return Err(Damaged { at: 0 });
        }
        let mut rows: Vec<Row> = Vec::new();
        for _ in 0..reader.number()? {
            let length = reader.take_string()?.len();
            let path = reader.at - length..reader.at;
            let (inode, size) = (reader.number()?, reader.number()?);
            let mtime = (reader.signed()?, reader.small()?);
            let ctime = (reader.signed()?, reader.small()?);
            let look = Look {
                inode,
                size,
                mtime,
                ctime,
            };
            if rows
                .last()
                .is_some_and(|last| bytes[last.path.clone()] >= bytes[path.clone()])
            {
                return Err(Damaged { at: reader.at });
            }
            rows.push(Row {
                path,
                look,
                digest: reader.digest()?,
            });
        }
        Ok(rows)
    }

    /// Returns the digest of a file that still looks the same.
    pub(crate) fn get(&self, path: &[u8], look: &Look) -> Option<Digest> {
        let at = self
            .rows
            .binary_search_by(|row| self.path_of(row).cmp(path))
            .ok()?;
        let row = &self.rows[at];
        (row.look == *look).then_some(row.digest)
    }

    pub(crate) fn insert(&mut self, path: &[u8], look: Look, digest: Digest) {
        self.fresh.insert(path.to_vec(), (look, digest));
    }

    fn path_of(&self, row: &Row) -> &[u8] {
        &self.bytes[row.path.clone()]
    }

    /// Writes the table if it changed.
    pub(crate) fn write(&self, path: &Path) -> Result<(), StoreError> {
        if self.fresh.is_empty() {
            return Ok(());
        }
        let mut rows: BTreeMap<&[u8], (Look, Digest)> = BTreeMap::new();
        rows.extend(
            self.rows
                .iter()
                .map(|row| (self.path_of(row), (row.look, row.digest))),
        );
        rows.extend(self.fresh.iter().map(|(path, row)| (path.as_slice(), *row)));
        let mut out = MAGIC.to_vec();
        put_number(&mut out, rows.len() as u64);
        for (path, (look, digest)) in rows {
            put_bytes(&mut out, path);
            put_number(&mut out, look.inode);
            put_number(&mut out, look.size);
            for (seconds, nanoseconds) in [look.mtime, look.ctime] {
                put_signed(&mut out, seconds);
                put_number(&mut out, nanoseconds.into());
            }
            out.extend_from_slice(digest.as_bytes());
        }
        let sum = Digest::blake3(&out);
        out.extend_from_slice(sum.as_bytes());
        write_atomically(path, &out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(size: u64, ctime: i64) -> Look {
        Look {
            inode: 1,
            size,
            mtime: (-3, 4),
            ctime: (ctime, 6),
        }
    }

    #[test]
    fn a_row_holds_while_the_file_looks_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("table");
        let mut table = StatTable::default();
        table.insert(b"a", look(7, 5), Digest::blake3("x"));
        table.write(&path).unwrap();
        let table = StatTable::read(&path);
        assert_eq!(table.get(b"a", &look(7, 5)), Some(Digest::blake3("x")));
        assert_eq!(table.get(b"a", &look(8, 5)), None);
        assert_eq!(table.get(b"b", &look(7, 5)), None);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.len() - SUM_LENGTH - 1;
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(StatTable::read(&path).get(b"a", &look(7, 5)), None);
    }

    #[test]
    fn a_file_that_just_changed_is_not_settled() {
        assert!(!look(1, 100).is_settled(100_040_000_000));
        assert!(look(1, 100).is_settled(100_060_000_000));
    }
}
