//! A folder of the machine that builds, read in place.
//!
//! Only what some COPY or ADD can select is looked at; only files that look different from the
//! last time are read. Files belong to root in what comes out, whoever owns them here.

mod glimpse;

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_graph::{Algorithm, Digest};
use rayon::prelude::*;
use rustix::fs::{FileType, Statx};

use crate::error::StoreError;
use crate::filelist::{Entry, FileList, Kind, compare_paths, join_path, split_path};
use crate::layers::{open_beneath, open_dir};
use crate::pattern::{IgnoreList, IgnoreState, Wildcard};
use crate::scan::hash_stream;
use crate::stat_table::{Look, StatTable};
use crate::store::Store;
use crate::tree::components;
use crate::walk::{Found, WalkError, entry_of, file_type, list, open_sub, stat_at};
use crate::xattrs;

/// How often a file that changes while it is read is read again.
const MAX_ATTEMPTS: usize = 3;

/// Names that one core looks at before it takes others.
const NAMES_AT_ONCE: usize = 512;

/// Directories that a level of a walk keeps open.
const MAX_OPEN_DIRS: usize = 64;

/// Links followed on the way to selected paths, as Linux limits them for one path.
const MAX_LINKS: usize = 40;

/// A folder on disk and what of it is ignored.
#[derive(Debug)]
pub struct Context {
    dir: PathBuf,
    root: OwnedFd,
    ignore: IgnoreList,
}

/// What a walk has found so far.
#[derive(Default)]
struct Selection {
    // In the order of file lists for each path that was selected.
    entries: Vec<Seen>,
    // Ignored directories, which are needed after all when an exception is inside.
    ignored_dirs: HashMap<Vec<u8>, Entry>,
}

/// A directory that a walk comes to.
struct Directory {
    path: Vec<u8>,
    /// What of the ignore patterns its parents have matched.
    state: IgnoreState,
    /// Without it, the path is opened again.
    opened: Option<Arc<OwnedFd>>,
}

/// What is in one directory.
#[derive(Default)]
struct Visit {
    entries: Vec<Seen>,
    ignored_dirs: Vec<(Vec<u8>, Entry)>,
    below: Vec<Directory>,
}

/// An entry that was found.
struct Seen {
    entry: Entry,
    /// What a file looks like.
    look: Option<Look>,
    /// Device and inode of a file that has several names.
    file: Option<(u64, u64)>,
}

impl Context {
    /// Opens a folder.
    pub fn open(dir: &Path, ignore: IgnoreList) -> Result<Self, StoreError> {
        let failed = || StoreError::io("open the build context", dir);
        let dir = dir.canonicalize().map_err(failed())?;
        let root = open_dir(&dir).map_err(failed())?;
        Ok(Self { dir, root, ignore })
    }

    /// Returns the folder, absolute.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the ignore patterns.
    pub fn ignore(&self) -> &IgnoreList {
        &self.ignore
    }

    /// Opens a file for reading; links are not followed.
    pub fn open_file(&self, path: &[u8]) -> io::Result<File> {
        open_beneath(&self.root, path)
    }

    /// Returns the entries that `paths` (which may have wildcards) can select, with digests.
    pub fn load(&self, store: &Store, paths: &[Vec<u8>]) -> Result<FileList, StoreError> {
        let mut selection = Selection::default();
        let selects_all = |path: &&Vec<u8>| literal_parts(path).next().is_none();
        match paths.iter().find(selects_all) {
            Some(all) => self.select(all, &mut selection)?,
            None => {
                for path in paths {
                    self.select(path, &mut selection)?;
                }
            }
        }
        selection.finish();
        let table_path = StatTable::path(store.root(), &self.dir);
        let mut table = StatTable::read(&table_path);
        let entries = self.hash(selection, &mut table)?;
        if let Err(error) = table.write(&table_path) {
            tracing::warn!(%error, "the next build will read the context again");
        }
        Ok(FileList::new(entries))
    }

    fn open_dir(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let mut dir = open_sub(&self.root, &cstring(b".")?)?;
        for part in components(path) {
            dir = open_sub(&dir, &cstring(part)?)?;
        }
        Ok(dir)
    }

