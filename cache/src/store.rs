//! The store: one root folder, shared by all kiln processes of a user.
//!
//! ```text
//! version                 "kiln store 1"
//! reserve                 room that is given back when there is none
//! kiln.db                 SQLite in WAL mode: actions, layer blobs, references
//! blobs/sha256/HEX        what registries know: configs, manifests, compressed layers
//! layers/ALGORITHM-HEX/   fs/ (unpacked, ready for overlay) and list (its file list)
//! logs/HEX                output of a step, whole
//! lists/ALGORITHM-HEX     file list of a layer of an image whose files were taken away
//! records/HEX             what went into the key of an action
//! contexts/HEX            stat table of one build context
//! memos/HEX               what is known of a file or a repository elsewhere
//! git/HEX/                a bare repository: what was fetched from one address
//! git/known_hosts         keys of SSH hosts, each trusted when it was seen first
//! sandbox/                what the runtime needs to start steps
//! locks/HEX               held while a process makes what has this key
//! gates/                  locks of the store as a whole: leases, collect, database
//! mounts/HEX/N/           folders of cache mounts, which change
//! tmp/SESSION/            what one process is writing; its lock file is held while it lives
//! ```
//!
//! Invariants: content (but that of cache mounts) is immutable and appears by rename, complete;
//! whatever a killed process left in `tmp` belongs to a session whose lock is free, and the next
//! [`Store::open`] removes it. A database row may name content that is gone: that is a miss, never
//! an error.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::db::{DATABASE, Database, now};
use crate::error::StoreError;
use crate::ledger::{LEASES, Leases, current_boot};
use crate::reserve;

/// First line of the `version` file.
const VERSION: &str = "kiln store 1";

/// How often a temporary folder that is still written to is removed.
const DISCARD_ATTEMPTS: usize = 5;

/// A handle of the store; clones are cheap and share everything.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    session: Session,
    db: Database,
    leases: Leases,
    /// Names the run of the machine since it was started.
    boot: String,
    /// Content that was known to be whole when somebody first asked.
    known_whole: OnceLock<HashSet<String>>,
    /// Room that content may take, in bytes.
    limit: OnceLock<u64>,
    /// Room from which on it is tried again to keep the limit; zero until it could not be kept.
    next_attempt: AtomicU64,
}

impl Drop for Inner {
    /// What this process used was used until now.
    fn drop(&mut self) {
        if let Err(error) = self.db.note_uses(&self.leases.names(), now()) {
            tracing::warn!(%error, "the times of last use stay as they were");
        }
    }
}

/// The temporary folder of this process; removed when the last handle goes.
#[derive(Debug)]
struct Session {
    dir: PathBuf,
    next: AtomicU64,
    _lock: File,
}

