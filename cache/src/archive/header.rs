//! One header block of a tar archive: fixed fields, octal and base-256 numbers, the checksum.

use crate::archive::TarKind;
use crate::archive::error::Problem;
use crate::filelist::Mtime;

/// Everything in an archive is padded to this.
pub(super) const BLOCK: usize = 512;

const NOT_A_NUMBER: Problem = "a number in its header is not one";

/// A header block.
pub(super) struct Header<'a> {
    bytes: &'a [u8; BLOCK],
    format: Format,
}

/// Which fields a header has beyond those of 1979.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    V7,
    Ustar,
    Star,
    Gnu,
}

impl<'a> Header<'a> {
    pub(super) fn new(bytes: &'a [u8; BLOCK]) -> Self {
        let format = match &bytes[257..265] {
            [b'u', b's', b't', b'a', b'r', 0, ..] if bytes[508..] == *b"tar\0" => Format::Star,
            [b'u', b's', b't', b'a', b'r', 0, ..] => Format::Ustar,
            b"ustar  \0" => Format::Gnu,
            _ => Format::V7,
        };
        Self { bytes, format }
    }

    /// Checks the checksum; some old programs summed signed bytes.
    pub(super) fn check(&self) -> Result<(), Problem> {
        let wrong = "the checksum of its header is wrong";
        let expected = octal(&self.bytes[148..156]).map_err(|_| wrong)?;
        let counted = |at: usize| {
            if (148..156).contains(&at) {
                b' '
            } else {
                self.bytes[at]
            }
        };
        let unsigned: i64 = (0..BLOCK).map(|at| i64::from(counted(at))).sum();
        let signed: i64 = (0..BLOCK)
            .map(|at| i64::from(counted(at).cast_signed()))
            .sum();
        if expected == unsigned || expected == signed {
            return Ok(());
        }
        Err(wrong)
    }

    pub(super) fn flag(&self) -> u8 {
        self.bytes[156]
    }

    /// Returns the kind; `path` is the final one, which tells old directories from files.
    pub(super) fn kind(&self, path: &[u8]) -> Result<TarKind, Problem> {
        Ok(match self.flag() {
            0 if path.ends_with(b"/") => TarKind::Dir,
            0 | b'0' | b'7' => TarKind::File,
            b'S' if self.format == Format::Gnu => TarKind::File,
            b'S' => return Err("it is sparse, but not in GNU format"),
            b'1' => TarKind::Hardlink,
            b'2' => TarKind::Symlink,
            b'3' => TarKind::CharDevice,
            b'4' => TarKind::BlockDevice,
            b'5' => TarKind::Dir,
            b'6' => TarKind::Fifo,
            b'X' => return Err("extended headers of Solaris are not supported"),
            flag => TarKind::Other(flag),
        })
    }

    pub(super) fn name(&self) -> Vec<u8> {
        let name = text(&self.bytes[..100]);
        let prefix = match self.format {
            Format::Ustar => text(&self.bytes[345..500]),
            Format::Star => text(&self.bytes[345..476]),
            Format::V7 | Format::Gnu => &[],
        };
        if prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, name].join(&b'/')
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.bytes[157..257]).to_vec()
    }

    pub(super) fn mode(&self) -> Result<u32, Problem> {
        // Some programs store the file type here too.
        let bits = number(&self.bytes[100..108])? & 0o7777;
        u32::try_from(bits).map_err(|_| NOT_A_NUMBER)
    }

    pub(super) fn uid(&self) -> Result<u32, Problem> {
        small(&self.bytes[108..116])
    }

    pub(super) fn gid(&self) -> Result<u32, Problem> {
        small(&self.bytes[116..124])
    }

    pub(super) fn size(&self) -> Result<u64, Problem> {
        u64::try_from(number(&self.bytes[124..136])?).map_err(|_| "its size is negative")
    }

    pub(super) fn mtime(&self) -> Result<Mtime, Problem> {
        let seconds = number(&self.bytes[136..148])?;
        Ok(Mtime {
            seconds,
            nanoseconds: 0,
        })
    }

    pub(super) fn device(&self) -> Result<(u32, u32), Problem> {
        if self.format == Format::V7 {
            return Ok((0, 0));
        }
        Ok((small(&self.bytes[329..337])?, small(&self.bytes[337..345])?))
    }

    /// GNU's sparse fields: four extents, whether more follow, and the real size.
    pub(super) fn sparse(&self) -> Result<(&[u8], bool, u64), Problem> {
        let size = number(&self.bytes[483..495])?;
        let size = u64::try_from(size).map_err(|_| "its size is negative")?;
        Ok((&self.bytes[386..482], self.bytes[482] != 0, size))
    }
}

/// Returns a field up to its first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|&b| b == 0).next().unwrap_or_default()
}

fn small(field: &[u8]) -> Result<u32, Problem> {
    u32::try_from(number(field)?).map_err(|_| "an owner or device number is out of range")
}

/// Reads a number: octal digits, or two's complement if the first bit is set.
pub(super) fn number(field: &[u8]) -> Result<i64, Problem> {
    if field[0] & 0x80 == 0 {
        return octal(field);
    }
    let negative = field[0] & 0x40 != 0;
    let mut value: i64 = if negative { -1 } else { 0 };
    // The first byte's high bit is the mark; the rest of it takes part.
    let first = if negative { field[0] } else { field[0] & 0x7f };
    for byte in std::iter::once(first).chain(field[1..].iter().copied()) {
        let shifted = value
            .checked_mul(256)
            .ok_or("a number in its header is too big")?;
        value = shifted | i64::from(byte);
    }
    Ok(value)
}

fn octal(field: &[u8]) -> Result<i64, Problem> {
    let is_pad = |byte: &u8| *byte == b' ' || *byte == 0;
    let Some(start) = field.iter().position(|byte| !is_pad(byte)) else {
        return Ok(0);
    };
    let field = text(&field[start..]).trim_ascii_end();
    field.iter().try_fold(0, |value, digit| match digit {
        // Fields have at most 12 digits of 3 bits.
        b'0'..=b'7' => Ok(value * 8 + i64::from(digit - b'0')),
        _ => Err(NOT_A_NUMBER),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_programs_write_them() {
        let octal: [(&[u8], i64); 5] = [
            (b"0000644\0", 0o644),
            (b"   644 \0", 0o644),
            (b"\0\0\0\0\0\0\0\0", 0),
            (b"77777777", 0o77_777_777),
            (b"644\0junk", 0o644),
        ];
        let binary: [(&[u8], i64); 4] = [
            (b"\x80\0\0\0\0\0\x01\0", 256),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", -2),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", i64::MAX),
            (b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", i64::MIN),
        ];
        for (field, value) in octal.into_iter().chain(binary) {
            assert_eq!(number(field), Ok(value), "{field:?}");
        }
    }

    #[test]
    fn what_is_not_a_number_is_refused() {
        let fields: [&[u8]; 4] = [
            b"0000648\0",
            b"-0000001",
            b"64 4   \0",
            b"\x80\0\0\0\x80\0\0\0\0\0\0\0",
        ];
        for field in fields {
            assert!(number(field).is_err(), "{field:?}");
        }
    }
}