    /// Adds what one path selects: everything below the part before its first wildcard.
    fn select(&self, path: &[u8], selection: &mut Selection) -> Result<(), StoreError> {
        let mut todo: Vec<Vec<u8>> = literal_parts(path).map(<[u8]>::to_vec).collect();
        todo.reverse();
        let (mut at, mut links) = (Vec::new(), 0);
        while let Some(name) = todo.pop() {
            if name == b".." {
                at.truncate(split_path(&at).0.len());
                continue;
            }
            let next = join_path(&at, &name);
            let Some(seen) = self.stat(&next)? else {
                return Ok(());
            };
            let link = match &seen.entry.kind {
                Kind::Symlink { target } => Some(target.clone()),
                _ => None,
            };
            let is_dir = seen.entry.is_dir();
            if self.is_ignored(&next).0 {
                if is_dir {
                    selection.ignored_dirs.insert(next.clone(), seen.entry);
                }
            } else {
                selection.entries.push(seen);
            }
            match link {
                Some(target) if links < MAX_LINKS => {
                    links += 1;
                    if target.starts_with(b"/") {
                        at.clear();
                    }
                    todo.extend(components(&target).rev().map(<[u8]>::to_vec));
                }
                Some(_) => return Ok(()),
                None if is_dir => at = next,
                None => return Ok(()),
            }
        }
        self.walk(&at, selection)
    }

    fn is_ignored(&self, path: &[u8]) -> (bool, IgnoreState) {
        let mut state = self.ignore.root();
        for (end, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            state = self.ignore.check(&path[..end], &state).1;
        }
        self.ignore.check(path, &state)
    }

    /// Looks at one path, whose parents are directories.
    fn stat(&self, path: &[u8]) -> Result<Option<Seen>, StoreError> {
        let (parent, name) = split_path(path);
        let failed = |error: io::Error| self.failed(path, error);
        let mut dir = self.root.try_clone().map_err(failed)?;
        for part in components(parent) {
            dir = open_sub(&dir, &cstring(part).map_err(failed)?).map_err(failed)?;
        }
        let name = cstring(name).map_err(failed)?;
        let stat = match stat_at(&dir, &name) {
            Ok(stat) => stat,
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(failed(error.into())),
        };
        let found = Found {
            path,
            parent: dir.as_fd(),
            name: &name,
            stat: &stat,
        };
        read_entry(&found).map_err(failed)
    }

    /// Adds everything below a directory: level by level, the directories of a level on all cores.
    fn walk(&self, from: &[u8], selection: &mut Selection) -> Result<(), StoreError> {
        let failed = |error: io::Error| self.failed(from, error);
        let dir = self.open_dir(from).map_err(failed)?;
        let state = match from.is_empty() {
            true => self.ignore.root(),
            false => self.is_ignored(from).1,
        };
        let mut level = vec![Directory {
            path: from.to_vec(),
            state,
            opened: Some(Arc::new(dir)),
        }];
        while !level.is_empty() {
            let visits: Vec<Result<Visit, WalkError>> =
                level.par_iter().map(|dir| self.visit(dir)).collect();
            level.clear();
            for visit in visits {
                let visit = visit.map_err(|error| self.failed(&error.path, error.source))?;
                selection.entries.extend(visit.entries);
                selection.ignored_dirs.extend(visit.ignored_dirs);
                level.extend(visit.below);
            }
            if level.len() > MAX_OPEN_DIRS {
                level.iter_mut().for_each(|dir| dir.opened = None);
            }
        }
        Ok(())
    }

    /// Looks at what is in one directory.
    fn visit(&self, dir: &Directory) -> Result<Visit, WalkError> {
        let at = |path: &[u8]| {
            let path = path.to_vec();
            move |source: io::Error| WalkError { path, source }
        };
        let opened = match &dir.opened {
            Some(opened) => Arc::clone(opened),
            None => Arc::new(self.open_dir(&dir.path).map_err(at(&dir.path))?),
        };
        let names = list(&opened).map_err(at(&dir.path))?;
        let pieces: Vec<Visit> = names
            .par_chunks(NAMES_AT_ONCE)
            .map(|names| self.look_at(dir, &opened, names))
            .collect::<Result<_, _>>()?;
        let mut visit = Visit::default();
        for piece in pieces {
            visit.entries.extend(piece.entries);
            visit.ignored_dirs.extend(piece.ignored_dirs);
            visit.below.extend(piece.below);
        }
        Ok(visit)
    }

