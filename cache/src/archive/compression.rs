//! Compression, told by the first bytes, as Docker does.

use std::io::{BufReader, Cursor, Read};

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;

use crate::archive::TarReader;
use crate::archive::error::ArchiveError;

const BUFFER: usize = 128 << 10;

/// What an xz stream may ask for, in KiB; `xz -9` needs a quarter of it.
const MAX_XZ_MEMORY: u32 = 256 << 10;

/// How bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    /// Not at all, or in a way that is not known.
    None,
    /// gzip, of one or more members.
    Gzip,
    /// zstd, of one or more frames.
    Zstd,
    /// bzip2, of one or more streams.
    Bzip2,
    /// xz, of one or more streams.
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
/// Memory is bounded: zstd windows of more than 128 MiB, and xz streams that need more than
/// 256 MiB, are refused when they are met.
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
        Compression::Bzip2 => {
            let decoder = MultiBzDecoder::new(reader);
            Ok(Box::new(BufReader::with_capacity(BUFFER, decoder)))
        }
        Compression::Xz => {
            let decoder = XzReader::new_mem_limit(reader, true, MAX_XZ_MEMORY);
            Ok(Box::new(BufReader::with_capacity(BUFFER, decoder)))
        }
    }
}

/// Returns true if Docker's `ADD` would unpack this: uncompressed, it starts with a tar header.
pub fn is_archive(reader: impl Read + Send) -> bool {
    let first = decompress(reader).map(|reader| TarReader::new(reader).next_entry());
    matches!(first, Ok(Ok(Some(_))))
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
        let bzip2 = |text: &[u8]| {
            let mut out = Vec::new();
            let level = bzip2::Compression::fast();
            bzip2::read::BzEncoder::new(text, level)
                .read_to_end(&mut out)
                .unwrap();
            out
        };
        type Compress<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;
        let all: [Compress<'_>; 4] = [&gzip, &zstd, &bzip2, &<[u8]>::to_vec];
        for compress in all {
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
            assert!(!is_archive(text.as_bytes()));
        }
    }

    /// `printf 'one ' | xz` and `printf two | xz`.
    const XZ: [&[u8]; 2] = [
        b"\xfd\x37\x7a\x58\x5a\x00\x00\x04\xe6\xd6\xb4\x46\x02\x00\x21\x01\x16\x00\x00\x00\x74\x2f\xe5\xa3\x01\x00\x03\x6f\x6e\x65\x20\x00\x5a\x8c\x83\xa3\x31\x35\xef\x7e\x00\x01\x1c\x04\x6f\x2c\x9c\xc1\x1f\xb6\xf3\x7d\x01\x00\x00\x00\x00\x04\x59\x5a",
        b"\xfd\x37\x7a\x58\x5a\x00\x00\x04\xe6\xd6\xb4\x46\x02\x00\x21\x01\x16\x00\x00\x00\x74\x2f\xe5\xa3\x01\x00\x02\x74\x77\x6f\x00\x00\x5d\xd3\x79\x29\x75\x28\x52\x03\x00\x01\x1b\x03\x0b\x2f\xb9\x10\x1f\xb6\xf3\x7d\x01\x00\x00\x00\x00\x04\x59\x5a",
    ];

    #[test]
    fn xz_streams_are_read_one_after_the_other() {
        let mut text = String::new();
        let bytes = XZ.concat();
        decompress(&bytes[..])
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "one two");
        let cut = &bytes[..bytes.len() - 20];
        let read = decompress(cut).unwrap().read_to_end(&mut Vec::new());
        assert!(read.is_err());
    }

    #[test]
    fn an_xz_stream_that_needs_too_much_memory_is_refused() {
        // `printf x | xz --lzma2=dict=1GiB`
        let bytes: &[u8] = b"\xfd\x37\x7a\x58\x5a\x00\x00\x04\xe6\xd6\xb4\x46\x02\x00\x21\x01\x24\x00\x00\x00\x5e\x1f\xc7\xf9\x01\x00\x00\x78\x00\x00\x00\x00\x45\xae\xef\x83\xf8\xee\x16\x0a\x00\x01\x19\x01\xa5\x2c\x81\xcc\x1f\xb6\xf3\x7d\x01\x00\x00\x00\x00\x04\x59\x5a";
        let error = decompress(bytes).unwrap().read_to_end(&mut Vec::new());
        assert!(error.unwrap_err().to_string().contains("memory"));
    }

    #[test]
    fn damaged_streams_are_errors_and_no_archives() {
        for start in [
            &b"BZh91AY&SY"[..],
            b"\xfd7zXZ\0\0\x04",
            b"\x1f\x8b\x08",
            b"\x28\xb5\x2f\xfd",
        ] {
            let bytes = [start, &[0xff; 64]].concat();
            let mut out = Vec::new();
            let failed = decompress(&bytes[..]).map(|mut reader| reader.read_to_end(&mut out));
            assert!(!matches!(failed, Ok(Ok(_))), "{start:?}");
            assert!(!is_archive(&bytes[..]));
        }
    }
}
