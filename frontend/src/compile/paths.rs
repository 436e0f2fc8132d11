//! Paths inside an image: joined and cleaned as text, without looking at any file.

/// Returns an absolute path without `.`, `..` and double slashes.
pub(super) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Returns a path without `.`, `..` in its middle and double slashes; a relative one stays so,
/// and an empty one is `.`.
pub(super) fn cleaned(path: &str) -> String {
    if path.starts_with('/') {
        return clean(path);
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    match parts.is_empty() {
        true => ".".to_owned(),
        false => parts.join("/"),
    }
}

/// Returns `path` as seen from `dir`; an absolute path stays as written.
pub(super) fn from_dir(dir: &str, path: &str) -> String {
    if path.is_empty() {
        return if dir.is_empty() { "/" } else { dir }.to_owned();
    }
    if path.starts_with('/') {
        return path.to_owned();
    }
    clean(&format!("{dir}/{path}"))
}

/// Returns the destination of a copy: absolute, with a slash at its end if it was written as a
/// directory.
pub(super) fn destination(dir: &str, path: &str) -> String {
    let path = if path.is_empty() { "." } else { path };
    let is_directory = path.ends_with('/') || path == "." || path.ends_with("/.");
    let cleaned = clean(&from_dir(dir, path));
    if is_directory && cleaned != "/" {
        return cleaned + "/";
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_keep_their_slash() {
        for (dir, path, expected) in [
            ("/w/x", ".", "/w/x/"),
            ("/w/x", "", "/w/x/"),
            ("/w/x", "./g", "/w/x/g"),
            ("/w/x", "sub/", "/w/x/sub/"),
            ("/w/x", "../beside", "/w/beside"),
            ("/w/x", "/abs", "/abs"),
            ("/w", "/a/../../b/", "/b/"),
            ("/w", "/a/.", "/a/"),
            ("/", ".", "/"),
            ("", "a", "/a"),
        ] {
            assert_eq!(destination(dir, path), expected, "{dir} {path}");
        }
    }

    #[test]
    fn relative_paths_stay_relative() {
        for (path, expected) in [
            ("", "."),
            ("a/./b//c/", "a/b/c"),
            ("a/..", "."),
            ("../../a/../b", "../../b"),
            ("/../a", "/a"),
        ] {
            assert_eq!(cleaned(path), expected, "{path}");
        }
    }

    #[test]
    fn absolute_paths_stay_as_written() {
        for (dir, path, expected) in [
            ("/a", "/b/", "/b/"),
            ("/a", "b/../c/", "/a/c"),
            ("", "rel", "/rel"),
            ("/a/", "", "/a/"),
            ("", "", "/"),
        ] {
            assert_eq!(from_dir(dir, path), expected, "{dir} {path}");
        }
    }
}
