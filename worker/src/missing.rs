//! A source that is not there: what may have been meant, and what is there instead.
//!
//! All of it is answered from names, and from no more than a fixed number of them.

use std::collections::HashSet;

use kiln_cache::{Context, join_path, split_path};

use crate::apply::{Source, SourceBytes};
use crate::error::CopyError;

/// Paths that are looked at for a similar one.
const MAX_PATHS: usize = 20_000;

/// Names of a folder that are told.
const MAX_NAMES: usize = 6;

/// The longest name that is compared letter by letter.
const MAX_COMPARED: usize = 64;

/// Says what helps with a source that is not there; `written` is the source as the op has it.
pub(crate) fn with_hint(error: CopyError, source: &Source, written: &str) -> CopyError {
    let CopyError::NotFound { path, hint: None } = error else {
        return error;
    };
    let missing = path.trim_matches('/').as_bytes();
    let hint = match &source.bytes {
        SourceBytes::Context(context) => of_context(context, missing, written),
        SourceBytes::Layers(_) => {
            let nodes = source.tree.below(b"").into_iter().take(MAX_PATHS);
            let paths: Vec<(Vec<u8>, bool)> = nodes
                .map(|node| (node.entry.path.clone(), node.entry.is_dir()))
                .collect();
            of_names(&paths, missing, "what is copied from")
        }
    };
    CopyError::NotFound { path, hint }
}

fn of_context(context: &Context, missing: &[u8], written: &str) -> Option<String> {
    if written.starts_with("/../") {
        let why = "the source climbs out of the build context, and only files in it can be copied";
        return Some(why.to_owned());
    }
    if let Some(exclusion) = context.ignore().excluded_by(missing)
        && context.holds(missing)
    {
        let file = match exclusion.file {
            "" => ".dockerignore",
            file => file,
        };
        return Some(format!(
            "it is there, but line {} of `{file}` excludes it: `{}`",
            exclusion.line, exclusion.pattern
        ));
    }
    of_names(&context.glimpse(MAX_PATHS), missing, "the build context")
}

/// Looks for what may have been meant among the paths that are there.
fn of_names(paths: &[(Vec<u8>, bool)], missing: &[u8], root: &str) -> Option<String> {
    let (folder, name) = deepest(paths, missing);
    let siblings: Vec<(&[u8], bool)> = paths
        .iter()
        .filter(|(path, _)| split_path(path).0 == folder)
        .map(|(path, is_dir)| (split_path(path).1, *is_dir))
        .collect();
    let same_name = || {
        let wanted = split_path(missing).1;
        let mut paths = paths.iter().map(|(path, _)| path.as_slice());
        paths
            .find(|path| split_path(path).1 == wanted)
            .map(<[u8]>::to_vec)
    };
    let in_folder = |name: &[u8]| join_path(folder, name);
    let meant = siblings
        .iter()
        .find(|(sibling, _)| sibling.eq_ignore_ascii_case(name))
        .map(|(sibling, _)| in_folder(sibling))
        .or_else(same_name)
        .or_else(|| nearest(name, &siblings).map(in_folder));
    if let Some(path) = meant {
        return Some(format!("did you mean `{}`?", text(&path)));
    }
    let place = match folder {
        b"" => root.to_owned(),
        folder => format!("`{}`", text(folder)),
    };
    match siblings.len() {
        0 => Some(format!("{place} is empty")),
        1..=MAX_NAMES => Some(format!("{place} holds {}", listed(&siblings))),
        _ => None,
    }
}

/// Returns the folder on the way to `path` that is there, and the name that is missing in it.
fn deepest<'a>(paths: &[(Vec<u8>, bool)], path: &'a [u8]) -> (&'a [u8], &'a [u8]) {
    let dirs = paths.iter().filter(|(_, is_dir)| *is_dir);
    let dirs: HashSet<&[u8]> = dirs.map(|(path, _)| path.as_slice()).collect();
    let (mut folder, mut name) = split_path(path);
    while !folder.is_empty() && !dirs.contains(folder) {
        (folder, name) = split_path(folder);
    }
    (folder, name)
}

fn listed(names: &[(&[u8], bool)]) -> String {
    let shown = names.iter().map(|(name, is_dir)| {
        let slash = if *is_dir { "/" } else { "" };
        format!("`{}{slash}`", text(name))
    });
    let shown: Vec<String> = shown.collect();
    match shown.split_last() {
        Some((last, first)) if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        _ => format!("only {}", shown.concat()),
    }
}

fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).escape_debug().to_string()
}

/// Returns the name that `name` is most likely a slip of, if there is a close one.
fn nearest<'a>(name: &[u8], names: &[(&'a [u8], bool)]) -> Option<&'a [u8]> {
    let allowed = (name.len() / 3).clamp(1, 3);
    let short = |name: &[u8]| name.len() <= MAX_COMPARED;
    let candidates = names
        .iter()
        .filter(|(other, _)| short(other) && short(name));
    let distances = candidates.map(|(other, _)| (distance(name, other), *other));
    let near = distances.filter(|(distance, _)| *distance <= allowed);
    near.min_by_key(|(distance, _)| *distance)
        .map(|(_, other)| other)
}

/// Returns how many bytes must be added, left out, replaced, or swapped with a neighbour, letter
/// case apart.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let (a, b) = (a.to_ascii_lowercase(), b.to_ascii_lowercase());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(rows[i - 2][j - 2] + 1);
            }
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(there: &str, missing: &str) -> String {
        let path = |path: &str| match path.strip_suffix('/') {
            Some(dir) => (dir.as_bytes().to_vec(), true),
            None => (path.as_bytes().to_vec(), false),
        };
        let paths: Vec<(Vec<u8>, bool)> = there.split_whitespace().map(path).collect();
        of_names(&paths, missing.as_bytes(), "the build context").unwrap_or_default()
    }

    #[test]
    fn what_was_meant_is_found() {
        let there = "README.md requirements.txt src/ src/app.py src/app.js";
        for (missing, meant) in [
            ("requirments.txt", "requirements.txt"),
            ("readme.md", "README.md"),
            ("app.py", "src/app.py"),
            ("lib/app.js", "src/app.js"),
            ("src/ap.py", "src/app.py"),
            ("scr", "src"),
        ] {
            assert_eq!(hint(there, missing), format!("did you mean `{meant}`?"));
        }
    }

    #[test]
    fn a_small_folder_is_told() {
        let there = "a/ a/x a/y/ b";
        assert_eq!(hint(there, "a/other"), "`a` holds `x` and `y/`");
        assert_eq!(hint(there, "a/y/z"), "`a/y` is empty");
        assert_eq!(
            hint(there, "nothing"),
            "the build context holds `a/` and `b`"
        );
        assert_eq!(hint("one", "nothing"), "the build context holds only `one`");
        assert_eq!(hint("", "x"), "the build context is empty");
        assert_eq!(hint("1a 2b 3c 4d 5e 6f 7g", "nothing"), "");
    }
}
