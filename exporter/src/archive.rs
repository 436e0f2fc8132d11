//! Images as one tar file: an OCI archive, or what `docker load` takes.

use kiln_cache::Store;
use kiln_registry::Reference;

use crate::destination::Destination;
use crate::error::ExportError;
use crate::image::Bundle;
use crate::layout::{LayoutContent, layout_files};
use crate::tar::{Header, TarWriter};

/// Which reader an archive or layout is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// The OCI image layout.
    Oci,
    /// The same with Docker's `manifest.json`; for one platform only.
    Docker,
}

/// Writes an image as a tar file.
///
/// The blobs of all layers must be in the store: see [`missing_blobs`](crate::missing_blobs).
pub fn export_archive(
    store: &Store,
    bundle: &Bundle,
    names: &[Reference],
    format: ArchiveFormat,
    destination: Destination<'_>,
) -> Result<(), ExportError> {
    let mut files = layout_files(bundle, names, format, &[])?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    // Found missing now, nothing is written; found missing later, a stream has been cut short.
    for file in &files {
        if let LayoutContent::Stored { digest, .. } = file.content
            && !store.has_blob(&digest)
        {
            return Err(ExportError::Missing { digest });
        }
    }
    destination.write(|out| {
        let mut tar = TarWriter::new(out, "the archive");
        for dir in ["blobs/", "blobs/sha256/"] {
            let header = Header::file(dir.as_bytes(), 0o755, 0);
            tar.header(&Header {
                flag: b'5',
                ..header
            })?;
        }
        for file in &files {
            write_file(store, &mut tar, file.path.as_bytes(), &file.content)?;
        }
        tar.finish()?;
        Ok(())
    })
}

fn write_file(
    store: &Store,
    tar: &mut TarWriter<&mut dyn std::io::Write>,
    path: &[u8],
    content: &LayoutContent<'_>,
) -> Result<(), ExportError> {
    let bytes = match content {
        LayoutContent::Bytes(bytes) => bytes,
        LayoutContent::Owned(bytes) => &bytes[..],
        LayoutContent::Stored { digest, size } => {
            let digest = *digest;
            let mut blob = store
                .open_verified(&digest)?
                .ok_or(ExportError::Missing { digest })?;
            tar.header(&Header::file(path, 0o444, *size))?;
            let what = || format!("blob `{digest}`");
            let changed = || ExportError::Changed {
                path: format!("blob {digest}"),
            };
            tar.content(&mut blob, *size, changed, what)?;
            return Ok(blob.finish()?);
        }
    };
    let size = bytes.len() as u64;
    tar.header(&Header::file(path, 0o444, size))?;
    let refused = || ExportError::refused("the archive's metadata changed");
    tar.content(&mut &bytes[..], size, refused, String::new)
}
