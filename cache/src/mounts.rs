//! Cache mounts: folders that stay from build to build and are written to by steps.
//!
//! ```text
//! mounts/HEX/id           what the Dockerfile calls it
//! mounts/HEX/lock         held while a folder of this name is chosen or made
//! mounts/HEX/N/fs         a folder as a step sees it
//! mounts/HEX/N/lock       held while the folder is used: by one user alone, or by several
//! ```
//!
//! Of each name there can be several folders: whoever may not share one that is in use gets
//! another. Locks are those of the kernel, across processes; it drops them when a process dies,
//! so a build that was killed leaves a folder as its step left it, and free. A folder appears by
//! rename, complete. Unlike everything else in the store, its content is nobody's promise.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use kiln_graph::{Digest, Sharing};
use rustix::fs::RenameFlags;

use crate::error::StoreError;
use crate::inventory::{Item, room_of};
use crate::layers::Staging;
use crate::store::{Store, write_unsynced};

/// The file that says what the Dockerfile calls the folders beside it.
const ID: &str = "id";

/// A folder in use; free again when dropped.
#[derive(Debug)]
pub struct CacheFolder {
    store: Store,
    dir: PathBuf,
    _lock: File,
}

/// The place of a folder that is not there yet. Nobody else can choose one of this name while it
/// exists.
#[derive(Debug)]
pub struct NewCacheFolder {
    store: Store,
    dir: PathBuf,
    sharing: Sharing,
    _gate: File,
}

/// What there is of a name for one more user.
#[derive(Debug)]
pub enum CacheSlot {
    /// A folder to use.
    Ready(CacheFolder),
    /// No folder yet, and the right to make one.
    Absent(NewCacheFolder),
    /// Somebody else uses it, or chooses one just now.
    Busy,
}

impl CacheFolder {
    /// Returns the folder that steps see.
    pub fn fs_dir(&self) -> PathBuf {
        self.dir.join("fs")
    }
}

impl Drop for CacheFolder {
    /// What a step wrote counts for the limit, if there is one.
    fn drop(&mut self) {
        let Some(_) = self.store.limit() else {
            return;
        };
        let name = self.dir.strip_prefix(self.store.root());
        let name = name.unwrap_or(&self.dir).to_string_lossy().into_owned();
        let noted = room_of(&self.dir)
            .map_err(StoreError::io("measure", &self.dir))
            .and_then(|bytes| self.store.note_content(&name, bytes));
        if let Err(error) = noted {
            tracing::warn!(%error, "a cache mount does not count for the limit");
        }
    }
}

impl CacheFolder {
    /// Puts a staged folder in the place of what steps saw. Whoever looks sees the one or the
    /// other, also when this process is killed meanwhile.
    pub fn replace(&self, staged: &Staging) -> Result<(), StoreError> {
        let fs_dir = self.fs_dir();
        rustix::fs::renameat_with(
            rustix::fs::CWD,
            staged.fs_dir(),
            rustix::fs::CWD,
            &fs_dir,
            RenameFlags::EXCHANGE,
        )
        .map_err(StoreError::io("write", &fs_dir))
    }

    /// Returns what the folder is called, here and in a Dockerfile.
    pub fn name(&self) -> Result<CacheName, StoreError> {
        let dir = self.dir.parent().unwrap_or(Path::new("."));
        let id = dir.join(ID);
        let hex = dir.file_name().unwrap_or_default().to_string_lossy();
        let digest = format!("blake3:{hex}").parse();
        Ok(CacheName {
            id: fs::read_to_string(&id).map_err(StoreError::io("read", &id))?,
            digest: digest.map_err(|_| StoreError::Damaged {
                what: dir.display().to_string(),
            })?,
        })
    }
}

/// What folders of cache mounts are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheName {
    /// Names them in the store: the digest of all that decides which folder a step gets.
    pub digest: Digest,
    /// What the Dockerfile calls them, as a path in the name space of the build.
    pub id: String,
}

/// Returns what the Dockerfile calls a folder.
pub(crate) fn mount_id(folder: &Path) -> Option<String> {
    let id = fs::read(folder.parent()?.join(ID)).ok()?;
    // It is a path in the name space of the build, which has no name.
    let id = id.strip_prefix(b"/").unwrap_or(&id);
    Some(String::from_utf8_lossy(id).into_owned())
}

