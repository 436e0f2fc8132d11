//! Actions: what running a vertex gave, by key, and what went into the key.
//!
//! The record of a key is a compressed file of its own, `records/HEX`: that of a copy lists every
//! file. It is read only to explain why another key was not found, so one that is missing or
//! damaged costs an explanation and nothing else.
//!
//! A later kind of key, made of what a step read instead of all that it could see, adds a table
//! beside this one and a lookup after this one; what is recorded here stays as it is.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kiln_graph::{Digest, Record};
use rusqlite::{OptionalExtension as _, Row, params};

use crate::db::{damaged_is_missing, digest_at, now};
use crate::error::StoreError;
use crate::inventory::room_of;
use crate::store::{Store, write_unsynced};

/// Longest record that is read, in bytes before compression.
const MAX_RECORD: u64 = 256 << 20;

/// How hard records are compressed: they are written while a step waits.
const RECORD_LEVEL: i32 = 1;

/// Actions of one place or instruction that are compared to explain a miss.
const MAX_CANDIDATES: u32 = 3;

/// What running a vertex gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// What it was keyed by.
    pub key: Digest,
    /// Content id of the layer it made.
    pub layer: Digest,
    /// What it was called.
    pub name: String,
    /// When it ran, in seconds since 1970.
    pub created: i64,
    /// How long it took.
    pub elapsed_ms: i64,
    /// What ran it: the context and the Dockerfile of a build.
    pub origin: String,
}

/// An action to be recorded.
#[derive(Debug, Clone, Copy)]
pub struct NewAction<'a> {
    /// What it is keyed by.
    pub key: &'a Digest,
    /// Content id of the layer it made.
    pub layer: &'a Digest,
    /// What it is called.
    pub name: &'a str,
    /// How long it took.
    pub elapsed: Duration,
    /// What ran it.
    pub origin: &'a str,
    /// What went into the key.
    pub record: Option<&'a Record>,
}

/// Splits the name of a vertex into its place, `[build 2/5]`, and its instruction.
fn split_name(name: &str) -> (&str, &str) {
    match name.split_once("] ") {
        Some((place, instruction)) if name.starts_with('[') => (place, instruction),
        _ => ("", name),
    }
}

/// Returns the place of a vertex: the same step of the same Dockerfile, whatever it says now.
fn place_of(origin: &str, name: &str) -> String {
    format!("{origin}\n{}", split_name(name).0)
}

const COLUMNS: &str = "key, layer, name, created, elapsed_ms, origin";

fn action_at(row: &Row<'_>) -> rusqlite::Result<Action> {
    Ok(Action {
        key: digest_at(row, 0)?,
        layer: digest_at(row, 1)?,
        name: row.get(2)?,
        created: row.get(3)?,
        elapsed_ms: row.get(4)?,
        origin: row.get(5)?,
    })
}

impl Store {
    fn record_path(&self, key: &Digest) -> PathBuf {
        self.root().join("records").join(key.hex())
    }

    /// Returns the action recorded under a key.
    pub fn action(&self, key: &Digest) -> Result<Option<Action>, StoreError> {
        let connection = self.db().lock();
        let sql = format!("SELECT {COLUMNS} FROM actions WHERE key = ?1");
        connection
            .prepare_cached(&sql)
            .and_then(|mut statement| statement.query_row([key.to_string()], action_at).optional())
            .or_else(damaged_is_missing)
            .map_err(StoreError::db("look up an action"))
    }

