//! `SOURCE_DATE_EPOCH` that names a source: asks it for its time.
//!
//! A commit has its own, a file of a web server that of its last change. Folders and images have
//! none, and then nothing is set, as BuildKit has it.

use kiln_frontend::{EpochSource, epoch_source};

use crate::commands::build::Build;
use crate::fetch::is_ssh;
use crate::plan::contexts::ContextPlace;
use crate::report::Failure;

/// Returns the value in the place of a source's name; `None` if the value is no such name.
///
/// `context` is where the main context was before it was fetched.
pub(crate) async fn resolved(
    build: &Build<'_>,
    context: &ContextPlace,
) -> Result<Option<String>, Failure> {
    let Ok(file) = kiln_frontend::parse(&build.plan.dockerfile.text) else {
        // The build tells what is wrong, with its place.
        return Ok(None);
    };
    let source = epoch_source(&file, &build.plan.options);
    let place = match source.map_err(|error| build.diagnosed(&[error]))? {
        None => return Ok(None),
        Some(EpochSource::Context) => Some(context.clone()),
        Some(EpochSource::Named(name)) => {
            let mut places = build.plan.contexts.iter();
            let found = places.find(|(known, _)| *known == name);
            found.map(|(_, place)| place.clone())
        }
        Some(EpochSource::Git(git)) => Some(ContextPlace::Git(git)),
        Some(EpochSource::Http(http)) => Some(ContextPlace::Http(http)),
    };
    let time = match place {
        Some(place) => time_of(build, &place, context).await?,
        None => None,
    };
    Ok(Some(time.map(|time| time.to_string()).unwrap_or_default()))
}

async fn time_of(
    build: &Build<'_>,
    place: &ContextPlace,
    context: &ContextPlace,
) -> Result<Option<i64>, Failure> {
    let mut sources = build.session.sources.clone();
    if let (ContextPlace::Git(of), ContextPlace::Git(typed)) = (place, context)
        && of.remote == typed.remote
        && is_ssh(&typed.remote)
        && let Some(agent) = &build.plan.ssh_agent
    {
        sources = sources.with_ssh_agent(agent.clone());
    }
    let task = build
        .reporter
        .task("[internal] resolve SOURCE_DATE_EPOCH", None);
    task.started();
    let time = match place {
        ContextPlace::Git(source) => sources.git_time(source, &task).await.map(Some),
        ContextPlace::Http(source) => sources.http_time(source, &task).await,
        ContextPlace::Folder(..) | ContextPlace::Stdin | ContextPlace::Fetched(_) => Ok(None),
    };
    match &time {
        Ok(_) => task.finished(),
        Err(error) => task.failed(error.to_string()),
    }
    time.map_err(|error| {
        Failure::user(anyhow::Error::new(error).context("cannot find out `SOURCE_DATE_EPOCH`"))
    })
}
