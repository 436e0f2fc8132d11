//! Digests: an algorithm and the hash of some bytes, written `algorithm:hex`.
//!
//! SHA-256 names what registries name (blobs, manifests, diff ids). BLAKE3 names what only kiln
//! names (file contents, content ids, vertices, keys): it is several times faster per core.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

/// A hash function whose output has 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, for everything a registry or another tool sees.
    Sha256,
    /// BLAKE3, for everything that stays inside kiln.
    Blake3,
}

impl Algorithm {
    /// Returns the name as it stands before the colon.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Blake3 => "blake3",
        }
    }
}

/// Algorithm and hash of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    bytes: [u8; 32],
}

/// Says why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseDigestError {
    /// There is no colon between algorithm and hash.
    #[error("`{0}` is not a digest: expected `sha256:` and 64 hexadecimal digits")]
    Malformed(String),
    /// The algorithm is not one of [`Algorithm`].
    #[error("`{0}` names a digest algorithm that is not supported; sha256 is")]
    Algorithm(String),
}

impl Digest {
    /// Returns the digest with these hash bytes.
    pub fn new(algorithm: Algorithm, bytes: [u8; 32]) -> Self {
        Self { algorithm, bytes }
    }

    /// Hashes `data` with SHA-256.
    pub fn sha256(data: impl AsRef<[u8]>) -> Self {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(data.as_ref());
        hasher.finish()
    }

    /// Hashes `data` with BLAKE3.
    pub fn blake3(data: impl AsRef<[u8]>) -> Self {
        let mut hasher = Hasher::new(Algorithm::Blake3);
        hasher.update(data.as_ref());
        hasher.finish()
    }

    /// Returns the algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns the hash itself.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// Returns the hash as 64 lower-case hexadecimal digits.
    pub fn hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut out = String::with_capacity(64);
        for byte in self.bytes {
            out.push(char::from(DIGITS[usize::from(byte >> 4)]));
            out.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        out
    }

    /// Returns the first twelve hexadecimal digits, for people.
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        let malformed = || ParseDigestError::Malformed(text.to_owned());
        let (name, hex) = text.split_once(':').ok_or_else(malformed)?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "blake3" => Algorithm::Blake3,
            _ => return Err(ParseDigestError::Algorithm(text.to_owned())),
        };
        if hex.len() != 64 {
            return Err(malformed());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
            let (high, low) = (nibble(pair[0]), nibble(pair[1]));
            *byte = (high.ok_or_else(malformed)? << 4) | low.ok_or_else(malformed)?;
        }
        Ok(Self { algorithm, bytes })
    }
}

/// Upper case is refused, as the OCI specification does.
fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Hashes bytes as they come.
#[derive(Debug, Clone)]
pub struct Hasher(State);

#[derive(Debug, Clone)]
enum State {
    Sha256(sha2::Sha256),
    Blake3(Box<blake3::Hasher>),
}

impl Hasher {
    /// Starts an empty hash.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Blake3 => State::Blake3(Box::default()),
        })
    }

    /// Adds `data`.
    pub fn update(&mut self, data: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(data),
            State::Blake3(state) => {
                state.update(data);
            }
        }
    }

    /// Returns the digest of everything added.
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(state) => Digest::new(Algorithm::Sha256, state.finalize().into()),
            State::Blake3(state) => Digest::new(Algorithm::Blake3, state.finalize().into()),
        }
    }
}

impl std::io::Write for Hasher {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.update(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_hashes() {
        assert_eq!(
            Digest::sha256("").to_string(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(
            Digest::blake3("").to_string(),
            "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
    }

    #[test]
    fn text_round_trip() {
        let digest = Digest::blake3("kiln");
        assert_eq!(digest.to_string().parse(), Ok(digest));
    }

    #[test]
    fn refuses_what_is_not_a_digest() {
        for text in ["", "sha256", "sha256:12", "sha256:E3B0", "md5:00"] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
        let upper = Digest::sha256("").to_string().to_uppercase();
        assert!(upper.replace("SHA", "sha").parse::<Digest>().is_err());
    }
}
