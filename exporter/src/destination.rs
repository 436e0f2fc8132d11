//! Where a file goes: a path, where it appears complete or not at all, or a stream.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

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
    let parent = parent.unwrap_or(Path::new("."));
    let file = create_unnamed(parent).map_err(ExportError::write_path(path))?;
    let mut out = BufWriter::with_capacity(BUFFER, file);
    let result = write(&mut out)?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error);
    let file = file.map_err(ExportError::write_path(path))?;
    file.publish(parent, &target)
        .map_err(ExportError::write_path(path))?;
    Ok(result)
}

/// A file that nobody sees yet.
enum Unpublished {
    /// Without a name: gone with this process, however that ends.
    Unnamed(File),
    /// With a temporary name, where the file system has no files without one.
    Named(tempfile::NamedTempFile),
}

fn create_unnamed(dir: &Path) -> io::Result<Unpublished> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    // The umask applies to this mode.
    match rustix::fs::open(dir, flags, Mode::from_raw_mode(0o666)) {
        Ok(file) => return Ok(Unpublished::Unnamed(file.into())),
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {}
        Err(error) => return Err(error.into()),
    }
    // Opened here, because errors of the file that `tempfile` opens name the temporary file.
    let open = |tmp: &Path| {
        let mut options = File::options();
        options.write(true).create_new(true).mode(0o666).open(tmp)
    };
    Ok(Unpublished::Named(
        tempfile::Builder::new()
            .prefix(".kiln-")
            .make_in(dir, open)?,
    ))
}

impl Unpublished {
    /// Gives the file its name; what had that name before is replaced.
    fn publish(self, dir: &Path, target: &Path) -> io::Result<()> {
        let file = match self {
            Self::Named(file) => return file.persist(target).map(drop).map_err(|e| e.error),
            Self::Unnamed(file) => file,
        };
        let own = format!("/proc/self/fd/{}", file.as_raw_fd());
        let link =
            |name: &Path| rustix::fs::linkat(CWD, own.as_str(), CWD, name, AtFlags::SYMLINK_FOLLOW);
        match link(target) {
            Err(Errno::EXIST) => {}
            other => return Ok(other?),
        }
        // A link replaces nothing, a rename does.
        let beside = dir.join(format!(".kiln-{}-{}", std::process::id(), file.as_raw_fd()));
        link(&beside)?;
        fs::rename(&beside, target).inspect_err(|_| drop(fs::remove_file(&beside)))
    }
}

impl Write for Unpublished {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unnamed(file) => file.write(data),
            Self::Named(file) => file.as_file_mut().write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
