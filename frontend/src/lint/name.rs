//! Which texts can be the name of an image.
//!
//! The grammar is that of the distribution project's references. Only tells names from other
//! texts: the registry client takes them apart.

/// Returns true if `text` is `[registry/]path[:tag][@digest]`.
pub(super) fn is_image_name(text: &str) -> bool {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    if !digest.is_none_or(is_digest) {
        return false;
    }
    let (registry, rest) = match rest.split_once('/') {
        Some((first, rest)) if is_registry(first) => (Some(first), rest),
        _ => (None, rest),
    };
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (rest, None),
    };
    let is_id = registry.is_none() && tag.is_none() && digest.is_none() && is_hex(path, 64);
    !is_id && path.split('/').all(is_component) && tag.is_none_or(is_tag)
}

/// The first part is a registry if it could not be a part of a path on Docker Hub.
fn is_registry(text: &str) -> bool {
    let has_mark = text.contains(['.', ':']) || text == "localhost";
    if !has_mark && text == text.to_lowercase() {
        return false;
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let is_label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_address = host.starts_with('[') && host.ends_with(']');
    (is_address || host.split('.').all(is_label)) && port.is_none_or(is_port)
}

/// Lower case letters and digits, with `.`, `_`, `__` or hyphens between them.
fn is_component(text: &str) -> bool {
    let belongs = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    let is_inner = |c: char| "._-".contains(c);
    let separators = text.split(|c: char| !is_inner(c));
    !text.is_empty()
        && text.bytes().all(belongs)
        && !text.starts_with(is_inner)
        && !text.ends_with(is_inner)
        && separators
            .filter(|separator| !separator.is_empty())
            .all(|separator| {
                matches!(separator, "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
            })
}

fn is_tag(text: &str) -> bool {
    let belongs = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    !text.is_empty()
        && text.len() <= 128
        && text.bytes().all(belongs)
        && !text.starts_with(['.', '-'])
}

fn is_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else {
        return false;
    };
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return false,
    };
    is_hex(hex, length)
}

fn is_hex(text: &str, length: usize) -> bool {
    let is_digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    text.len() == length && text.bytes().all(is_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images_are_recognised() {
        let pinned = format!("a@sha256:{}", "0".repeat(64));
        for name in [
            "busybox",
            "busybox:1.36-glibc",
            "a/b/c",
            "localhost/a",
            "localhost:5000/a:x",
            "Example.com/a",
            "[::1]:80/a",
            "a__b/c--d.e",
            &pinned,
        ] {
            assert!(is_image_name(name), "{name}");
        }
        let id = "0".repeat(64);
        for name in [
            "",
            "Busybox",
            "busybox:",
            "busybox:-x",
            ":latest",
            "a//b",
            "a/b:",
            "a..b",
            "-a",
            "a@sha256:0",
            "a b",
            "a:b:c",
            "/a",
            &id,
        ] {
            assert!(!is_image_name(name), "{name}");
        }
    }
}
