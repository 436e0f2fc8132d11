//! Which Dockerfile a build is of: on this machine, inside a context that is fetched, elsewhere.

use std::path::{Path, PathBuf};

use crate::args::BuildArgs;
use crate::fetch::USUAL_NAMES;
use crate::plan::contexts::{ContextPlace, is_web_address};
use crate::plan::{DockerfilePlace, Source, read_dockerfile, read_ignore};
use crate::report::Failure;

/// Returns true if the build argument asks for `.git` of Git contexts.
pub(super) fn keeps_git_dir(build_args: &[(String, String)]) -> bool {
    let mut args = build_args.iter().rev();
    let found = args.find(|(name, _)| name == "BUILDKIT_CONTEXT_KEEP_GIT_DIR");
    found.is_some_and(|(_, value)| crate::args::switch(value) == Ok(true))
}

/// Reads the Dockerfile if it is on this machine, and then the ignore list of a folder.
pub(super) fn find_dockerfile(
    args: &BuildArgs,
    context: ContextPlace,
) -> Result<(Source, DockerfilePlace, ContextPlace), Failure> {
    let file = args.file.as_deref();
    let dir = match &context {
        ContextPlace::Folder(dir, _) => Some(dir.clone()),
        _ => None,
    };
    let (source, place, path) = match file {
        Some("-") if matches!(context, ContextPlace::Stdin) => {
            let message = "standard input cannot be both the build context and the Dockerfile";
            return Err(Failure::usage(message));
        }
        Some(url) if is_web_address(url) => {
            let place = DockerfilePlace::Web(url.to_owned());
            (Source::default(), place, None)
        }
        _ if is_here(file, &context) => {
            let (source, path) = read_dockerfile(args, dir.as_deref().unwrap_or(Path::new("")))?;
            (source, DockerfilePlace::Read, path)
        }
        _ => {
            let place = DockerfilePlace::Inside(args.file.clone());
            (Source::default(), place, None)
        }
    };
    let context = match dir {
        Some(dir) => {
            let ignore = read_ignore(&dir, path.as_deref())?;
            ContextPlace::Folder(dir, ignore)
        }
        None => context,
    };
    Ok((source, place, context))
}

/// Beside a fetched context, only an absolute path and `-` name a file of this machine.
fn is_here(file: Option<&str>, context: &ContextPlace) -> bool {
    match context {
        ContextPlace::Folder(..) => true,
        ContextPlace::Stdin => false,
        _ => file.is_some_and(|file| file == "-" || file.starts_with('/')),
    }
}

/// `Dockerfile` may be spelled `dockerfile`.
pub(super) fn lower_case(path: PathBuf) -> PathBuf {
    let is_usual = path.file_name().is_some_and(|name| name == USUAL_NAMES[0]);
    let lower = path.with_file_name(USUAL_NAMES[1]);
    if is_usual && !path.exists() && lower.exists() {
        return lower;
    }
    path
}