    /// Looks at some of the names in a directory.
    fn look_at(
        &self,
        dir: &Directory,
        opened: &OwnedFd,
        names: &[CString],
    ) -> Result<Visit, WalkError> {
        let at = |path: &[u8]| {
            let path = path.to_vec();
            move |source: io::Error| WalkError { path, source }
        };
        let mut visit = Visit::default();
        for name in names {
            let path = join_path(&dir.path, name.as_bytes());
            let stat = match stat_at(opened, name) {
                Ok(stat) => stat,
                // Gone since the directory was listed.
                Err(rustix::io::Errno::NOENT) => continue,
                Err(error) => return Err(at(&path)(error.into())),
            };
            let is_dir = file_type(&stat) == FileType::Directory;
            let (mut ignored, mut state) = (false, IgnoreState::default());
            if !self.ignore.is_empty() {
                (ignored, state) = self.ignore.check(&path, &dir.state);
                if ignored && !(is_dir && self.ignore.has_exceptions()) {
                    continue;
                }
            }
            let found = Found {
                path: &path,
                parent: opened.as_fd(),
                name,
                stat: &stat,
            };
            let seen = read_entry(&found).map_err(at(&path))?;
            if is_dir {
                // Descriptors are few: a wide directory does not keep one for each of its own.
                let opened = match visit.below.len() < MAX_OPEN_DIRS {
                    true => Some(Arc::new(open_sub(opened, name).map_err(at(&path))?)),
                    false => None,
                };
                visit.below.push(Directory {
                    path: path.clone(),
                    state,
                    opened,
                });
            }
            match seen {
                Some(seen) if ignored => {
                    visit.ignored_dirs.push((path, seen.entry));
                }
                Some(seen) => visit.entries.push(seen),
                None => {}
            }
        }
        Ok(visit)
    }

