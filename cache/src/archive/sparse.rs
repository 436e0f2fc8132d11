//! Sparse files: GNU's old format, and its PAX formats 0.0, 0.1 and 1.0.
//!
//! A sparse file is read with its holes as zeros. A map that is out of order, overlaps or does
//! not match what is stored is refused, and so is a file that nobody could write out.

use crate::archive::error::Problem;
use crate::archive::header::{BLOCK, Header, number};
use crate::archive::pax::{decimal, name};

/// Extents of one file; 4 MiB of memory.
const MAX_EXTENTS: usize = 1 << 18;
/// Length of one file, holes included.
const MAX_SIZE: u64 = 64 << 30;
const BAD_MAP: Problem = "its sparse map is malformed";
const TOO_MANY: Problem = "its sparse map has more than 262144 parts";

/// Where the stored bytes of a file belong.
#[derive(Debug, Clone)]
pub(super) struct Sparse {
    /// Start and length, in order.
    extents: Vec<(u64, u64)>,
    size: u64,
    /// Extents that are read to their end.
    n_done: usize,
    /// Position in the file.
    at: u64,
}

/// What can be read next.
pub(super) struct Part {
    pub(super) len: u64,
    pub(super) is_hole: bool,
}

/// Where the map of a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MapPlace {
    /// The file is not sparse.
    Nowhere,
    /// In the header, and in blocks after it.
    Header,
    /// In the PAX header.
    Pax,
    /// In front of the data.
    Content,
}

/// What a PAX header says about a sparse file.
#[derive(Debug, Clone, Default)]
pub(super) struct SparseRecords {
    pub(super) name: Option<Vec<u8>>,
    version: (Option<u64>, Option<u64>),
    size: Option<u64>,
    /// Offsets and lengths, alternating.
    map: Vec<u64>,
    has_map: bool,
}

/// Reads the text map of format 1.0 block by block.
pub(super) struct MapReader {
    size: u64,
    /// Count of extents, once known.
    count: Option<usize>,
    numbers: Vec<u64>,
    digits: Vec<u8>,
}

impl Sparse {
    fn new(numbers: &[u64], size: u64) -> Result<Self, Problem> {
        if !numbers.len().is_multiple_of(2) {
            return Err(BAD_MAP);
        }
        let extents = numbers.chunks(2).map(|pair| (pair[0], pair[1])).collect();
        Ok(Self {
            extents,
            size,
            n_done: 0,
            at: 0,
        })
    }

    /// Reads what the header holds; returns true if blocks with more follow.
    pub(super) fn from_header(header: &Header<'_>) -> Result<(Self, bool), Problem> {
        let (fields, more, size) = header.sparse()?;
        let mut sparse = Self::new(&[], size)?;
        sparse.push_fields(fields)?;
        Ok((sparse, more))
    }

    /// Reads a block of 21 extents; returns true if another one follows.
    pub(super) fn extend(&mut self, block: &[u8; BLOCK]) -> Result<bool, Problem> {
        self.push_fields(&block[..504])?;
        Ok(block[504] != 0)
    }

    fn push_fields(&mut self, fields: &[u8]) -> Result<(), Problem> {
        for field in fields.chunks(24) {
            if field[0] == 0 {
                break;
            }
            let start = u64::try_from(number(&field[..12])?).map_err(|_| BAD_MAP)?;
            let len = u64::try_from(number(&field[12..])?).map_err(|_| BAD_MAP)?;
            self.extents.push((start, len));
        }
        if self.extents.len() > MAX_EXTENTS {
            return Err(TOO_MANY);
        }
        Ok(())
    }