impl NewCacheFolder {
    /// Makes the folder: it becomes what was staged.
    pub fn create(self, staged: &Staging) -> Result<CacheFolder, StoreError> {
        make_dir(&self.dir)?;
        let path = self.dir.join("lock");
        let lock = File::create(&path).map_err(StoreError::io("write", &path))?;
        let folder = match take(lock, self.sharing, &path)? {
            Some(lock) => CacheFolder {
                store: self.store.clone(),
                dir: self.dir.clone(),
                _lock: lock,
            },
            // Without its content nobody can have chosen it.
            None => {
                return Err(StoreError::Damaged {
                    what: path.display().to_string(),
                });
            }
        };
        let fs_dir = folder.fs_dir();
        fs::rename(staged.fs_dir(), &fs_dir).map_err(StoreError::io("write", &fs_dir))?;
        Ok(folder)
    }
}

impl Store {
    /// Chooses a folder of this name for one more user; `id` is what the Dockerfile calls it.
    pub fn cache_folder(
        &self,
        name: &Digest,
        id: &str,
        sharing: Sharing,
    ) -> Result<CacheSlot, StoreError> {
        let Some((dir, gate)) = self.mount_gate(name, id)? else {
            return Ok(CacheSlot::Busy);
        };
        let mut number = 0;
        loop {
            let dir = dir.join(number.to_string());
            if !dir.join("fs").exists() {
                break;
            }
            let path = dir.join("lock");
            let lock = File::create(&path).map_err(StoreError::io("write", &path))?;
            if let Some(lock) = take(lock, sharing, &path)? {
                let store = self.clone();
                return Ok(CacheSlot::Ready(CacheFolder {
                    store,
                    dir,
                    _lock: lock,
                }));
            }
            number += 1;
        }
        if number > 0 && sharing == Sharing::Locked {
            return Ok(CacheSlot::Busy);
        }
        Ok(CacheSlot::Absent(NewCacheFolder {
            store: self.clone(),
            dir: dir.join(number.to_string()),
            sharing,
            _gate: gate,
        }))
    }

    /// Takes the first folder of this name, or the right to make it, for one who replaces all of
    /// it.
    pub fn first_cache_folder(&self, name: &CacheName) -> Result<CacheSlot, StoreError> {
        let Some((dir, gate)) = self.mount_gate(&name.digest, &name.id)? else {
            return Ok(CacheSlot::Busy);
        };
        let dir = dir.join("0");
        if !dir.join("fs").exists() {
            return Ok(CacheSlot::Absent(NewCacheFolder {
                store: self.clone(),
                dir,
                sharing: Sharing::Locked,
                _gate: gate,
            }));
        }
        let path = dir.join("lock");
        let lock = File::create(&path).map_err(StoreError::io("write", &path))?;
        Ok(match take(lock, Sharing::Locked, &path)? {
            None => CacheSlot::Busy,
            Some(lock) => CacheSlot::Ready(CacheFolder {
                store: self.clone(),
                dir,
                _lock: lock,
            }),
        })
    }

    /// Takes the folder of a cache mount that an inventory has, for one user alone who only reads:
    /// that is no use of it. `None` while somebody uses it, or if it is gone.
    pub fn read_cache_folder(&self, item: &Item) -> Result<Option<CacheFolder>, StoreError> {
        let dir = self.root().join(&item.id);
        let path = dir.join("lock");
        let lock = match File::open(&path) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("open", &path)(error)),
        };
        let Some(lock) = take(lock, Sharing::Locked, &path)? else {
            return Ok(None);
        };
        // It may have been taken away, and made again, before it was locked.
        let inode = |found: io::Result<fs::Metadata>| found.map(|found| found.ino()).ok();
        let is_there = inode(fs::metadata(&path)) == inode(lock.metadata());
        let store = self.clone();
        Ok(
            (is_there && dir.join("fs").exists()).then_some(CacheFolder {
                store,
                dir,
                _lock: lock,
            }),
        )
    }

    /// Takes the lock under which folders of a name are chosen; `None` while somebody holds it.
    fn mount_gate(&self, name: &Digest, id: &str) -> Result<Option<(PathBuf, File)>, StoreError> {
        let dir = self.root().join("mounts").join(name.hex());
        make_dir(&dir)?;
        let path = dir.join("lock");
        let gate = File::create(&path).map_err(StoreError::io("write", &path))?;
        let Some(gate) = take(gate, Sharing::Locked, &path)? else {
            return Ok(None);
        };
        let id_path = dir.join(ID);
        if !id_path.exists() {
            write_unsynced(&id_path, id.as_bytes())?;
        }
        Ok(Some((dir, gate)))
    }
}

/// Takes a lock for one user alone or for several; `None` while somebody is in the way.
fn take(file: File, sharing: Sharing, path: &Path) -> Result<Option<File>, StoreError> {
    let taken = match sharing {
        Sharing::Shared => file.try_lock_shared(),
        Sharing::Private | Sharing::Locked => file.try_lock(),
    };
    match taken {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(StoreError::io("lock", path)(error)),
    }
}