    /// Records what running a vertex gave, and returns the action; an older one is replaced.
    pub fn record_action(&self, new: NewAction<'_>) -> Result<Action, StoreError> {
        if let Some(record) = new.record {
            self.write_record(new.key, record)?;
        }
        let action = Action {
            key: *new.key,
            layer: *new.layer,
            name: new.name.to_owned(),
            created: now(),
            elapsed_ms: i64::try_from(new.elapsed.as_millis()).unwrap_or(i64::MAX),
            origin: new.origin.to_owned(),
        };
        let sql = "INSERT OR REPLACE INTO actions
            (key, layer, name, created, elapsed_ms, instruction, place, origin)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let row = params![
            new.key.to_string(),
            new.layer.to_string(),
            new.name,
            action.created,
            action.elapsed_ms,
            split_name(new.name).1,
            place_of(new.origin, new.name),
            new.origin,
        ];
        let recorded = self.db().lock().execute(sql, row);
        recorded.map_err(StoreError::db("record an action"))?;
        self.describe_layer(new.layer, new.name)?;
        Ok(action)
    }

    /// Returns recorded actions that are likely to be like one of this name: those of the same
    /// place and those of the same instruction, the latest first.
    pub fn alike(&self, name: &str, origin: &str) -> Result<Vec<Action>, StoreError> {
        let connection = self.db().lock();
        let mut found: Vec<Action> = Vec::new();
        let by_place = ("place", place_of(origin, name));
        let by_instruction = ("instruction", split_name(name).1.to_owned());
        for (column, value) in [by_place, by_instruction] {
            let sql = format!(
                "SELECT {COLUMNS} FROM actions WHERE {column} = ?1
                 ORDER BY number DESC LIMIT {MAX_CANDIDATES}"
            );
            let rows = connection.prepare_cached(&sql).and_then(|mut statement| {
                statement
                    .query_map([value], action_at)?
                    .collect::<rusqlite::Result<Vec<_>>>()
            });
            for action in rows.map_err(StoreError::db("look up actions"))? {
                if found.iter().all(|one| one.key != action.key) {
                    found.push(action);
                }
            }
        }
        found.sort_by_key(|action| std::cmp::Reverse(action.created));
        Ok(found)
    }

    fn write_record(&self, key: &Digest, record: &Record) -> Result<(), StoreError> {
        let path = self.record_path(key);
        let json = serde_json::to_vec(record).expect("a record is plain data");
        let bytes = zstd::encode_all(&json[..], RECORD_LEVEL);
        write_unsynced(&path, &bytes.map_err(StoreError::io("write", &path))?)
    }

    /// Returns what went into a key; nothing if that is not known any more.
    pub fn record(&self, key: &Digest) -> Result<Option<Record>, StoreError> {
        let path = self.record_path(key);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("open", &path)(error)),
        };
        let mut json = Vec::new();
        let read = zstd::Decoder::new(file)
            .and_then(|decoder| decoder.take(MAX_RECORD).read_to_end(&mut json));
        let record = read.ok().and_then(|_| serde_json::from_slice(&json).ok());
        if record.is_none() {
            tracing::warn!(path = %path.display(), "damaged, and removed");
            fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
        }
        Ok(record)
    }

    /// Notes what a step printed, which counts from now on.
    pub fn note_log(&self, key: &Digest) -> Result<(), StoreError> {
        let path = self.log_path(key);
        let room = room_of(&path).map_err(StoreError::io("measure", &path))?;
        self.note_content(&log_name(key), room)
    }

    /// Returns the names of all actions, and when what they made was last used, as far as that is
    /// known; by the digits of their keys.
    pub(crate) fn uses_of_actions(
        &self,
    ) -> Result<HashMap<String, (String, Option<i64>)>, StoreError> {
        let sql = "SELECT key, name, used FROM actions
            LEFT JOIN content ON path = 'layers/' || replace(layer, ':', '-')";
        let connection = self.db().lock();
        let mut uses = HashMap::new();
        let all = connection.prepare(sql).and_then(|mut statement| {
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let key: String = row.get(0)?;
                let hex = key.rsplit(':').next().unwrap_or_default().to_owned();
                uses.insert(hex, (row.get(1)?, row.get(2)?));
            }
            Ok(())
        });
        all.map_err(StoreError::db("list actions"))?;
        Ok(uses)
    }

    /// Forgets the logs and records of all steps, and the lists of layers that are not here;
    /// returns how much room is free again, in bytes.
    pub fn forget_logs(&self) -> Result<u64, StoreError> {
        let dirs = ["logs", "records", "lists"].map(|dir| self.root().join(dir));
        dirs.iter().map(|dir| empty(dir)).sum()
    }

    /// Forgets the records and logs of all actions that made a layer; the actions themselves stay,
    /// so that it can be said why such a step runs again. Returns how much room is free again.
    pub(crate) fn forget_records(&self, layer: &str) -> Result<u64, StoreError> {
        let keys = {
            let connection = self.db().lock();
            let sql = "SELECT key FROM actions WHERE layer = ?1";
            connection
                .prepare_cached(sql)
                .and_then(|mut statement| {
                    statement
                        .query_map([layer], |row| digest_at(row, 0))?
                        .collect::<rusqlite::Result<Vec<_>>>()
                })
                .map_err(StoreError::db("look up actions"))?
        };
        let mut freed = 0;
        for key in &keys {
            for path in [self.record_path(key), self.log_path(key)] {
                freed += room_of(&path).unwrap_or_default();
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(StoreError::io("remove", &path)(error));
                    }
                    _ => {}
                }
            }
        }
        let logs: Vec<String> = keys.iter().map(log_name).collect();
        self.forget_content(logs.iter().map(String::as_str))?;
        Ok(freed)
    }
}

