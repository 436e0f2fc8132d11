//! What must never drift: crate edges, file headers, tests and fixtures that nobody uses.

#![expect(clippy::unwrap_used, reason = "tests end where they cannot go on")]

use std::fs;
use std::path::{Path, PathBuf};

/// The crates; each may use only crates of tiers that come before its own.
const TIERS: &[&[&str]] = &[
    &["graph"],
    &["registry", "cache", "frontend"],
    &["exporter", "remote", "solver", "runtime"],
    &["worker"],
    &["cli"],
];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = repository().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the files below a folder, without what is built.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            if !path.ends_with("target") && !path.ends_with(".git") {
                found.extend(files(&path));
            }
        } else {
            found.push(path);
        }
    }
    found
}

fn rust_files() -> Vec<PathBuf> {
    let is_rust = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    files(repository()).into_iter().filter(is_rust).collect()
}

fn tier_of(name: &str) -> usize {
    let tier = TIERS.iter().position(|tier| tier.contains(&name));
    tier.unwrap_or_else(|| panic!("crate `{name}` has no tier: add it to TIERS"))
}

/// Returns the lines of a table of a manifest.
fn table<'a>(manifest: &'a str, name: &str) -> Vec<&'a str> {
    let lines = manifest.lines().skip_while(|line| *line != name).skip(1);
    lines.take_while(|line| !line.starts_with('[')).collect()
}

#[test]
fn crate_edges_point_down() {
    for name in TIERS.iter().copied().flatten() {
        let manifest = read(format!("{name}/Cargo.toml"));
        assert!(
            !manifest.contains("[dependencies."),
            "{name}: write dependencies as a table"
        );
        for line in table(&manifest, "[dependencies]") {
            let Some(dependency) = line.strip_prefix("kiln-") else {
                continue;
            };
            let dependency = dependency.split(['.', ' ', '=']).next().unwrap();
            assert!(
                tier_of(dependency) < tier_of(name),
                "`{name}` must not depend on `{dependency}`"
            );
        }
    }
}

#[test]
fn every_member_has_a_tier() {
    let manifest = read("Cargo.toml");
    let members = manifest
        .lines()
        .find_map(|line| line.strip_prefix("members = ["));
    let members = members.unwrap().trim_end_matches(']').split(", ");
    let tiers: Vec<_> = members
        .map(|name| tier_of(name.trim_matches('"')))
        .collect();
    assert_eq!(
        tiers.len(),
        TIERS.iter().map(|tier| tier.len()).sum::<usize>()
    );
}

#[test]
fn versions_are_those_of_the_workspace() {
    for name in TIERS.iter().copied().flatten() {
        let manifest = read(format!("{name}/Cargo.toml"));
        for section in ["[dependencies]", "[dev-dependencies]"] {
            for line in table(&manifest, section) {
                let is_fine = line.trim().is_empty() || line.contains("workspace = true");
                assert!(is_fine || line.starts_with('#'), "{name}: {line}");
            }
        }
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    for path in rust_files() {
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("//! "),
            "{} does not begin with `//! `",
            path.display()
        );
    }
}

#[test]
fn nothing_is_left_for_later() {
    // Spelled in pieces, so that this file does not find itself.
    let words = [
        ["#[ig", "nore"].concat(),
        ["todo", "!("].concat(),
        ["unimplemented", "!("].concat(),
        ["dbg", "!("].concat(),
    ];
    for path in rust_files() {
        let text = fs::read_to_string(&path).unwrap();
        for word in &words {
            assert!(
                !text.contains(word.as_str()),
                "{} has `{word}`",
                path.display()
            );
        }
    }
}

/// A file of tests that no `mod` names would never run.
#[test]
fn every_test_file_belongs_to_a_target() {
    let manifest = read("cli/Cargo.toml");
    let tests = repository().join("tests");
    for path in files(&tests)
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
    {
        let shown = path
            .strip_prefix(repository())
            .unwrap()
            .display()
            .to_string();
        let is_root = manifest.contains(&format!("../{shown}\""));
        let (dir, stem) = (
            path.parent().unwrap(),
            path.file_stem().unwrap().to_str().unwrap(),
        );
        let mut roots = ["main.rs", "lib.rs"].map(|name| dir.join(name)).to_vec();
        // A module with modules of its own.
        roots.push(dir.with_extension("rs"));
        let is_named = roots.iter().filter(|root| *root != path).any(|root| {
            let text = fs::read_to_string(root).unwrap_or_default();
            text.lines().any(|line| line == format!("mod {stem};"))
        });
        let is_shared =
            stem == "lib" && read("tests/blackbox/main.rs").contains("../support/lib.rs");
        assert!(
            is_root || is_named || is_shared,
            "{shown} is part of no target"
        );
    }
}

#[test]
fn every_fixture_is_used() {
    let tests: String = files(&repository().join("tests"))
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    for entry in fs::read_dir(repository().join("fixtures/builds")).unwrap() {
        let dir = entry.unwrap().path();
        let name = dir.file_name().unwrap().to_str().unwrap();
        assert!(
            tests.contains(&format!("\"{name}\"")),
            "no test names fixture `{name}`"
        );
        assert!(
            dir.join("Dockerfile").is_file(),
            "fixture `{name}` has no Dockerfile"
        );
    }
    let sources: String = rust_files()
        .iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    for path in files(&repository().join("fixtures")) {
        let relative = path.strip_prefix(repository().join("fixtures")).unwrap();
        let folder = relative.iter().next().unwrap().to_str().unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let is_used = folder == "builds"
            || sources.contains(name)
            || sources.contains(&format!("fixtures/{folder}"));
        assert!(is_used, "no test names {}", relative.display());
    }
}
