//! Small transactional facts, in SQLite: the tables, layer blobs and references.
//!
//! Many processes share the database (WAL mode, busy timeout). A row is a memo: losing one costs
//! time, never correctness. Digests are stored as text.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kiln_graph::{Descriptor, Digest};
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use crate::error::StoreError;
use crate::store::Store;

/// The database's file in the store.
pub const DATABASE: &str = "kiln.db";

/// `user_version` of the schema below.
const SCHEMA_VERSION: i64 = 3;

/// The tables up to version 2.
const SCHEMA: &str = "
    CREATE TABLE actions (
        number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, layer TEXT NOT NULL,
        name TEXT NOT NULL, created INTEGER NOT NULL, elapsed_ms INTEGER NOT NULL,
        instruction TEXT NOT NULL, place TEXT NOT NULL, origin TEXT NOT NULL
    );
    CREATE INDEX actions_by_instruction ON actions (instruction, number);
    CREATE INDEX actions_by_place ON actions (place, number);
    CREATE INDEX actions_by_layer ON actions (layer);
    CREATE TABLE IF NOT EXISTS layer_blobs (
        layer TEXT NOT NULL, format TEXT NOT NULL, digest TEXT NOT NULL,
        size INTEGER NOT NULL, diff_id TEXT NOT NULL, PRIMARY KEY (layer, format)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS layer_by_diff_id ON layer_blobs (diff_id);
    CREATE TABLE IF NOT EXISTS refs (
        name TEXT PRIMARY KEY, descriptor TEXT NOT NULL, updated INTEGER NOT NULL
    ) WITHOUT ROWID;
    ALTER TABLE refs ADD COLUMN is_pulled INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE content (
        path TEXT PRIMARY KEY, bytes INTEGER NOT NULL, created INTEGER NOT NULL,
        used INTEGER NOT NULL, boot TEXT NOT NULL, note TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE builds (
        number INTEGER PRIMARY KEY AUTOINCREMENT, started INTEGER NOT NULL, report TEXT NOT NULL
    );
";

/// What version 3 added.
const ORIGINS: &str = "
    CREATE TABLE origins (
        number INTEGER PRIMARY KEY AUTOINCREMENT, blob TEXT NOT NULL UNIQUE, reference TEXT NOT NULL
    );
    PRAGMA user_version = 3;
";

/// The database of a store.
#[derive(Debug)]
pub(crate) struct Database {
    // Guards the connection: SQLite statements of one process run one after the other.
    connection: Mutex<Connection>,
}

/// A layer as a registry knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerBlob {
    /// SHA-256 of the blob.
    pub digest: Digest,
    /// Length of the blob in bytes.
    pub size: u64,
    /// SHA-256 of the uncompressed tar.
    pub diff_id: Digest,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedImage {
    /// The name.
    pub name: String,
    /// A manifest or an index.
    pub descriptor: Descriptor,
    /// It was pulled, not built here.
    pub is_pulled: bool,
}

impl Database {
    /// Opens the database; one that is damaged is set aside, because it holds nothing but memos.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        match Self::open_as_it_is(path) {
            Err(StoreError::Database { source, .. }) if is_damage(&source) => {
                set_aside(path)?;
                Self::open_as_it_is(path)
            }
            other => other,
        }
    }

    fn open_as_it_is(path: &Path) -> Result<Self, StoreError> {
        let failed = || StoreError::db("open the tables");
        let mut connection = Connection::open(path).map_err(failed())?;
        connection
            .busy_timeout(Duration::from_secs(30))
            .map_err(failed())?;
        let version = |c: &Connection| c.query_row("PRAGMA user_version", [], |r| r.get(0));
        let found: i64 = version(&connection).map_err(failed())?;
        if found > SCHEMA_VERSION {
            let path = path.to_owned();
            return Err(StoreError::Version {
                path,
                found: format!("schema {found}"),
            });
        }
        connection
            .execute_batch("PRAGMA synchronous = NORMAL;")
            .map_err(failed())?;
        if found < SCHEMA_VERSION {
            // Only once: changing the journal mode needs the database for itself.
            connection
                .execute_batch("PRAGMA journal_mode = WAL;")
                .map_err(failed())?;
            set_up(&mut connection).map_err(failed())?;
        }
        Ok(Self {
            connection: Mutex::new(connection),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic while the lock was held leaves no half-done statement behind.
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Moves a database that is damaged out of the way.
fn set_aside(path: &Path) -> Result<(), StoreError> {
    let aside = path.with_extension("db.damaged");
    tracing::warn!(path = %aside.display(), "the database was damaged and is set aside");
    std::fs::rename(path, &aside).map_err(StoreError::io("set aside", path))?;
    for journal in ["db-wal", "db-shm"] {
        let journal = path.with_extension(journal);
        if journal.exists() {
            std::fs::remove_file(&journal).map_err(StoreError::io("remove", &journal))?;
        }
    }
    Ok(())
}

/// Makes the tables, unless another process has just done so.
fn set_up(connection: &mut Connection) -> rusqlite::Result<()> {
    let step = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i64 = step.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found == 1 {
        // Keys of that time are no longer made.
        step.execute_batch("DROP TABLE actions")?;
    }
    if found < 2 {
        step.execute_batch(SCHEMA)?;
    }
    if found < SCHEMA_VERSION {
        step.execute_batch(ORIGINS)?;
    }
    step.commit()
}

pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(
        error.sqlite_error_code(),
        Some(DatabaseCorrupt | NotADatabase)
    )
}

/// A row whose text was damaged is as good as none.
pub(crate) fn damaged_is_missing<T>(error: rusqlite::Error) -> rusqlite::Result<Option<T>> {
    match error {
        rusqlite::Error::FromSqlConversionFailure(..) => Ok(None),
        error => Err(error),
    }
}

pub(crate) fn digest_at(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Digest> {
    let text: String = row.get(at)?;
    text.parse().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Text, Box::new(error))
    })
}

fn layer_blob_at(row: &rusqlite::Row<'_>) -> rusqlite::Result<LayerBlob> {
    let size: i64 = row.get(1)?;
    let digest = digest_at(row, 0)?;
    Ok(LayerBlob {
        digest,
        size: size.cast_unsigned(),
        diff_id: digest_at(row, 2)?,
    })
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |elapsed| {
        i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX)
    })
}

