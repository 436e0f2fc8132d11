//! Origins: where blobs can be had that nobody has fetched yet.
//!
//! The layers of a base image are fetched when their bytes are needed. An image that is built upon
//! one and named here has the same layers, and its own name says nothing of where they are. So
//! what a blob was offered by is noted when its manifest is read.
//!
//! An origin is a memo: the bytes are verified whoever gives them, and one that is missing or wrong
//! costs a request that fails.

use kiln_graph::Digest;
use rusqlite::{OptionalExtension as _, params};

use crate::error::StoreError;
use crate::store::Store;

/// Origins that are remembered; the oldest go first.
const MAX_ORIGINS: i64 = 20_000;

impl Store {
    /// Notes the reference that blobs can be had from.
    pub fn note_origins<'a>(
        &self,
        blobs: impl IntoIterator<Item = &'a Digest>,
        reference: &str,
    ) -> Result<(), StoreError> {
        let mut news = Vec::new();
        for blob in blobs {
            // A build with a base that is known already does not write.
            if self.origin_of(blob)?.as_deref() != Some(reference) {
                news.push(blob.to_string());
            }
        }
        if news.is_empty() {
            return Ok(());
        }
        let connection = self.db().lock();
        let note = || {
            let step = connection.unchecked_transaction()?;
            for blob in &news {
                step.execute(
                    "INSERT OR REPLACE INTO origins (blob, reference) VALUES (?1, ?2)",
                    params![blob, reference],
                )?;
            }
            step.execute(
                "DELETE FROM origins WHERE number <= (SELECT MAX(number) FROM origins) - ?1",
                [MAX_ORIGINS],
            )?;
            step.commit()
        };
        note().map_err(StoreError::db("note where blobs are"))
    }

    /// Returns the reference that a blob can be had from, as far as that is known.
    pub fn origin_of(&self, blob: &Digest) -> Result<Option<String>, StoreError> {
        let sql = "SELECT reference FROM origins WHERE blob = ?1";
        self.db()
            .lock()
            .prepare_cached(sql)
            .and_then(|mut statement| {
                statement
                    .query_row([blob.to_string()], |row| row.get(0))
                    .optional()
            })
            .map_err(StoreError::db("look up where a blob is"))
    }

    /// Returns all origins, those that were noted first first.
    pub(crate) fn origins(&self) -> Result<Vec<(Digest, String)>, StoreError> {
        let connection = self.db().lock();
        let rows: rusqlite::Result<Vec<(String, String)>> = connection
            .prepare("SELECT blob, reference FROM origins ORDER BY number")
            .and_then(|mut statement| {
                let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
                statement.query_map([], row)?.collect()
            });
        let rows = rows.map_err(StoreError::db("list where blobs are"))?;
        let known = |(blob, reference): (String, String)| Some((blob.parse().ok()?, reference));
        Ok(rows.into_iter().filter_map(known).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_origin_counts_and_the_oldest_are_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let (one, two) = (Digest::sha256("1"), Digest::sha256("2"));
        store.note_origins([&one, &two], "a/b:1").unwrap();
        store.note_origins([&two], "c/d:2").unwrap();
        let of = |blob| store.origin_of(blob).unwrap();
        assert_eq!(of(&one).as_deref(), Some("a/b:1"));
        assert_eq!(of(&two).as_deref(), Some("c/d:2"));
        let many: Vec<Digest> = (0..MAX_ORIGINS - 1)
            .map(|n| Digest::sha256(format!("blob {n}")))
            .collect();
        store.note_origins(&many, "e/f:3").unwrap();
        assert_eq!(of(&one), None);
        assert_eq!(of(&two).as_deref(), Some("c/d:2"));
        assert_eq!(store.origins().unwrap().len(), 20_000);
    }

    #[test]
    fn a_new_database_keeps_origins_beside_names() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let blob = Digest::sha256("1");
        store.note_origins([&blob], "a/b:1").unwrap();
        let renewed = store.renew_database().unwrap();
        assert_eq!(renewed.origin_of(&blob).unwrap().as_deref(), Some("a/b:1"));
    }
}
