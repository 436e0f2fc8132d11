//! Writes tar archives whose bytes depend on entries and contents alone.
//!
//! Every header is ustar; what does not fit (long names, large numbers, parts of seconds, extended
//! attributes) goes into a PAX header before it, its records sorted. There are no user and group
//! names and no access times. A layer's deletions are `.wh.NAME` files, a directory that hides
//! what was below it is followed by `.wh..wh..opq`.

use std::fs::File;
use std::io::{self, Read as _, Write};

use kiln_cache::{Entry, FileList, Kind, join_path, split_path};

use crate::error::{ExportError, shown};

const BLOCK: usize = 512;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Largest number that fits 11 and 7 octal digits.
const MAX_11: u64 = (1 << 33) - 1;
const MAX_7: u64 = (1 << 21) - 1;
const BUFFER: usize = 128 << 10;

/// Opens the content of a regular file.
pub(crate) type Open<'a> = &'a mut dyn FnMut(&Entry) -> io::Result<File>;

/// One header to write.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header<'a> {
    pub(crate) path: &'a [u8],
    pub(crate) flag: u8,
    pub(crate) link: &'a [u8],
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) size: u64,
    /// Whole seconds since 1970, as BuildKit writes them: a fraction would cost a PAX header,
    /// 1 KiB or more, for nearly every entry.
    pub(crate) seconds: i64,
    /// What a cache mount keeps beyond that: build tools compare times.
    pub(crate) nanoseconds: u32,
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

impl<'a> Header<'a> {
    /// Returns the header of a regular file owned by root, made in 1970.
    pub(crate) fn file(path: &'a [u8], mode: u32, size: u64) -> Self {
        Self {
            path,
            flag: b'0',
            link: &[],
            mode,
            owner: (0, 0),
            size,
            seconds: 0,
            nanoseconds: 0,
            device: (0, 0),
            xattrs: &[],
        }
    }
}

/// Writes an archive.
#[derive(Debug)]
pub(crate) struct TarWriter<W> {
    out: W,
    /// Names the archive in errors.
    what: &'static str,
    /// Times are written to the nanosecond.
    is_exact: bool,
    buffer: Vec<u8>,
}

/// Writes the tar of a layer, entry by entry, as the entries come.
///
/// The content of each file follows its entry at once, which is how a layer can be written that
/// was never unpacked.
#[derive(Debug)]
pub struct LayerTarWriter<W> {
    tar: TarWriter<W>,
}

/// Writes the tar of a layer; `open` gives the content of its files.
pub fn write_layer_tar(
    list: &FileList,
    open: &mut dyn FnMut(&Entry) -> io::Result<File>,
    out: &mut dyn Write,
) -> Result<(), ExportError> {
    let mut writer = LayerTarWriter::new(out);
    for entry in list.entries() {
        if let Kind::File { .. } = entry.kind {
            let mut file = open_entry(entry, open)?;
            writer.file(entry, &mut file)?;
        } else {
            writer.entry(entry)?;
        }
    }
    writer.finish()?;
    Ok(())
}

impl<W: Write> LayerTarWriter<W> {
    /// Returns a writer at the start of a layer.
    pub fn new(out: W) -> Self {
        Self {
            tar: TarWriter::new(out, "the layer"),
        }
    }

    /// Writes a regular file, whose content is exactly as long as the entry says.
    pub fn file(&mut self, entry: &Entry, content: &mut dyn io::Read) -> Result<(), ExportError> {
        check_name(entry)?;
        self.tar.file(entry, content)
    }

    /// Writes an entry that is not a regular file.
    pub fn entry(&mut self, entry: &Entry) -> Result<(), ExportError> {
        let (parent, name) = split_path(&entry.path);
        if entry.kind == Kind::Whiteout {
            if name.is_empty() {
                return Err(ExportError::entry(
                    &entry.path,
                    "the root cannot be deleted",
                ));
            }
            return self.marker(parent, &[WHITEOUT, name].concat());
        }
        check_name(entry)?;
        self.tar.entry(entry)?;
        if entry.kind == (Kind::Dir { opaque: true }) {
            self.marker(&entry.path, OPAQUE)?;
        }
        Ok(())
    }

    /// Writes the end mark and returns the inner writer.
    pub fn finish(self) -> Result<W, ExportError> {
        self.tar.finish()
    }

    fn marker(&mut self, dir: &[u8], name: &[u8]) -> Result<(), ExportError> {
        let path = join_path(dir, name);
        self.tar.header(&Header::file(&path, 0, 0))
    }
}

/// A file that looks like a deletion would delete something when the layer is unpacked.
fn check_name(entry: &Entry) -> Result<(), ExportError> {
    if split_path(&entry.path).1.starts_with(WHITEOUT) {
        let problem = "in a layer, names that start with `.wh.` mean deletions";
        return Err(ExportError::entry(&entry.path, problem));
    }
    Ok(())
}