impl Store {
    /// Replaces a damaged database by a new one, which keeps the names of images, and where their
    /// blobs are, as far as they can be read. Steps run again then.
    pub fn renew_database(self) -> Result<Self, StoreError> {
        let images = self.references().unwrap_or_default();
        let origins = self.origins().unwrap_or_default();
        let root = self.root().to_owned();
        drop(self);
        set_aside(&root.join(DATABASE))?;
        let renewed = Self::open(&root)?;
        for image in images {
            renewed.set_reference(&image.name, &image.descriptor, image.is_pulled)?;
        }
        for (blob, reference) in &origins {
            renewed.note_origins([blob], reference)?;
        }
        Ok(renewed)
    }

    /// Returns the blob made of a layer in a format, such as `gzip-3` or `tar`.
    pub fn layer_blob(
        &self,
        layer: &Digest,
        format: &str,
    ) -> Result<Option<LayerBlob>, StoreError> {
        let connection = self.db().lock();
        let sql = "SELECT digest, size, diff_id FROM layer_blobs WHERE layer = ?1 AND format = ?2";
        connection
            .prepare_cached(sql)
            .and_then(|mut statement| {
                statement
                    .query_row([layer.to_string().as_str(), format], layer_blob_at)
                    .optional()
            })
            .or_else(damaged_is_missing)
            .map_err(StoreError::db("look up a blob"))
    }

    /// Returns the layer whose uncompressed tar has this digest, if kiln made that tar itself.
    pub fn layer_of_diff_id(&self, diff_id: &Digest) -> Result<Option<Digest>, StoreError> {
        let connection = self.db().lock();
        let sql = "SELECT layer FROM layer_blobs WHERE diff_id = ?1 LIMIT 1";
        connection
            .query_row(sql, [diff_id.to_string()], |row| digest_at(row, 0))
            .optional()
            .or_else(damaged_is_missing)
            .map_err(StoreError::db("look up a layer"))
    }

    /// Remembers the blob made of a layer.
    pub fn record_layer_blob(
        &self,
        layer: &Digest,
        format: &str,
        blob: &LayerBlob,
    ) -> Result<(), StoreError> {
        let sql = "INSERT OR REPLACE INTO layer_blobs VALUES (?1, ?2, ?3, ?4, ?5)";
        let (digest, diff_id) = (blob.digest.to_string(), blob.diff_id.to_string());
        let row = params![
            layer.to_string(),
            format,
            digest,
            blob.size.cast_signed(),
            diff_id
        ];
        let connection = self.db().lock();
        connection
            .execute(sql, row)
            .map_err(StoreError::db("record a blob"))?;
        Ok(())
    }

