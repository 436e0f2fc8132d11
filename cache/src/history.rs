//! History: what the latest builds did, one report each.

use rusqlite::{OptionalExtension as _, params};

use crate::db::now;
use crate::error::StoreError;
use crate::store::Store;

/// Builds that are remembered.
const MAX_BUILDS: i64 = 50;

/// Actions that are remembered: more than any store that is used has layers.
const MAX_ACTIONS: i64 = 200_000;

/// A build that is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastBuild {
    /// Counts up, from 1.
    pub number: i64,
    /// When it was recorded, in seconds since 1970.
    pub ended: i64,
    /// What its caller wrote about it.
    pub report: String,
}

impl Store {
    /// Remembers a build, and forgets those and actions of long ago.
    pub fn record_build(&self, report: &str) -> Result<(), StoreError> {
        let connection = self.db().lock();
        let insert = "INSERT INTO builds (started, report) VALUES (?1, ?2)";
        let forget = "DELETE FROM builds WHERE number <= (SELECT MAX(number) FROM builds) - ?1";
        let old = "DELETE FROM actions WHERE number <= (SELECT MAX(number) FROM actions) - ?1";
        connection
            .execute(insert, params![now(), report])
            .and_then(|_| connection.execute(forget, [MAX_BUILDS]))
            .and_then(|_| connection.execute(old, [MAX_ACTIONS]))
            .map_err(StoreError::db("record a build"))?;
        Ok(())
    }

    /// Returns a build by its number; without one, the latest.
    pub fn past_build(&self, number: Option<i64>) -> Result<Option<PastBuild>, StoreError> {
        let connection = self.db().lock();
        let sql = "SELECT number, started, report FROM builds
            WHERE ?1 IS NULL OR number = ?1 ORDER BY number DESC LIMIT 1";
        connection
            .query_row(sql, [number], |row| {
                Ok(PastBuild {
                    number: row.get(0)?,
                    ended: row.get(1)?,
                    report: row.get(2)?,
                })
            })
            .optional()
            .map_err(StoreError::db("look up a build"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_builds_are_remembered() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        assert_eq!(store.past_build(None).unwrap(), None);
        for number in 1..=MAX_BUILDS + 2 {
            store.record_build(&number.to_string()).unwrap();
        }
        let report = |number| Some(store.past_build(number).unwrap()?.report);
        assert_eq!(report(None).as_deref(), Some("52"));
        assert_eq!(report(Some(2)), None);
        assert_eq!(report(Some(3)).as_deref(), Some("3"));
    }
}
