//! Tar archives, read as a stream: layers of images and what `ADD` unpacks.
//!
//! [`TarReader`] reads ustar, GNU and PAX archives entry by entry, never seeks, and holds a
//! bounded amount of memory whatever the archive says. Paths are handed out raw: making them safe
//! is the business of whoever writes them to a disk. Where tar programs disagree on what an
//! archive holds, it is refused, never guessed:
//!
//! - a header whose checksum is wrong, a number that is none, a lone block of zeros;
//! - two extended headers, or two long names, for one entry; a GNU long name and a PAX path that
//!   differ;
//! - content in an entry that holds none (except hard links, where all programs ignore it);
//! - a global header that sets a path, a size or a sparse map.
//!
//! What follows the end mark stays unread in the reader.

mod compression;
mod entry;
mod error;
mod header;
mod pax;
mod sparse;

use std::io::{self, Read};

pub use crate::archive::compression::{decompress, is_archive};
use crate::archive::entry::{Prelude, describe, set_once};
pub use crate::archive::entry::{TarEntry, TarKind};
pub use crate::archive::error::ArchiveError;
use crate::archive::error::{Problem, name_for_people};
use crate::archive::header::{BLOCK, Header};
use crate::archive::pax::Records;
use crate::archive::sparse::{MapPlace, Sparse};

/// Longest path or link target in bytes.
const MAX_NAME: usize = 4096;
/// Longest extended header in bytes.
const MAX_PAX: usize = 1 << 20;

/// Reads an archive entry by entry; reads the content of the current entry through [`Read`].
///
/// Headers are read in blocks of 512 bytes, so the inner reader should be buffered. After an
/// error the reader is of no further use.
#[derive(Debug)]
pub struct TarReader<R> {
    inner: R,
    /// Bytes read so far.
    offset: u64,
    /// Stored bytes of the current entry that are not read yet.
    stored: u64,
    /// Bytes between the current entry's content and the next header.
    padding: u64,
    sparse: Option<Sparse>,
    globals: Records,
    /// Path and header position of the current entry, for errors.
    current: (Vec<u8>, u64),
    finished: bool,
}

