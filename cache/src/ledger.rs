//! The ledger: what content there is, how much room it takes, when it was used, and who uses it.
//!
//! Content is named by its path in the store: `layers/blake3-…`, `blobs/sha256/…`.
//!
//! A row of the ledger is a memo like any other: what has none is still content, with sizes and
//! times as the disk tells them. A lease is what keeps content from being taken away:
//!
//! ```text
//! hold:     shared lock on gates/leases, write the name into tmp/SESSION/leases, unlock;
//!           only then look whether the content is there
//! collect:  exclusive lock on gates/leases, read the leases of all living sessions,
//!           rename what nobody holds out of the way, unlock; only then remove it
//! ```
//!
//! So whoever holds something either sees it and keeps it to the end of the process, or sees that
//! it is gone and makes it again. A process that dies holds nothing.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use kiln_graph::Digest;
use rusqlite::{OptionalExtension as _, ToSql, params};

use crate::db::{DATABASE, Database, now};
use crate::error::StoreError;
use crate::store::{Store, open_gate};

/// Length of a block on disk; a file takes whole ones.
const BLOCK: u64 = 4096;

/// The file below `tmp/SESSION` that lists what a process uses, and the gate before them all.
pub(crate) const LEASES: &str = "leases";

/// A row of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// Path in the store.
    pub(crate) path: String,
    /// Room that it takes on disk.
    pub(crate) bytes: u64,
    /// When it was made, in seconds since 1970.
    pub(crate) created: i64,
    /// When it was last used.
    pub(crate) used: i64,
    /// Since which start of the machine it is known to be whole.
    pub(crate) boot: String,
    /// What it is to people: the name of a step, of an image.
    pub(crate) note: String,
}

/// What this process uses.
#[derive(Debug)]
pub(crate) struct Leases {
    // Guards the file, and the names that are in it.
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    gate: File,
    list: File,
    names: HashSet<String>,
}

impl Leases {
    pub(crate) fn start(root: &Path, session: &Path) -> Result<Self, StoreError> {
        let gate = open_gate(root, LEASES)?;
        let path = session.join(LEASES);
        let list = File::options().create(true).append(true).open(&path);
        let list = list.map_err(StoreError::io("write", &path))?;
        let names = HashSet::new();
        Ok(Self {
            held: Mutex::new(Held { gate, list, names }),
        })
    }

    fn hold(&self, name: &str) -> io::Result<()> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.names.contains(name) {
            return Ok(());
        }
        held.gate.lock_shared()?;
        let written = held.list.write_all(format!("{name}\n").as_bytes());
        held.gate.unlock()?;
        written?;
        held.names.insert(name.to_owned());
        Ok(())
    }

    /// Holds nothing any more.
    pub(crate) fn release(&self) -> Result<(), StoreError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.list
            .set_len(0)
            .map_err(StoreError::io("write", LEASES))?;
        held.names.clear();
        Ok(())
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.names.iter().cloned().collect()
    }
}

/// Returns what all living sessions use, but for the one in the folder `except`. The gate must be
/// held alone.
pub(crate) fn leases(root: &Path, except: Option<&Path>) -> Result<HashSet<String>, StoreError> {
    let tmp = root.join("tmp");
    let mut names = HashSet::new();
    for session in fs::read_dir(&tmp).map_err(StoreError::io("list", &tmp))? {
        let path = session.map_err(StoreError::io("list", &tmp))?.path();
        if except == Some(path.as_path()) {
            continue;
        }
        // A session that ends just now uses nothing any more.
        let Ok(text) = fs::read_to_string(path.join(LEASES)) else {
            continue;
        };
        names.extend(text.lines().map(str::to_owned));
    }
    Ok(names)
}

/// Returns the room that a file of this length takes on disk.
pub(crate) fn on_disk(length: u64) -> u64 {
    length.next_multiple_of(BLOCK)
}

/// Returns what names this folder in this run of the machine since it was started: a copy of the
/// store is another one, and nothing in it is known to be whole. Empty if that cannot be told.
pub(crate) fn current_boot(root: &Path) -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    match (boot, fs::metadata(root)) {
        (Ok(boot), Ok(found)) => format!("{} {}:{}", boot.trim(), found.dev(), found.ino()),
        _ => String::new(),
    }
}

/// Returns the path of a layer in the store.
pub(crate) fn layer_name(id: &Digest) -> String {
    format!("layers/{}-{}", id.algorithm().name(), id.hex())
}

/// Returns the path of a blob in the store.
pub(crate) fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

impl Store {
    /// Keeps content from being taken away until this process ends. It may be gone already: look
    /// after this call, not before.
    pub(crate) fn hold(&self, name: &str) -> Result<(), StoreError> {
        let path = || self.root().join(name);
        let held = self.leases().hold(name);
        held.map_err(|error| StoreError::io("hold", path())(error))
    }

    /// Notes content that was just made, and makes room if there is too much now.
    pub(crate) fn note_content(&self, name: &str, bytes: u64) -> Result<(), StoreError> {
        let now = now();
        self.put_row(&Row {
            path: name.to_owned(),
            bytes,
            created: now,
            used: now,
            boot: self.boot().to_owned(),
            note: String::new(),
        })?;
        self.keep_limit()
    }

