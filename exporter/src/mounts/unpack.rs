//! Cache mounts that come in: from a folder, an archive, or the layers of a registry.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use kiln_cache::{
    Content, DirWriter, Entry, Kind, TarEntry, TarKind, TarReader, decompress, is_of_image,
    list_mount, open_beneath, open_dir,
};
use kiln_graph::{Algorithm, Digest};
use rustix::io::Errno;

use crate::error::ExportError;
use crate::mounts::{FS, INFO, MAX_INFO, MountInfo};

/// Writes what comes in into a folder that nobody uses yet.
#[derive(Debug)]
pub struct MountUnpacker {
    writer: DirWriter,
    n_entries: u64,
}

/// Reads what an exported folder says of itself.
pub fn open_mount_dir(dir: &Path) -> Result<MountInfo, ExportError> {
    let file = open_dir(dir).and_then(|root| open_beneath(&root, INFO.as_bytes()));
    let file = file.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ExportError::refused(format!(
            "`{}` is not a cache mount that kiln exported, or not all of it: it has no `{INFO}`",
            dir.display()
        )),
        _ => ExportError::read(format!("`{}`", dir.display()))(error),
    })?;
    read_info(file)
}

/// Reads what an exported archive says of itself, and returns the reader of the rest. It may be
/// compressed.
pub fn open_mount_tar<'a>(
    input: impl Read + Send + 'a,
) -> Result<(MountInfo, TarReader<Box<dyn Read + Send + 'a>>), ExportError> {
    let mut tar = TarReader::new(decompress(input).map_err(unreadable)?);
    let first = tar.next_entry().map_err(unreadable)?;
    let is_info = |entry: &TarEntry| entry.kind == TarKind::File && entry.path == INFO.as_bytes();
    if !first.is_some_and(|entry| is_info(&entry)) {
        return Err(ExportError::refused(format!(
            "the archive is not a cache mount that kiln exported: it does not begin with `{INFO}`"
        )));
    }
    let info = read_info(&mut tar)?;
    Ok((info, tar))
}

fn read_info(input: impl Read) -> Result<MountInfo, ExportError> {
    let mut json = Vec::new();
    let mut limited = input.take(MAX_INFO + 1);
    limited
        .read_to_end(&mut json)
        .map_err(ExportError::read(format!("`{INFO}`")))?;
    if json.len() as u64 > MAX_INFO {
        let why = format!("`{INFO}` is longer than {MAX_INFO} bytes");
        return Err(ExportError::refused(why));
    }
    MountInfo::parse(&json)
}

impl MountUnpacker {
    /// Returns a writer for what is below `dir`, which is empty.
    pub fn new(dir: &Path) -> Result<Self, ExportError> {
        Ok(Self {
            writer: DirWriter::new(dir).map_err(ExportError::write_path(dir))?,
            n_entries: 0,
        })
    }

    /// Takes all that is left of an archive.
    pub fn tar<R: Read>(&mut self, tar: &mut TarReader<R>) -> Result<(), ExportError> {
        while let Some(member) = tar.next_entry().map_err(unreadable)? {
            let entry = entry_of(&member).map_err(|why| refused(&member.path, why))?;
            self.put(&entry, Content::Stream(tar))?;
        }
        Ok(())
    }

    /// Takes a layer of a registry.
    pub fn layer(&mut self, layer: File) -> Result<(), ExportError> {
        self.tar(&mut TarReader::new(decompress(layer).map_err(unreadable)?))
    }

    /// Takes the files of an exported folder.
    pub fn folder(&mut self, dir: &Path) -> Result<(), ExportError> {
        let fs_dir = dir.join("fs");
        let entries = list_mount(&fs_dir)?;
        let root: OwnedFd =
            open_dir(&fs_dir).map_err(ExportError::read(format!("`{}`", fs_dir.display())))?;
        for entry in &entries {
            if !matches!(entry.kind, Kind::File { .. }) {
                self.put(entry, Content::None)?;
                continue;
            }
            let file = open_beneath(&root, &entry.path);
            let file = file.map_err(|source| ExportError::Read {
                what: format!("`{}`", crate::error::shown(&entry.path)),
                source,
            })?;
            self.put(entry, Content::Clone(&file))?;
        }
        Ok(())
    }

