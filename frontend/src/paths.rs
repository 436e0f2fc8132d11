//! Paths inside an image or a source: joined and cleaned as text, without looking at any file.

/// Returns an absolute path without `.`, `..` and double slashes.
pub(crate) fn clean(path: &str) -> String {
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

/// Returns a source without `.` and `..`; one that climbs above its root starts with `/../`, for
/// messages: it is looked for below the root all the same.
pub(crate) fn source(path: &str) -> String {
    let mut depth = 0_usize;
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if depth == 0 => return format!("/..{}", clean(path)),
            ".." => depth -= 1,
            _ => depth += 1,
        }
    }
    clean(path)
}

/// Returns a source whose parents are kept: where it is looked for, `/./`, and the path that is
/// kept, both without `.` and `..`.
pub(crate) fn pivoted(path: &str) -> String {
    let (root, kept) = path.split_once("/./").unwrap_or(("", path));
    let (root, kept) = (clean(root), clean(kept));
    format!("{}/.{kept}", root.trim_end_matches('/'))
}

/// Returns a path without `.`, `..` in its middle and double slashes; a relative one stays so,
/// and an empty one is `.`.
pub(crate) fn cleaned(path: &str) -> String {
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
pub(crate) fn from_dir(dir: &str, path: &str) -> String {
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
pub(crate) fn destination(dir: &str, path: &str) -> String {
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
    fn a_pivot_splits_a_source() {
        for (path, expected) in [
            ("a/b", "/./a/b"),
            ("./a/../b/", "/./b"),
            ("a/./b/c", "/a/./b/c"),
            ("../a/./../b", "/a/./b"),
            ("/./b", "/./b"),
            ("a/./", "/a/./"),
            ("a/./b/./c", "/a/./b/c"),
        ] {
            assert_eq!(pivoted(path), expected, "{path}");
        }
    }

    #[test]
    fn relative_paths_stay_relative() {
        for (path, expected) in [
            ("", "."),
            ("./", "."),
            ("a/./b//c/", "a/b/c"),
            ("a/..", "."),
            ("../../a/../b", "../../b"),
            ("/../a", "/a"),
            ("/a/../..", "/"),
        ] {
            assert_eq!(cleaned(path), expected, "{path}");
        }
    }

    #[test]
    fn sources_that_climb_are_marked() {
        for (path, expected) in [
            ("a/../b", "/b"),
            ("../b", "/../b"),
            ("/a/../../b/", "/../b"),
            (".", "/"),
            ("..", "/../"),
        ] {
            assert_eq!(source(path), expected, "{path}");
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