impl Store {
    /// Opens the store in `root`, makes it if missing, and removes what killed processes left.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        make_dir(root)?;
        check_version(root)?;
        for dir in [
            "blobs/sha256",
            "layers",
            "logs",
            "records",
            "lists",
            "contexts",
            "locks",
            "gates",
            "mounts",
            "tmp",
        ] {
            make_dir(&root.join(dir))?;
        }
        let (session, uses) = Session::start(&root.join("tmp"))?;
        let leases = Leases::start(root, &session.dir)?;
        let db = {
            // Making the tables needs the database for itself.
            let _alone = lock_gate(root, "database")?;
            Database::open(&root.join(DATABASE))?
        };
        for DeadUses { names, until } in uses {
            if let Err(error) = db.note_uses(&names, until) {
                tracing::warn!(%error, "what a killed build used counts as unused");
            }
        }
        reserve::keep(root);
        let inner = Inner {
            root: root.to_owned(),
            session,
            db,
            leases,
            boot: current_boot(root),
            known_whole: OnceLock::new(),
            limit: OnceLock::new(),
            next_attempt: AtomicU64::new(0),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Opens the store to take things away, which must go where the disk has no room at all.
    pub fn open_to_make_room(root: &Path) -> Result<Self, StoreError> {
        reserve::give_back(root);
        Self::open(root)
    }

    /// Sets the room that content may take on disk, in bytes; from now on what was not used for
    /// longest goes when there is more. The first call counts.
    pub fn set_limit(&self, bytes: u64) -> Result<(), StoreError> {
        self.inner.limit.get_or_init(|| bytes);
        // What changes was measured by builds that had a limit only.
        self.take_stock(false)?;
        self.keep_limit()
    }

    /// Returns the room that content may take on disk.
    pub(crate) fn limit(&self) -> Option<u64> {
        self.inner.limit.get().copied()
    }

    pub(crate) fn next_attempt(&self) -> &AtomicU64 {
        &self.inner.next_attempt
    }

    pub(crate) fn leases(&self) -> &Leases {
        &self.inner.leases
    }

    pub(crate) fn known_whole(&self) -> &OnceLock<HashSet<String>> {
        &self.inner.known_whole
    }

    pub(crate) fn boot(&self) -> &str {
        &self.inner.boot
    }

    /// Returns the root folder.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// Removes this process's temporary folder although work may still go on in it: for a process
    /// that is about to end and does not wait for that work.
    pub fn discard_temporary(&self) {
        let dir = &self.inner.session.dir;
        // Whoever still writes may make a file while the rest goes.
        for _ in 0..DISCARD_ATTEMPTS {
            if remove_tree(dir).is_ok() {
                return;
            }
        }
        tracing::warn!(dir = %dir.display(), "temporary folder stays until the next build");
    }

    /// Returns this process's temporary folder.
    pub(crate) fn temp_dir(&self) -> &Path {
        &self.inner.session.dir
    }

    /// Returns a new path in this process's temporary folder; nothing is there yet.
    pub fn temp_path(&self) -> PathBuf {
        let number = self.inner.session.next.fetch_add(1, Ordering::Relaxed);
        self.inner.session.dir.join(number.to_string())
    }

    pub(crate) fn db(&self) -> &Database {
        &self.inner.db
    }
}

/// What a process used that was killed.
#[derive(Debug)]
struct DeadUses {
    names: Vec<String>,
    /// When it began to use the last of it, in seconds since 1970.
    until: i64,
}

impl Session {
    /// Returns the session, and what those used that left without a word. Sweeping and starting hold one lock, so that no folder is swept before it is locked.
    fn start(tmp: &Path) -> Result<(Self, Vec<DeadUses>), StoreError> {
        let gate_path = tmp.join(".lock");
        let gate = File::create(&gate_path).map_err(StoreError::io("write", &gate_path))?;
        gate.lock().map_err(StoreError::io("lock", &gate_path))?;
        let uses = sweep(tmp);
        let dir = tempfile::Builder::new()
            .prefix("s")
            .tempdir_in(tmp)
            .map_err(StoreError::io("write to", tmp))?
            .keep();
        let lock_path = dir.join("lock");
        let lock = File::create(&lock_path).map_err(StoreError::io("write", &lock_path))?;
        lock.lock().map_err(StoreError::io("lock", &lock_path))?;
        let session = Self {
            dir,
            next: AtomicU64::new(0),
            _lock: lock,
        };
        Ok((session, uses))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.dir) {
            tracing::warn!(dir = %self.dir.display(), %error, "temporary folder stays");
        }
    }
}

/// Opens a lock of the store as a whole.
pub(crate) fn open_gate(root: &Path, name: &str) -> Result<File, StoreError> {
    let path = root.join("gates").join(name);
    File::create(&path).map_err(StoreError::io("write", &path))
}

/// Waits for a lock of the store as a whole, and holds it until the file is dropped.
pub(crate) fn lock_gate(root: &Path, name: &str) -> Result<File, StoreError> {
    let gate = open_gate(root, name)?;
    gate.lock()
        .map_err(StoreError::io("lock", root.join("gates").join(name)))?;
    Ok(gate)
}

/// Removes the folders of sessions that ended without doing so; returns what they used.
fn sweep(tmp: &Path) -> Vec<DeadUses> {
    let mut uses = Vec::new();
    let Ok(sessions) = fs::read_dir(tmp) else {
        return uses;
    };
    for session in sessions.flatten().filter(|s| s.file_name() != ".lock") {
        let path = session.path();
        let dead = match File::open(path.join("lock")) {
            Ok(lock) => lock.try_lock().is_ok(),
            Err(_) => true,
        };
        if !dead {
            continue;
        }
        uses.extend(dead_uses(&path.join(LEASES)));
        if let Err(error) = remove_tree(&path) {
            tracing::warn!(path = %path.display(), %error, "leftover of a killed build stays");
        }
    }
    uses
}

fn dead_uses(list: &Path) -> Option<DeadUses> {
    let text = fs::read_to_string(list).ok()?;
    Some(DeadUses {
        names: text.lines().map(str::to_owned).collect(),
        until: fs::metadata(list).ok()?.mtime(),
    })
}