pub(crate) fn open_entry(entry: &Entry, open: Open<'_>) -> Result<File, ExportError> {
    open(entry).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ExportError::Changed {
            path: shown(&entry.path),
        },
        _ => ExportError::Read {
            what: format!("`{}`", shown(&entry.path)),
            source,
        },
    })
}

impl<W: Write> TarWriter<W> {
    pub(crate) fn new(out: W, what: &'static str) -> Self {
        Self {
            out,
            what,
            is_exact: false,
            buffer: vec![0; BUFFER],
        }
    }

    /// Returns a writer that keeps times to the nanosecond.
    pub(crate) fn exact(out: W, what: &'static str) -> Self {
        let writer = Self::new(out, what);
        Self {
            is_exact: true,
            ..writer
        }
    }

    fn header_of<'a>(&self, entry: &'a Entry, path: &'a [u8]) -> Result<Header<'a>, ExportError> {
        let nanoseconds = if self.is_exact {
            entry.mtime.nanoseconds
        } else {
            0
        };
        Ok(Header {
            nanoseconds,
            ..header_of(entry, path)?
        })
    }

    /// Writes a regular file.
    pub(crate) fn file(
        &mut self,
        entry: &Entry,
        content: &mut dyn io::Read,
    ) -> Result<(), ExportError> {
        let Kind::File { size, .. } = entry.kind else {
            return Err(ExportError::entry(&entry.path, "only files have content"));
        };
        self.header(&Header {
            size,
            ..self.header_of(entry, &entry.path)?
        })?;
        let changed = || ExportError::Changed {
            path: shown(&entry.path),
        };
        self.content(content, size, changed, || {
            format!("`{}`", shown(&entry.path))
        })
    }

    /// Writes a directory, link, device or pipe.
    pub(crate) fn entry(&mut self, entry: &Entry) -> Result<(), ExportError> {
        if !entry.is_dir() {
            return self.header(&self.header_of(entry, &entry.path)?);
        }
        let path = if entry.path.is_empty() {
            b"."
        } else {
            &entry.path[..]
        };
        let path = [path, b"/"].concat();
        self.header(&self.header_of(entry, &path)?)
    }

    /// Writes the blocks of a header.
    pub(crate) fn header(&mut self, header: &Header<'_>) -> Result<(), ExportError> {
        let blocks = header_blocks(header)?;
        self.out
            .write_all(&blocks)
            .map_err(ExportError::write(self.what))
    }

    /// Writes exactly `size` bytes of content, and what fills the last block.
    pub(crate) fn content(
        &mut self,
        content: &mut dyn io::Read,
        size: u64,
        changed: impl Fn() -> ExportError,
        what: impl Fn() -> String,
    ) -> Result<(), ExportError> {
        let mut left = size;
        while left > 0 {
            let n = BUFFER.min(usize::try_from(left).unwrap_or(BUFFER));
            let n = match content.read(&mut self.buffer[..n]) {
                Ok(0) => return Err(changed()),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    return Err(ExportError::Read {
                        what: what(),
                        source,
                    });
                }
            };
            self.write(n)?;
            left -= n as u64;
        }
        let mut more = Vec::new();
        content
            .take(1)
            .read_to_end(&mut more)
            .map_err(ExportError::read(what()))?;
        if !more.is_empty() {
            return Err(changed());
        }
        let n = padding(size);
        self.buffer[..n].fill(0);
        self.write(n)
    }

    fn write(&mut self, n: usize) -> Result<(), ExportError> {
        self.out
            .write_all(&self.buffer[..n])
            .map_err(ExportError::write(self.what))
    }

    /// Writes the end mark: two blocks of zeros.
    pub(crate) fn finish(mut self) -> Result<W, ExportError> {
        let written = self
            .out
            .write_all(&[0; 2 * BLOCK])
            .and_then(|()| self.out.flush());
        written.map_err(ExportError::write(self.what))?;
        Ok(self.out)
    }
}

fn padding(size: u64) -> usize {
    usize::try_from(size.wrapping_neg() % BLOCK as u64).expect("less than a block")
}

/// Returns the header of an entry, its size left 0.
fn header_of<'a>(entry: &'a Entry, path: &'a [u8]) -> Result<Header<'a>, ExportError> {
    let none: (u8, &[u8], (u32, u32)) = (0, &[], (0, 0));
    let (flag, link, device) = match &entry.kind {
        Kind::File { .. } => (b'0', none.1, none.2),
        Kind::Hardlink { target } => (b'1', &target[..], none.2),
        Kind::Symlink { target } => (b'2', &target[..], none.2),
        Kind::CharDevice { major, minor } => (b'3', none.1, (*major, *minor)),
        Kind::BlockDevice { major, minor } => (b'4', none.1, (*major, *minor)),
        Kind::Dir { .. } => (b'5', none.1, none.2),
        Kind::Fifo => (b'6', none.1, none.2),
        Kind::Whiteout => return Err(ExportError::entry(path, "it stands for a deletion")),
    };
    Ok(Header {
        path,
        flag,
        link,
        mode: entry.mode & 0o7777,
        owner: (entry.uid, entry.gid),
        size: 0,
        seconds: entry.mtime.seconds,
        nanoseconds: 0,
        device,
        xattrs: &entry.xattrs,
    })
}

