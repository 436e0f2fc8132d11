//! Verifying: whether content still is what its name says.
//!
//! A blob must have its digest. A layer must have a list that parses, with the content id that it
//! is named by if it is named by one, and the files that the list names, with their contents,
//! modes, owners and attributes, and no others. The database must pass its own check. Cache mounts are not
//! looked at: their content is nobody's promise.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_graph::Digest;
use rayon::prelude::*;

use crate::db::{DATABASE, is_damage};
use crate::error::StoreError;
use crate::filelist::{Entry, FileList, Kind};
use crate::layers::inode_of;
use crate::ledger::{LEASES, leases};
use crate::scan::list_dir;
use crate::store::{Store, lock_gate};

/// Something that is not what its name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Path in the store.
    pub id: String,
    /// What is wrong.
    pub what: String,
}

/// What was found when everything was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Layers and blobs that were read.
    pub n_read: u64,
    /// What is wrong, sorted by name.
    pub faults: Vec<Fault>,
}

/// Returns true if the files of a layer that its list names are there. What is there besides is no
/// part that was lost.
pub(crate) fn is_whole(dir: &Path) -> bool {
    match check_layer(dir) {
        Ok(_) => true,
        Err(what) => {
            tracing::warn!(dir = %dir.display(), what, "not whole");
            false
        }
    }
}

/// Returns the list of a layer and what is there, if that has all of the list; else what is wrong.
fn check_layer(dir: &Path) -> Result<(FileList, FileList), String> {
    let bytes = fs::read(dir.join("list")).map_err(|error| format!("list: {error}"))?;
    let list = FileList::from_bytes(&bytes).map_err(|_| "its list is damaged".to_owned())?;
    let there = list_dir(&dir.join("fs")).map_err(|error| error.to_string())?;
    let found: HashMap<&[u8], &Entry> = there
        .entries()
        .iter()
        .map(|entry| (entry.path.as_slice(), entry))
        .collect();
    for entry in list.entries() {
        let path = || String::from_utf8_lossy(&entry.path);
        // The root is the top of the overlay itself.
        if entry.path.is_empty() {
            continue;
        }
        match found.get(entry.path.as_slice()) {
            // Where kiln may not make devices, there is none.
            None if is_device(&entry.kind) => {}
            None => return Err(format!("`{}` is missing", path())),
            Some(found) if !is_same(entry, found) => {
                return Err(format!("`{}` is not what was written", path()));
            }
            Some(_) => {}
        }
    }
    Ok((list, there))
}

/// Returns an error if a layer has something that its list does not name. A directory alone shows
/// nothing that is not there without it.
fn check_rest(list: &FileList, there: &FileList) -> Result<(), String> {
    let is_extra = |entry: &&Entry| !entry.is_dir() && list.get(&entry.path).is_none();
    match there.entries().iter().find(is_extra) {
        Some(extra) => {
            let path = String::from_utf8_lossy(&extra.path);
            Err(format!("`{path}` is not in its list"))
        }
        None => Ok(()),
    }
}

fn is_device(kind: &Kind) -> bool {
    matches!(kind, Kind::CharDevice { .. } | Kind::BlockDevice { .. })
}

/// Returns true if what is found is what a list says.
fn is_same(listed: &Entry, found: &Entry) -> bool {
    if listed.kind == Kind::Whiteout {
        return found.kind == Kind::Whiteout;
    }
    // Which of several names is the first depends on the order in which they are read; and a
    // device that may not be made is an empty file.
    let is_hard_link = |kind: &Kind| matches!(kind, Kind::Hardlink { .. });
    if is_device(&listed.kind) || is_hard_link(&listed.kind) || is_hard_link(&found.kind) {
        return true;
    }
    listed.same_content(found)
}

impl Store {
    /// Reads all layers and blobs, with all cores, and finds what is damaged. With `repair`, that
    /// is removed, and made or fetched again when a build needs it; what a build uses just now
    /// stays. A database that is damaged is all that is told: nothing else can be relied on then.
    pub fn verify(&self, repair: bool) -> Result<Verified, StoreError> {
        let mut verified = Verified::default();
        let in_database = |what| Fault {
            id: DATABASE.to_owned(),
            what,
        };
        verified.faults = self
            .check_database()?
            .into_iter()
            .map(in_database)
            .collect();
        if !verified.faults.is_empty() {
            return Ok(verified);
        }
        let n_read = AtomicU64::new(0);
        let names = self.content_names()?;
        let found: Vec<(Fault, u64)> = names
            .par_iter()
            .filter_map(|name| self.check(name, &n_read))
            .collect();
        verified.n_read = n_read.into_inner();
        if repair {
            self.take_out(&found)?;
        }
        verified.faults = found.into_iter().map(|(fault, _)| fault).collect();
        verified.faults.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(verified)
    }

    /// Returns what is wrong with content, and its inode.
    fn check(&self, name: &str, n_read: &AtomicU64) -> Option<(Fault, u64)> {
        let (kind, rest) = name.split_once('/')?;
        let inode = inode_of(&self.root().join(name))?;
        let checked = match kind {
            "layers" => self.check_named_layer(name, rest),
            "blobs" => self.check_named_blob(name, rest),
            _ => return None,
        };
        n_read.fetch_add(1, Ordering::Relaxed);
        let fault = Fault {
            id: name.to_owned(),
            what: checked.err()?,
        };
        // What was taken away meanwhile is not damaged.
        (inode_of(&self.root().join(name)) == Some(inode)).then_some((fault, inode))
    }

