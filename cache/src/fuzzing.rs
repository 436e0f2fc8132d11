//! What must hold for any pattern: the properties that property tests and fuzz targets share.
//!
//! Compiled for tests and, with the feature `fuzzing`, for the folder `fuzz`; no other code may
//! use it. Each function panics where its property does not hold, and returns nothing.

use crate::pattern::reference::{NoAnswer, is_ignored, is_match};
use crate::{IgnoreList, Wildcard};

/// An ignore file says of a path what the slow reference says, or is refused as there.
pub fn ignore_file(file: &str, path: &str) {
    let list = IgnoreList::parse(file.as_bytes());
    let n_lines = file.split('\n').count();
    if let Err(error) = &list {
        assert!(error.line.is_some_and(|line| (1..=n_lines).contains(&line)));
    }
    if path.split('/').any(|name| ["", ".", ".."].contains(&name)) {
        return;
    }
    let line = list.as_ref().map(|list| list.excluded_by(path.as_bytes()));
    if let Ok(Some(line)) = line {
        assert!((1..=n_lines).contains(&line.line));
    }
    let got = line
        .map(|line| line.is_some())
        .map_err(|_| NoAnswer::Invalid);
    match (is_ignored(file, path), got) {
        // The reference sees a mistake only when it gets there, so it may answer before.
        (Err(NoAnswer::Unknown), _) | (Ok(_), Err(_)) => {}
        (expected, got) => assert_eq!(got, expected, "{file:?} on {path:?}"),
    }
}

/// Bytes that are no text: neither panics.
pub fn any_bytes(pattern: &[u8], path: &[u8]) {
    if let Ok(list) = IgnoreList::parse(pattern) {
        list.excluded_by(path);
    }
    if let Ok(wildcard) = Wildcard::parse(pattern) {
        wildcard.matches(path);
    }
}

/// A wildcard says of a path what the slow reference says, or is refused as there.
pub fn wildcard(pattern: &str, path: &str) {
    let got = Wildcard::parse(pattern.as_bytes());
    let got = got.map(|wildcard| wildcard.matches(path.as_bytes()));
    // Stars that give nothing back differ from stars that do only beside classes with a slash,
    // and stars that take bytes only inside characters.
    let is_plain = pattern.is_ascii() && path.is_ascii();
    let takes_slashes = pattern.contains('[') && path.contains('/');
    match is_match(pattern, path) {
        Err(NoAnswer::Unknown) => {}
        Err(NoAnswer::Invalid) => assert!(got.is_err(), "{pattern:?} is not valid"),
        Ok(expected) if is_plain && !takes_slashes => {
            assert_eq!(got, Ok(expected), "{pattern:?} on {path:?}");
        }
        Ok(expected) => assert!(got == Ok(expected) || got == Ok(false) || !is_plain),
    }
}
