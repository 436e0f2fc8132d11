//! The inventory: everything that the store has on disk, and how much room it takes.
//!
//! Sizes are those of the disk: blocks, not bytes, and a file with several names is counted once.
//! The sum over all items and over [`Inventory::internal`] is what the store's folder takes.

use std::collections::{HashMap, HashSet};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rayon::prelude::*;

use crate::error::StoreError;
use crate::ledger::{LEASES, Row, leases};
use crate::mounts::mount_id;
use crate::store::{Store, lock_gate};

/// Size of the unit of `st_blocks`.
const UNIT: u64 = 512;

/// What sort of thing an item is, by the names of buildx.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ItemKind {
    /// An unpacked layer.
    Layer,
    /// A blob: a config, a manifest, a compressed layer.
    Blob,
    /// The folder of a cache mount.
    CacheMount,
    /// A Git repository.
    Git,
    /// What is known of the files of a build context.
    Context,
    /// What a step printed.
    Log,
}

/// Something that is kept on disk and could be taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Path in the store.
    pub id: String,
    /// What sort of thing it is.
    pub kind: ItemKind,
    /// Room that it takes on disk.
    pub bytes: u64,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// When it was last used.
    pub used: i64,
    /// A process uses it just now.
    pub in_use: bool,
    /// An image that was built here needs it.
    pub is_pinned: bool,
    /// What it is to people.
    pub note: String,
}

/// Everything that the store has on disk.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// What could be taken away.
    pub items: Vec<Item>,
    /// Room that everything else takes: the database, records, the reserve, what is being written.
    pub internal: u64,
}

impl ItemKind {
    /// Returns the name that buildx has for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Layer | Self::Blob => "regular",
            Self::CacheMount => "exec.cachemount",
            Self::Git => "source.git.checkout",
            Self::Context => "source.local",
            Self::Log => "internal",
        }
    }

    /// Returns the name that people know.
    pub fn label(self) -> &'static str {
        match self {
            Self::Layer => "layers",
            Self::Blob => "blobs",
            Self::CacheMount => "cache mounts",
            Self::Git => "git repositories",
            Self::Context => "contexts",
            Self::Log => "logs",
        }
    }

    fn of(path: &str) -> Option<Self> {
        match path.split('/').next()? {
            "layers" => Some(Self::Layer),
            "blobs" => Some(Self::Blob),
            "mounts" => Some(Self::CacheMount),
            "git" => Some(Self::Git),
            "contexts" => Some(Self::Context),
            "logs" => Some(Self::Log),
            _ => None,
        }
    }

    /// Content that changes has to be measured again each time.
    fn is_mutable(self) -> bool {
        matches!(self, Self::CacheMount | Self::Git | Self::Context)
    }
}

impl Item {
    /// Returns true for what changes while it is there.
    pub fn is_mutable(&self) -> bool {
        self.kind.is_mutable()
    }

    /// Returns true if it could be taken away now.
    pub fn is_reclaimable(&self) -> bool {
        !self.in_use && !self.is_pinned
    }
}

impl Inventory {
    /// Returns the room that everything takes.
    pub fn total(&self) -> u64 {
        let bytes = self.items.iter().map(|item| item.bytes);
        self.internal + bytes.sum::<u64>()
    }
}

impl Store {
    /// Looks at everything that the store has on disk, with all cores.
    pub fn inventory(&self) -> Result<Inventory, StoreError> {
        self.take_stock(true)
    }

    /// As [`inventory`](Self::inventory); if not `exact`, what is immutable and noted is not
    /// measured again, and nothing else is measured at all.
    pub(crate) fn take_stock(&self, exact: bool) -> Result<Inventory, StoreError> {
        let rows: HashMap<String, Row> = self
            .ledger()?
            .into_iter()
            .map(|row| (row.path.clone(), row))
            .collect();
        let names = self.content_names()?;
        let measured: Vec<Option<Item>> = names
            .par_iter()
            .map(|name| self.item(name, rows.get(name), exact))
            .collect::<Result<_, _>>()?;
        let mut items: Vec<Item> = measured.into_iter().flatten().collect();
        self.catch_up(&rows, &items)?;
        self.date_logs(&mut items)?;
        let leases = {
            let _gate = lock_gate(self.root(), LEASES)?;
            leases(self.root(), None)?
        };
        let pinned = self.pinned()?;
        for item in &mut items {
            item.in_use = leases.contains(&item.id) || self.is_locked(item)?;
            item.is_pinned = pinned.contains(&item.id);
        }
        let mut inventory = Inventory { items, internal: 0 };
        if exact {
            let all = room_of(self.root()).map_err(StoreError::io("measure", self.root()))?;
            inventory.internal = all.saturating_sub(inventory.total());
        }
        Ok(inventory)
    }

    /// Returns the paths of all content, as the disk has them.
    pub(crate) fn content_names(&self) -> Result<Vec<String>, StoreError> {
        let mut names = Vec::new();
        for (dir, depth, is_dir) in [
            ("layers", 1, true),
            ("blobs", 2, false),
            ("mounts", 2, true),
            ("git", 1, true),
            ("contexts", 1, false),
            ("logs", 1, false),
        ] {
            self.names_below(dir, (depth, is_dir), &mut names)?;
        }
        Ok(names)
    }