    /// Checks that all has come, and sets the times of folders.
    pub fn finish(self, info: &MountInfo) -> Result<u64, ExportError> {
        if let Some(expected) = info.n_entries.filter(|n| *n != self.n_entries) {
            return Err(ExportError::refused(format!(
                "the cache mount is not whole, or was changed since it was exported: \
                 it has {} entries, and had {expected}",
                self.n_entries
            )));
        }
        let finished = self.writer.finish();
        finished.map_err(ExportError::write("the times of folders"))?;
        Ok(self.n_entries)
    }

    fn put(&mut self, entry: &Entry, content: Content<'_>) -> Result<(), ExportError> {
        self.n_entries += 1;
        let content = match entry.kind {
            Kind::File { .. } => content,
            _ => Content::None,
        };
        self.writer
            .put(entry, content)
            .map(drop)
            .map_err(|source| match why(&source) {
                Some(why) => refused(&entry.path, why),
                None => ExportError::Write {
                    what: format!("`{}`", crate::error::shown(&entry.path)),
                    source,
                },
            })
    }
}

/// Returns what is wrong with an archive, for errors that say so.
fn why(error: &io::Error) -> Option<&'static str> {
    match Errno::from_raw_os_error(error.raw_os_error()?) {
        Errno::NOENT => Some("what it is in, or another name of, does not come before it"),
        Errno::LOOP | Errno::NOTDIR | Errno::XDEV => Some("it leads through a link or a file"),
        Errno::EXIST => Some("there are two of its name"),
        _ => None,
    }
}

fn entry_of(member: &TarEntry) -> Result<Entry, &'static str> {
    let path = path_below_fs(&member.path)?;
    let kind = match member.kind {
        TarKind::File => Kind::File {
            size: member.size,
            digest: Digest::new(Algorithm::Blake3, [0; 32]),
        },
        TarKind::Dir => Kind::Dir { opaque: false },
        TarKind::Symlink => Kind::Symlink {
            target: member.link.clone(),
        },
        TarKind::Hardlink => Kind::Hardlink {
            target: path_below_fs(&member.link)?,
        },
        TarKind::Fifo => Kind::Fifo,
        TarKind::CharDevice | TarKind::BlockDevice | TarKind::Other(_) => {
            return Err("it is of a type that a cache mount does not have");
        }
    };
    if path.is_empty() && member.kind != TarKind::Dir {
        return Err("it is not a folder");
    }
    let xattrs = member.xattrs.iter();
    Ok(Entry {
        path,
        kind,
        mode: member.mode,
        uid: member.uid,
        gid: member.gid,
        mtime: member.mtime,
        xattrs: xattrs
            .filter(|(name, _)| is_of_image(name))
            .cloned()
            .collect(),
    })
}

/// Returns a path from `fs` on; `./fs/a/` is `a`.
fn path_below_fs(path: &[u8]) -> Result<Vec<u8>, &'static str> {
    if path.starts_with(b"/") {
        return Err("its path is absolute");
    }
    let parts = path.split(|&byte| byte == b'/');
    let parts: Vec<&[u8]> = parts.filter(|part| !matches!(*part, b"" | b".")).collect();
    match parts.split_first() {
        _ if parts.contains(&&b".."[..]) => Err("its path leads out"),
        Some((first, rest)) if *first == FS => Ok(rest.join(&b'/')),
        _ => Err("it is not in `fs`"),
    }
}

fn refused(path: &[u8], why: &str) -> ExportError {
    let path = String::from_utf8_lossy(path).escape_debug().to_string();
    ExportError::refused(format!("`{path}` cannot be imported: {why}"))
}

fn unreadable(error: kiln_cache::ArchiveError) -> ExportError {
    ExportError::Read {
        what: "the archive".to_owned(),
        source: io::Error::new(io::ErrorKind::InvalidData, error),
    }
}
