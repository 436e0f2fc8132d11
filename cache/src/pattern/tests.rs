//! Ignore lists and wildcards: what they match, and what they refuse.

use proptest::prelude::*;

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

/// Found by fuzzing: the reference does not know such classes, and must not split them at `|`.
#[test]
fn the_reference_gives_no_answer_on_named_classes() {
    crate::fuzzing::ignore_file("[a|p[[:alpha:]]?b}\n}\n", "*{1~]*");
}

fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => match chars.next().unwrap() {
                'n' => '\n',
                't' => '\t',
                'f' => '\u{c}',
                'v' => '\u{b}',
                'u' => {
                    let digits: String = chars.by_ref().take(4).collect();
                    char::from_u32(u32::from_str_radix(&digits, 16).unwrap()).unwrap()
                }
                c => c,
            },
            c => c,
        });
    }
    out
}

/// Columns: ignore file, path, and what BuildKit did with it.
#[test]
fn table_of_ignore_rules() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/ignore/rules.tsv");
    let table = std::fs::read_to_string(path).unwrap();
    let rows = table.lines().filter(|line| !line.starts_with("##"));
    let (mut n_rows, mut wrong) = (0, Vec::new());
    for row in rows {
        let columns: Vec<String> = row.split('\t').map(unescaped).collect();
        let got = match IgnoreList::parse(columns[0].as_bytes()) {
            Err(_) => "invalid",
            Ok(list) if list.excluded_by(columns[1].as_bytes()).is_some() => "ignored",
            Ok(_) => "kept",
        };
        if got != columns[2] {
            wrong.push(format!("{row}\n    got {got}"));
        }
        n_rows += 1;
    }
    assert!(n_rows >= 100, "only {n_rows} rows");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Pieces that mean something in a pattern, here or in a regular expression.
const PIECES: &[&str] = &[
    "a", "b", "ab", "/", "**", "*", "?", "[a-b]", "[^a]", "[", "]", "^", "-", "\\", "\\d", "\\f",
    "\\.", ".", "..", "!", "#", "|", "{2}", "{,2}", "{1,}", "(", ")", "+", "$", "é", " ", "1",
];

const NAMES: &[&str] = &[
    "a", "b", "ab", "aab", "a.b", "é", "aé", "1", "a|b", "^a", "!a", "[", "x\nb",
];

fn pieces(most: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(PIECES), 0..most).prop_map(|all| all.concat())
}

fn path() -> impl Strategy<Value = String> {
    let names = prop::sample::select(NAMES);
    let names = prop::collection::vec(names, 1..4);
    names.prop_map(|names| names.join("/"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn ignore_files_agree_with_the_reference(lines in prop::collection::vec(pieces(6), 1..4), path in path()) {
        crate::fuzzing::ignore_file(&lines.join("\n"), &path);
    }

    #[test]
    fn wildcards_agree_with_the_reference(pattern in pieces(8), path in path()) {
        crate::fuzzing::wildcard(&pattern, &path);
    }
}
