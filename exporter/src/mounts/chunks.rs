//! A cache mount as tar archives for a registry, which change only where files change.
//!
//! Folders are one chunk: a file that comes or goes changes the time of its folder, and would
//! change two chunks of files otherwise. Files go into chunks in the order of their paths. A chunk
//! ends, once it has [`MIN`] bytes, after a file that the hash of its path chooses, with a chance
//! that grows with its size; so where chunks end depends on the files near by and on no others. A
//! file that is larger than [`MAX`] is a chunk of its own.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use kiln_cache::{Entry, Kind, list_mount, open_dir};
use kiln_graph::{Algorithm, Descriptor, Digest, Hasher, media_type};

use crate::error::ExportError;
use crate::mounts::archive::put;
use crate::tar::TarWriter;

const MIN: u64 = 4 << 20;
/// What a chunk is expected to get beyond [`MIN`].
const AVERAGE: u64 = 8 << 20;
const MAX: u64 = 32 << 20;
/// What an entry takes beside its content, about.
const HEADERS: u64 = 1024;
const LEVEL: i32 = 3;

/// Entries that become one layer.
#[derive(Debug)]
pub struct MountChunk {
    entries: Vec<Entry>,
}

/// Plans the chunks of the folder `dir`, the folders first; returns how many entries they have.
pub fn mount_chunks(dir: &Path) -> Result<(Vec<MountChunk>, usize), ExportError> {
    let entries = list_mount(dir)?;
    let n_entries = entries.len();
    let chunks = plan(entries).into_iter();
    let chunks = chunks.map(|entries| MountChunk { entries });
    Ok((chunks.collect(), n_entries))
}

impl MountChunk {
    /// Writes the layer to a file; its bytes depend on nothing but the entries.
    pub fn write(&self, dir: &Path, path: &Path) -> Result<Descriptor, ExportError> {
        let failed = || ExportError::write_path(path);
        let root = open_dir(dir).map_err(ExportError::read(format!("`{}`", dir.display())))?;
        let out = HashedFile {
            file: BufWriter::new(File::create(path).map_err(failed())?),
            hasher: Hasher::new(Algorithm::Sha256),
            size: 0,
        };
        let encoder = zstd::Encoder::new(out, LEVEL).map_err(failed())?;
        let mut tar = TarWriter::exact(encoder, "the layer");
        for entry in &self.entries {
            put(&mut tar, &root, entry)?;
        }
        let mut out = tar.finish()?.finish().map_err(failed())?;
        out.file.flush().map_err(failed())?;
        let digest = out.hasher.finish();
        Ok(Descriptor::new(
            media_type::OCI_LAYER_ZSTD,
            digest,
            out.size,
        ))
    }
}

fn plan(entries: Vec<Entry>) -> Vec<Vec<Entry>> {
    let (dirs, files): (Vec<_>, Vec<_>) = entries.into_iter().partition(Entry::is_dir);
    let mut chunks = vec![dirs];
    let (mut chunk, mut size) = (Vec::new(), 0);
    for entry in files {
        let length = length_of(&entry);
        if size > 0 && size + length > MAX {
            chunks.push(std::mem::take(&mut chunk));
            size = 0;
        }
        let is_last = is_end(&entry.path, length);
        chunk.push(entry);
        size += length;
        if size >= MIN && is_last {
            chunks.push(std::mem::take(&mut chunk));
            size = 0;
        }
    }
    if !chunk.is_empty() {
        chunks.push(chunk);
    }
    chunks
}

fn length_of(entry: &Entry) -> u64 {
    match entry.kind {
        Kind::File { size, .. } => HEADERS.saturating_add(size),
        _ => HEADERS,
    }
}

/// The length counts as a power of two, so that a file that grows somewhat moves no end.
fn is_end(path: &[u8], length: u64) -> bool {
    let digest = Digest::blake3(path);
    let first = digest.as_bytes().first_chunk().expect("32 bytes");
    let odds = length.min(AVERAGE).next_power_of_two();
    u64::from_le_bytes(*first) % AVERAGE < odds
}

/// A file whose bytes are hashed and counted on their way.
struct HashedFile {
    file: BufWriter<File>,
    hasher: Hasher,
    size: u64,
}

impl Write for HashedFile {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let n = self.file.write(data)?;
        self.hasher.update(&data[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn file(path: &str, size: u64) -> Entry {
        let digest = Digest::new(Algorithm::Blake3, [0; 32]);
        Entry::root_owned(path.as_bytes(), Kind::File { size, digest }, 0o644)
    }

    fn files(n: u32, size: impl Fn(u32) -> u64) -> Vec<Entry> {
        let name = |n| format!("d/{n:06}");
        (0..n).map(|n| file(&name(n), size(n))).collect()
    }

    fn paths(chunks: &[Vec<Entry>]) -> HashSet<Vec<Vec<u8>>> {
        let of = |chunk: &Vec<Entry>| chunk.iter().map(|entry| entry.path.clone()).collect();
        chunks.iter().map(of).collect()
    }

    #[test]
    fn chunks_have_a_size_and_lose_nothing() {
        let chunks = plan(files(20_000, |n| u64::from(n % 100) * 1000));
        let size = |chunk: &Vec<Entry>| chunk.iter().map(length_of).sum::<u64>();
        let (_, full) = chunks[1..].split_last().unwrap();
        assert!(full.len() > 20, "{}", full.len());
        assert!(full.iter().all(|chunk| (MIN..=MAX).contains(&size(chunk))));
        assert_eq!(chunks.iter().map(Vec::len).sum::<usize>(), 20_000);
    }

    #[test]
    fn a_new_file_moves_few_ends() {
        let mut entries = files(20_000, |n| u64::from(n % 100) * 1000);
        let before = paths(&plan(entries.clone()));
        entries.insert(5000, file("d/004999x", 70_000));
        let after = paths(&plan(entries));
        let n_new = after.difference(&before).count();
        assert!((1..=3).contains(&n_new), "{n_new} of {}", after.len());
    }

    #[test]
    fn large_files_stand_alone() {
        let chunks = plan(files(4, |_| 40 << 20));
        assert_eq!(chunks.len(), 5);
    }
}
