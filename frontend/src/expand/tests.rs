//! The expander against `fixtures/frontend/variables.tsv`, and what a table cannot say.

use std::collections::HashMap;
use std::path::Path;

use super::*;

fn env_of(text: &str) -> HashMap<String, String> {
    let pair = |item: &str| {
        let (name, value) = item.split_once('=').unwrap();
        (unescaped(name), unescaped(value))
    };
    text.split('|')
        .filter(|item| !item.is_empty())
        .map(pair)
        .collect()
}

fn unescaped(text: &str) -> String {
    text.replace("<TAB>", "\t")
        .replace("<NL>", "\n")
        .replace("<BAR>", "|")
}

fn outcome(rules: Rules, word: &str, env: &HashMap<String, String>) -> String {
    match rules.expand(word, &|name| env.get(name).cloned()) {
        Ok(text) => text,
        Err(error) => format!("error: {error}"),
    }
}

/// Columns: word, environment as `a=b|c=d`, expected text or `error: …`, then optionally the
/// rules: `backtick`, `body`, `name` (as in step names).
#[test]
fn table_of_words() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/frontend/variables.tsv");
    let table = std::fs::read_to_string(path).unwrap();
    let rows = table
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("##"));
    let (mut n_rows, mut wrong) = (0, Vec::new());
    for row in rows {
        let columns: Vec<&str> = row.split('\t').collect();
        let rules = match columns.get(3) {
            Some(&"backtick") => Rules::words('`'),
            Some(&"body") => Rules::body(),
            Some(&"name") => Rules {
                quotes: Quotes::Keep,
                keep_unset: true,
                ..Rules::words('\\')
            },
            _ => Rules::words('\\'),
        };
        let got = outcome(rules, &unescaped(columns[0]), &env_of(columns[1]));
        if got != unescaped(columns[2]) {
            wrong.push(format!("{row}\n    got {got:?}"));
        }
        n_rows += 1;
    }
    assert!(n_rows >= 150, "only {n_rows} rows");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn splitting_happens_after_expansion() {
    let env = env_of("two=a b|none=|quoted='x y'");
    for (text, expected) in [
        ("80 $two", &["80", "a", "b"][..]),
        ("\"$two\" c", &["a b", "c"]),
        ("$none", &[]),
        ("'' x", &["x"]),
        ("a\\ b c", &["a b", "c"]),
        ("x$two", &["xa", "b"]),
        ("$quoted", &["'x", "y'"]),
        ("${none:-p q}", &["p", "q"]),
    ] {
        let words = Rules::words('\\').split(text, &|name| env.get(name).cloned());
        assert_eq!(words.unwrap(), expected, "{text}");
    }
}

#[test]
fn values_of_values_have_a_limit() {
    let long = "x".repeat(1 << 20);
    let lookup = |_: &str| Some(long.clone());
    let text = "$a".repeat(17);
    let words = Rules::words('\\');
    assert_eq!(
        words.expand(&text, &lookup),
        Err(ExpandError::TooLong(16 << 20))
    );
    assert_eq!(
        words.expand(&format!("\"{text}\""), &lookup),
        Err(ExpandError::TooLong(16 << 20))
    );
    assert_eq!(
        Rules::body().expand(&text, &lookup).unwrap().len(),
        17 << 20
    );
}

#[test]
fn nesting_has_a_limit() {
    let text = format!("{}x{}", "${a:-".repeat(5000), "}".repeat(5000));
    assert_eq!(
        Rules::words('\\').expand(&text, &|_| None),
        Err(ExpandError::TooDeep)
    );
    let text = format!("{}x{}", "${a:-".repeat(60), "}".repeat(60));
    assert_eq!(Rules::words('\\').expand(&text, &|_| None).unwrap(), "x");
}
