//! Compression, told by the first bytes, as Docker does.

use std::io::{BufReader, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

use crate::archive::TarReader;
use crate::archive::error::ArchiveError;

const BUFFER: usize = 128 << 10;

/// How bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    /// Not at all, or in a way that is not known.
    None,
    /// gzip, of one or more members.
    Gzip,
    /// zstd, of one or more frames.
    Zstd,
    /// bzip2, which kiln does not read.
    Bzip2,
    /// xz, which kiln does not read.
    Xz,
}

impl Compression {
    /// Tells the compression by the first bytes; six are enough.
    fn detect(first: &[u8]) -> Self {
        match first {
            [0x1f, 0x8b, 0x08, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame, which may come first.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::None,
        }
    }
}

/// Returns what `reader` holds, uncompressed; buffered in either case.
///
/// Memory is bounded: zstd windows of more than 128 MiB are refused when they are met.
pub fn decompress<'a>(
    reader: impl Read + Send + 'a,
) -> Result<Box<dyn Read + Send + 'a>, ArchiveError> {
    let (first, reader) = peek(reader)?;
    let reader = BufReader::with_capacity(BUFFER, reader);
    let failed = |source| ArchiveError::Read { offset: 0, source };
    match Compression::detect(&first) {
        Compression::None => Ok(Box::new(reader)),
        Compression::Gzip => {
            let decoder = MultiGzDecoder::new(reader);
            Ok(Box::new(BufReader::with_capacity(BUFFER, decoder)))
        }
        Compression::Zstd => {
            let decoder = zstd::Decoder::with_buffer(reader).map_err(failed)?;
            Ok(Box::new(BufReader::with_capacity(BUFFER, decoder)))
        }
        Compression::Bzip2 => Err(ArchiveError::Compression { name: "bzip2" }),
        Compression::Xz => Err(ArchiveError::Compression { name: "xz" }),
    }
}

/// Returns true if Docker's `ADD` would unpack this: uncompressed, it starts with a tar header.
///
/// What is compressed in a way that kiln does not read may be an archive or not: an error.
pub fn is_archive(reader: impl Read + Send) -> Result<bool, ArchiveError> {
    match decompress(reader) {
        Ok(reader) => Ok(matches!(TarReader::new(reader).next_entry(), Ok(Some(_)))),
        Err(error @ ArchiveError::Compression { .. }) => Err(error),
        Err(_) => Ok(false),
    }
}

/// Returns up to six first bytes, and a reader that still starts with them.
fn peek(mut reader: impl Read) -> Result<(Vec<u8>, impl Read), ArchiveError> {
    let mut first = Vec::with_capacity(6);
    let read = Read::by_ref(&mut reader).take(6).read_to_end(&mut first);
    read.map_err(|source| ArchiveError::Read { offset: 0, source })?;
    let again = Cursor::new(first.clone()).chain(reader);
    Ok((first, again))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_members_and_frames_are_read() {
        let gzip = |text: &[u8]| {
            let mut out = Vec::new();
            let level = flate2::Compression::fast();
            flate2::read::GzEncoder::new(text, level)
                .read_to_end(&mut out)
                .unwrap();
            out
        };
        let zstd = |text: &[u8]| zstd::encode_all(text, 1).unwrap();
        for compress in [&gzip as &dyn Fn(&[u8]) -> Vec<u8>, &zstd, &<[u8]>::to_vec] {
            let bytes = [compress(b"one "), compress(b"two")].concat();
            let mut text = String::new();
            decompress(&bytes[..])
                .unwrap()
                .read_to_string(&mut text)
                .unwrap();
            assert_eq!(text, "one two");
        }
    }

    #[test]
    fn short_and_empty_inputs_are_not_compressed() {
        for text in ["", "B", "\x1f"] {
            let mut out = String::new();
            decompress(text.as_bytes())
                .unwrap()
                .read_to_string(&mut out)
                .unwrap();
            assert_eq!(out, text);
            assert!(!is_archive(text.as_bytes()).unwrap());
        }
    }

    #[test]
    fn what_is_not_read_is_named() {
        for (bytes, name) in [(&b"BZh91AY"[..], "bzip2"), (b"\xfd7zXZ\0\0", "xz")] {
            let error = decompress(bytes).err().unwrap().to_string();
            assert!(error.starts_with(name), "{error}");
            assert!(is_archive(bytes).is_err());
        }
    }
}
