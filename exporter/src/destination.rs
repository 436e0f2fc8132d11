//! Where a file goes: a path, where it appears complete or not at all, or a stream.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::error::ExportError;

const BUFFER: usize = 256 << 10;

/// Where one file goes.
pub enum Destination<'a> {
    /// A path; what is there stays until the new file is complete.
    Path(&'a Path),
    /// A stream, such as standard output.
    Stream(&'a mut (dyn Write + Send)),
}

impl fmt::Debug for Destination<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => f.debug_tuple("Path").field(path).finish(),
            Self::Stream(_) => f.debug_tuple("Stream").finish(),
        }
    }
}

impl Destination<'_> {
    /// Lets `write` produce the content.
    pub(crate) fn write<T>(
        self,
        write: impl FnOnce(&mut dyn Write) -> Result<T, ExportError>,
    ) -> Result<T, ExportError> {
        match self {
            Self::Path(path) => write_file(path, write),
            Self::Stream(out) => {
                let mut out = BufWriter::with_capacity(BUFFER, out);
                let result = write(&mut out)?;
                out.flush()
                    .map_err(ExportError::write("the output stream"))?;
                Ok(result)
            }
        }
    }
}

/// Writes a file under a temporary name beside `path` and renames it.
///
/// A pipe or device is written to as it is. A link is followed, because the user named it.
pub(crate) fn write_file<T>(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<T, ExportError>,
) -> Result<T, ExportError> {
    let target = resolve(path)?;
    if fs::metadata(&target).is_ok_and(|found| !found.is_file()) {
        let file = File::options().write(true).open(&target);
        let mut out = BufWriter::new(file.map_err(ExportError::write_path(path))?);
        let result = write(&mut out)?;
        out.flush().map_err(ExportError::write_path(path))?;
        return Ok(result);
    }
    let parent = target.parent().filter(|dir| !dir.as_os_str().is_empty());
    // Opened here, because errors of the file that `tempfile` opens name the temporary file.
    let open = |tmp: &Path| {
        let mut options = File::options();
        // The umask applies to this mode.
        options.write(true).create_new(true).mode(0o666).open(tmp)
    };
    let file = tempfile::Builder::new()
        .prefix(".kiln-")
        .make_in(parent.unwrap_or(Path::new(".")), open)
        .map_err(ExportError::write_path(path))?;
    // The file itself, not its wrapper, for the same reason.
    let mut out = BufWriter::with_capacity(BUFFER, file.as_file());
    let result = write(&mut out)?;
    let flushed = out.into_inner().map_err(io::IntoInnerError::into_error);
    flushed.map_err(ExportError::write_path(path))?;
    file.persist(&target)
        .map_err(|error| ExportError::write_path(path)(error.error))?;
    Ok(result)
}

/// Returns where a path that the user named leads.
fn resolve(path: &Path) -> Result<PathBuf, ExportError> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            let error = io::Error::from(io::ErrorKind::IsADirectory);
            Err(ExportError::write_path(path)(error))
        }
        Ok(_) => fs::canonicalize(path).map_err(ExportError::write_path(path)),
        Err(_) => Ok(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(path: &Path, text: &str) -> Result<(), ExportError> {
        write_file(path, |out| {
            out.write_all(text.as_bytes())
                .map_err(ExportError::write("x"))
        })
    }

    #[test]
    fn a_file_is_replaced_when_complete_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.tar");
        put(&path, "old").unwrap();
        let failed: Result<(), _> = write_file(&path, |out| {
            out.write_all(b"half").map_err(ExportError::write("x"))?;
            assert_eq!(fs::read(&path).unwrap(), b"old");
            Err(ExportError::refused("stop"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "nothing is left over"
        );
        put(&path, "new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn devices_and_links_stay_what_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let (link, file) = (dir.path().join("link"), dir.path().join("file"));
        put(&file, "old").unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        put(&link, "new").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        put(Path::new("/dev/null"), "gone").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
        assert!(put(dir.path(), "x").is_err());
    }

    #[test]
    fn errors_do_not_name_the_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let error = put(&dir.path().join("gone/out.tar"), "x").unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(error.to_string().contains("gone/out.tar"), "{error}");
        assert!(!source.contains(".kiln-"), "{source}");
    }
}