    fn check_named_layer(&self, name: &str, file: &str) -> Result<(), String> {
        let id: Digest = file
            .replacen('-', ":", 1)
            .parse()
            .map_err(|_| "its name is no digest".to_owned())?;
        let (list, there) = check_layer(&self.root().join(name))?;
        check_rest(&list, &there)?;
        // Layers of images are named by what a registry calls them, and some of kiln's own by
        // more than their content; an action names what it made by its content.
        let made = self
            .is_made(&id.to_string())
            .map_err(|error| format!("cannot look up its action: {error}"))?;
        match made && list.content_id() != id {
            true => Err("its list is not the one that it is named by".to_owned()),
            false => Ok(()),
        }
    }

    fn check_named_blob(&self, name: &str, rest: &str) -> Result<(), String> {
        let digest: Digest = rest
            .replacen('/', ":", 1)
            .parse()
            .map_err(|_| "its name is no digest".to_owned())?;
        let path = self.root().join(name);
        let file = fs::File::open(&path).map_err(|error| error.to_string())?;
        let mut hasher = kiln_graph::Hasher::new(digest.algorithm());
        let mut reader = std::io::BufReader::with_capacity(1 << 16, file);
        loop {
            let data = std::io::BufRead::fill_buf(&mut reader).map_err(|e| e.to_string())?;
            if data.is_empty() {
                break;
            }
            hasher.update(data);
            let n = data.len();
            std::io::BufRead::consume(&mut reader, n);
        }
        match hasher.finish() == digest {
            true => Ok(()),
            false => Err("its bytes do not have its digest".to_owned()),
        }
    }

    /// Moves damaged content out of the store, unless it has been made again, or is in use.
    fn take_out(&self, found: &[(Fault, u64)]) -> Result<(), StoreError> {
        let mut taken = Vec::new();
        {
            let _gate = lock_gate(self.root(), LEASES)?;
            let leases = leases(self.root(), Some(self.temp_dir()))?;
            for (fault, inode) in found {
                let path = self.root().join(&fault.id);
                if leases.contains(&fault.id) || inode_of(&path) != Some(*inode) {
                    continue;
                }
                fs::rename(&path, self.temp_path()).map_err(StoreError::io("remove", &path))?;
                taken.push(fault.id.as_str());
            }
        }
        self.forget_content(taken)
    }

    /// Returns what the database finds wrong with itself.
    fn check_database(&self) -> Result<Vec<String>, StoreError> {
        let connection = self.db().lock();
        connection
            .prepare("PRAGMA integrity_check(20)")
            .and_then(|mut statement| {
                statement
                    .query_map([], |row| row.get::<_, String>(0))?
                    .filter(|row| !matches!(row, Ok(text) if text == "ok"))
                    .collect::<rusqlite::Result<Vec<_>>>()
            })
            .or_else(|error| match is_damage(&error) {
                true => Ok(vec![error.to_string()]),
                false => Err(StoreError::db("check the tables")(error)),
            })
    }

    /// Returns true if an action made this layer.
    pub(crate) fn is_made(&self, layer: &str) -> Result<bool, StoreError> {
        let connection = self.db().lock();
        let sql = "SELECT EXISTS (SELECT 1 FROM actions WHERE layer = ?1)";
        connection
            .query_row(sql, [layer], |row| row.get(0))
            .map_err(StoreError::db("look up an action"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn with_layer(root: &Path) -> (Store, Digest) {
        let store = Store::open(root).unwrap();
        let staging = store.stage_layer().unwrap();
        fs::write(staging.fs_dir().join("file"), "content").unwrap();
        let list = Arc::new(list_dir(&staging.fs_dir()).unwrap());
        let id = list.content_id();
        staging.commit(&id, &list).unwrap();
        (store, id)
    }

    fn damage(store: &Store, id: &Digest) {
        let dir = store.root().join(crate::ledger::layer_name(id));
        // As long as before.
        fs::write(dir.join("fs/file"), "contenT").unwrap();
    }

    #[test]
    fn damage_is_found_and_taken_out() {
        let root = tempfile::tempdir().unwrap();
        let (store, id) = with_layer(root.path());
        let blob = store.put_blob(b"blob").unwrap();
        assert_eq!(store.verify(false).unwrap().faults, []);
        damage(&store, &id);
        let path = store.root().join(crate::ledger::blob_name(&blob));
        fs::write(path, "blub").unwrap();
        let found = store.verify(true).unwrap();
        assert_eq!(found.n_read, 2);
        let whats: Vec<&str> = found.faults.iter().map(|one| one.what.as_str()).collect();
        let expected = [
            "its bytes do not have its digest",
            "`file` is not what was written",
        ];
        assert_eq!(whats, expected);
        assert_eq!(store.verify(false).unwrap(), Verified::default());
        assert!(!store.has_layer(&id).unwrap());
    }

    #[test]
    fn what_a_list_does_not_name_is_damage() {
        let root = tempfile::tempdir().unwrap();
        let (store, id) = with_layer(root.path());
        let dir = store.root().join(crate::ledger::layer_name(&id));
        fs::write(dir.join("fs/more"), "").unwrap();
        let found = store.verify(true).unwrap();
        assert_eq!(found.faults[0].what, "`more` is not in its list");
        assert!(!store.has_layer(&id).unwrap());
    }

    #[test]
    fn a_layer_of_an_earlier_start_of_the_machine_is_read_before_it_is_used() {
        let root = tempfile::tempdir().unwrap();
        let (store, id) = with_layer(root.path());
        let restart = |store: &Store| {
            let sql = "UPDATE content SET boot = 'earlier'";
            store.db().lock().execute(sql, []).unwrap();
        };
        restart(&store);
        let again = || Store::open(root.path()).unwrap().has_layer(&id).unwrap();
        assert!(again());
        // Known to be whole now, so it is not read again.
        damage(&store, &id);
        assert!(again());
        restart(&store);
        assert!(!again());
    }
}
