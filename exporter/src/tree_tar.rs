//! `type=tar`: the merged root file system as one archive, without layers and deletions.

use kiln_cache::{Entry, Kind, Layer};

use crate::destination::Destination;
use crate::error::ExportError;
use crate::tar::{TarWriter, open_entry};

/// Writes a merged tree as a tar archive, with owners as the image has them.
///
/// The entries are sorted, deletions are applied, and a hard link's target stands before it. The
/// layer of an entry is where its content is.
pub fn export_tar(
    entries: &[(Entry, &Layer)],
    destination: Destination<'_>,
) -> Result<(), ExportError> {
    destination.write(|out| {
        let mut tar = TarWriter::new(out, "the archive");
        for (entry, layer) in entries {
            if let Kind::File { .. } = entry.kind {
                let mut file = open_entry(entry, &mut |entry| layer.open(&entry.path))?;
                tar.file(entry, &mut file)?;
            } else {
                tar.entry(entry)?;
            }
        }
        tar.finish()?;
        Ok(())
    })
}
