//! PAX extended headers: `LENGTH KEY=VALUE\n`, where a value may hold any byte, newlines included.
//!
//! Only what changes an entry is kept. An empty value takes an earlier one back, except for an
//! extended attribute, which may be empty.

use crate::archive::error::Problem;
use crate::archive::sparse::SparseRecords;
use crate::archive::{MAX_NAME, MAX_PAX};
use crate::filelist::Mtime;

const XATTR: &[u8] = b"SCHILY.xattr.";
const SPARSE: &[u8] = b"GNU.sparse.";

/// What an extended header says.
#[derive(Debug, Clone, Default)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Mtime>,
    pub(super) sparse: SparseRecords,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Records {
    /// Reads the header of one entry.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        let mut records = Self::default();
        records.take_all(bytes)?;
        Ok(records)
    }

    /// Adds a header that holds for all entries that follow.
    pub(super) fn merge_global(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        self.take_all(bytes)?;
        let per_entry = self.path.is_some()
            || self.link.is_some()
            || self.size.is_some()
            || !self.sparse.is_empty();
        if per_entry {
            return Err("a global header sets a path, a size or a sparse map");
        }
        let held: usize = self
            .xattrs
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        if held > MAX_PAX {
            return Err("global headers hold more than 1 MiB");
        }
        Ok(())
    }

    /// Returns the attributes of an entry, sorted, the global ones included.
    pub(super) fn xattrs_over(&self, globals: &Self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut all: Vec<_> = self.xattrs.iter().chain(&globals.xattrs).cloned().collect();
        // The sort is stable: an entry's own attribute stays before a global one.
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all.dedup_by(|later, earlier| later.0 == earlier.0);
        all
    }

    fn take_all(&mut self, mut bytes: &[u8]) -> Result<(), Problem> {
        let n_before = self.xattrs.len();
        while !bytes.is_empty() {
            let record = Record::first(bytes)?;
            self.take(record.key, record.value)?;
            bytes = record.rest;
        }
        if self.xattrs.len() > n_before {
            // Of several values the last one holds.
            self.xattrs.reverse();
            self.xattrs.sort_by(|a, b| a.0.cmp(&b.0));
            self.xattrs.dedup_by(|later, earlier| later.0 == earlier.0);
        }
        Ok(())
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Problem> {
        if let Some(name) = key.strip_prefix(XATTR) {
            if name.is_empty() || name.contains(&0) {
                return Err("the name of an extended attribute is malformed");
            }
            self.xattrs.push((name.to_vec(), value.to_vec()));
            return Ok(());
        }
        if let Some(key) = key.strip_prefix(SPARSE) {
            return self.sparse.take(key, value);
        }
        match key {
            b"path" => self.path = name(value)?,
            b"linkpath" => self.link = name(value)?,
            b"size" => self.size = optional(value, decimal)?,
            b"uid" => self.uid = optional(value, small)?,
            b"gid" => self.gid = optional(value, small)?,
            b"mtime" => self.mtime = optional(value, time)?,
            _ => {}
        }
        Ok(())
    }
}

/// A record, and what follows it.
struct Record<'a> {
    key: &'a [u8],
    value: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Record<'a> {
    fn first(bytes: &'a [u8]) -> Result<Self, Problem> {
        Self::split(bytes).ok_or("a record of its extended header is malformed")
    }

    fn split(bytes: &'a [u8]) -> Option<Self> {
        let space = bytes.iter().take(8).position(|&b| b == b' ')?;
        let length = usize::try_from(decimal(&bytes[..space]).ok()?).ok()?;
        let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record
            .iter()
            .position(|&b| b == b'=')
            .filter(|&at| at > 0)?;
        Some(Self {
            key: &record[..equals],
            value: &record[equals + 1..],
            rest: &bytes[length..],
        })
    }
}

