//! Files of private keys: OpenSSH's own format, PKCS#8, PKCS#1 and SEC 1.
//!
//! ```text
//! openssh-key-v1\0  cipher  kdf  kdf options  number of keys  public key  private part
//! private part:     check  check  kind  numbers of the key  comment  1 2 3 …
//! ```
//!
//! (OpenSSH, `PROTOCOL.key`.) Encrypted keys are refused: nobody could be asked for the words.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPairComponents, PublicKeyComponents};
use ring::signature::{EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair};
use zeroize::Zeroizing;

use crate::agents::key::{Curve, Key, Pair};
use crate::agents::wire::Reader;

const MAGIC: &[u8] = b"openssh-key-v1\0";

/// Why a file is no key that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It does not look like one.
    #[error("it is not a private key")]
    NotAKey,
    /// It is damaged.
    #[error("the private key is malformed")]
    Malformed,
    /// It is encrypted.
    #[error("the private key is encrypted")]
    Encrypted,
    /// It is of another kind.
    #[error("private keys of this kind are not supported: Ed25519, ECDSA P-256 and P-384, RSA")]
    Unsupported,
    /// It is RSA of another size.
    #[error("RSA keys must have 2048 to 4096 bits, and their numbers must fit together")]
    Rsa,
}

impl KeyError {
    /// Returns what the user can do.
    pub(crate) fn hint(self) -> Option<&'static str> {
        match self {
            Self::Encrypted | Self::Unsupported => {
                Some("add it to an agent with ssh-add, and give that: --ssh ID=SOCKET")
            }
            Self::NotAKey | Self::Malformed | Self::Rsa => None,
        }
    }
}

/// Reads a key from the text of its file.
pub(crate) fn parse(text: &[u8]) -> Result<Key, KeyError> {
    let text = std::str::from_utf8(text).map_err(|_| KeyError::NotAKey)?;
    let (label, bytes) = unarmored(text)?;
    let pair = match label {
        "OPENSSH PRIVATE KEY" => openssh(&bytes)?,
        "PRIVATE KEY" => pkcs8(&bytes)?,
        "RSA PRIVATE KEY" => rsa(RsaKeyPair::from_der(&bytes))?,
        "EC PRIVATE KEY" => sec1(&bytes)?,
        "ENCRYPTED PRIVATE KEY" => return Err(KeyError::Encrypted),
        other if other.ends_with("PRIVATE KEY") => return Err(KeyError::Unsupported),
        _ => return Err(KeyError::NotAKey),
    };
    Ok(Key::new(pair))
}

/// Returns label and bytes of the first PEM block (RFC 7468).
fn unarmored(text: &str) -> Result<(&str, Zeroizing<Vec<u8>>), KeyError> {
    let mut lines = text.lines().map(str::trim);
    let label = lines
        .find_map(|line| line.strip_prefix("-----BEGIN ")?.strip_suffix("-----"))
        .ok_or(KeyError::NotAKey)?;
    let mut armored = Zeroizing::new(String::with_capacity(text.len()));
    for line in lines {
        if line
            .strip_prefix("-----END ")
            .and_then(|end| end.strip_suffix("-----"))
            == Some(label)
        {
            let bytes = STANDARD.decode(armored.as_bytes());
            return Ok((
                label,
                Zeroizing::new(bytes.map_err(|_| KeyError::Malformed)?),
            ));
        }
        if line.starts_with("Proc-Type:") && line.contains("ENCRYPTED") {
            return Err(KeyError::Encrypted);
        }
        armored.push_str(line);
    }
    Err(KeyError::Malformed)
}

fn openssh(bytes: &[u8]) -> Result<Pair, KeyError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(KeyError::Malformed)?;
    let mut reader = Reader(rest);
    let mut header = || Some((reader.string()?, reader.string()?, reader.string()?));
    let (cipher, _, _) = header().ok_or(KeyError::Malformed)?;
    if cipher != b"none" {
        return Err(KeyError::Encrypted);
    }
    let mut body = || Some((reader.number()?, reader.string()?, reader.string()?));
    let (1, _, private) = body().ok_or(KeyError::Malformed)? else {
        return Err(KeyError::Unsupported);
    };
    let mut reader = Reader(private);
    let mut head = || Some((reader.number()?, reader.number()?, reader.string()?));
    match head().ok_or(KeyError::Malformed)? {
        (check, again, _) if check != again => Err(KeyError::Malformed),
        (_, _, b"ssh-ed25519") => openssh_ed25519(&mut reader),
        (_, _, b"ssh-rsa") => openssh_rsa(&mut reader),
        (_, _, b"ecdsa-sha2-nistp256" | b"ecdsa-sha2-nistp384") => openssh_ecdsa(&mut reader),
        _ => Err(KeyError::Unsupported),
    }
}

