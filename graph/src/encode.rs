//! The canonical encoding: what is hashed when a value is hashed.
//!
//! Rules, all of them:
//! - a number is eight bytes, little-endian; a flag is one byte;
//! - a text or a byte string is its length, then its bytes;
//! - a list is its length, then its items; a set or map is sorted first;
//! - an option is a flag, then the value if there is one;
//! - an enum is its variant's fixed number (one byte), then its fields in declared order.
//!
//! Every field is framed, so no two different values have the same encoding. [`Encoder::new`]
//! writes a domain and [`VERSION`], so keys of one kind or version never meet those of another.

use crate::digest::{Algorithm, Digest, Hasher};
use crate::record::{PartKind, Record, SHOWN, readable};

/// Raised whenever the encoding of any value changes: old keys then miss, and never lie.
pub(crate) const VERSION: u64 = 2;

/// A value with a canonical encoding.
pub trait Encode {
    /// Writes the value.
    fn encode(&self, encoder: &mut Encoder);
}

/// Bytes that are collected before they are hashed: most values are a few bytes long.
const BUFFER: usize = 4096;

/// Hashes the canonical encoding of values.
///
/// A recording encoder also keeps what it hashes: see [`Record`]. What names the parts of a record
/// ([`part`](Self::part), [`field`](Self::field), [`note`](Self::note)) is never hashed.
#[derive(Debug, Clone)]
pub struct Encoder {
    hasher: Hasher,
    buffer: Vec<u8>,
    record: Option<Box<Record>>,
    /// Values are kept as digests.
    hides: bool,
}

impl Encoder {
    /// Starts an encoding in `domain`, for instance `"vertex"`.
    pub fn new(domain: &str) -> Self {
        let hasher = Hasher::new(Algorithm::Blake3);
        let mut encoder = Self {
            hasher,
            buffer: Vec::new(),
            record: None,
            hides: false,
        };
        encoder.text(domain).number(VERSION);
        encoder
    }

    /// Starts an encoding whose parts are kept.
    pub fn recording(domain: &str) -> Self {
        let record = Some(Box::default());
        Self {
            record,
            ..Self::new(domain)
        }
    }

    /// Says that what is written from now on belongs to a part of this name.
    pub fn part(&mut self, kind: PartKind, name: impl FnOnce() -> String) -> &mut Self {
        self.hides = false;
        if let Some(record) = &mut self.record {
            record.begin(kind, name());
        }
        self
    }

    /// Says that what is written from now on is a property of the part.
    pub fn field(&mut self, name: &str) -> &mut Self {
        if let Some(record) = &mut self.record {
            record.begin_field(name, false);
        }
        self
    }

    /// Tells something of the part that is not hashed, if there is something to tell.
    pub fn note(&mut self, name: &str, value: impl FnOnce() -> Option<String>) -> &mut Self {
        if let Some(record) = &mut self.record
            && let Some(value) = value()
        {
            record.note(name, value);
        }
        self
    }

    /// Says what the part is in the words of the user; that is told instead of what is hashed.
    pub fn shown(&mut self, value: impl FnOnce() -> String) -> &mut Self {
        self.note(SHOWN, || Some(value()))
    }

    /// Keeps texts of this part as digests only.
    pub(crate) fn hide(&mut self) -> &mut Self {
        self.hides = true;
        self
    }

    /// Writes a number.
    pub fn number(&mut self, value: u64) -> &mut Self {
        self.keep(|| value.to_string());
        self.write(&value.to_le_bytes())
    }

    /// Writes the fixed number of an enum's variant.
    pub fn variant(&mut self, value: u8) -> &mut Self {
        self.keep(|| value.to_string());
        self.write(&[value])
    }

    /// Writes a flag.
    pub fn flag(&mut self, value: bool) -> &mut Self {
        self.variant(u8::from(value))
    }

    /// Writes a byte string.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        let hides = self.hides;
        self.keep(|| match hides {
            true => Digest::blake3(value).to_string(),
            false => readable(value),
        });
        self.write(&(value.len() as u64).to_le_bytes());
        self.write(value)
    }

    /// Writes a text.
    pub fn text(&mut self, value: &str) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    /// Writes any value that has an encoding.
    pub fn value(&mut self, value: &(impl Encode + ?Sized)) -> &mut Self {
        value.encode(self);
        self
    }

    /// Returns the digest of everything written.
    pub fn finish(mut self) -> Digest {
        self.hasher.update(&self.buffer);
        self.hasher.finish()
    }

    /// Returns the digest of everything written, and what was kept of it: nothing unless this is
    /// a [recording](Self::recording) encoder.
    pub fn finish_with_record(mut self) -> (Digest, Record) {
        let record = self.record.take().map(|record| *record);
        (self.finish(), record.unwrap_or_default())
    }

    fn keep(&mut self, value: impl FnOnce() -> String) {
        if let Some(record) = &mut self.record {
            record.push(value());
        }
    }

    fn write(&mut self, data: &[u8]) -> &mut Self {
        if self.buffer.len() + data.len() > BUFFER {
            self.hasher.update(&self.buffer);
            self.buffer.clear();
        }
        if data.len() > BUFFER {
            self.hasher.update(data);
        } else {
            self.buffer.extend_from_slice(data);
        }
        self
    }
}

impl Encode for str {
    fn encode(&self, encoder: &mut Encoder) {
        encoder.text(self);
    }
}

impl Encode for String {
    fn encode(&self, encoder: &mut Encoder) {
        encoder.text(self);
    }
}

impl Encode for Digest {
    fn encode(&self, encoder: &mut Encoder) {
        encoder.text(self.algorithm().name()).bytes(self.as_bytes());
    }
}

impl<T: Encode> Encode for [T] {
    fn encode(&self, encoder: &mut Encoder) {
        encoder.number(self.len() as u64);
        for item in self {
            item.encode(encoder);
        }
    }
}

impl<T: Encode> Encode for Vec<T> {
    fn encode(&self, encoder: &mut Encoder) {
        self.as_slice().encode(encoder);
    }
}

impl<T: Encode> Encode for Option<T> {
    fn encode(&self, encoder: &mut Encoder) {
        encoder.flag(self.is_some());
        if let Some(value) = self {
            value.encode(encoder);
        }
    }
}

impl<A: Encode, B: Encode> Encode for (A, B) {
    fn encode(&self, encoder: &mut Encoder) {
        self.0.encode(encoder);
        self.1.encode(encoder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(parts: &[&str]) -> Digest {
        let mut encoder = Encoder::new("test");
        for part in parts {
            encoder.text(part);
        }
        encoder.finish()
    }

    #[test]
    fn framing_keeps_fields_apart() {
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
        assert_ne!(digest(&["a"]), digest(&["a", ""]));
    }

    #[test]
    fn domains_keep_kinds_apart() {
        assert_ne!(Encoder::new("a").finish(), Encoder::new("b").finish());
    }

    #[test]
    fn golden_vector() {
        assert_eq!(
            digest(&["kiln", ""]).to_string(),
            "blake3:9f5299eec7ce35bfada38c18f8ad5b39a24f610102d2893c888091ad3e0bba52"
        );
    }
}
