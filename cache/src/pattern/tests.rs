//! Tests of patterns.

use super::*;

fn ignored(list: &str, path: &str) -> bool {
    IgnoreList::parse(list.as_bytes())
        .unwrap()
        .excluded_by(path.as_bytes())
        .is_some()
}

#[test]
fn ignore_rules() {
    for (list, path, expected) in [
        ("foo", "foo", true),
        ("foo", "foo/bar", true),
        ("foo", "a/foo", false),
        ("foo/", "foo", true),
        ("/foo", "foo", true),
        ("./foo", "foo", true),
        ("foo/bar/..", "foo/x", true),
        ("*.md", "a.md", true),
        ("*.md", "d/a.md", false),
        ("**/*.md", "a.md", true),
        ("**/*.md", "d/e/a.md", true),
        ("**file", "d/file", true),
        ("a**/*.txt", "abc/d/e.txt", true),
        ("foo/**", "foo", false),
        ("foo/**", "foo/x/y", true),
        ("*\n!keep", "keep", false),
        ("*\n!keep", "other", true),
        ("*\n!a/b/keep", "a/b/keep", false),
        ("*\n!a/b/keep", "a/b/other", true),
        ("*\n!keep\nkeep", "keep", true),
        ("**/*.log\n!logs", "logs/x.log", true),
        ("a/*\n!a", "a/x", true),
        ("*/*/*\n!a/b", "a/b/x", true),
        ("a\n!a/b\na", "a/b", false),
        ("# comment\nfoo", "# comment", false),
        (" # not", "# not", true),
        ("\\#x", "#x", true),
        ("\\!x", "!x", true),
        ("a\\*", "a*", true),
        ("a\\*", "ab", false),
        ("[!a]", "!", true),
        ("[^a]", "b", true),
        ("[^a]", "a", false),
        ("{a,b}", "a", false),
        ("a?c", "a/c", false),
        ("\u{feff}foo\r\nbar\r\n", "bar", true),
    ] {
        assert_eq!(ignored(list, path), expected, "{list:?} on {path:?}");
    }
}

#[test]
fn patterns_that_are_given_one_by_one() {
    let ignored = |patterns: &[&str], path: &str| {
        let list = IgnoreList::from_patterns(patterns.iter().copied()).unwrap();
        list.excluded_by(path.as_bytes()).is_some()
    };
    assert!(ignored(&["#x"], "#x") && ignored(&[" a/ "], "a/b"));
    assert!(!ignored(&["/a"], "a") && !ignored(&["a", "!a/b"], "a/b"));
    assert!(!ignored(&["", " "], ""));
    for bad in ["[a", "!", "a\\"] {
        assert!(IgnoreList::from_patterns([bad]).is_err(), "{bad}");
    }
}

#[test]
fn the_excluding_line_is_named() {
    let list = IgnoreList::parse(b"# c\n*\n!a\na/secret\n").unwrap();
    let list = list.named("ignored");
    let excluded = |path: &str| {
        let found = list.excluded_by(path.as_bytes());
        found.map(|found| (found.line, found.pattern, found.file))
    };
    assert_eq!(excluded("a/secret"), Some((4, "a/secret", "ignored")));
    assert_eq!(excluded("b"), Some((2, "*", "ignored")));
    assert_eq!(excluded("a/x"), None);
}

#[test]
fn malformed_patterns_are_refused_with_their_line() {
    let error = IgnoreList::parse(b"ok\n[a").unwrap_err();
    assert_eq!((error.pattern.as_str(), error.line), ("[a", Some(2)));
    for nothing in ["!", "!/", "!/.."] {
        assert!(IgnoreList::parse(nothing.as_bytes()).is_err(), "{nothing}");
    }
    assert!(!ignored("a\n!.", "b"));
    assert!(ignored("*\n!./", "b"));
}

#[test]
fn wildcards_do_not_cross_slashes() {
    let matches = |p: &str, t: &str| Wildcard::parse(p.as_bytes()).unwrap().matches(t.as_bytes());
    assert!(matches("*.txt", "a.txt") && !matches("*.txt", "d/a.txt"));
    assert!(matches("d/*/x", "d/e/x") && !matches("d/**/x", "d/e/f/x"));
    assert!(matches("[[]x", "[x") && matches("\\*", "*") && !matches("\\*", "a"));
    assert!(Wildcard::parse(b"[]").is_err() && Wildcard::parse(b"a\\").is_err());
}
