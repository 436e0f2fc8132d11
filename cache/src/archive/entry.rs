//! What several headers together say about one entry.

use crate::archive::MAX_NAME;
use crate::archive::error::Problem;
use crate::archive::header::Header;
use crate::archive::pax::Records;
use crate::filelist::Mtime;

/// One entry of an archive, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarEntry {
    /// Path as it stands in the archive: `./a`, `/a`, `../a` and `a/` are possible.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: TarKind,
    /// Target of a symbolic or hard link, as it stands in the archive.
    pub link: Vec<u8>,
    /// Permission bits, including set-uid, set-gid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length of the content in bytes, holes of a sparse file included.
    pub size: u64,
    /// Time of last change.
    pub mtime: Mtime,
    /// Major number of a device.
    pub major: u32,
    /// Minor number of a device.
    pub minor: u32,
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What an entry of an archive is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TarKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// Another name of an entry that came before.
    Hardlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// Something that only some tar programs know, by its type flag.
    Other(u8),
}

/// What headers before the entry's own header say about it.
#[derive(Debug, Default)]
pub(super) struct Prelude {
    pub(super) pax: Option<Records>,
    pub(super) long_name: Option<Vec<u8>>,
    pub(super) long_link: Option<Vec<u8>>,
}

impl Prelude {
    pub(super) fn is_empty(&self) -> bool {
        self.pax.is_none() && self.long_name.is_none() && self.long_link.is_none()
    }
}

/// Keeps a GNU long name, which ends at its first NUL.
pub(super) fn set_once(slot: &mut Option<Vec<u8>>, bytes: &[u8]) -> Result<(), Problem> {
    let name = bytes.split(|&b| b == 0).next().unwrap_or_default();
    if name.len() > MAX_NAME {
        return Err("its name is longer than 4096 bytes");
    }
    match slot.replace(name.to_vec()) {
        None => Ok(()),
        Some(_) => Err("it has two long names"),
    }
}

/// Puts together what all headers say about an entry; returns it and its stored size.
pub(super) fn describe(
    header: &Header<'_>,
    prelude: &Prelude,
    globals: &Records,
) -> Result<(TarEntry, u64), Problem> {
    let none = Records::default();
    let pax = prelude.pax.as_ref().unwrap_or(&none);
    let pax_path = pax.sparse.name.as_ref().or(pax.path.as_ref());
    let path = choose_name(pax_path, prelude.long_name.as_ref(), || header.name())?;
    let link = choose_name(pax.link.as_ref(), prelude.long_link.as_ref(), || {
        header.link()
    })?;
    let kind = header.kind(&path)?;
    if kind != TarKind::File && !pax.sparse.is_empty() {
        return Err("it is sparse, but not a file");
    }
    let size = pax.size.map_or_else(|| header.size(), Ok)?;
    let mtime = pax.mtime.or(globals.mtime);
    let (major, minor) = match kind {
        TarKind::CharDevice | TarKind::BlockDevice => header.device()?,
        _ => (0, 0),
    };
    let stored = match kind {
        TarKind::File | TarKind::Other(_) => size,
        TarKind::Hardlink => 0,
        _ if size == 0 => 0,
        _ => return Err("it has content, but is not a file"),
    };
    let entry = TarEntry {
        path,
        kind,
        link,
        mode: header.mode()?,
        uid: pax.uid.or(globals.uid).map_or_else(|| header.uid(), Ok)?,
        gid: pax.gid.or(globals.gid).map_or_else(|| header.gid(), Ok)?,
        size: stored,
        mtime: mtime.map_or_else(|| header.mtime(), Ok)?,
        major,
        minor,
        xattrs: pax.xattrs_over(globals),
    };
    Ok((entry, stored))
}

/// Chooses between the places that a name can stand in.
fn choose_name(
    pax: Option<&Vec<u8>>,
    long: Option<&Vec<u8>>,
    short: impl FnOnce() -> Vec<u8>,
) -> Result<Vec<u8>, Problem> {
    match (pax, long) {
        (Some(pax), Some(long)) if pax != long => Err("it has two different names"),
        (Some(name), _) | (None, Some(name)) => Ok(name.clone()),
        (None, None) => Ok(short()),
    }
}
