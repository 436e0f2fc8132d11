//! Which manifest of an index is for a platform.
//!
//! A pure function. Prefers as containerd does: the exact platform, then lower variants, then the
//! 32-bit architecture that the same processor runs; at last the only entry without a platform.

use kiln_graph::{Descriptor, Index, Platform};

/// An index has nothing for a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no image for {wanted}; there are images for {}", list(.available))]
pub struct PlatformError {
    /// The platform that was asked for.
    pub wanted: Platform,
    /// The platforms that the index has, in its order.
    pub available: Vec<Platform>,
}

fn list(available: &[Platform]) -> String {
    if available.is_empty() {
        return "no platform".to_owned();
    }
    let texts: Vec<String> = available.iter().map(Platform::to_string).collect();
    texts.join(", ")
}

/// Returns the descriptor of the manifest that is best for a platform.
pub fn choose_manifest<'a>(
    index: &'a Index,
    wanted: &Platform,
) -> Result<&'a Descriptor, PlatformError> {
    let wanted = Platform::normal(&wanted.os, &wanted.architecture, wanted.variant.as_deref());
    for candidate in candidates(&wanted) {
        let fits = |descriptor: &&Descriptor| {
            let platform = descriptor.platform.as_ref().map(|p| p.platform());
            platform.is_some_and(|platform| platform.satisfies(&candidate))
        };
        if let Some(descriptor) = index.manifests.iter().find(fits) {
            return Ok(descriptor);
        }
    }
    let mut unnamed = index.manifests.iter().filter(|d| d.platform.is_none());
    if let (Some(only), None) = (unnamed.next(), unnamed.next()) {
        return Ok(only);
    }
    Err(PlatformError {
        available: available(index),
        wanted,
    })
}

/// Returns the platforms of an index, without repetition and without attestations.
fn available(index: &Index) -> Vec<Platform> {
    let mut out = Vec::new();
    for field in index.manifests.iter().filter_map(|d| d.platform.as_ref()) {
        let platform = field.platform();
        // Attestations stand in an index as images for an unknown platform.
        if platform.os != "unknown" && !out.contains(&platform) {
            out.push(platform);
        }
    }
    out
}

/// Returns the platforms that run where `wanted` is asked for, the best first.
fn candidates(wanted: &Platform) -> Vec<Platform> {
    let mut out = vec![wanted.clone()];
    let mut add = |architecture: &str, variant: Option<&str>| {
        out.push(Platform::normal(&wanted.os, architecture, variant));
    };
    let variant = wanted.variant.as_deref();
    match wanted.architecture.as_str() {
        "amd64" => {
            for version in (1..version(variant)).rev() {
                add("amd64", Some(&format!("v{version}")));
            }
            add("386", None);
        }
        "arm" => {
            for version in (5..version(variant)).rev() {
                add("arm", Some(&format!("v{version}")));
            }
        }
        "arm64" => {
            for version in (8..version(variant)).rev() {
                add("arm64", Some(&format!("v{version}")));
            }
            for version in (5..=8).rev() {
                add("arm", Some(&format!("v{version}")));
            }
        }
        _ => {}
    }
    out
}

/// Returns the number in a variant: 3 of `v3`, 8 of `v8.2`.
fn version(variant: Option<&str>) -> u8 {
    let digits = variant.unwrap_or_default().trim_start_matches('v');
    let digits = digits.split('.').next().unwrap_or_default();
    digits.parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use kiln_graph::{Digest, PlatformField};

    use super::*;

    /// An index; each descriptor is named by its position. `-` stands for no platform.
    fn index(platforms: &str) -> Index {
        let descriptor = |text: &str| {
            let mut descriptor = Descriptor::new("m", Digest::sha256(text), 1);
            let mut words = text.split('/').map(str::to_owned);
            descriptor.platform = (text != "-").then(|| PlatformField {
                os: words.next().unwrap(),
                architecture: words.next().unwrap(),
                variant: words.next(),
                rest: serde_json::Map::new(),
            });
            descriptor
        };
        Index {
            schema_version: 2,
            media_type: String::new(),
            manifests: platforms.split_whitespace().map(descriptor).collect(),
            annotations: std::collections::BTreeMap::new(),
        }
    }

    #[test]
    fn best_platform_wins() {
        let all = "linux/386 linux/amd64 linux/arm/v6 linux/arm/v7 linux/arm64/v8 windows/amd64 \
                   unknown/unknown";
        for (platforms, wanted, expected) in [
            (all, "linux/amd64", Some("linux/amd64")),
            (all, "linux/amd64/v3", Some("linux/amd64")),
            (all, "linux/386", Some("linux/386")),
            (all, "linux/arm64", Some("linux/arm64/v8")),
            (all, "linux/arm64/v8", Some("linux/arm64/v8")),
            (all, "linux/arm", Some("linux/arm/v7")),
            (all, "linux/arm/v6", Some("linux/arm/v6")),
            (all, "linux/arm/v5", None),
            (all, "windows/amd64", Some("windows/amd64")),
            (all, "linux/riscv64", None),
            ("linux/arm64", "linux/arm64", Some("linux/arm64")),
            ("linux/arm", "linux/arm/v7", Some("linux/arm")),
            (
                "linux/amd64/v2 linux/amd64/v3 linux/amd64",
                "linux/amd64/v3",
                Some("linux/amd64/v3"),
            ),
            (
                "linux/amd64/v2 linux/amd64",
                "linux/amd64/v3",
                Some("linux/amd64/v2"),
            ),
            (
                "linux/amd64/v2 linux/amd64",
                "linux/amd64",
                Some("linux/amd64"),
            ),
            (
                "linux/arm/v5 linux/arm/v6",
                "linux/arm/v7",
                Some("linux/arm/v6"),
            ),
            (
                "linux/arm/v5 linux/arm/v7",
                "linux/arm64",
                Some("linux/arm/v7"),
            ),
            ("linux/386", "linux/amd64", Some("linux/386")),
            ("linux/x86_64", "linux/amd64", Some("linux/x86_64")),
            ("- linux/arm64", "linux/amd64", Some("-")),
            ("- linux/amd64", "linux/amd64", Some("linux/amd64")),
            ("- -", "linux/amd64", None),
            ("", "linux/amd64", None),
        ] {
            let index = index(platforms);
            let got = choose_manifest(&index, &wanted.parse().unwrap());
            let digest = expected.map(Digest::sha256);
            assert_eq!(
                got.ok().map(|d| d.digest),
                digest,
                "{wanted} of {platforms}"
            );
        }
    }

    #[test]
    fn errors_list_what_there_is() {
        let index = index("linux/amd64 linux/arm64/v8 linux/amd64 unknown/unknown");
        let error = choose_manifest(&index, &"linux/s390x".parse().unwrap()).unwrap_err();
        let text =
            "there is no image for linux/s390x; there are images for linux/amd64, linux/arm64";
        assert_eq!(error.to_string(), text);
    }
}
