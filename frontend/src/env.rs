//! The variables that a stage sees, in order.

use std::collections::HashMap;

use kiln_graph::Platform;

use crate::options::Options;

/// Gaps that are not worth closing.
const MIN_GAPS: usize = 16;

/// What the names of variables about a platform end with.
const PLATFORM_SUFFIXES: [&str; 5] = ["PLATFORM", "OS", "OSVERSION", "ARCH", "VARIANT"];

/// Proxy settings, in upper case.
const PROXIES: [&str; 5] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "FTP_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
];

/// Names and values; a name that is set again moves to the end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Env {
    /// What was set, in order; nothing where a name was set again later.
    entries: Vec<Option<(String, String)>>,
    places: HashMap<String, usize>,
}

impl Env {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let entry = self.entries.get(*self.places.get(name)?)?;
        entry.as_ref().map(|(_, value)| value.as_str())
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        if let Some(old) = self.places.insert(name.to_owned(), self.entries.len()) {
            self.entries[old] = None;
        }
        let entry = (name.to_owned(), value.to_owned());
        self.entries.push(Some(entry));
        if self.entries.len() > 2 * self.places.len() + MIN_GAPS {
            self.close_gaps();
        }
    }

    /// Returns true if this is what `entries` (`NAME=value`) say, in their order.
    pub(crate) fn is_list(&self, entries: &[String]) -> bool {
        let mine = self.entries.iter().flatten();
        let same = |((name, value), entry): (&(String, String), &String)| {
            let (known, given) = parts(entry);
            known == name && given == value
        };
        self.places.len() == entries.len() && mine.zip(entries).all(same)
    }

    pub(crate) fn to_vec(&self) -> Vec<(String, String)> {
        self.entries.iter().flatten().cloned().collect()
    }

    fn close_gaps(&mut self) {
        self.entries.retain(Option::is_some);
        for (at, (name, _)) in self.entries.iter().flatten().enumerate() {
            if let Some(place) = self.places.get_mut(name) {
                *place = at;
            }
        }
    }
}

/// Splits an entry of an environment into name and value.
pub(crate) fn parts(entry: &str) -> (&str, &str) {
    entry.split_once('=').unwrap_or((entry, ""))
}

/// The `ARG`s of a stage, each once, where it was declared first, as it was declared last.
#[derive(Debug, Clone, Default)]
pub(crate) struct Args {
    declared: Vec<(String, Option<String>)>,
    places: HashMap<String, usize>,
}

impl Args {
    pub(crate) fn declare(&mut self, name: &str, value: Option<String>) {
        if let Some(&place) = self.places.get(name) {
            self.declared[place].1 = value;
            return;
        }
        self.places.insert(name.to_owned(), self.declared.len());
        self.declared.push((name.to_owned(), value));
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &(String, Option<String>)> {
        self.declared.iter()
    }
}

/// Returns the variables that exist before the first `ARG`.
pub(crate) fn built_in(options: &Options, target_stage: Option<&str>) -> Env {
    let mut env = Env::default();
    for (prefix, platform) in [
        ("BUILD", &options.build_platform),
        ("TARGET", &options.target_platform),
    ] {
        for (suffix, value) in PLATFORM_SUFFIXES.iter().zip(platform_values(platform)) {
            env.set(&format!("{prefix}{suffix}"), &value);
        }
    }
    env.set("TARGETSTAGE", target_stage.unwrap_or("default"));
    for (name, _) in env.to_vec() {
        if let Some(value) = options.build_arg(&name) {
            env.set(&name, value);
        }
    }
    env
}

/// Returns the values for [`PLATFORM_SUFFIXES`], in their order.
fn platform_values(platform: &Platform) -> [String; 5] {
    [
        platform.to_string(),
        platform.os.clone(),
        // Only Windows has versions of its platform.
        String::new(),
        platform.architecture.clone(),
        platform.variant.clone().unwrap_or_default(),
    ]
}

/// Returns true for build arguments that mean something without an `ARG`.
pub(crate) fn is_predefined(name: &str) -> bool {
    let is_platform = ["BUILD", "TARGET"].iter().any(|prefix| {
        let suffix = name.strip_prefix(prefix);
        suffix.is_some_and(|suffix| PLATFORM_SUFFIXES.contains(&suffix))
    });
    let is_proxy = |proxy: &&str| name.eq_ignore_ascii_case(proxy);
    is_platform
        || PROXIES.iter().any(is_proxy)
        || matches!(name, "TARGETSTAGE" | "SOURCE_DATE_EPOCH")
        || name.starts_with("BUILDKIT_")
}

/// Returns the proxy settings among the build arguments, each in both cases.
pub(crate) fn proxies(options: &Options) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for name in PROXIES {
        let mut args = options.build_args.iter().rev();
        let value = args.find(|(arg, _)| arg.eq_ignore_ascii_case(name));
        if let Some((_, value)) = value.filter(|(_, value)| !value.is_empty()) {
            out.push((name.to_owned(), value.clone()));
            out.push((name.to_ascii_lowercase(), value.clone()));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(args: &[(&str, &str)]) -> Options {
        let mut options = Options::for_platform(Platform::linux("arm"));
        let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        options.build_args = args.iter().map(owned).collect();
        options
    }

    #[test]
    fn platform_variables_can_be_overridden() {
        let env = built_in(&options(&[("TARGETARCH", "x")]), None);
        assert_eq!(env.get("TARGETPLATFORM"), Some("linux/arm/v7"));
        assert_eq!(env.get("TARGETARCH"), Some("x"));
        assert_eq!(env.get("TARGETVARIANT"), Some("v7"));
        assert_eq!(env.get("BUILDOSVERSION"), Some(""));
        assert_eq!(env.get("TARGETSTAGE"), Some("default"));
    }

    #[test]
    fn proxies_come_in_both_cases() {
        let found = proxies(&options(&[
            ("no_proxy", "a"),
            ("HTTP_PROXY", ""),
            ("X", "y"),
        ]));
        let expected = [("NO_PROXY", "a"), ("no_proxy", "a")];
        assert_eq!(found, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn setting_again_moves_to_the_end() {
        let mut env = Env::default();
        env.set("A", "1");
        env.set("B", "2");
        env.set("A", "3");
        let expected = [("B", "2"), ("A", "3")];
        let expected = expected.map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(env.to_vec(), expected);
        for _ in 0..100 {
            env.set("B", "2");
            env.set("A", "3");
        }
        assert_eq!(env.to_vec(), expected);
        assert_eq!(env.get("B"), Some("2"));
        assert!(env.entries.len() < 50);
    }
}
