//! Where `SOURCE_DATE_EPOCH` comes from when it names a source instead of a time.
//!
//! The main context, a named context, or a stage of `FROM scratch` with exactly one remote `ADD`.
//! Only says which; whoever builds asks the source, and puts the time in the place of its name.

use kiln_graph::{GitSource, HttpSource};

use crate::compile::remote::{Place, Remote, place};
use crate::diagnostic::Diagnostic;
use crate::env::Env;
use crate::instruction::{CopyFiles, CopyKind, Dockerfile, Instruction, Stage, Step};
use crate::options::Options;
use crate::plan::{expanded, globals};

/// The build argument.
pub(crate) const NAME: &str = "SOURCE_DATE_EPOCH";

/// What a time is taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EpochSource {
    /// The main context.
    Context,
    /// A named context.
    Named(String),
    /// A commit.
    Git(GitSource),
    /// A file of a web server.
    Http(HttpSource),
}

/// Returns the source that `SOURCE_DATE_EPOCH` names; `None` if it is a time, or not set.
///
/// What cannot be read at all is left for [`crate::compile()`] to tell.
pub fn epoch_source(
    file: &Dockerfile,
    options: &Options,
) -> Result<Option<EpochSource>, Diagnostic> {
    let Ok(mut globals) = globals(file, options) else {
        return Ok(None);
    };
    let given = options.build_arg(NAME).or_else(|| globals.get(NAME));
    let name = given.unwrap_or_default().to_owned();
    if name.is_empty() || name.parse::<i64>().is_ok() {
        return Ok(None);
    }
    if name == "context" {
        return Ok(Some(EpochSource::Context));
    }
    if options.named_contexts.contains_key(&name) {
        return Ok(Some(EpochSource::Named(name)));
    }
    let mut stages = file.stages.iter();
    let is_named = |stage: &&Stage| {
        let own = stage.name.as_deref();
        own.is_some_and(|own| own.eq_ignore_ascii_case(&name))
    };
    let Some(stage) = stages.find(is_named) else {
        return Ok(None);
    };
    globals.set(NAME, "");
    of_stage(file, options, stage, globals).map(Some)
}

fn of_stage(
    file: &Dockerfile,
    options: &Options,
    stage: &Stage,
    mut env: Env,
) -> Result<EpochSource, Diagnostic> {
    if expanded(file, &stage.base, &env)? != "scratch" {
        let message = format!("a stage that `{NAME}` names must be `FROM scratch`");
        return Err(Diagnostic::error(stage.base.span, message));
    }
    let mut source = None;
    for step in &stage.steps {
        match &step.instruction {
            Instruction::Arg(args) => {
                for arg in args {
                    let value = match (options.build_arg(&arg.name), &arg.value) {
                        (Some(value), _) => value.to_owned(),
                        (None, Some(word)) => expanded(file, word, &env)?,
                        (None, None) => continue,
                    };
                    env.set(&arg.name, &value);
                }
            }
            Instruction::Copy(files) if files.kind == CopyKind::Add && source.is_none() => {
                source = Some(of_add(file, step, files, &env)?);
            }
            _ => return Err(not_alone(step)),
        }
    }
    source.ok_or_else(|| {
        let message = format!("a stage that `{NAME}` names must have a remote `ADD`");
        Diagnostic::error(stage.span, message)
    })
}

fn of_add(
    file: &Dockerfile,
    step: &Step,
    files: &CopyFiles,
    env: &Env,
) -> Result<EpochSource, Diagnostic> {
    let ([word], []) = (&files.sources[..], &files.documents[..]) else {
        return Err(not_alone(step));
    };
    let source = expanded(file, word, env)?;
    let checksum = files.checksum.as_ref();
    let text = checksum.map(|word| expanded(file, word, env)).transpose()?;
    match place(files, &source, word, text.as_deref().zip(checksum))? {
        Place::Remote(Remote::Git(git)) => Ok(EpochSource::Git(git)),
        Place::Remote(Remote::Http { source, .. }) => Ok(EpochSource::Http(source)),
        Place::Local => Err(not_alone(step)),
    }
}

fn not_alone(step: &Step) -> Diagnostic {
    let message = format!(
        "a stage that `{NAME}` names has one `ADD` of an HTTP(S) or Git source, and but `ARG` \
         nothing else"
    );
    Diagnostic::error(step.span, message)
}

#[cfg(test)]
mod tests {
    use kiln_graph::Platform;

    use super::*;
    use crate::options::NamedContext;
    use crate::parse::parse;

    fn source(epoch: &str, text: &str) -> Result<Option<EpochSource>, String> {
        let mut options = Options::for_platform(Platform::linux("amd64"));
        options.build_args = vec![(NAME.to_owned(), epoch.to_owned())];
        let named = ("extra".to_owned(), NamedContext::Local);
        options.named_contexts.extend([named]);
        epoch_source(&parse(text).unwrap(), &options).map_err(|error| error.message)
    }

    #[test]
    fn sources_are_contexts_and_stages() {
        let text = "FROM scratch AS Src\nARG V=2\nADD http://h/x-$V.tar /\nFROM a\n";
        assert_eq!(source("5", text), Ok(None));
        assert_eq!(source("", text), Ok(None));
        assert_eq!(source("nothing", text), Ok(None));
        assert_eq!(source("context", text), Ok(Some(EpochSource::Context)));
        let named = EpochSource::Named("extra".to_owned());
        assert_eq!(source("extra", text), Ok(Some(named)));
        let Ok(Some(EpochSource::Http(http))) = source("sRC", text) else {
            panic!("no file");
        };
        assert_eq!(http.url, "http://h/x-2.tar");
        let git = source("src", "FROM scratch AS src\nADD https://h/x.git#v1 /\n");
        assert!(matches!(git, Ok(Some(EpochSource::Git(_)))), "{git:?}");
    }

    #[test]
    fn stages_that_are_more_than_a_source_are_refused() {
        for body in [
            "scratch AS src",
            "a AS src\nADD http://h/x /",
            "scratch AS src\nADD x /",
            "scratch AS src\nADD http://h/x http://h/y /",
            "scratch AS src\nADD http://h/x /\nADD http://h/y /",
            "scratch AS src\nADD http://h/x /\nENV a=b",
            "scratch AS src\nADD <<f /\nx\nf\n",
        ] {
            let error = source("src", &format!("FROM {body}\n")).unwrap_err();
            assert!(error.contains("`SOURCE_DATE_EPOCH` names"), "{error}");
        }
    }
}
