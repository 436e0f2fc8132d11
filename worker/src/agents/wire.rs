//! The encoding of SSH (RFC 4251, section 5): numbers, strings, multiple-precision integers.

/// Reads values from the front of some bytes; `None` where they are not what they should be.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        self.bytes(1).map(|bytes| bytes[0])
    }

    pub(crate) fn number(&mut self) -> Option<u32> {
        let bytes = self.bytes(4)?.try_into().ok()?;
        Some(u32::from_be_bytes(bytes))
    }

    pub(crate) fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.bytes(length as usize)
    }

    /// Returns the magnitude of a positive integer, without leading zeros.
    pub(crate) fn integer(&mut self) -> Option<&'a [u8]> {
        let bytes = self.string()?;
        let is_negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
        (!is_negative).then(|| without_leading_zeros(bytes))
    }
}

/// Appends a string.
pub(crate) fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("nothing that is sent is that long");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Appends a positive integer.
pub(crate) fn put_integer(out: &mut Vec<u8>, magnitude: &[u8]) {
    let magnitude = without_leading_zeros(magnitude);
    let is_high = magnitude.first().is_some_and(|first| first & 0x80 != 0);
    let mut bytes = vec![0; usize::from(is_high)];
    bytes.extend_from_slice(magnitude);
    put_string(out, &bytes);
}

/// Returns several strings one after the other.
pub(crate) fn strings(all: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for bytes in all {
        put_string(&mut out, bytes);
    }
    out
}

pub(crate) fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    &bytes[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut out = strings(&[b"abc", b""]);
        put_integer(&mut out, &[0, 0, 0x80]);
        put_integer(&mut out, &[]);
        let mut reader = Reader(&out);
        assert_eq!(reader.string(), Some(&b"abc"[..]));
        assert_eq!(reader.string(), Some(&b""[..]));
        assert_eq!(reader.clone().string(), Some(&[0, 0x80][..]));
        assert_eq!(reader.integer(), Some(&[0x80][..]));
        assert_eq!(reader.integer(), Some(&[][..]));
        assert_eq!((reader.byte(), reader.number()), (None, None));
    }

    #[test]
    fn lengths_that_lie_are_found() {
        assert_eq!(Reader(&[0, 0, 0, 2, b'a']).string(), None);
        assert_eq!(Reader(&[0xff; 4]).string(), None);
        assert_eq!(Reader(&[0, 0, 0, 1, 0x80]).integer(), None, "negative");
    }
}