fn make_dir(path: &Path) -> Result<(), StoreError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(StoreError::io("make the folder", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> Digest {
        Digest::blake3("name")
    }

    fn use_one(store: &Store, sharing: Sharing) -> CacheFolder {
        match store.cache_folder(&name(), "id", sharing).unwrap() {
            CacheSlot::Ready(folder) => folder,
            CacheSlot::Absent(place) => place.create(&store.stage_layer().unwrap()).unwrap(),
            CacheSlot::Busy => panic!("busy"),
        }
    }

    fn is_busy(store: &Store, sharing: Sharing) -> bool {
        let slot = store.cache_folder(&name(), "id", sharing).unwrap();
        matches!(slot, CacheSlot::Busy)
    }

    #[test]
    fn a_folder_keeps_its_content() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let folder = use_one(&store, Sharing::Shared);
        fs::write(folder.fs_dir().join("file"), "x").unwrap();
        drop(folder);
        drop(store);
        let store = Store::open(root.path()).unwrap();
        for sharing in [Sharing::Shared, Sharing::Private, Sharing::Locked] {
            assert!(use_one(&store, sharing).fs_dir().join("file").exists());
        }
    }

    #[test]
    fn shared_folders_have_many_users() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let other = Store::open(root.path()).unwrap();
        let one = use_one(&store, Sharing::Shared);
        let two = use_one(&other, Sharing::Shared);
        assert_eq!(one.fs_dir(), two.fs_dir());
        assert!(is_busy(&store, Sharing::Locked));
    }

    #[test]
    fn private_users_get_another_folder() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let one = use_one(&store, Sharing::Private);
        let two = use_one(&store, Sharing::Private);
        assert_ne!(one.fs_dir(), two.fs_dir());
        let free = one.fs_dir();
        drop(one);
        assert_eq!(use_one(&store, Sharing::Private).fs_dir(), free);
    }

    #[test]
    fn locked_users_wait_for_each_other_and_for_those_who_share() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let one = use_one(&store, Sharing::Locked);
        assert!(is_busy(&store, Sharing::Locked));
        // Whoever does not want to be alone does not wait.
        assert_ne!(use_one(&store, Sharing::Shared).fs_dir(), one.fs_dir());
        drop(one);
        assert!(!is_busy(&store, Sharing::Locked));
    }

    fn first(store: &Store) -> CacheSlot {
        let (digest, id) = (name(), "/id".to_owned());
        store.first_cache_folder(&CacheName { digest, id }).unwrap()
    }

    #[test]
    fn a_folder_is_replaced_whole_and_not_while_it_is_used() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let staged = |text: &str| {
            let staging = store.stage_layer().unwrap();
            fs::write(staging.fs_dir().join("file"), text).unwrap();
            staging
        };
        let CacheSlot::Absent(place) = first(&store) else {
            panic!("nobody made it");
        };
        let folder = place.create(&staged("old")).unwrap();
        assert!(matches!(first(&store), CacheSlot::Busy));
        drop(folder);
        let CacheSlot::Ready(folder) = first(&store) else {
            panic!("it was made");
        };
        folder.replace(&staged("new")).unwrap();
        assert_eq!(fs::read(folder.fs_dir().join("file")).unwrap(), b"new");
        assert_eq!(folder.name().unwrap().digest, name());
        assert_eq!(folder.name().unwrap().id, "/id");
    }

    #[test]
    fn whoever_only_reads_is_alone_and_leaves_no_trace() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let user = use_one(&store, Sharing::Shared);
        let mut items = store.inventory().unwrap().items;
        let item = items.remove(0);
        assert!(store.read_cache_folder(&item).unwrap().is_none());
        drop(user);
        let reader = store.read_cache_folder(&item).unwrap().unwrap();
        assert!(is_busy(&store, Sharing::Locked));
        drop(reader);
        let again = store.inventory().unwrap().items.remove(0);
        assert_eq!(again.used, item.used);
        fs::remove_dir_all(root.path().join(&item.id)).unwrap();
        assert!(store.read_cache_folder(&item).unwrap().is_none());
    }

    #[test]
    fn one_makes_a_folder_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let slot = store.cache_folder(&name(), "id", Sharing::Shared).unwrap();
        assert!(is_busy(&store, Sharing::Shared));
        drop(slot);
        assert!(!is_busy(&store, Sharing::Shared));
    }

    #[test]
    fn what_a_killed_build_began_is_begun_again() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let half = root.path().join("mounts").join(name().hex()).join("0");
        fs::create_dir_all(&half).unwrap();
        fs::write(half.join("lock"), "").unwrap();
        assert_eq!(use_one(&store, Sharing::Shared).fs_dir(), half.join("fs"));
    }
}