fn openssh_ed25519(reader: &mut Reader<'_>) -> Result<Pair, KeyError> {
    let mut numbers = || Some((reader.string()?, reader.string()?.split_at_checked(32)?.0));
    let (public, seed) = numbers().ok_or(KeyError::Malformed)?;
    let pair = Ed25519KeyPair::from_seed_and_public_key(seed, public);
    let pair = pair.map_err(|_| KeyError::Malformed)?;
    Ok(Pair::Ed25519(Box::new(pair)))
}

fn openssh_ecdsa(reader: &mut Reader<'_>) -> Result<Pair, KeyError> {
    let mut numbers = || Some((reader.string()?, reader.string()?, reader.integer()?));
    let (name, public, private) = numbers().ok_or(KeyError::Malformed)?;
    let curve = Curve::of_name(name).ok_or(KeyError::Unsupported)?;
    ecdsa(curve, private, public)
}

fn openssh_rsa(reader: &mut Reader<'_>) -> Result<Pair, KeyError> {
    let mut numbers = || {
        let (n, e, d) = (reader.integer()?, reader.integer()?, reader.integer()?);
        Some((
            n,
            e,
            d,
            reader.integer()?,
            reader.integer()?,
            reader.integer()?,
        ))
    };
    let (n, e, d, q_inverse, p, q) = numbers().ok_or(KeyError::Malformed)?;
    let (d_p, d_q) = (
        remainder_below_one(d, p).ok_or(KeyError::Rsa)?,
        remainder_below_one(d, q).ok_or(KeyError::Rsa)?,
    );
    rsa(RsaKeyPair::from_components(&KeyPairComponents {
        public_key: PublicKeyComponents { n, e },
        d,
        p,
        q,
        dP: &d_p[..],
        dQ: &d_q[..],
        qInv: q_inverse,
    }))
}

fn rsa(pair: Result<RsaKeyPair, ring::error::KeyRejected>) -> Result<Pair, KeyError> {
    pair.map(|pair| Pair::Rsa(Box::new(pair)))
        .map_err(|_| KeyError::Rsa)
}

/// Returns a key from its number, which may lack leading zeros, and its uncompressed point.
fn ecdsa(curve: Curve, private: &[u8], public: &[u8]) -> Result<Pair, KeyError> {
    let n_zeros = curve.length().checked_sub(private.len());
    let mut padded = Zeroizing::new(vec![0; n_zeros.ok_or(KeyError::Malformed)?]);
    padded.extend_from_slice(private);
    let random = SystemRandom::new();
    let algorithm = curve.algorithm();
    let pair = EcdsaKeyPair::from_private_key_and_public_key(algorithm, &padded, public, &random);
    let pair = pair.map_err(|_| KeyError::Malformed)?;
    Ok(Pair::Ecdsa(curve, Box::new(pair)))
}

fn pkcs8(bytes: &[u8]) -> Result<Pair, KeyError> {
    if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes) {
        return Ok(Pair::Ed25519(Box::new(pair)));
    }
    for curve in [Curve::P256, Curve::P384] {
        let random = SystemRandom::new();
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(curve.algorithm(), bytes, &random) {
            return Ok(Pair::Ecdsa(curve, Box::new(pair)));
        }
    }
    // What is not RSA either says so by its algorithm.
    const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
    match bytes
        .windows(RSA_ENCRYPTION.len())
        .take(64)
        .any(|w| w == RSA_ENCRYPTION)
    {
        true => rsa(RsaKeyPair::from_pkcs8(bytes)),
        false => Err(KeyError::Unsupported),
    }
}