    /// Finds folders or files at a depth below a folder whose names are those of content: digests
    /// and numbers.
    fn names_below(
        &self,
        dir: &str,
        (depth, wants_dirs): (usize, bool),
        names: &mut Vec<String>,
    ) -> Result<(), StoreError> {
        let path = self.root().join(dir);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if is_gone(&error) => return Ok(()),
            Err(error) => return Err(StoreError::io("list", &path)(error)),
        };
        for entry in entries {
            let entry = entry.map_err(StoreError::io("list", &path))?;
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_content = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            let name = format!("{dir}/{name}");
            if depth > 1 && is_dir {
                self.names_below(&name, (depth - 1, wants_dirs), names)?;
            } else if depth == 1 && is_content && is_dir == wants_dirs {
                names.push(name);
            }
        }
        Ok(())
    }

    /// Returns an item; nothing if it is gone meanwhile.
    fn item(&self, name: &str, row: Option<&Row>, exact: bool) -> Result<Option<Item>, StoreError> {
        let Some(kind) = ItemKind::of(name) else {
            return Ok(None);
        };
        let path = self.root().join(name);
        let found = match fs::symlink_metadata(&path) {
            Ok(found) => found,
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(StoreError::io("look at", &path)(error)),
        };
        let bytes = match row {
            Some(row) if !exact && !kind.is_mutable() => row.bytes,
            _ => room_of(&path).map_err(StoreError::io("measure", &path))?,
        };
        let changed = changed(kind, &path, &found);
        let note = match (kind, row) {
            (ItemKind::CacheMount, _) => mount_id(&path).unwrap_or_default(),
            (_, Some(row)) => row.note.clone(),
            _ => String::new(),
        };
        Ok(Some(Item {
            id: name.to_owned(),
            kind,
            bytes,
            created: row.map_or(changed, |row| row.created),
            used: row.map_or(changed, |row| match kind.is_mutable() {
                true => row.used.max(changed),
                false => row.used,
            }),
            in_use: false,
            is_pinned: false,
            note,
        }))
    }

    /// A log was used when somebody used what its step made, and is called like the step.
    fn date_logs(&self, items: &mut [Item]) -> Result<(), StoreError> {
        let logs: Vec<&mut Item> = items
            .iter_mut()
            .filter(|item| item.kind == ItemKind::Log)
            .collect();
        if logs.is_empty() {
            return Ok(());
        }
        let uses = self.uses_of_actions()?;
        for log in logs {
            let hex = log.id.trim_start_matches("logs/");
            if let Some((name, used)) = uses.get(hex) {
                log.note.clone_from(name);
                log.used = used.unwrap_or(log.used);
            }
        }
        Ok(())
    }

    /// Brings the ledger up to what the disk says.
    fn catch_up(&self, rows: &HashMap<String, Row>, items: &[Item]) -> Result<(), StoreError> {
        for item in items {
            let row = rows.get(&item.id);
            if row.is_none_or(|row| row.bytes != item.bytes) {
                self.put_row(&Row {
                    path: item.id.clone(),
                    bytes: item.bytes,
                    created: item.created,
                    used: item.used,
                    // What nobody noted may be half of something.
                    boot: row.map(|row| row.boot.clone()).unwrap_or_default(),
                    note: item.note.clone(),
                })?;
            }
        }
        let there: HashSet<&str> = items.iter().map(|item| item.id.as_str()).collect();
        let gone = |name: &&String| {
            // It may have been made since the disk was looked at.
            !there.contains(name.as_str()) && !self.root().join(name.as_str()).exists()
        };
        self.forget_content(rows.keys().filter(gone).map(String::as_str))
    }
}

/// Returns when content was last changed or, for what has a lock, used.
fn changed(kind: ItemKind, path: &Path, found: &Metadata) -> i64 {
    match kind {
        ItemKind::CacheMount => {
            let lock = fs::metadata(path.join("lock"));
            lock.map_or(found.mtime(), |lock| lock.mtime().max(found.mtime()))
        }
        _ => found.mtime(),
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Returns the room that a file or a whole folder takes on disk, in bytes; what disappears
/// meanwhile takes none.
pub(crate) fn room_of(path: &Path) -> io::Result<u64> {
    let mut seen = HashSet::new();
    let mut total = 0;
    let mut waiting = vec![path.to_owned()];
    while let Some(path) = waiting.pop() {
        let found = match fs::symlink_metadata(&path) {
            Ok(found) => found,
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(error),
        };
        if found.nlink() < 2 || found.is_dir() || seen.insert((found.dev(), found.ino())) {
            total += found.blocks() * UNIT;
        }
        if !found.is_dir() {
            continue;
        }
        match fs::read_dir(&path) {
            Ok(entries) => {
                for entry in entries {
                    waiting.push(entry?.path());
                }
            }
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(total)
}
