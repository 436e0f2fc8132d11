//! Platforms: operating system, architecture, variant, as `linux/arm64/v8`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::encode::{Encode, Encoder};

/// What an image runs on, in the normal form of the OCI image specification.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// Operating system, as Go names it: `linux`.
    pub os: String,
    /// Architecture, as Go names it: `amd64`, `arm64`.
    pub architecture: String,
    /// Variant of the architecture: `v7` of `arm`. Left out where there is a usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// Says why a text is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a platform: expected os/architecture or os/architecture/variant, such as linux/arm64"
)]
pub struct ParsePlatformError(pub String);

/// The architectures that Go knows, which are those that images can be for.
const ARCHITECTURES: [&str; 15] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64",
    "ppc64le", "riscv64", "s390x", "sparc64", "wasm",
];

impl Platform {
    /// Returns the platform of a Linux architecture, in normal form.
    pub fn linux(architecture: &str) -> Self {
        Self::normal("linux", architecture, None)
    }

    /// Returns the platform that this machine runs.
    pub fn host() -> Self {
        Self::linux(std::env::consts::ARCH)
    }

    /// Returns true if an image for `self` runs where `wanted` is asked for.
    pub fn satisfies(&self, wanted: &Self) -> bool {
        let usual = |p: &Self| match (p.architecture.as_str(), p.variant.as_deref()) {
            ("arm", None) => Some("v7".to_owned()),
            (_, variant) => variant.map(str::to_owned),
        };
        self.os == wanted.os
            && self.architecture == wanted.architecture
            && usual(self) == usual(wanted)
    }

    /// Returns the normal form: aliases resolved, usual variants left out.
    pub fn normal(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let os = os.to_ascii_lowercase();
        let architecture = architecture.to_ascii_lowercase();
        let variant = variant
            .map(str::to_ascii_lowercase)
            .filter(|v| !v.is_empty());
        let (architecture, variant) = match (architecture.as_str(), variant.as_deref()) {
            ("x86_64" | "x86-64" | "amd64", None | Some("v1")) => ("amd64", None),
            ("x86_64" | "x86-64" | "amd64", Some(v)) => ("amd64", Some(v)),
            ("aarch64" | "arm64", None | Some("8" | "v8")) => ("arm64", None),
            ("aarch64" | "arm64", Some(v)) => ("arm64", Some(v)),
            ("i386" | "i686" | "386" | "x86", _) => ("386", None),
            ("armhf", _) => ("arm", Some("v7")),
            ("armel", _) => ("arm", Some("v6")),
            ("arm", None | Some("7")) => ("arm", Some("v7")),
            ("arm", Some("5")) => ("arm", Some("v5")),
            ("arm", Some("6")) => ("arm", Some("v6")),
            ("arm", Some("8")) => ("arm", Some("v8")),
            ("powerpc64le" | "powerpc64", v) => ("ppc64le", v),
            (other, v) => (other, v),
        };
        Self {
            os: if os == "macos" {
                "darwin".to_owned()
            } else {
                os
            },
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = ParsePlatformError;

    fn from_str(text: &str) -> Result<Self, ParsePlatformError> {
        let word = |w: &str| {
            !w.is_empty()
                && w.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
        };
        let words: Vec<&str> = text.split('/').collect();
        if !words.iter().all(|w| word(w)) {
            return Err(ParsePlatformError(text.to_owned()));
        }
        match words[..] {
            ["local"] => Ok(Self::host()),
            // One word is an operating system or an architecture; kiln makes Linux images.
            ["linux"] => Ok(Self::normal("linux", std::env::consts::ARCH, None)),
            [word] if is_architecture(word) => Ok(Self::linux(word)),
            [os, architecture] => Ok(Self::normal(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::normal(os, architecture, Some(variant))),
            _ => Err(ParsePlatformError(text.to_owned())),
        }
    }
}

/// Returns true for an architecture that needs no operating system beside it to be understood.
fn is_architecture(word: &str) -> bool {
    let normal = Platform::linux(word).architecture;
    ARCHITECTURES.contains(&normal.as_str())
}

impl Encode for Platform {
    fn encode(&self, encoder: &mut Encoder) {
        encoder
            .text(&self.os)
            .text(&self.architecture)
            .value(&self.variant);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_are_resolved() {
        for (text, normal) in [
            ("linux/x86_64", "linux/amd64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("arm64", "linux/arm64"),
            ("Linux/AMD64", "linux/amd64"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), normal);
        }
    }

    #[test]
    fn refuses_what_is_not_a_platform() {
        for text in ["", "amd46", "linux/", "linux/a/b/c/d", "linux/a b"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}