/// Removes a file or a tree; what is gone already is no error.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if !found.is_dir() => fs::remove_file(path),
        _ => fs::remove_dir_all(path),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

pub(crate) fn make_dir(path: &Path) -> Result<(), StoreError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(path)
        .map_err(StoreError::io("make the folder", path))
}

fn check_version(root: &Path) -> Result<(), StoreError> {
    let path = root.join("version");
    match fs::read_to_string(&path) {
        Ok(text) if text.trim_end() == VERSION => Ok(()),
        Ok(text) => {
            let found = text.lines().next().unwrap_or_default().to_owned();
            Err(StoreError::Version {
                path: root.to_owned(),
                found,
            })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            write_atomically(&path, format!("{VERSION}\n").as_bytes())
        }
        Err(source) => Err(StoreError::Io {
            what: "read",
            path,
            source,
        }),
    }
}

/// Writes a small file so that readers see the old content or the new one, also when the power
/// fails.
pub(crate) fn write_atomically(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    replace(path, content, true)
}

/// Writes a small file so that readers see the old content or the new one. When the power fails,
/// there may be neither: only for what tells by itself whether it is whole.
pub(crate) fn write_unsynced(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    replace(path, content, false)
}

fn replace(path: &Path, content: &[u8], is_synced: bool) -> Result<(), StoreError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let write = || -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        io::Write::write_all(&mut file, content)?;
        if is_synced {
            file.as_file().sync_data()?;
        }
        file.persist(path)?;
        Ok(())
    };
    write().map_err(StoreError::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_session_is_swept_and_a_living_one_is_not() {
        let root = tempfile::tempdir().unwrap();
        let living = Store::open(root.path()).unwrap();
        fs::write(living.temp_path(), "x").unwrap();
        let dead = root.path().join("tmp/dead");
        fs::create_dir_all(dead.join("deep")).unwrap();
        fs::write(dead.join("lock"), "").unwrap();
        let other = Store::open(root.path()).unwrap();
        assert!(!dead.exists());
        assert!(living.inner.session.dir.join("0").exists());
        let dir = other.inner.session.dir.clone();
        drop(other);
        assert!(!dir.exists());
    }

    #[test]
    fn what_a_dead_session_used_was_used_until_then() {
        let root = tempfile::tempdir().unwrap();
        let used = |store: &Store, name: &str| {
            let rows = store.ledger().unwrap();
            rows.into_iter().find(|row| row.path == name).unwrap().used
        };
        {
            let store = Store::open(root.path()).unwrap();
            store.note_content("layers/a", 1).unwrap();
            store.note_content("layers/b", 1).unwrap();
            let sql = "UPDATE content SET used = 7";
            store.db().lock().execute(sql, []).unwrap();
        }
        let dead = root.path().join("tmp/dead");
        fs::create_dir_all(&dead).unwrap();
        fs::write(dead.join(LEASES), "layers/a\nlayers/half a na").unwrap();
        let at = fs::metadata(dead.join(LEASES)).unwrap().mtime();
        let store = Store::open(root.path()).unwrap();
        assert_eq!(
            (used(&store, "layers/a"), used(&store, "layers/b")),
            (at, 7)
        );
        store.note_content("layers/a", 1).unwrap();
        fs::create_dir_all(&dead).unwrap();
        fs::write(dead.join(LEASES), "layers/a\n").unwrap();
        let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(9);
        let list = File::options().write(true).open(dead.join(LEASES)).unwrap();
        list.set_modified(old).unwrap();
        let store = Store::open(root.path()).unwrap();
        assert!(used(&store, "layers/a") >= at, "another one used it later");
    }

    #[test]
    fn a_store_with_room_keeps_a_reserve() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let reserve = root.path().join("reserve");
        assert_eq!(fs::metadata(&reserve).unwrap().blocks() * 512, 1 << 20);
        let told = store.inventory().unwrap().total();
        assert!(told >= 1 << 20, "{told}");
        drop(store);
        drop(Store::open_to_make_room(root.path()).unwrap());
        assert!(reserve.exists(), "there is room enough");
    }

    #[test]
    fn a_newer_store_is_refused() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("version"), "kiln store 99\n").unwrap();
        let error = Store::open(root.path()).unwrap_err().to_string();
        assert!(error.contains("kiln store 99"), "{error}");
    }
}
