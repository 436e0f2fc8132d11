//! A cache mount as one tar archive, always written whole.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;

use kiln_cache::{CacheName, Entry, Kind, list_mount, open_beneath, open_dir};

use crate::destination::Destination;
use crate::error::ExportError;
use crate::mounts::{FS, INFO, MountInfo};
use crate::tar::{Header, TarWriter, open_entry};

/// Writes the folder `dir` of a cache mount; returns how many entries it has.
pub fn export_mount_tar(
    name: &CacheName,
    dir: &Path,
    destination: Destination<'_>,
) -> Result<usize, ExportError> {
    let entries = list_mount(dir)?;
    let root = open_dir(dir).map_err(ExportError::read(format!("`{}`", dir.display())))?;
    let info = MountInfo::new(name, entries.len()).to_json();
    destination.write(|out| {
        let mut tar = TarWriter::exact(out, "the archive");
        let size = info.len() as u64;
        tar.header(&Header::file(INFO.as_bytes(), 0o644, size))?;
        let changed = || ExportError::refused("bytes in memory changed");
        tar.content(&mut &info[..], size, changed, || INFO.to_owned())?;
        for entry in &entries {
            put(&mut tar, &root, entry)?;
        }
        tar.finish()?;
        Ok(entries.len())
    })
}

/// Writes an entry below `fs`.
pub(super) fn put<W: Write>(
    tar: &mut TarWriter<W>,
    root: &OwnedFd,
    entry: &Entry,
) -> Result<(), ExportError> {
    let kind = match &entry.kind {
        Kind::Hardlink { target } => Kind::Hardlink {
            target: below_fs(target),
        },
        other => other.clone(),
    };
    let placed = Entry {
        path: below_fs(&entry.path),
        kind,
        ..entry.clone()
    };
    if !matches!(entry.kind, Kind::File { .. }) {
        return tar.entry(&placed);
    }
    let mut file = open_entry(entry, &mut |entry| open_beneath(root, &entry.path))?;
    tar.file(&placed, &mut file)
}

fn below_fs(path: &[u8]) -> Vec<u8> {
    match path {
        b"" => FS.to_vec(),
        path => [FS, b"/", path].concat(),
    }
}