    /// Returns what a name stands for: the descriptor of a manifest or an index.
    pub fn reference(&self, name: &str) -> Result<Option<Descriptor>, StoreError> {
        let connection = self.db().lock();
        let sql = "SELECT descriptor FROM refs WHERE name = ?1";
        let text: Option<String> = connection
            .query_row(sql, [name], |row| row.get(0))
            .optional()
            .map_err(StoreError::db("look up a reference"))?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Returns true if a name stands for an image that was built here.
    pub fn is_built_here(&self, name: &str) -> Result<bool, StoreError> {
        let sql = "SELECT is_pulled FROM refs WHERE name = ?1";
        let connection = self.db().lock();
        let is_pulled: Option<bool> = connection
            .query_row(sql, [name], |row| row.get(0))
            .optional()
            .map_err(StoreError::db("look up a reference"))?;
        Ok(is_pulled == Some(false))
    }

    /// Makes a name stand for a manifest or an index: one that was built here, whose blobs are kept,
    /// or one that was pulled, whose blobs can be pulled again.
    pub fn set_reference(
        &self,
        name: &str,
        descriptor: &Descriptor,
        is_pulled: bool,
    ) -> Result<(), StoreError> {
        let text = serde_json::to_string(descriptor).expect("a descriptor is plain data");
        let sql = "INSERT OR REPLACE INTO refs (name, descriptor, updated, is_pulled)
            VALUES (?1, ?2, ?3, ?4)";
        let connection = self.db().lock();
        let done = connection.execute(sql, params![name, text, now(), is_pulled]);
        done.map_err(StoreError::db("record a reference"))?;
        Ok(())
    }

    /// Returns all names with what they stand for, sorted.
    pub fn references(&self) -> Result<Vec<NamedImage>, StoreError> {
        let failed = || StoreError::db("list references");
        let connection = self.db().lock();
        let sql = "SELECT name, descriptor, is_pulled FROM refs ORDER BY name";
        let mut statement = connection.prepare(sql).map_err(failed())?;
        let rows = statement
            .query_map([], |row| {
                let text: String = row.get(1)?;
                Ok((row.get::<_, String>(0)?, text, row.get(2)?))
            })
            .map_err(failed())?;
        let mut found = Vec::new();
        for row in rows {
            let (name, text, is_pulled) = row.map_err(failed())?;
            let what = format!("reference `{name}`");
            let Ok(descriptor) = serde_json::from_str(&text) else {
                tracing::warn!("{what} in the store is damaged, and counts as missing");
                continue;
            };
            found.push(NamedImage {
                name,
                descriptor,
                is_pulled,
            });
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_database_is_set_aside() {
        let root = tempfile::tempdir().unwrap();
        drop(Store::open(root.path()).unwrap());
        std::fs::write(root.path().join("kiln.db"), "garbage ".repeat(1000)).unwrap();
        let store = Store::open(root.path()).unwrap();
        assert_eq!(store.action(&Digest::blake3("key")).unwrap(), None);
        assert!(root.path().join("kiln.db.damaged").exists());
    }

    #[test]
    fn an_older_schema_keeps_its_references() {
        let root = tempfile::tempdir().unwrap();
        let old = Connection::open(root.path().join("kiln.db")).unwrap();
        old.execute_batch(
            "CREATE TABLE actions (key TEXT PRIMARY KEY, layer TEXT NOT NULL);
             CREATE TABLE refs (
                 name TEXT PRIMARY KEY, descriptor TEXT NOT NULL, updated INTEGER NOT NULL
             ) WITHOUT ROWID;
             PRAGMA user_version = 1;",
        )
        .unwrap();
        let descriptor = Descriptor::new("type", Digest::sha256("m"), 3);
        let text = serde_json::to_string(&descriptor).unwrap();
        old.execute("INSERT INTO refs VALUES ('a:b', ?1, 0)", [text])
            .unwrap();
        drop(old);
        let store = Store::open(root.path()).unwrap();
        assert_eq!(store.reference("a:b").unwrap(), Some(descriptor));
        assert_eq!(store.action(&Digest::blake3("key")).unwrap(), None);
    }

    #[test]
    fn a_schema_without_origins_keeps_its_actions() {
        let root = tempfile::tempdir().unwrap();
        let old = Connection::open(root.path().join("kiln.db")).unwrap();
        old.execute_batch(SCHEMA).unwrap();
        old.execute_batch("PRAGMA user_version = 2;").unwrap();
        old.execute(
            "INSERT INTO builds (started, report) VALUES (7, 'report')",
            [],
        )
        .unwrap();
        drop(old);
        let store = Store::open(root.path()).unwrap();
        assert_eq!(store.past_build(None).unwrap().unwrap().ended, 7);
        assert_eq!(store.origin_of(&Digest::sha256("b")).unwrap(), None);
    }

    #[test]
    fn facts_survive_reopening() {
        let root = tempfile::tempdir().unwrap();
        let layer = Digest::blake3("layer");
        let blob = LayerBlob {
            digest: Digest::sha256("b"),
            size: 7,
            diff_id: Digest::sha256("d"),
        };
        let descriptor = Descriptor::new("type", Digest::sha256("m"), 3);
        {
            let store = Store::open(root.path()).unwrap();
            store.record_layer_blob(&layer, "gzip-3", &blob).unwrap();
            store.set_reference("a:b", &descriptor, false).unwrap();
        }
        let store = Store::open(root.path()).unwrap();
        assert_eq!(store.layer_blob(&layer, "gzip-3").unwrap(), Some(blob));
        assert_eq!(store.layer_blob(&layer, "tar").unwrap(), None);
        assert_eq!(store.layer_of_diff_id(&blob.diff_id).unwrap(), Some(layer));
        assert_eq!(store.reference("a:b").unwrap(), Some(descriptor.clone()));
        let image = NamedImage {
            name: "a:b".to_owned(),
            descriptor,
            is_pulled: false,
        };
        assert_eq!(store.references().unwrap(), [image]);
    }
}