    /// Gives every file its digest, reading those that look different from the last time.
    fn hash(&self, selection: Selection, table: &mut StatTable) -> Result<Vec<Entry>, StoreError> {
        let known = |path: &[u8], look: &Look| table.get(path, look);
        let hashed: Vec<(Entry, Option<(Look, Digest)>)> = selection
            .entries
            .into_par_iter()
            .map(
                |Seen {
                     mut entry, look, ..
                 }| {
                    let Some(look) = look else {
                        return Ok((entry, None));
                    };
                    if let Some(known) = known(&entry.path, &look) {
                        let size = look_size(&entry);
                        set_digest(&mut entry, size, known);
                        return Ok((entry, None));
                    }
                    let fresh = self.hash_file(&mut entry)?;
                    Ok((entry, fresh))
                },
            )
            .collect::<Result<_, StoreError>>()?;
        let mut entries = Vec::with_capacity(hashed.len());
        for (entry, fresh) in hashed {
            if let Some((look, digest)) = fresh {
                table.insert(&entry.path, look, digest);
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// Reads a file until it looks the same before and after.
    fn hash_file(&self, entry: &mut Entry) -> Result<Option<(Look, Digest)>, StoreError> {
        let path = entry.path.clone();
        let failed = |error: io::Error| self.failed(&path, error);
        for _ in 0..MAX_ATTEMPTS {
            let file = self.open_file(&entry.path).map_err(failed)?;
            let before = stat_file(&file).map_err(failed)?;
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            let (size, digest) = hash_stream(&file).map_err(failed)?;
            let after = stat_file(&file).map_err(failed)?;
            let look = Look::of(&before);
            if look != Look::of(&after) || size != before.stx_size {
                continue;
            }
            entry.mode = u32::from(before.stx_mode) & 0o7777;
            entry.mtime = crate::walk::mtime_of(&before);
            set_digest(entry, size, digest);
            let now_ns = i128::try_from(now.as_nanos()).unwrap_or(0);
            return Ok(look.is_settled(now_ns).then_some((look, digest)));
        }
        Err(StoreError::Changed {
            path: self.display_path(&entry.path),
        })
    }

    fn failed(&self, path: &[u8], source: io::Error) -> StoreError {
        StoreError::Io {
            what: "read",
            path: self.display_path(path),
            source,
        }
    }

    fn display_path(&self, path: &[u8]) -> PathBuf {
        self.dir.join(String::from_utf8_lossy(path).as_ref())
    }
}

impl Selection {
    /// Adds ignored directories that have something selected inside; leaves each path once.
    fn finish(&mut self) {
        let mut needed: Vec<Entry> = Vec::new();
        for Seen { entry, .. } in &self.entries {
            let mut parent = split_path(&entry.path).0;
            while !parent.is_empty() {
                needed.extend(self.ignored_dirs.remove(parent));
                parent = split_path(parent).0;
            }
        }
        let plain = |entry| Seen {
            entry,
            look: None,
            file: None,
        };
        self.entries.extend(needed.into_iter().map(plain));
        self.entries
            .par_sort_by(|a, b| compare_paths(&a.entry.path, &b.entry.path));
        self.entries.dedup_by(|a, b| a.entry.path == b.entry.path);
        // Of the names of one file the first is the file, the others link to it.
        let mut first_names: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
        for seen in &mut self.entries {
            let Some(file) = seen.file else { continue };
            match first_names.get(&file) {
                None => {
                    first_names.insert(file, seen.entry.path.clone());
                }
                Some(first) => {
                    seen.entry.kind = Kind::Hardlink {
                        target: first.clone(),
                    };
                    seen.look = None;
                }
            }
        }
    }
}

/// The components of a path before its first wildcard.
fn literal_parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    components(path).take_while(|part| !Wildcard::is_needed(part))
}

fn cstring(name: &[u8]) -> io::Result<CString> {
    Ok(CString::new(name)?)
}

fn stat_file(file: &File) -> io::Result<Statx> {
    let flags = rustix::fs::AtFlags::EMPTY_PATH;
    Ok(rustix::fs::statx(
        file,
        c"",
        flags,
        rustix::fs::StatxFlags::BASIC_STATS,
    )?)
}

fn look_size(entry: &Entry) -> u64 {
    match entry.kind {
        Kind::File { size, .. } => size,
        _ => 0,
    }
}

fn set_digest(entry: &mut Entry, size: u64, digest: Digest) {
    entry.kind = Kind::File { size, digest };
}

/// Makes an entry as an image has it: root's, with the one attribute that programs need. A
/// socket is an empty file, as it is in a context that Docker sends.
fn read_entry(found: &Found<'_>) -> io::Result<Option<Seen>> {
    let stat = found.stat;
    let unhashed = Digest::new(Algorithm::Blake3, [0; 32]);
    let file = || {
        Ok(Kind::File {
            size: stat.stx_size,
            digest: unhashed,
        })
    };
    let entry = entry_of(found, file)?;
    let Some(mut entry) = entry.or_else(|| socket_as_file(found)) else {
        return Ok(None);
    };
    (entry.uid, entry.gid) = (0, 0);
    if file_type(stat) == FileType::Socket {
        return Ok(Some(Seen {
            entry,
            look: None,
            file: None,
        }));
    }
    let is_file = matches!(entry.kind, Kind::File { .. });
    if is_file && entry.mode & 0o111 != 0 {
        let key = b"security.capability";
        if let Some(value) = xattrs::read_one(found.parent, found.name, key)? {
            entry.xattrs.push((key.to_vec(), value));
        }
    }
    let look = is_file.then(|| Look::of(stat));
    let device = rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
    let file = (is_file && stat.stx_nlink > 1).then_some((device, stat.stx_ino));
    Ok(Some(Seen { entry, look, file }))
}

fn socket_as_file(found: &Found<'_>) -> Option<Entry> {
    let kind = Kind::File {
        size: 0,
        digest: Digest::blake3(""),
    };
    let stat = found.stat;
    (file_type(stat) == FileType::Socket).then(|| Entry {
        mtime: crate::walk::mtime_of(stat),
        ..Entry::root_owned(found.path, kind, u32::from(stat.stx_mode) & 0o7777)
    })
}

#[cfg(test)]
mod tests;