impl<R: Read> TarReader<R> {
    /// Returns a reader at the start of an archive.
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            offset: 0,
            stored: 0,
            padding: 0,
            sparse: None,
            globals: Records::default(),
            current: (Vec::new(), 0),
            finished: false,
        }
    }

    /// Returns the inner reader; after the last entry it stands behind the end mark.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// Returns the number of bytes of the archive that were read so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Skips what is left of the current entry and returns the next one.
    pub fn next_entry(&mut self) -> Result<Option<TarEntry>, ArchiveError> {
        let mut prelude = Prelude::default();
        while !self.finished {
            self.skip_content()?;
            let start = self.offset;
            let Some(block) = self.header_block()? else {
                self.finished = true;
                break;
            };
            let header = Header::new(&block);
            self.current = (header.name(), start);
            header.check().map_err(|problem| self.malformed(problem))?;
            if !self.take_prelude(&header, &mut prelude)? {
                return self.entry(&header, prelude).map(Some);
            }
        }
        if prelude.is_empty() {
            return Ok(None);
        }
        Err(self.malformed("the archive ends after an extended header"))
    }

    /// Takes headers that describe the next entry; returns false for the entry's own header.
    fn take_prelude(
        &mut self,
        header: &Header<'_>,
        prelude: &mut Prelude,
    ) -> Result<bool, ArchiveError> {
        let limit = match header.flag() {
            b'x' | b'g' => MAX_PAX,
            b'L' | b'K' => MAX_NAME + 1,
            _ => return Ok(false),
        };
        let bytes = self.small_content(header, limit)?;
        let taken = match header.flag() {
            b'x' if prelude.pax.is_some() => Err("it has two extended headers"),
            b'x' => Records::parse(&bytes).map(|records| prelude.pax = Some(records)),
            b'g' => self.globals.merge_global(&bytes),
            b'L' => set_once(&mut prelude.long_name, &bytes),
            _ => set_once(&mut prelude.long_link, &bytes),
        };
        taken.map_err(|problem| self.malformed(problem))?;
        Ok(true)
    }

    /// Makes the entry that a header and what came before it describe.
    fn entry(&mut self, header: &Header<'_>, prelude: Prelude) -> Result<TarEntry, ArchiveError> {
        let described = describe(header, &prelude, &self.globals);
        let (mut entry, stored) = described.map_err(|problem| self.malformed(problem))?;
        self.current.0.clone_from(&entry.path);
        self.set_stored(stored);
        if entry.kind == TarKind::File {
            let pax = prelude.pax.unwrap_or_default();
            self.sparse = self.sparse_map(header, &pax)?;
        }
        if let Some(sparse) = &self.sparse {
            entry.size = sparse.size();
        }
        Ok(entry)
    }

    /// Reads the map of a sparse file; leaves only its data in the stored content.
    fn sparse_map(
        &mut self,
        header: &Header<'_>,
        pax: &Records,
    ) -> Result<Option<Sparse>, ArchiveError> {
        let is_old = header.flag() == b'S';
        let place = pax
            .sparse
            .place(is_old)
            .map_err(|problem| self.malformed(problem))?;
        let sparse = match place {
            MapPlace::Nowhere => return Ok(None),
            MapPlace::Header => self.old_sparse_map(header)?,
            MapPlace::Content => self.sparse_map_in_content(pax)?,
            MapPlace::Pax => pax
                .sparse
                .map()
                .map_err(|problem| self.malformed(problem))?,
        };
        sparse
            .check(self.stored)
            .map_err(|problem| self.malformed(problem))?;
        Ok(Some(sparse))
    }

    /// GNU's first format: four extents in the header, more in blocks after it.
    fn old_sparse_map(&mut self, header: &Header<'_>) -> Result<Sparse, ArchiveError> {
        let (mut sparse, mut more) =
            Sparse::from_header(header).map_err(|problem| self.malformed(problem))?;
        while more {
            let mut block = [0; BLOCK];
            self.read_exact(&mut block)?;
            more = sparse
                .extend(&block)
                .map_err(|problem| self.malformed(problem))?;
        }
        Ok(sparse)
    }

    /// PAX sparse format 1.0: the map is text in front of the data, padded to a block.
    fn sparse_map_in_content(&mut self, pax: &Records) -> Result<Sparse, ArchiveError> {
        let mut map = pax
            .sparse
            .map_reader()
            .map_err(|problem| self.malformed(problem))?;
        loop {
            let mut block = [0; BLOCK];
            if self.stored < BLOCK as u64 {
                return Err(self.malformed("its sparse map is longer than its content"));
            }
            self.read_exact(&mut block)?;
            self.stored -= BLOCK as u64;
            let done = map.take(&block);
            if let Some(sparse) = done.map_err(|problem| self.malformed(problem))? {
                return Ok(sparse);
            }
        }
    }

    /// Reads the next header, or nothing at the end mark or the end of the input.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK]>, ArchiveError> {
        let Some(block) = self.block()? else {
            return Ok(None);
        };
        if block != [0; BLOCK] {
            return Ok(Some(block));
        }
        match self.block()? {
            None => Ok(None),
            Some(second) if second == [0; BLOCK] => Ok(None),
            Some(_) => {
                self.current = (Vec::new(), self.offset - 2 * BLOCK as u64);
                Err(self.malformed("a lone block of zeros stands between entries"))
            }
        }
    }

    /// Reads a block, or nothing at the end of the input.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, ArchiveError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.read_inner(&mut block[filled..])? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(self.truncated()),
                n => filled += n,
            }
        }
        Ok(Some(block))
    }

    /// Reads the whole content of a header that describes another entry.
    fn small_content(
        &mut self,
        header: &Header<'_>,
        limit: usize,
    ) -> Result<Vec<u8>, ArchiveError> {
        let size = header.size().map_err(|problem| self.malformed(problem))?;
        let size = usize::try_from(size).ok().filter(|&size| size <= limit);
        let Some(size) = size else {
            let problem = if limit == MAX_PAX {
                "its extended header is longer than 1 MiB"
            } else {
                "its name is longer than 4096 bytes"
            };
            return Err(self.malformed(problem));
        };
        let mut bytes = vec![0; size];
        self.read_exact(&mut bytes)?;
        self.set_stored(size as u64);
        self.stored = 0;
        Ok(bytes)
    }

    fn set_stored(&mut self, stored: u64) {
        self.stored = stored;
        self.padding = stored.wrapping_neg() % BLOCK as u64;
        self.sparse = None;
    }

    fn skip_content(&mut self) -> Result<(), ArchiveError> {
        let mut scratch = [0; 8192];
        // Both are far below the range of u64: sizes are checked to fit i64.
        let mut left = self.stored + self.padding;
        while left > 0 {
            let n = scratch
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            match self.read_inner(&mut scratch[..n])? {
                0 => return Err(self.truncated()),
                n => left -= n as u64,
            }
        }
        self.set_stored(0);
        Ok(())
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), ArchiveError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_inner(&mut buffer[filled..])? {
                0 => return Err(self.truncated()),
                n => filled += n,
            }
        }
        Ok(())
    }

    fn read_inner(&mut self, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
        loop {
            match self.inner.read(buffer) {
                Ok(n) => {
                    self.offset += n as u64;
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    let offset = self.offset;
                    return Err(ArchiveError::Read { offset, source });
                }
            }
        }
    }

    /// Reads stored content of the current entry.
    fn read_stored(&mut self, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
        let n = buffer
            .len()
            .min(usize::try_from(self.stored).unwrap_or(usize::MAX));
        if n == 0 {
            return Ok(0);
        }
        match self.read_inner(&mut buffer[..n])? {
            0 => Err(self.truncated()),
            n => {
                self.stored -= n as u64;
                Ok(n)
            }
        }
    }

    fn read_content(&mut self, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
        let Some(mut sparse) = self.sparse.take() else {
            return self.read_stored(buffer);
        };
        let part = sparse.next_part(buffer.len() as u64);
        let n = usize::try_from(part.len).unwrap_or(buffer.len());
        let buffer = &mut buffer[..n];
        let read = if part.is_hole {
            buffer.fill(0);
            Ok(n)
        } else {
            self.read_stored(buffer)
        };
        if let Ok(n) = read {
            sparse.advance(n as u64);
        }
        self.sparse = Some(sparse);
        read
    }

    fn malformed(&self, problem: Problem) -> ArchiveError {
        let (name, offset) = &self.current;
        ArchiveError::Malformed {
            entry: name_for_people(name),
            offset: *offset,
            problem,
        }
    }

    fn truncated(&self) -> ArchiveError {
        ArchiveError::Truncated {
            entry: name_for_people(&self.current.0),
            offset: self.offset,
        }
    }
}

impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.read_content(buffer).map_err(|error| {
            let kind = match &error {
                ArchiveError::Read { source, .. } => source.kind(),
                ArchiveError::Truncated { .. } => io::ErrorKind::UnexpectedEof,
                _ => io::ErrorKind::InvalidData,
            };
            io::Error::new(kind, error)
        })
    }
}

#[cfg(test)]
mod tests;
