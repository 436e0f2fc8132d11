//! Asks whether a build will be able to write its results, before it starts.
//!
//! Only asks: nothing is made or changed, and the answer may be out of date when it matters. The
//! writers still tell what goes wrong.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use kiln_exporter::{OutputKind, OutputSpec};
use rustix::fs::{Access, access};

use crate::args::BuildArgs;
use crate::report::Failure;

/// Checks whatever the arguments want written.
pub(crate) fn check(args: &BuildArgs, outputs: &[OutputSpec]) -> Result<(), Failure> {
    for output in outputs.iter().filter(|output| !output.is_stdout()) {
        let Some(dest) = &output.dest else {
            continue;
        };
        let is_dir = output.kind == OutputKind::Local || !output.tar;
        let checked = if is_dir {
            check_dir(dest)
        } else {
            check_file(dest, true)
        };
        checked.map_err(|error| told(dest, error))?;
    }
    for path in [&args.iidfile, &args.metadata_file].into_iter().flatten() {
        check_file(path, false).map_err(|error| told(path, error))?;
    }
    Ok(())
}

fn told(path: &Path, error: anyhow::Error) -> Failure {
    Failure::user(error.context(format!("cannot write `{}`", path.display())))
}

/// A directory may be made together with the folders above it.
fn check_dir(path: &Path) -> anyhow::Result<()> {
    let found = path.ancestors().map(or_here).find(|dir| dir.exists());
    let dir = found.unwrap_or(Path::new("/"));
    if !dir.is_dir() {
        return Err(anyhow!("`{}` is not a folder", dir.display()));
    }
    can_enter(dir)
}

/// A file that appears complete is first written beside the old one, so the folder counts.
fn check_file(path: &Path, is_replaced: bool) -> anyhow::Result<()> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Err(anyhow!("it is a folder")),
        Ok(found) if !found.is_file() || !is_replaced => {
            return access(path, Access::WRITE_OK).map_err(|error| io::Error::from(error).into());
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let target = fs::canonicalize(path).unwrap_or_else(|_| PathBuf::from(path));
    let dir = or_here(target.parent().unwrap_or(Path::new("/")));
    if !dir.exists() {
        return Err(anyhow!("there is no folder `{}`", dir.display()));
    }
    can_enter(dir)
}

fn can_enter(dir: &Path) -> anyhow::Result<()> {
    access(dir, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(io::Error::from)
        .with_context(|| format!("folder `{}` cannot be written to", dir.display()))
}

/// An empty path, the parent of a plain name, is the folder that kiln was started in.
fn or_here(path: &Path) -> &Path {
    if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use clap::Parser as _;

    use crate::args::{Cli, Command};

    fn check_args(args: &[&str]) -> Result<(), String> {
        let words = ["kiln", "build", "."].iter().chain(args);
        let Command::Build(args) = Cli::try_parse_from(words).unwrap().command else {
            unreachable!("`build` was typed");
        };
        let outputs = args.output.iter().map(|text| OutputSpec::parse(text));
        let outputs: Vec<_> = outputs.collect::<Result<_, _>>().unwrap();
        check(&args, &outputs).map_err(|failure| failure.render())
    }

    #[test]
    fn files_need_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("old"), "old").unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        for option in ["--iidfile=", "--metadata-file=", "--output=type=oci,dest="] {
            for fine in ["new", "old"] {
                check_args(&[&format!("{option}{}", path(fine))]).unwrap();
            }
            for (wrong, why) in [
                ("gone/new", "there is no folder"),
                ("", "it is a folder"),
                ("old/new", "ot a directory"),
            ] {
                let text = check_args(&[&format!("{option}{}", path(wrong))]).unwrap_err();
                assert!(text.contains(&path(wrong)) && text.contains(why), "{text}");
            }
        }
        check_args(&["--iidfile=/dev/null", "-o", "type=tar,dest=/dev/null"]).unwrap();
        check_args(&["--iidfile=no-such-file", "-o", "type=tar,dest=-"]).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn directories_are_made() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        for fine in ["", "a/b/c"] {
            check_args(&["-o", &path(fine)]).unwrap();
            let layout = format!("type=oci,tar=false,dest={}", path(fine));
            check_args(&["-o", &layout]).unwrap();
        }
        for wrong in ["file", "file/below"] {
            let text = check_args(&["-o", &path(wrong)]).unwrap_err();
            assert!(text.contains("is not a folder"), "{text}");
        }
    }

    #[test]
    fn folders_that_cannot_be_written_to_are_told() {
        // Even root cannot make files there.
        let Err(text) = check_args(&["--iidfile=/proc/1/id"]) else {
            panic!("/proc/1 can be written to");
        };
        assert!(text.contains("/proc/1"), "{text}");
    }
}