    pub(crate) fn put_row(&self, row: &Row) -> Result<(), StoreError> {
        let sql = "INSERT OR REPLACE INTO content VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let (bytes, path) = (row.bytes.cast_signed(), &row.path);
        let values = params![path, bytes, row.created, row.used, row.boot, row.note];
        self.db()
            .lock()
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute(values))
            .map_err(StoreError::db("note content"))?;
        Ok(())
    }

    /// Returns true if content was known to be whole in this run of the machine when this process
    /// first asked; a build asks for many layers, and so reads the ledger once.
    pub(crate) fn is_known_to_be_whole(&self, name: &str) -> Result<bool, StoreError> {
        if let Some(known) = self.known_whole().get() {
            return Ok(known.contains(name));
        }
        let sql = "SELECT path FROM content WHERE boot = ?1 AND boot != ''";
        let connection = self.db().lock();
        let names = connection.prepare(sql).and_then(|mut statement| {
            statement
                .query_map([self.boot()], |row| row.get::<_, String>(0))?
                .collect::<rusqlite::Result<HashSet<_>>>()
        });
        let names = names.map_err(StoreError::db("list content"))?;
        Ok(self.known_whole().get_or_init(|| names).contains(name))
    }

    /// Returns since which start of the machine content is known to be whole.
    pub(crate) fn known_since(&self, name: &str) -> Result<Option<String>, StoreError> {
        let sql = "SELECT boot FROM content WHERE path = ?1";
        self.db()
            .lock()
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_row([name], |row| row.get(0)).optional())
            .map_err(StoreError::db("look up content"))
    }

    /// Returns all rows.
    pub(crate) fn ledger(&self) -> Result<Vec<Row>, StoreError> {
        let sql = "SELECT path, bytes, created, used, boot, note FROM content";
        let connection = self.db().lock();
        connection
            .prepare_cached(sql)
            .and_then(|mut statement| {
                let row = |row: &rusqlite::Row<'_>| {
                    let bytes: i64 = row.get(1)?;
                    Ok(Row {
                        path: row.get(0)?,
                        bytes: bytes.cast_unsigned(),
                        created: row.get(2)?,
                        used: row.get(3)?,
                        boot: row.get(4)?,
                        note: row.get(5)?,
                    })
                };
                statement.query_map([], row)?.collect()
            })
            .map_err(StoreError::db("list content"))
    }

    /// Returns the room that all noted content takes on disk, in bytes.
    pub(crate) fn noted_bytes(&self) -> Result<u64, StoreError> {
        let sql = "SELECT COALESCE(SUM(bytes), 0) FROM content";
        let connection = self.db().lock();
        let total: i64 = connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .map_err(StoreError::db("add up content"))?;
        Ok(total.cast_unsigned())
    }

    /// Returns the room that the limit is about: all noted content, and the database. What SQLite
    /// writes beside it does not count: that goes when the last process ends.
    pub(crate) fn used_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.noted_bytes()? + self.database_bytes())
    }

    pub(crate) fn database_bytes(&self) -> u64 {
        let found = fs::metadata(self.root().join(DATABASE));
        found.map_or(0, |found| on_disk(found.len()))
    }

    /// Forgets rows.
    pub(crate) fn forget_content<'a>(
        &self,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), StoreError> {
        self.db()
            .for_each("DELETE FROM content WHERE path = ?1", names, &[])
    }

    /// Notes that everything this process holds was used until now.
    pub(crate) fn note_uses(&self) -> Result<(), StoreError> {
        self.db().note_uses(&self.leases().names(), now())
    }

    /// Says that content is whole, as far as this run of the machine goes.
    pub(crate) fn note_whole(&self, name: &str) -> Result<(), StoreError> {
        let sql = "UPDATE content SET boot = ?2 WHERE path = ?1";
        self.db().for_each(sql, [name], &[&self.boot()])
    }

    /// Says what a layer is to people: the name of a step, of an image.
    pub fn describe_layer(&self, id: &Digest, note: &str) -> Result<(), StoreError> {
        let sql = "UPDATE content SET note = ?2 WHERE path = ?1";
        self.db().for_each(sql, [layer_name(id).as_str()], &[&note])
    }
}

impl Database {
    /// Notes that content was used at a time, in seconds since 1970; if not later.
    pub(crate) fn note_uses(&self, names: &[String], until: i64) -> Result<(), StoreError> {
        let sql = "UPDATE content SET used = max(used, ?2) WHERE path = ?1";
        self.for_each(sql, names.iter().map(String::as_str), &[&until])
    }

    /// Runs a statement for each name, in one transaction.
    fn for_each<'a>(
        &self,
        sql: &str,
        names: impl IntoIterator<Item = &'a str>,
        more: &[&dyn ToSql],
    ) -> Result<(), StoreError> {
        let connection = self.lock();
        let all = || {
            let step = connection.unchecked_transaction()?;
            for name in names {
                let first: [&dyn ToSql; 1] = [&name];
                step.prepare_cached(sql)?
                    .execute(&[&first, more].concat()[..])?;
            }
            step.commit()
        };
        all().map_err(StoreError::db("note content"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_living_session_holds_is_leased_and_no_longer() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        store.hold("layers/a").unwrap();
        store.hold("layers/a").unwrap();
        let leased = || leases(root.path(), None).unwrap();
        assert_eq!(leased(), HashSet::from(["layers/a".to_owned()]));
        drop(store);
        assert!(leased().is_empty());
    }

    #[test]
    fn sizes_are_added_up() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        store.note_content("layers/a", on_disk(1)).unwrap();
        store.note_content("layers/b", on_disk(4097)).unwrap();
        assert_eq!(store.noted_bytes().unwrap(), 3 * 4096);
        store.forget_content(["layers/b"]).unwrap();
        assert_eq!(store.noted_bytes().unwrap(), 4096);
    }
}
