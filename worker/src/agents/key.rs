//! A private key that signs for SSH. It is never written out again.

use std::fmt;

use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaEncoding, RsaKeyPair,
};

use crate::agents::wire::{put_integer, put_string, strings};

/// Flags of a request to sign (RFC 9987, section 3.6.1).
const RSA_SHA2_256: u32 = 2;
const RSA_SHA2_512: u32 = 4;

/// A private key, and the public one as SSH writes it.
pub(crate) struct Key {
    pair: Pair,
    public: Vec<u8>,
}

/// What signs.
pub(crate) enum Pair {
    Ed25519(Box<Ed25519KeyPair>),
    Rsa(Box<RsaKeyPair>),
    Ecdsa(Curve, Box<EcdsaKeyPair>),
}

/// A curve for ECDSA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    P384,
}

impl Curve {
    /// Returns the curve of a name.
    pub(crate) fn of_name(name: &[u8]) -> Option<Self> {
        let all = [Self::P256, Self::P384];
        all.into_iter()
            .find(|curve| curve.name().as_bytes() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::P256 => "nistp256",
            Self::P384 => "nistp384",
        }
    }

    /// Returns the length of a private key in bytes.
    pub(crate) fn length(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }

    pub(crate) fn algorithm(self) -> &'static ring::signature::EcdsaSigningAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
            Self::P384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
        }
    }
}

impl Key {
    pub(crate) fn new(pair: Pair) -> Self {
        let public = public_of(&pair);
        Self { pair, public }
    }

    /// Returns the public key as SSH writes it.
    pub(crate) fn public(&self) -> &[u8] {
        &self.public
    }

    /// Signs; `None` if the key cannot sign in the way that is asked for, which is SHA-1 with RSA.
    pub(crate) fn sign(&self, data: &[u8], flags: u32) -> Option<Vec<u8>> {
        match &self.pair {
            Pair::Ed25519(pair) => Some(strings(&[b"ssh-ed25519", pair.sign(data).as_ref()])),
            Pair::Rsa(pair) => sign_with_rsa(pair, data, flags),
            Pair::Ecdsa(curve, pair) => sign_with_ecdsa(*curve, pair, data),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.pair {
            Pair::Ed25519(_) => "Key(Ed25519)",
            Pair::Rsa(_) => "Key(RSA)",
            Pair::Ecdsa(..) => "Key(ECDSA)",
        })
    }
}

fn public_of(pair: &Pair) -> Vec<u8> {
    match pair {
        Pair::Ed25519(pair) => strings(&[b"ssh-ed25519", pair.public_key().as_ref()]),
        Pair::Rsa(pair) => {
            let public = PublicKeyComponents::<Vec<u8>>::from(pair.public());
            let mut out = strings(&[b"ssh-rsa"]);
            put_integer(&mut out, &public.e);
            put_integer(&mut out, &public.n);
            out
        }
        Pair::Ecdsa(curve, pair) => {
            let kind = format!("ecdsa-sha2-{}", curve.name());
            let point = pair.public_key().as_ref();
            strings(&[kind.as_bytes(), curve.name().as_bytes(), point])
        }
    }
}

fn sign_with_rsa(pair: &RsaKeyPair, data: &[u8], flags: u32) -> Option<Vec<u8>> {
    let (name, encoding): (&[u8], &dyn RsaEncoding) = if flags & RSA_SHA2_512 != 0 {
        (b"rsa-sha2-512", &RSA_PKCS1_SHA512)
    } else if flags & RSA_SHA2_256 != 0 {
        (b"rsa-sha2-256", &RSA_PKCS1_SHA256)
    } else {
        return None;
    };
    let mut signature = vec![0; pair.public().modulus_len()];
    let random = SystemRandom::new();
    pair.sign(encoding, &random, data, &mut signature).ok()?;
    Some(strings(&[name, &signature]))
}

fn sign_with_ecdsa(curve: Curve, pair: &EcdsaKeyPair, data: &[u8]) -> Option<Vec<u8>> {
    let signature = pair.sign(&SystemRandom::new(), data).ok()?;
    let (r, s) = signature.as_ref().split_at(curve.length());
    let mut both = Vec::new();
    put_integer(&mut both, r);
    put_integer(&mut both, s);
    let mut out = strings(&[format!("ecdsa-sha2-{}", curve.name()).as_bytes()]);
    put_string(&mut out, &both);
    Some(out)
}
