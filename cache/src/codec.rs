//! Numbers and byte strings in kiln's own files.
//!
//! Numbers are LEB128, signed ones zigzag first; a byte string is its length and its bytes; a
//! digest is 32 bytes of BLAKE3.

use kiln_graph::{Algorithm, Digest};

/// Says where bytes stop being what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("damaged at byte {at}")]
pub struct Damaged {
    /// Where reading stopped.
    pub at: usize,
}

pub(crate) fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, value: &[u8]) {
    put_number(out, value.len() as u64);
    out.extend_from_slice(value);
}

pub(crate) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_number(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

/// Reads what the functions above wrote.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    /// How far it has read.
    pub(crate) at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], Damaged> {
        let end = self
            .at
            .checked_add(n)
            .filter(|&end| end <= self.bytes.len());
        let end = end.ok_or(Damaged { at: self.at })?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Damaged> {
        Ok(self.take(1)?[0])
    }

    pub(crate) fn number(&mut self) -> Result<u64, Damaged> {
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let byte = self.byte()?;
            if shift > 63 {
                return Err(Damaged { at: self.at });
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
            shift += 7;
        }
    }

    pub(crate) fn small(&mut self) -> Result<u32, Damaged> {
        let at = self.at;
        u32::try_from(self.number()?).map_err(|_| Damaged { at })
    }

    pub(crate) fn string(&mut self) -> Result<Vec<u8>, Damaged> {
        self.take_string().map(<[u8]>::to_vec)
    }

    pub(crate) fn take_string(&mut self) -> Result<&'a [u8], Damaged> {
        let at = self.at;
        let n = usize::try_from(self.number()?).map_err(|_| Damaged { at })?;
        self.take(n)
    }

    pub(crate) fn signed(&mut self) -> Result<i64, Damaged> {
        let zigzag = self.number()?;
        Ok((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed())
    }

    pub(crate) fn digest(&mut self) -> Result<Digest, Damaged> {
        let mut hash = [0; 32];
        hash.copy_from_slice(self.take(32)?);
        Ok(Digest::new(Algorithm::Blake3, hash))
    }
}