/// Returns the blocks of a header: a PAX header with its records if there are any, and itself.
fn header_blocks(header: &Header<'_>) -> Result<Vec<u8>, ExportError> {
    let (prefix, name) = split_name(header.path);
    let mut records = pax_records(header, name.is_none())?;
    if records.is_empty() {
        return Ok(ustar(header, prefix, name.unwrap_or(header.path)).to_vec());
    }
    records.sort();
    let body = records.concat();
    let mut out = Vec::with_capacity(4 * BLOCK);
    let base = split_path(header.path.strip_suffix(b"/").unwrap_or(header.path)).1;
    let pax_name = [b"PaxHeaders.0/", base].concat();
    let pax = Header::file(&pax_name, 0o644, body.len() as u64);
    out.extend_from_slice(&ustar(&Header { flag: b'x', ..pax }, &[], &pax_name));
    out.extend_from_slice(&body);
    out.resize(out.len() + padding(body.len() as u64), 0);
    out.extend_from_slice(&ustar(header, prefix, name.unwrap_or(header.path)));
    Ok(out)
}

/// Splits a path into ustar's prefix and name; no name means that it does not fit.
fn split_name(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    if path.len() <= 100 {
        return (&[], Some(path));
    }
    let fits = |&at: &usize| at > 0 && at <= 155 && (1..=100).contains(&(path.len() - at - 1));
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    match slashes.map(|(at, _)| at).find(fits) {
        Some(at) => (&path[..at], Some(&path[at + 1..])),
        None => (&[], None),
    }
}

fn pax_records(header: &Header<'_>, long_name: bool) -> Result<Vec<Vec<u8>>, ExportError> {
    let refuse = |problem| ExportError::entry(header.path, problem);
    if header.path.contains(&0) || header.link.contains(&0) {
        return Err(refuse("its name holds a NUL byte"));
    }
    if u64::from(header.device.0.max(header.device.1)) > MAX_7 {
        return Err(refuse("its device number is too large for a tar archive"));
    }
    let mut records = Vec::new();
    let mut add = |key: &[u8], value: &[u8]| records.push(record(key, value));
    if long_name {
        add(b"path", header.path);
    }
    if header.link.len() > 100 {
        add(b"linkpath", header.link);
    }
    if header.size > MAX_11 {
        add(b"size", header.size.to_string().as_bytes());
    }
    for (key, id) in [(&b"uid"[..], header.owner.0), (b"gid", header.owner.1)] {
        if u64::from(id) > MAX_7 {
            add(key, id.to_string().as_bytes());
        }
    }
    if header.nanoseconds > 0 && header.seconds >= 0 {
        let time = format!("{}.{:09}", header.seconds, header.nanoseconds);
        add(b"mtime", time.as_bytes());
    } else if !fits_seconds(header.seconds) {
        add(b"mtime", header.seconds.to_string().as_bytes());
    }
    for (name, value) in header.xattrs {
        if name.is_empty() || name.contains(&b'=') || name.contains(&0) {
            return Err(refuse("the name of an extended attribute holds `=` or NUL"));
        }
        add(&[b"SCHILY.xattr.", &name[..]].concat(), value);
    }
    Ok(records)
}

fn fits_seconds(seconds: i64) -> bool {
    u64::try_from(seconds).is_ok_and(|s| s <= MAX_11)
}

/// Writes a record, whose length counts its own digits.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// Returns one header block; what does not fit is cut or 0 and stands in a PAX record.
fn ustar(header: &Header<'_>, prefix: &[u8], name: &[u8]) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let or_zero = |value: u64, max: u64| if value <= max { value } else { 0 };
    let seconds = u64::try_from(header.seconds).unwrap_or(0);
    put(&mut block[..100], name);
    put_octal(&mut block[100..108], header.mode.into());
    put_octal(&mut block[108..116], or_zero(header.owner.0.into(), MAX_7));
    put_octal(&mut block[116..124], or_zero(header.owner.1.into(), MAX_7));
    put_octal(&mut block[124..136], or_zero(header.size, MAX_11));
    put_octal(&mut block[136..148], or_zero(seconds, MAX_11));
    block[148..156].fill(b' ');
    block[156] = header.flag;
    put(&mut block[157..257], header.link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    put_octal(&mut block[329..337], header.device.0.into());
    put_octal(&mut block[337..345], header.device.1.into());
    put(&mut block[345..500], prefix);
    let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
    put_octal(&mut block[148..155], sum);
    block
}

fn put(field: &mut [u8], value: &[u8]) {
    let n = field.len().min(value.len());
    field[..n].copy_from_slice(&value[..n]);
}

/// Writes octal digits that fill a field but for its last byte, which is NUL.
fn put_octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    put(field, format!("{value:0digits$o}").as_bytes());
    field[digits] = 0;
}

#[cfg(test)]
mod tests;
