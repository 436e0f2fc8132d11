//! Which variables a word uses that nothing sets, and what was meant instead.

use std::cell::RefCell;

use crate::env::Env;
use crate::expand::Rules;

/// What an expansion looked up.
#[derive(Debug, Default)]
pub(super) struct Used {
    /// The expanded word; none if it cannot be expanded.
    pub(super) value: Option<String>,
    /// Variables that are set, each once.
    pub(super) set: Vec<String>,
    /// Variables that are not, each once, in the order in which they were looked up.
    pub(super) unset: Vec<String>,
}

/// Expands `text` and notes what it looks up.
pub(super) fn used(rules: Rules, text: &str, env: &Env) -> Used {
    let looked_up = RefCell::new((Vec::new(), Vec::new()));
    let lookup = |name: &str| {
        let value = env.get(name).map(str::to_owned);
        let (set, unset) = &mut *looked_up.borrow_mut();
        let names: &mut Vec<String> = if value.is_some() { set } else { unset };
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
        value
    };
    let value = rules.expand(text, &lookup).ok();
    let (set, unset) = looked_up.into_inner();
    Used { value, set, unset }
}

/// Returns the variables that are set and that `text` uses.
pub(crate) fn used_variables(rules: Rules, text: &str, env: &Env) -> Vec<String> {
    used(rules, text, env).set
}

/// Returns the known name that differs from `name` in less than three letters, the nearest one.
pub(super) fn similar<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut best = (3, None);
    for candidate in known.into_iter().filter(|known| !known.is_empty()) {
        let distance = edits(name, candidate);
        if distance == 0 {
            return None;
        }
        if distance < best.0 {
            best = (distance, Some(candidate));
        }
    }
    best.1
}

/// Returns how many letters must be added, left out or replaced; three stands for more.
fn edits(a: &str, b: &str) -> usize {
    const ENOUGH: usize = 3;
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) >= ENOUGH {
        return ENOUGH;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
        if row.iter().all(|&distance| distance >= ENOUGH) {
            return ENOUGH;
        }
    }
    row[b.len()].min(ENOUGH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookups_are_noted_once_and_in_order() {
        let mut env = Env::default();
        env.set("A", "1");
        let used = used(Rules::words('\\'), "$X-$A-${Y:-$Z}$X'$Q'", &env);
        assert_eq!(used.unset, ["X", "Z", "Y"]);
        assert_eq!(used.set, ["A"]);
        assert_eq!(used.value.as_deref(), Some("-1-$Q"));
    }

    #[test]
    fn the_nearest_name_is_meant() {
        for (name, expected) in [
            ("PAHT", Some("PATH")),
            ("FO", Some("FOO")),
            ("FOOXY", Some("FOO")),
            ("FOOXYZ", None),
            ("FOO", None),
            ("foo", None),
            ("BAR1", Some("BAR")),
        ] {
            let known = ["PATH", "FOO", "BAR", "BAZ"];
            assert_eq!(similar(name, known), expected, "{name}");
        }
    }
}
