//! `SecretFileCopied`: a COPY selects a file whose name says that it holds a secret.
//!
//! Names only, no content. Folders of packages and of tests are left out, because keys in there
//! are there to be published.

use crate::Diagnostic;
use crate::env::Env;
use crate::expand::Rules;
use crate::git_url::is_remote;
use crate::instruction::{CopyFiles, Dockerfile, Instruction, Step};
use crate::lines::Word;
use crate::lint::rules::SECRET_FILE_COPIED;
use crate::lint::variables::used;
use crate::lint::{Lint, Phase};
use crate::options::Options;

/// Names told for one COPY; more are counted.
const SHOWN: usize = 3;

pub(super) fn check(
    lint: &mut Lint,
    file: &Dockerfile,
    options: &Options,
    steps: &[Step],
    env: &Env,
) {
    let Some(context) = &options.context else {
        return;
    };
    let mut files = None;
    for step in steps {
        let Instruction::Copy(copy) = &step.instruction else {
            continue;
        };
        if copy.from.is_some() || copy.sources.is_empty() {
            continue;
        }
        let files = files.get_or_insert_with(|| context.files(&looks_secret));
        let found = selected(copy, files, file.escape, env);
        if !found.is_empty() {
            report(lint, step, &found);
        }
    }
}

fn report(lint: &mut Lint, step: &Step, found: &[&str]) {
    let names: Vec<String> = found.iter().map(|name| format!("`{name}`")).collect();
    let shown = names[..names.len().min(SHOWN)].join(", ");
    let more = match names.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let message = format!("{shown}{more} will be in the image, and may hold a secret");
    let help = format!(
        "put `{}` into `.dockerignore`, or give it to a RUN with `--mount=type=secret`",
        found[0]
    );
    let diagnostic = Diagnostic::warning(step.span, message).with_help(help);
    lint.report(Phase::Own, &SECRET_FILE_COPIED, diagnostic);
}

fn selected<'a>(copy: &CopyFiles, files: &'a [String], escape: char, env: &Env) -> Vec<&'a str> {
    let expanded = |word: &Word| used(Rules::words(escape), &word.text, env).value;
    let sources = copy.sources.iter().filter_map(expanded);
    let sources: Vec<String> = sources.filter(|source| !is_remote(source)).collect();
    let is_excluded = |path: &str| {
        let mut excludes = copy.excludes.iter();
        excludes.any(|pattern| matches(&pattern.text, path) || ends_like(&pattern.text, path))
    };
    let is_selected =
        |path: &str| sources.iter().any(|source| matches(source, path)) && !is_excluded(path);
    files
        .iter()
        .map(String::as_str)
        .filter(|path| is_selected(path))
        .collect()
}

/// An exclusion of a name counts wherever the file is; in doubt nothing is told.
fn ends_like(pattern: &str, path: &str) -> bool {
    let name = pattern.rsplit('/').next().unwrap_or(pattern);
    glob(name, path.rsplit('/').next().unwrap_or(path))
}

/// Returns true if a pattern selects a path or a folder that it is in.
fn matches(pattern: &str, path: &str) -> bool {
    let parts = |text: &str| -> Vec<String> {
        let parts = text.split('/').filter(|part| !matches!(*part, "" | "."));
        parts.map(str::to_owned).collect()
    };
    let (pattern, path) = (parts(pattern), parts(path));
    pattern.len() <= path.len() && pattern.iter().zip(&path).all(|(p, name)| glob(p, name))
}

/// Matches `*` and `?`; other wildcards stand for themselves.
fn glob(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n, mut retry) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                retry = Some((p, n));
                p += 1;
            }
            Some('?') => (p, n) = (p + 1, n + 1),
            Some(c) if *c == name[n] => (p, n) = (p + 1, n + 1),
            _ => match retry {
                Some((star, from)) => {
                    (p, n) = (star + 1, from + 1);
                    retry = Some((star, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Folders whose keys are no secrets.
const PUBLIC: [&str; 12] = [
    "node_modules",
    "vendor",
    "site-packages",
    "test",
    "tests",
    "testdata",
    "__tests__",
    "spec",
    "fixtures",
    "examples",
    "example",
    "docs",
];

/// Returns true for the names that secrets usually have.
fn looks_secret(path: &str) -> bool {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    if dir.split('/').any(|part| PUBLIC.contains(&part)) {
        return false;
    }
    let parent = dir.rsplit('/').next().unwrap_or_default();
    match (parent, name) {
        (".aws", "credentials") | (".docker", "config.json") | (".kube", "config") => true,
        (_, ".npmrc" | ".pypirc" | ".netrc" | "_netrc" | ".git-credentials") => true,
        (_, "id_rsa" | "id_dsa" | "id_ecdsa" | "id_ed25519") => true,
        (_, name) => is_environment(name) || is_private_key(name),
    }
}

/// `.env` and `.env.production`, but not `.env.example`.
fn is_environment(name: &str) -> bool {
    let samples = [
        "example", "sample", "template", "dist", "defaults", "schema", "test",
    ];
    match name.strip_prefix(".env") {
        Some("") => true,
        Some(rest) => rest.starts_with('.') && !rest.split('.').any(|part| samples.contains(&part)),
        None => false,
    }
}

/// A `.pem` may as well be a certificate, which its name then says.
fn is_private_key(name: &str) -> bool {
    let lower = name.to_lowercase();
    let is_public = ["cert", "chain", "bundle", "pub", "ca.", "ca-", "root"]
        .iter()
        .any(|word| lower.contains(word));
    let is_key = [".pem", ".p12", ".pfx", ".ppk"]
        .iter()
        .any(|end| lower.ends_with(end));
    is_key && !is_public
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_known() {
        for path in [
            ".env",
            "app/.env.production",
            "deploy/id_rsa",
            "server.pem",
            "home/.aws/credentials",
            ".npmrc",
        ] {
            assert!(looks_secret(path), "{path}");
        }
        for path in [
            ".env.example",
            ".envrc.md",
            "ca-bundle.pem",
            "id_rsa.pub",
            "node_modules/x/key.pem",
            "tests/server.pem",
            "credentials",
            "environment",
        ] {
            assert!(!looks_secret(path), "{path}");
        }
    }

    #[test]
    fn sources_select_what_is_in_them() {
        for (pattern, path, expected) in [
            (".", "a/.env", true),
            ("/", ".env", true),
            ("a", "a/b/.env", true),
            ("./a/", "a/.env", true),
            ("a*/.e??", "abc/.env", true),
            ("b", "a/.env", false),
            ("a/b/c", "a/.env", false),
            ("*.pem", "x.pem", true),
            ("*.pem", "a/x.pem", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }
}
