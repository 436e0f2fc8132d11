//! A cache in a folder: `segments/NAME` and `blobs/sha256/HEX`.
//!
//! Files appear by rename, complete. Other machines may share the folder.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use kiln_graph::{Descriptor, Digest, Hasher};
use kiln_registry::{BlobSink, BlobSource, Pushed};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::checked::Checked;
use crate::error::RemoteError;
use crate::segment::MAX_PACKED;

const SEGMENTS: &str = "segments";
const BLOBS: &str = "blobs/sha256";
const BUFFER: usize = 256 << 10;

/// A blob that no segment names stays this long: the segment may be on its way.
pub(crate) const GRACE: Duration = Duration::from_secs(24 * 3600);

/// A folder that holds a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Folder {
    dir: PathBuf,
}

fn failed(what: &str, path: &Path) -> impl FnOnce(io::Error) -> RemoteError {
    RemoteError::io(format!("{what} `{}`", path.display()))
}

impl Folder {
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    fn segment(&self, name: &str) -> PathBuf {
        self.dir.join(SEGMENTS).join(name)
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.dir.join(BLOBS).join(digest.hex())
    }

    pub(crate) fn segments(&self) -> Result<Vec<String>, RemoteError> {
        let dir = self.dir.join(SEGMENTS);
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed("list", &dir))?,
        };
        let names = entries
            .flatten()
            .filter_map(|e| e.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
        names.sort();
        Ok(names)
    }

    pub(crate) async fn read_segment(&self, name: &str) -> Result<Vec<u8>, RemoteError> {
        let path = self.segment(name);
        let mut bytes = Vec::new();
        let file = open(&path).map_err(failed("read", &path))?;
        let read = file.take(MAX_PACKED + 1).read_to_end(&mut bytes).await;
        read.map_err(failed("read", &path))?;
        Ok(bytes)
    }

    pub(crate) async fn write_segment(&self, name: &str, bytes: Bytes) -> Result<(), RemoteError> {
        self.write(&self.segment(name), &bytes, &|_| ())
            .await
            .map(drop)
    }

    pub(crate) fn remove_segment(&self, name: &str) -> Result<(), RemoteError> {
        let path = self.segment(name);
        fs::remove_file(&path).map_err(failed("remove", &path))
    }

    pub(crate) async fn read_blob(
        &self,
        blob: &Descriptor,
        sink: &mut impl BlobSink,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), RemoteError> {
        let path = self.blob(&blob.digest);
        let mut file = open(&path).map_err(failed("read", &path))?;
        let mut checked = Checked::new(blob, sink, progress);
        let mut chunk = vec![0; BUFFER];
        loop {
            let n = file.read(&mut chunk).await.map_err(failed("read", &path))?;
            if n == 0 || !checked.take(Bytes::copy_from_slice(&chunk[..n])).await? {
                break;
            }
        }
        checked.finish(format!("`{}`", path.display())).await
    }

    pub(crate) async fn push_blob(
        &self,
        blob: &Descriptor,
        source: &impl BlobSource,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Pushed, RemoteError> {
        let path = self.blob(&blob.digest);
        if self.is_whole(blob).await {
            // Nobody removes it as unused before the segment that names it is there.
            touch(&path).map_err(failed("touch", &path))?;
            return Ok(Pushed::Existed);
        }
        let size = self.write(&path, source, progress).await?;
        if size != blob.size {
            let _gone = fs::remove_file(&path);
            let why = format!("{size} bytes were read instead of {}", blob.size);
            return Err(RemoteError::unusable(format!("blob {}", blob.digest), &why));
        }
        Ok(Pushed::Uploaded)
    }

    /// Returns true if a blob is there with the bytes that it should have.
    async fn is_whole(&self, blob: &Descriptor) -> bool {
        let Ok(mut file) = open(&self.blob(&blob.digest)) else {
            return false;
        };
        let mut hasher = Hasher::new(blob.digest.algorithm());
        let mut chunk = vec![0; BUFFER];
        while let Ok(n) = file.read(&mut chunk).await {
            if n == 0 {
                return hasher.finish() == blob.digest;
            }
            hasher.update(&chunk[..n]);
        }
        false
    }

    /// Writes a file that appears complete or not at all; returns its length.
    async fn write(
        &self,
        path: &Path,
        source: &impl BlobSource,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<u64, RemoteError> {
        let dir = path.parent().unwrap_or(&self.dir);
        fs::create_dir_all(dir).map_err(failed("make the folder", dir))?;
        let temporary = tempfile::Builder::new().prefix(".kiln-").tempfile_in(dir);
        let temporary = temporary.map_err(failed("write to", dir))?;
        let copy = async {
            let mut from = source.open().await?;
            let mut to = File::from_std(temporary.as_file().try_clone()?);
            let (mut chunk, mut done) = (vec![0; BUFFER], 0u64);
            loop {
                let n = from.read(&mut chunk).await?;
                if n == 0 {
                    break;
                }
                to.write_all(&chunk[..n]).await?;
                done += n as u64;
                progress(done);
            }
            to.sync_data().await?;
            // Others who share the folder read it, as its own mode lets them.
            let mode = rustix::fs::Mode::from_raw_mode(0o644);
            rustix::fs::fchmod(temporary.as_file(), mode)?;
            Ok(done)
        };
        let size = copy.await.map_err(failed("write", path))?;
        let persisted = temporary.persist(path).map_err(|error| error.error);
        persisted.map_err(failed("write", path))?;
        Ok(size)
    }

    /// Removes blobs that are not in `keep` and have not been touched for a while.
    pub(crate) fn sweep(&self, keep: &HashSet<Digest>) -> Result<(), RemoteError> {
        let dir = self.dir.join(BLOBS);
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(failed("list", &dir))?,
        };
        let limit = SystemTime::now() - GRACE;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let digest = format!("sha256:{}", name.to_string_lossy()).parse();
            let is_kept = digest.is_ok_and(|digest: Digest| keep.contains(&digest));
            let touched = entry.metadata().and_then(|found| found.modified());
            if !is_kept && touched.is_ok_and(|time| time < limit) {
                fs::remove_file(entry.path()).map_err(failed("remove", &entry.path()))?;
            }
        }
        Ok(())
    }
}

/// Opens a regular file; who put a pipe in its place does not make the build wait.
fn open(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = fs::File::options()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    Ok(File::from_std(file))
}

fn touch(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.set_modified(SystemTime::now())
}
