//! Build arguments: from the command line, from files, from the environment.
//!
//! A file for `--build-arg-file` has a line for each: `NAME=VALUE`, or `NAME` for a value from the
//! environment. Blank lines and lines that start with `#` are nothing. A value is everything behind
//! the first `=`, quotes and blanks included. What `--build-arg` says wins.

use std::path::Path;

use anyhow::Context as _;

use crate::args::BuildArgs;
use crate::environment::{Environment, display_path};
use crate::plan::read_limited;
use crate::report::Failure;

/// Returns names and values; the last of a name counts.
pub(super) fn build_args(
    typed: &BuildArgs,
    env: &Environment,
) -> Result<Vec<(String, String)>, Failure> {
    let mut args = Vec::new();
    if let Some(epoch) = env.variable("SOURCE_DATE_EPOCH") {
        args.push(("SOURCE_DATE_EPOCH".to_owned(), epoch.to_owned()));
    }
    for path in &typed.build_arg_file {
        let text = read(path)?;
        let name = display_path(path);
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some(arg) = one(line, env) else {
                let error = anyhow::anyhow!("line {number} of `{name}` has no name");
                return Err(Failure::user(error).with_hint("write NAME=VALUE or NAME"));
            };
            args.extend(arg);
        }
    }
    for text in &typed.build_arg {
        let missing = || Failure::usage(format!("--build-arg {text}: there is no name"));
        args.extend(one(text, env).ok_or_else(missing)?);
    }
    Ok(args)
}

/// Reads `NAME=VALUE`, or `NAME`, which counts for nothing if the environment has no value for it;
/// nothing if there is no name.
fn one(text: &str, env: &Environment) -> Option<Option<(String, String)>> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => {
            let name = text.trim_end();
            (name, env.variable(name))
        }
    };
    let name = name.trim();
    (!name.is_empty()).then(|| value.map(|value| (name.to_owned(), value.to_owned())))
}

fn read(path: &Path) -> Result<String, Failure> {
    let name = display_path(path);
    let file = std::fs::File::open(path)
        .with_context(|| format!("cannot read `{name}`"))
        .map_err(Failure::user)?;
    let bytes = read_limited(file, &name)?;
    let text = String::from_utf8(bytes).with_context(|| format!("`{name}` is not UTF-8 text"));
    let text = text.map_err(Failure::user)?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn args(words: &[&str], env: &Environment) -> Result<Vec<(String, String)>, String> {
        let words = ["kiln", "build"].iter().chain(words).chain(&["."]);
        let cli = Cli::try_parse_from(words).unwrap();
        let Command::Build(typed) = cli.command else {
            unreachable!("`build` was typed");
        };
        build_args(&typed, env).map_err(|failure| failure.render())
    }

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned()));
        owned.collect()
    }

    #[test]
    fn files_list_arguments_and_the_command_line_wins() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("args");
        let text = "\u{feff}A=1\r\n\n# no=1\n  # no=2\nB=x y = 'z' \nHOME_OF\nUNSET\n C=\n";
        std::fs::write(&path, text).unwrap();
        let env = Environment::with_variables(&[("HOME_OF", "h"), ("SOURCE_DATE_EPOCH", "5")]);
        let path = path.to_str().unwrap();
        let found = args(&["--build-arg", "A=2", "--build-arg-file", path], &env).unwrap();
        let expected = [
            ("SOURCE_DATE_EPOCH", "5"),
            ("A", "1"),
            ("B", "x y = 'z' "),
            ("HOME_OF", "h"),
            ("C", ""),
            ("A", "2"),
        ];
        assert_eq!(found, owned(&expected));
    }

    #[test]
    fn what_is_wrong_with_a_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("args");
        let path = path.to_str().unwrap();
        let env = Environment::default();
        let found = args(&["--build-arg-file", path], &env).unwrap_err();
        assert!(found.contains("cannot read `"), "{found}");
        std::fs::write(path, "A=1\n=2\n").unwrap();
        let found = args(&["--build-arg-file", path], &env).unwrap_err();
        assert!(found.contains("line 2 of `"), "{found}");
        std::fs::write(path, b"A=\xff\n").unwrap();
        let found = args(&["--build-arg-file", path], &env).unwrap_err();
        assert!(found.contains("not UTF-8"), "{found}");
        assert!(args(&["--build-arg", "=x"], &env).is_err());
    }
}