/// Reads `ECPrivateKey` (RFC 5915): version, number, curve, point.
fn sec1(bytes: &[u8]) -> Result<Pair, KeyError> {
    let mut outer = Der(bytes);
    let mut fields = || {
        let mut inner = Der(outer.value(0x30)?);
        inner.value(0x02)?;
        let private = inner.value(0x04)?;
        let _curve = inner.value(0xa0)?;
        // A bit string begins with the number of bits that do not count.
        let point = Der(inner.value(0xa1)?).value(0x03)?.strip_prefix(&[0])?;
        Some((private, point))
    };
    let (private, public) = fields().ok_or(KeyError::Malformed)?;
    // An uncompressed point is as long as two numbers and a byte.
    let curves = [Curve::P256, Curve::P384];
    let curve = curves
        .into_iter()
        .find(|curve| public.len() == 2 * curve.length() + 1);
    ecdsa(curve.ok_or(KeyError::Unsupported)?, private, public)
}

/// Reads DER from the front of some bytes.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// Returns what the next value holds, if it has this tag.
    fn value(&mut self, tag: u8) -> Option<&'a [u8]> {
        let [found, length, rest @ ..] = self.0 else {
            return None;
        };
        let (length, rest) = match length {
            0..=0x7f => (usize::from(*length), rest),
            0x81 => (usize::from(*rest.first()?), &rest[1..]),
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        (*found == tag).then_some(value)
    }
}

/// Returns `number mod (prime - 1)`, which the format of OpenSSH leaves out; `None` for what is
/// no prime. One bit at a time: it is done once for a key.
fn remainder_below_one(number: &[u8], prime: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut modulus = Zeroizing::new(prime.to_vec());
    let last = modulus.last_mut().filter(|last| **last & 1 == 1)?;
    *last -= 1;
    if prime.len() < 2 || prime.len() > 1024 || number.len() > 2048 {
        return None;
    }
    // With a byte in front, so that twice a remainder has room.
    modulus.insert(0, 0);
    let mut remainder = Zeroizing::new(vec![0_u8; modulus.len()]);
    for bit in number
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |n| byte >> n & 1))
    {
        let mut carry = bit;
        for byte in remainder.iter_mut().rev() {
            (*byte, carry) = (*byte << 1 | carry, *byte >> 7);
        }
        if remainder[..] >= modulus[..] {
            subtract(&mut remainder, &modulus);
        }
    }
    remainder.remove(0);
    Some(remainder)
}

/// Subtracts a number of the same length that is not larger.
fn subtract(from: &mut [u8], number: &[u8]) {
    let mut borrow = false;
    for (byte, other) in from.iter_mut().zip(number).rev() {
        let (less, first) = byte.overflowing_sub(*other);
        let (less, second) = less.overflowing_sub(u8::from(borrow));
        (*byte, borrow) = (less, first || second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remainders_are_those_of_small_numbers() {
        for (number, prime) in [(0_u32, 257_u16), (255, 257), (256, 257), (1 << 31, 40_961)] {
            let found = remainder_below_one(&number.to_be_bytes(), &prime.to_be_bytes()).unwrap();
            let expected = number % u32::from(prime - 1);
            assert_eq!(found[..], expected.to_be_bytes()[2..], "{number} {prime}");
        }
        assert!(remainder_below_one(&[1], &[1, 0]).is_none());
        assert!(remainder_below_one(&[1], &[]).is_none());
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let armor = |label: &str, body: &str| {
            format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
        };
        let encrypted = "Proc-Type: 4,ENCRYPTED\nDEK-Info: x\n\nAAAA";
        for (text, expected) in [
            (String::new(), KeyError::NotAKey),
            ("ssh-ed25519 AAAA me".to_owned(), KeyError::NotAKey),
            (armor("CERTIFICATE", "AAAA"), KeyError::NotAKey),
            (armor("OPENSSH PRIVATE KEY", "AAAA"), KeyError::Malformed),
            (armor("OPENSSH PRIVATE KEY", "!"), KeyError::Malformed),
            (armor("RSA PRIVATE KEY", encrypted), KeyError::Encrypted),
            (armor("ENCRYPTED PRIVATE KEY", "AAAA"), KeyError::Encrypted),
            (armor("DSA PRIVATE KEY", "AAAA"), KeyError::Unsupported),
            (armor("PRIVATE KEY", "AAAA"), KeyError::Unsupported),
            (armor("EC PRIVATE KEY", "AAAA"), KeyError::Malformed),
            (armor("RSA PRIVATE KEY", "AAAA"), KeyError::Rsa),
            (
                "-----BEGIN PRIVATE KEY-----\nAAAA\n".to_owned(),
                KeyError::Malformed,
            ),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap_err(), expected, "{text}");
        }
        assert_eq!(parse(&[0xff, 0xfe]).unwrap_err(), KeyError::NotAKey);
    }
}
