//! Archives as contexts: spooled as one file, then unpacked as `ADD` unpacks.
//!
//! Owners and modes are the archive's. What is unpacked is noted under the file's layer, so the
//! same archive is unpacked once.

use std::io::{self, Cursor, Read};
use std::time::Instant;

use kiln_cache::{Kind, NewAction, is_archive};
use kiln_graph::{Copy, CopySource, Digest, HttpSource};
use kiln_solver::{Task, blocking};

use crate::apply::{Source, SourceBytes};
use crate::copy::{CopyJob, tree_of};
use crate::error::WorkerError;
use crate::snapshot::Snapshot;
use crate::sources::error::SourceError;
use crate::sources::file::WrittenFile;
use crate::sources::{Sources, key_of, snapshot_of, wait_for_key};

/// First bytes of what is compressed: gzip, bzip2, xz, zstd.
const COMPRESSED: [&[u8]; 4] = [
    &[0x1f, 0x8b, 0x08],
    b"BZh",
    &[0xfd, b'7', b'z', b'X', b'Z', 0],
    &[0x28, 0xb5, 0x2f, 0xfd],
];

/// How much of a stream decides whether it is an archive: more than the headers of an entry.
const BEGINNING: u64 = 4 << 20;

impl Sources {
    /// Writes a stream into a snapshot with one file of this name. What does not begin as an
    /// archive may have at most `limit` bytes.
    pub async fn spool(
        &self,
        name: &str,
        stream: impl Read + Send + 'static,
        limit: u64,
    ) -> Result<Snapshot, WorkerError> {
        let (store, name) = (self.store.clone(), name.to_owned());
        let write = move || {
            let stream = limited(stream, limit).map_err(SourceError::keep(name.as_str()))?;
            WrittenFile::write(&store, &name, 0, stream)?.commit()
        };
        Ok(snapshot_of(blocking(write).await?))
    }

    /// Returns what the archive `name` of a snapshot holds; `None` if it is no archive. `shown_name`
    /// is how it is called in messages.
    pub async fn unpacked(
        &self,
        file: &Snapshot,
        (name, shown_name): (&str, &str),
        task: &Task,
    ) -> Result<Option<Snapshot>, WorkerError> {
        let source = self.tree(file)?;
        let key = key_of("archive", &[&file.id().to_string(), name]);
        let _lock = wait_for_key(&self.store, &key, shown_name, task).await?;
        if let Some(action) = self.store.action(&key)?
            && self.store.has_layer(&action.layer)?
        {
            return Ok(Some(snapshot_of(action.layer)));
        }
        let (path, shown) = (name.to_owned(), shown_name.to_owned());
        let (started, job) = (Instant::now(), CopyJob::new(&self.store, Vec::new()));
        task.status("unpacking");
        let unpacked = blocking(move || {
            if !holds_archive(&source, &path, &shown)? {
                return Ok::<Option<Digest>, WorkerError>(None);
            }
            Ok(Some(job.copy(&unpack_op(&path), &[source])?))
        });
        let Some(layer) = unpacked.await? else {
            return Ok(None);
        };
        self.store.record_action(NewAction {
            key: &key,
            layer: &layer,
            name: "unpack",
            elapsed: started.elapsed(),
            origin: shown_name,
            record: None,
        })?;
        Ok(Some(snapshot_of(layer)))
    }

    /// Reads a file of a snapshot, links followed inside it; `None` if there is none. It may have
    /// at most `limit` bytes.
    pub fn read_file(
        &self,
        snapshot: &Snapshot,
        path: &str,
        limit: u64,
    ) -> Result<Option<Vec<u8>>, WorkerError> {
        let source = self.tree(snapshot)?;
        let Ok(real) = source.tree.resolve(path.as_bytes()) else {
            return Ok(None);
        };
        let Some(node) = source.tree.get(&real) else {
            return Ok(None);
        };
        let failed = || {
            let what = path.to_owned();
            move |source| SourceError::Read { what, source }
        };
        let opened = source.open(source.tree.file_of(node)).map_err(failed())?;
        let mut bytes = Vec::new();
        opened
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(failed())?;
        if bytes.len() as u64 > limit {
            let error = io::Error::other(format!("it is longer than {limit} bytes"));
            return Err(failed()(error).into());
        }
        Ok(Some(bytes))
    }

