//! A cache mount as a folder, of which only what differs is written again.
//!
//! While files are written, `mount.json` has another name: what a killed export left is not
//! imported, and the next export goes on with it. A folder `fs` that kiln did not make is never
//! touched.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use kiln_cache::{CacheName, Content, DirWriter, Entry, Kind, list_mount, open_beneath, open_dir};

use crate::error::{ExportError, shown};
use crate::mounts::{INFO, MountInfo};
use crate::tar::open_entry;

/// The name of `mount.json` while an export goes on.
const UNFINISHED: &str = "mount.json.unfinished";
const BUFFER: usize = 128 << 10;

/// What an export to a folder did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Synced {
    /// Files and links that were written.
    pub n_written: usize,
    /// Bytes of files that were written.
    pub bytes_written: u64,
    /// Files and links that were there already.
    pub n_kept: usize,
}

/// Makes the folder `to` an export of the folder `from` of a cache mount.
pub fn export_mount_dir(name: &CacheName, from: &Path, to: &Path) -> Result<Synced, ExportError> {
    let (info, unfinished, fs_dir) = (to.join(INFO), to.join(UNFINISHED), to.join("fs"));
    let failed = || ExportError::write_path(to);
    fs::create_dir_all(to).map_err(failed())?;
    if info.exists() {
        fs::rename(&info, &unfinished).map_err(failed())?;
    } else if fs_dir.exists() && !unfinished.exists() {
        return Err(ExportError::refused(format!(
            "`{}` is not an export of kiln, and would be replaced; give another folder",
            fs_dir.display()
        )));
    }
    let entries = list_mount(from)?;
    let json = MountInfo::new(name, entries.len()).to_json();
    fs::write(&unfinished, json).map_err(failed())?;
    if !fs_dir.exists() {
        fs::create_dir(&fs_dir).map_err(failed())?;
    }
    let synced = Sync::new(from, &fs_dir)?.run(&entries)?;
    fs::rename(&unfinished, &info).map_err(failed())?;
    Ok(synced)
}

struct Sync {
    from: OwnedFd,
    to: OwnedFd,
    writer: DirWriter,
    /// What is at the destination and can stay.
    there: HashMap<Vec<u8>, Entry>,
    /// Files that stayed: their other names can stay, too.
    kept: HashSet<Vec<u8>>,
    done: Synced,
}

impl Sync {
    fn new(from: &Path, to: &Path) -> Result<Self, ExportError> {
        let there = list_mount(to)?.into_iter();
        let failed = || ExportError::write_path(to);
        Ok(Self {
            from: open_dir(from).map_err(ExportError::read(format!("`{}`", from.display())))?,
            to: open_dir(to).map_err(failed())?,
            writer: DirWriter::new(to).map_err(failed())?,
            there: there.map(|entry| (entry.path.clone(), entry)).collect(),
            kept: HashSet::new(),
            done: Synced::default(),
        })
    }

    fn run(mut self, entries: &[Entry]) -> Result<Synced, ExportError> {
        self.remove_others(entries)?;
        for entry in entries {
            self.put(entry)?;
        }
        let finished = self.writer.finish();
        finished.map_err(ExportError::write("the times of folders"))?;
        Ok(self.done)
    }

    /// Removes what is gone from the mount, and what is a folder in one place only.
    fn remove_others(&mut self, entries: &[Entry]) -> Result<(), ExportError> {
        let wanted = entries
            .iter()
            .map(|entry| (&entry.path[..], entry.is_dir()));
        let wanted: HashMap<&[u8], bool> = wanted.collect();
        let is_other = |entry: &Entry| wanted.get(&entry.path[..]) != Some(&entry.is_dir());
        let others = self.there.values().filter(|entry| is_other(entry));
        let mut others: Vec<Vec<u8>> = others.map(|entry| entry.path.clone()).collect();
        // What is below a folder goes first.
        others.sort_by(|a, b| kiln_cache::compare_paths(b, a));
        for path in others {
            self.remove(&path)?;
        }
        Ok(())
    }

    fn remove(&mut self, path: &[u8]) -> Result<(), ExportError> {
        self.there.remove(path);
        let removed = self.writer.remove(path);
        removed.map_err(ExportError::write(format!("`{}`", shown(path))))
    }

    fn put(&mut self, entry: &Entry) -> Result<(), ExportError> {
        let failed = || ExportError::write(format!("`{}`", shown(&entry.path)));
        if entry.is_dir() {
            let put = self.writer.put(entry, Content::None);
            return put.map(drop).map_err(failed());
        }
        let source = match entry.kind {
            Kind::File { .. } => Some(open_entry(entry, &mut |entry| {
                open_beneath(&self.from, &entry.path)
            })?),
            _ => None,
        };
        if self
            .is_same(entry, source.as_ref())
            .map_err(ExportError::read(format!("`{}`", shown(&entry.path))))?
        {
            self.kept.insert(entry.path.clone());
            self.done.n_kept += 1;
            return Ok(());
        }
        if self.there.contains_key(&entry.path) {
            self.remove(&entry.path)?;
        }
        let content = match &source {
            // Comparing may have read some of it.
            Some(file) => {
                io::Seek::rewind(&mut &*file).map_err(failed())?;
                Content::Clone(file)
            }
            None => Content::None,
        };
        self.writer.put(entry, content).map_err(failed())?;
        self.done.n_written += 1;
        if let Kind::File { size, .. } = entry.kind {
            self.done.bytes_written += size;
        }
        Ok(())
    }

    /// Returns true if the destination has the entry as it is: content, metadata, time.
    fn is_same(&self, entry: &Entry, source: Option<&File>) -> io::Result<bool> {
        let Some(there) = self.there.get(&entry.path) else {
            return Ok(false);
        };
        if !there.same_content(entry) || there.mtime != entry.mtime {
            return Ok(false);
        }
        match (&entry.kind, source) {
            (Kind::Hardlink { target }, _) => Ok(self.kept.contains(target)),
            (Kind::File { .. }, Some(source)) => {
                same_bytes(source, &open_beneath(&self.to, &entry.path)?)
            }
            _ => Ok(true),
        }
    }
}

fn same_bytes(mut one: &File, mut two: &File) -> io::Result<bool> {
    let (mut a, mut b) = (vec![0; BUFFER], vec![0; BUFFER]);
    loop {
        let n = one.read(&mut a)?;
        if n == 0 {
            return Ok(two.read(&mut b[..1])? == 0);
        }
        match two.read_exact(&mut b[..n]) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            other => other?,
        }
        if a[..n] != b[..n] {
            return Ok(false);
        }
    }
}
