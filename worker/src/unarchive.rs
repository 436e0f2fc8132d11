//! `ADD` of a local archive: its members become part of the plan, their bytes are spooled.
//!
//! As Docker does, links are followed as if the destination were the root, what is in the way is
//! replaced, `--chown` gives all that comes out to one owner, and `--chmod` changes nothing.

use std::fs::File;
use std::io::{Read, Seek as _};
use std::path::Path;

use kiln_cache::{
    Entry, Kind, TarEntry, TarKind, TarReader, components, decompress, hash_copy, is_archive,
    join_path, split_path,
};

use crate::error::{CopyError, UnpackError};
use crate::plan::{Bytes, Plan};
use crate::unpack::{entry_at, member_path};

/// Unpacks `file` into the plan if it is an archive; returns whether it is.
///
/// `spool` is an empty directory on the file system of the layer to be.
pub(crate) fn unpack_into(
    plan: &mut Plan<'_>,
    (name, mut file): (&str, File),
    destination: &str,
    spool: &Path,
) -> Result<bool, CopyError> {
    let failed = |source: UnpackError| CopyError::Archive {
        path: name.to_owned(),
        source,
    };
    if !is_archive(&file) {
        return Ok(false);
    }
    file.rewind()
        .map_err(|error| failed(UnpackError::Read(error)))?;
    let root = plan.make_archive_dir(destination)?;
    let stream = decompress(file).map_err(|error| failed(error.into()))?;
    let mut reader = TarReader::new(stream);
    let mut n_spooled = 0;
    while let Some(member) = reader.next_entry().map_err(|error| failed(error.into()))? {
        let place = Place {
            plan,
            root: &root,
            failed: &failed,
        };
        let spooled = spool.join(n_spooled.to_string());
        place.put(&member, &mut reader, &spooled)?;
        n_spooled += 1;
    }
    Ok(true)
}

struct Place<'a, 'b, F> {
    plan: &'a mut Plan<'b>,
    root: &'a [u8],
    failed: &'a F,
}

impl<F: Fn(UnpackError) -> CopyError> Place<'_, '_, F> {
    fn put(
        self,
        member: &TarEntry,
        content: &mut impl Read,
        spool: &Path,
    ) -> Result<(), CopyError> {
        let path = member_path(&member.path);
        if path.is_empty() {
            return Ok(());
        }
        let (parent, name) = split_path(&path);
        let parent = self.plan.resolve_inside(self.root, parent, true)?;
        self.refuse_file_as_parent(&parent, member)?;
        let path = join_path(&parent, name);
        if member.kind == TarKind::Hardlink {
            return self.put_link(&path, member);
        }
        let Some(mut entry) = entry_at(&path, member) else {
            return Ok(());
        };
        let mut bytes = Bytes::None;
        if let Kind::File { .. } = entry.kind {
            entry.kind = spool_file(content, spool).map_err(|source| {
                let name = String::from_utf8_lossy(&member.path).into_owned();
                (self.failed)(UnpackError::Write { name, source })
            })?;
            bytes = Bytes::Spooled(spool.to_owned());
        }
        self.plan.put_unpacked(entry, bytes)
    }

    fn put_link(self, path: &[u8], member: &TarEntry) -> Result<(), CopyError> {
        let target = member_path(&member.link);
        let (parent, name) = split_path(&target);
        let parent = self.plan.resolve_inside(self.root, parent, true)?;
        let as_file = TarEntry {
            kind: TarKind::File,
            ..member.clone()
        };
        let link = entry_at(path, &as_file).expect("a file has an entry");
        if self.plan.put_link(&join_path(&parent, name), link)? {
            return Ok(());
        }
        let why = "it is a hard link to something that is not in the archive".to_owned();
        let name = String::from_utf8_lossy(&member.path).into_owned();
        Err((self.failed)(UnpackError::Entry { name, why }))
    }

    fn refuse_file_as_parent(&self, parent: &[u8], member: &TarEntry) -> Result<(), CopyError> {
        let mut at: Vec<u8> = Vec::new();
        for part in components(parent) {
            at = join_path(&at, part);
            if self.plan.exists(&at) && !self.plan.is_dir(&at) {
                let name = String::from_utf8_lossy(&member.path).into_owned();
                let why = "its parent is not a directory".to_owned();
                return Err((self.failed)(UnpackError::Entry { name, why }));
            }
        }
        Ok(())
    }
}

/// Writes a member's content to a file of its own and returns what it is.
fn spool_file(content: &mut impl Read, path: &Path) -> std::io::Result<Kind> {
    let file = File::options().write(true).create_new(true).open(path)?;
    let (size, digest) = hash_copy(content, file)?;
    Ok(Kind::File { size, digest })
}

/// Returns true for what `ADD` may unpack.
pub(crate) fn may_be_archive(entry: &Entry) -> bool {
    matches!(entry.kind, Kind::File { size, .. } if size > 0)
}