    /// Returns when a file of a web server was changed, as the server has it, else when the
    /// newest file of the archive that it is; `None` if nothing says so.
    pub async fn http_time(
        &self,
        source: &HttpSource,
        task: &Task,
    ) -> Result<Option<i64>, WorkerError> {
        let file = self.http(source, task).await?;
        // 1970 is what a file gets whose server says nothing.
        let time = self.newest(&file)?.filter(|&time| time != 0);
        if time.is_some() {
            return Ok(time);
        }
        let shown = kiln_registry::without_credentials(&source.url);
        let unpacked = self.unpacked(&file, (&source.file_name, &shown), task);
        match unpacked.await? {
            Some(files) => self.newest(&files),
            None => Ok(None),
        }
    }

    fn newest(&self, snapshot: &Snapshot) -> Result<Option<i64>, WorkerError> {
        let tree = self.tree(snapshot)?.tree;
        let entries = tree.below(b"").into_iter().map(|node| node.entry);
        let files = entries.filter(|entry| matches!(entry.kind, Kind::File { .. }));
        Ok(files.map(|entry| entry.mtime.seconds).max())
    }

    /// Returns the files of a snapshot that was fetched.
    fn tree(&self, snapshot: &Snapshot) -> Result<Source, WorkerError> {
        let mut layers = Vec::new();
        for layer in snapshot.layers() {
            let missing = || kiln_cache::StoreError::Damaged {
                what: format!("layer {} (it is missing)", layer.id),
            };
            layers.push(self.store.layer(&layer.id)?.ok_or_else(missing)?);
        }
        Ok(Source {
            tree: tree_of(&layers),
            bytes: SourceBytes::Layers(layers.into()),
        })
    }
}

/// Returns the same stream, which fails past `limit` bytes unless it begins as an archive.
fn limited(mut stream: impl Read + Send, limit: u64) -> io::Result<impl Read> {
    let mut first = Vec::new();
    Read::by_ref(&mut stream)
        .take(BEGINNING)
        .read_to_end(&mut first)?;
    let is_compressed = COMPRESSED.iter().any(|magic| first.starts_with(magic));
    let left = match is_compressed || is_archive(&first[..]) {
        true => u64::MAX,
        false => limit,
    };
    let inner = Cursor::new(first).chain(stream);
    Ok(LimitedReader { inner, left })
}

/// Fails where more comes than is left.
struct LimitedReader<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for LimitedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        let left = self.left.checked_sub(n as u64);
        let too_long = || io::Error::other("it is no archive, and too large for a Dockerfile");
        self.left = left.ok_or_else(too_long)?;
        Ok(n)
    }
}

/// Tells by the content whether a file is an archive.
fn holds_archive(source: &Source, name: &str, shown: &str) -> Result<bool, WorkerError> {
    let keep = || SourceError::keep(shown);
    let open = || {
        let node = source.tree.get(name.as_bytes());
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        source.open(source.tree.file_of(node.ok_or_else(missing)?))
    };
    let mut first = Vec::new();
    open()
        .and_then(|file| file.take(6).read_to_end(&mut first))
        .map_err(keep())?;
    let is_compressed = COMPRESSED.iter().any(|magic| first.starts_with(magic));
    let file = open().map_err(keep())?;
    match is_archive(file) {
        true => Ok(true),
        false if is_compressed => Err(SourceError::NoArchive(shown.to_owned()).into()),
        false => Ok(false),
    }
}

fn unpack_op(name: &str) -> Copy {
    Copy {
        sources: vec![CopySource::Path {
            input: 1,
            path: format!("/{name}"),
            unpack: true,
        }],
        destination: "/".to_owned(),
        owner: None,
        mode: None,
        link: false,
        parents: false,
        exclude: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_archive_may_be_long() {
        let read = |first: &[u8]| {
            let stream = Cursor::new(first.to_vec()).chain(io::repeat(b'x').take(10 << 20));
            io::copy(&mut limited(stream, 5 << 20)?, &mut io::sink())
        };
        assert!(read(b"FROM scratch\n").is_err());
        assert_eq!(read(b"BZh").unwrap(), (10 << 20) + 3);
        assert_eq!(read(&tar_header()).unwrap(), (10 << 20) + 512);
    }

    /// The header of an empty file `f`.
    fn tar_header() -> [u8; 512] {
        let mut header = [0; 512];
        header[0] = b'f';
        header[148..156].fill(b' ');
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().copied().map(u32::from).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        header
    }

    #[test]
    fn a_short_stream_is_the_same() {
        let mut text = String::new();
        let stream = Cursor::new(b"FROM scratch\n");
        limited(stream, 13)
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "FROM scratch\n");
    }
}