fn optional<T>(
    value: &[u8],
    parse: impl FnOnce(&[u8]) -> Result<T, Problem>,
) -> Result<Option<T>, Problem> {
    if value.is_empty() {
        return Ok(None);
    }
    parse(value).map(Some)
}

pub(super) fn name(value: &[u8]) -> Result<Option<Vec<u8>>, Problem> {
    if value.contains(&0) {
        return Err("its name holds a NUL byte");
    }
    if value.len() > MAX_NAME {
        return Err("its name is longer than 4096 bytes");
    }
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

/// Reads digits; what they say fits `i64`.
pub(super) fn decimal(value: &[u8]) -> Result<u64, Problem> {
    let problem = "a number in its extended header is not one";
    if !value.iter().all(u8::is_ascii_digit) {
        return Err(problem);
    }
    let text = str::from_utf8(value).map_err(|_| problem)?;
    let value: i64 = text.parse().map_err(|_| problem)?;
    Ok(value.cast_unsigned())
}

fn small(value: &[u8]) -> Result<u32, Problem> {
    u32::try_from(decimal(value)?).map_err(|_| "an owner is out of range")
}

/// Reads `[-]SECONDS[.FRACTION]`; digits beyond nanoseconds are cut.
fn time(value: &[u8]) -> Result<Mtime, Problem> {
    let problem = "its time is malformed";
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let dot = value.iter().position(|&b| b == b'.');
    let (whole, fraction) = dot.map_or((value, &[][..]), |at| (&value[..at], &value[at + 1..]));
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(problem);
    }
    let whole = decimal(whole).map_err(|_| problem)?.cast_signed();
    let digit = |at: usize| fraction.get(at).map_or(0, |digit| u32::from(digit - b'0'));
    let nanoseconds = (0..9).fold(0, |sum, at| sum * 10 + digit(at));
    Ok(match (negative, nanoseconds) {
        (false, _) => Mtime {
            seconds: whole,
            nanoseconds,
        },
        (true, 0) => Mtime {
            seconds: -whole,
            nanoseconds,
        },
        (true, _) => Mtime {
            seconds: -whole - 1,
            nanoseconds: 1_000_000_000 - nanoseconds,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64, nanoseconds: u32) -> Mtime {
        Mtime {
            seconds,
            nanoseconds,
        }
    }

    #[test]
    fn times() {
        for (text, expected) in [
            ("12", at(12, 0)),
            ("12.5", at(12, 500_000_000)),
            ("12.0000000019", at(12, 1)),
            ("-1.25", at(-2, 750_000_000)),
            ("-3", at(-3, 0)),
            ("-0.5", at(-1, 500_000_000)),
        ] {
            assert_eq!(time(text.as_bytes()), Ok(expected), "{text}");
        }
        for text in ["", "-", "1.-5", "1e3", "99999999999999999999", ".5", "+1"] {
            assert!(time(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn values_may_hold_newlines_and_the_last_one_counts() {
        let records =
            Records::parse(b"12 path=a\nb\n9 path=c\n26 SCHILY.xattr.user.a=\n\0\n").unwrap();
        assert_eq!(records.path.as_deref(), Some(&b"c"[..]));
        let xattrs = records.xattrs_over(&Records::default());
        assert_eq!(xattrs, [(b"user.a".to_vec(), b"\n\0".to_vec())]);
    }

    #[test]
    fn malformed_records_are_refused() {
        let cases: [&[u8]; 8] = [
            b"5 a=b\n",
            b"7 a=b\n",
            b"6 a=b ",
            b"6 abc\n",
            b"5 =b\n",
            b" a=b\n",
            b"99999999999999999999 a=b\n",
            b"0 \n",
        ];
        for bytes in cases {
            assert!(
                Records::parse(bytes).is_err(),
                "{:?}",
                bytes.escape_ascii().to_string()
            );
        }
        assert!(Records::parse(b"11 path=a\0b\n").is_err());
    }
}