    /// Checks the map against itself and against the number of bytes that are stored.
    pub(super) fn check(&self, stored: u64) -> Result<(), Problem> {
        if self.size > MAX_SIZE {
            return Err("it is a sparse file of more than 64 GiB");
        }
        let (mut end, mut sum) = (0, 0);
        for &(start, len) in &self.extents {
            if start < end {
                return Err(BAD_MAP);
            }
            end = start
                .checked_add(len)
                .filter(|&end| end <= self.size)
                .ok_or(BAD_MAP)?;
            sum += len;
        }
        if sum != stored {
            return Err("its sparse map does not match its stored size");
        }
        Ok(())
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Returns the longest part of one kind that starts here, at most `limit` bytes.
    pub(super) fn next_part(&mut self, limit: u64) -> Part {
        let is_done = |&(start, len): &(u64, u64)| start + len <= self.at;
        while self.extents.get(self.n_done).is_some_and(is_done) {
            self.n_done += 1;
        }
        let (is_hole, end) = match self.extents.get(self.n_done) {
            None => (true, self.size),
            Some(&(start, _)) if start > self.at => (true, start),
            Some(&(start, len)) => (false, start + len),
        };
        let len = limit.min(end - self.at);
        Part { len, is_hole }
    }

    pub(super) fn advance(&mut self, n: u64) {
        self.at += n;
    }
}

impl SparseRecords {
    pub(super) fn is_empty(&self) -> bool {
        !self.has_map && self.name.is_none() && self.size.is_none() && self.version == (None, None)
    }

    /// Takes one record; `key` is what follows `GNU.sparse.`.
    pub(super) fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Problem> {
        match key {
            b"name" => self.name = name(value)?,
            b"major" => self.version.0 = Some(decimal(value)?),
            b"minor" => self.version.1 = Some(decimal(value)?),
            b"size" | b"realsize" => self.size = Some(decimal(value)?),
            b"offset" => self.push(value, 0)?,
            b"numbytes" => self.push(value, 1)?,
            b"map" if self.has_map => return Err(BAD_MAP),
            b"map" => {
                self.has_map = true;
                self.map = value
                    .split(|&b| b == b',')
                    .map(decimal)
                    .collect::<Result<_, _>>()?;
            }
            _ => {}
        }
        if self.map.len() > 2 * MAX_EXTENTS {
            return Err(TOO_MANY);
        }
        Ok(())
    }

    /// Format 0.0 repeats `offset` and `numbytes` in turn.
    fn push(&mut self, value: &[u8], turn: usize) -> Result<(), Problem> {
        if self.map.len() % 2 != turn {
            return Err(BAD_MAP);
        }
        self.has_map = true;
        self.map.push(decimal(value)?);
        Ok(())
    }

    /// Returns where the map is; `is_old` says that the header has GNU's old fields.
    pub(super) fn place(&self, is_old: bool) -> Result<MapPlace, Problem> {
        match self.version {
            _ if is_old && self.is_empty() => Ok(MapPlace::Header),
            _ if is_old => Err("it is sparse in two ways"),
            (Some(1), Some(0)) if !self.has_map => Ok(MapPlace::Content),
            (None, None) | (Some(0), Some(0 | 1)) if self.has_map => Ok(MapPlace::Pax),
            (None, None) if self.is_empty() => Ok(MapPlace::Nowhere),
            _ => Err("its sparse format is not known"),
        }
    }

    /// Returns the map of formats 0.0 and 0.1.
    pub(super) fn map(&self) -> Result<Sparse, Problem> {
        Sparse::new(&self.map, self.size.ok_or(BAD_MAP)?)
    }

    pub(super) fn map_reader(&self) -> Result<MapReader, Problem> {
        let size = self.size.ok_or(BAD_MAP)?;
        Ok(MapReader {
            size,
            count: None,
            numbers: Vec::new(),
            digits: Vec::new(),
        })
    }
}

impl MapReader {
    /// Takes a block; returns the map when it is complete.
    pub(super) fn take(&mut self, block: &[u8; BLOCK]) -> Result<Option<Sparse>, Problem> {
        for &byte in block {
            match byte {
                b'\n' => self.number()?,
                b'0'..=b'9' if self.digits.len() < 20 => self.digits.push(byte),
                _ => return Err(BAD_MAP),
            }
            if self
                .count
                .is_some_and(|count| self.numbers.len() == 2 * count)
            {
                return Sparse::new(&self.numbers, self.size).map(Some);
            }
        }
        Ok(None)
    }

    fn number(&mut self) -> Result<(), Problem> {
        if self.digits.is_empty() {
            return Err(BAD_MAP);
        }
        let value = decimal(&self.digits)?;
        self.digits.clear();
        if self.count.is_some() {
            self.numbers.push(value);
            return Ok(());
        }
        let count = usize::try_from(value)
            .ok()
            .filter(|&count| count <= MAX_EXTENTS);
        self.count = Some(count.ok_or(TOO_MANY)?);
        Ok(())
    }
}