/// Returns the path of a log in the store.
fn log_name(key: &Digest) -> String {
    format!("logs/{}", key.hex())
}

/// Removes the files of a folder; returns how much room is free again.
fn empty(dir: &Path) -> Result<u64, StoreError> {
    let mut freed = 0;
    for entry in fs::read_dir(dir).map_err(StoreError::io("list", dir))? {
        let path = entry.map_err(StoreError::io("list", dir))?.path();
        // A file that a build writes just now has another name until it is whole.
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        if !name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-') {
            continue;
        }
        let room = room_of(&path).unwrap_or_default();
        if fs::remove_file(&path).is_ok() {
            freed += room;
        }
    }
    Ok(freed)
}

#[cfg(test)]
mod tests {
    use kiln_graph::{Encoder, PartKind};

    use super::*;

    fn new<'a>(key: &'a Digest, name: &'a str, record: Option<&'a Record>) -> NewAction<'a> {
        NewAction {
            key,
            layer: key,
            name,
            elapsed: Duration::from_millis(5),
            origin: "/app",
            record,
        }
    }

    #[test]
    fn an_action_and_its_record_survive_reopening() {
        let root = tempfile::tempdir().unwrap();
        let mut encoder = Encoder::recording("test");
        encoder.part(PartKind::File, || "a".to_owned()).text("x");
        let (key, record) = encoder.finish_with_record();
        {
            let store = Store::open(root.path()).unwrap();
            store
                .record_action(new(&key, "RUN a", Some(&record)))
                .unwrap();
        }
        let store = Store::open(root.path()).unwrap();
        let action = store.action(&key).unwrap().unwrap();
        assert_eq!((action.name.as_str(), action.elapsed_ms), ("RUN a", 5));
        assert_eq!(store.record(&key).unwrap(), Some(record));
        fs::write(store.record_path(&key), "garbage").unwrap();
        assert_eq!(store.record(&key).unwrap(), None);
    }

    #[test]
    fn what_is_alike_has_the_same_place_or_the_same_instruction() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        for name in ["[2/3] RUN a", "[2/4] RUN b", "[3/3] RUN c"] {
            let key = Digest::blake3(name);
            store.record_action(new(&key, name, None)).unwrap();
        }
        let names = |name: &str, origin: &str| -> Vec<String> {
            let found = store.alike(name, origin).unwrap();
            let mut names: Vec<String> = found.into_iter().map(|one| one.name).collect();
            names.sort();
            names
        };
        assert_eq!(names("[2/3] RUN b", "/app"), ["[2/3] RUN a", "[2/4] RUN b"]);
        assert_eq!(names("[2/3] RUN b", "/other"), ["[2/4] RUN b"]);
    }
}
