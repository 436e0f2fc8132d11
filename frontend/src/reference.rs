//! Image names, as far as names of contexts and frontends are compared with them.
//!
//! Does not validate: the registry client parses references before anything is fetched.

/// Returns the short form of an image name: no default registry, no `library/`, no `:latest`.
pub(crate) fn familiar(name: &str) -> String {
    let name = name.strip_suffix(":latest").unwrap_or(name);
    let short = name
        .strip_prefix("docker.io/")
        .or_else(|| name.strip_prefix("index.docker.io/"));
    let short = match short {
        Some(rest) => rest,
        None if name.contains('/') => return name.to_owned(),
        None => name,
    };
    match short.strip_prefix("library/") {
        Some(rest) if !rest.contains('/') => rest.to_owned(),
        _ => short.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_parts_are_left_out() {
        for (name, short) in [
            ("busybox", "busybox"),
            ("busybox:latest", "busybox"),
            ("docker.io/library/busybox:1", "busybox:1"),
            ("docker.io/a/b", "a/b"),
            ("a/b:latest", "a/b"),
            ("quay.io/library/x", "quay.io/library/x"),
            ("library/x", "library/x"),
        ] {
            assert_eq!(familiar(name), short);
        }
    }
}
