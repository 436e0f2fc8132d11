//! Fetching what a build needs before its Dockerfile is known: the main context, the Dockerfile.
//!
//! Named contexts are fetched later, by the worker, when a step needs them. Everything that is
//! fetched lies in the store; nothing temporary stays when the build ends, however it ends.

use anyhow::anyhow;
use kiln_graph::HttpSource;
use kiln_solver::{Reporter, Task};
use kiln_worker::{Snapshot, WorkerError};

use crate::plan::contexts::{CONTEXT_FILE, ContextPlace};
use crate::plan::{BuildPlan, DockerfilePlace, MAX_DOCKERFILE, Source, dockerfile_text};
use crate::report::Failure;
use crate::session::Session;

/// Names that are looked for when none is given.
pub(crate) const USUAL_NAMES: [&str; 3] = ["Dockerfile", "dockerfile", "Containerfile"];

/// Fetches the main context, if it is no folder, and the Dockerfile, if it is elsewhere.
pub(crate) async fn fetch(
    mut plan: BuildPlan,
    session: &Session,
    reporter: &Reporter,
) -> Result<BuildPlan, Failure> {
    let fetcher = Fetcher { session, reporter };
    if let DockerfilePlace::Web(url) = &plan.dockerfile_place {
        plan.dockerfile = fetcher.web_dockerfile(url).await?;
        plan.dockerfile_place = DockerfilePlace::Read;
    }
    let (_, place) = &plan.contexts[0];
    let fetched = match place {
        ContextPlace::Folder(..) | ContextPlace::Fetched(_) => return Ok(plan),
        ContextPlace::Git(source) => {
            let mut sources = session.sources.clone();
            if let Some(agent) = plan.ssh_agent.clone().filter(|_| is_ssh(&source.remote)) {
                sources = sources.with_ssh_agent(agent);
            }
            let remote = kiln_registry::without_credentials(&source.remote);
            let name = format!("[internal] load git source {remote}");
            let fetch = |task| async move { sources.git(source, &task).await };
            Fetched::files(fetcher.task(&name, fetch).await?)
        }
        ContextPlace::Http(source) => fetcher.web_context(source).await?,
        ContextPlace::Stdin => fetcher.standard_input().await?,
    };
    if let (true, DockerfilePlace::Inside(Some(_)) | DockerfilePlace::Read) =
        (fetched.is_dockerfile, &plan.dockerfile_place)
    {
        let message = "standard input is a Dockerfile, and --file names another one";
        return Err(Failure::usage(message));
    }
    if let DockerfilePlace::Inside(name) = &plan.dockerfile_place {
        let name = fetched.dockerfile.as_ref().or(name.as_ref());
        plan.dockerfile = fetcher.inner_dockerfile(&fetched.files, name.map(String::as_str))?;
    }
    if fetched.is_dockerfile {
        // Its only file was the Dockerfile.
        plan.contexts[0].1 = ContextPlace::Fetched(Snapshot::default());
    } else {
        plan.contexts[0].1 = ContextPlace::Fetched(fetched.files);
    }
    plan.dockerfile_place = DockerfilePlace::Read;
    Ok(plan)
}

/// A main context that was fetched.
struct Fetched {
    files: Snapshot,
    /// The file that is the Dockerfile, whatever `--file` says.
    dockerfile: Option<String>,
    /// The files are that Dockerfile, and no context.
    is_dockerfile: bool,
}

impl Fetched {
    fn files(files: Snapshot) -> Self {
        Self {
            files,
            dockerfile: None,
            is_dockerfile: false,
        }
    }
}

struct Fetcher<'a> {
    session: &'a Session,
    reporter: &'a Reporter,
}

impl Fetcher<'_> {
    async fn task<T, F: Future<Output = Result<T, WorkerError>>>(
        &self,
        name: &str,
        work: impl FnOnce(Task) -> F,
    ) -> Result<T, Failure> {
        let task = self.reporter.task(name, None);
        task.started();
        match work(task.clone()).await {
            Ok(done) => {
                task.finished();
                Ok(done)
            }
            Err(error) => {
                let error = anyhow::Error::new(error);
                task.failed(format!("{error:#}"));
                Err(Failure::user(
                    error.context("cannot load the build context"),
                ))
            }
        }
    }

    /// An archive is unpacked; anything else is the Dockerfile, and a context of that one file.
    async fn web_context(&self, source: &HttpSource) -> Result<Fetched, Failure> {
        let sources = &self.session.sources;
        let shown = kiln_registry::without_credentials(&source.url);
        self.task("[internal] load remote build context", |task| async move {
            let file = sources.http(source, &task).await?;
            let unpacked = sources
                .unpacked(&file, (CONTEXT_FILE, &shown), &task)
                .await?;
            Ok(unpacked.map_or_else(
                || Fetched {
                    dockerfile: Some(CONTEXT_FILE.to_owned()),
                    ..Fetched::files(file)
                },
                Fetched::files,
            ))
        })
        .await
    }

    /// An archive is unpacked; anything else is the Dockerfile, without a context.
    async fn standard_input(&self) -> Result<Fetched, Failure> {
        let sources = &self.session.sources;
        let name = "[internal] load build context from standard input";
        self.task(name, |task| async move {
            let file = sources
                .spool(CONTEXT_FILE, std::io::stdin(), MAX_DOCKERFILE)
                .await?;
            let shown = "standard input";
            let unpacked = sources
                .unpacked(&file, (CONTEXT_FILE, shown), &task)
                .await?;
            Ok(unpacked.map_or_else(
                || Fetched {
                    dockerfile: Some(CONTEXT_FILE.to_owned()),
                    is_dockerfile: true,
                    ..Fetched::files(file)
                },
                Fetched::files,
            ))
        })
        .await
    }

    async fn web_dockerfile(&self, url: &str) -> Result<Source, Failure> {
        let sources = &self.session.sources;
        let source = crate::plan::contexts::web_file(url);
        let fetch = |task| async move { sources.http(&source, &task).await };
        let file = self
            .task("[internal] load remote Dockerfile", fetch)
            .await?;
        let bytes = sources.read_file(&file, CONTEXT_FILE, MAX_DOCKERFILE);
        let name = kiln_registry::without_credentials(url);
        let text = dockerfile_text(bytes.map_err(Failure::user)?.unwrap_or_default(), &name)?;
        Ok(Source { name, text })
    }

    /// Reads the Dockerfile of a fetched context.
    fn inner_dockerfile(&self, files: &Snapshot, name: Option<&str>) -> Result<Source, Failure> {
        let read = |name: &str| {
            let sources = &self.session.sources;
            sources.read_file(files, name.trim_start_matches('/'), MAX_DOCKERFILE)
        };
        for name in candidates(name) {
            if let Some(bytes) = read(&name).map_err(Failure::user)? {
                if bytes.is_empty() && name == CONTEXT_FILE {
                    return Err(Failure::user(anyhow!("the build context is empty")));
                }
                let text = dockerfile_text(bytes, &name)?;
                let is_nameless = name == CONTEXT_FILE;
                let name = if is_nameless {
                    USUAL_NAMES[0].to_owned()
                } else {
                    name
                };
                return Ok(Source { name, text });
            }
        }
        let name = name.unwrap_or(USUAL_NAMES[0]);
        let error = anyhow!("there is no `{name}` in the build context");
        Err(Failure::user(error).with_hint("name the Dockerfile with --file"))
    }
}

/// The user's agent signs for the context that the user typed, not for what a Dockerfile names.
pub(crate) fn is_ssh(remote: &str) -> bool {
    remote.starts_with("ssh://") || !remote.contains("://")
}

/// Returns the files to look for: `Dockerfile` has other spellings.
fn candidates(name: Option<&str>) -> Vec<String> {
    let Some(name) = name else {
        return USUAL_NAMES.map(str::to_owned).to_vec();
    };
    let mut names = vec![name.to_owned()];
    if let Some(folder) = name.strip_suffix(USUAL_NAMES[0])
        && (folder.is_empty() || folder.ends_with('/'))
    {
        names.push(format!("{folder}{}", USUAL_NAMES[1]));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dockerfile_has_two_spellings() {
        assert_eq!(candidates(Some("Dockerfile")), ["Dockerfile", "dockerfile"]);
        assert_eq!(
            candidates(Some("a/Dockerfile")),
            ["a/Dockerfile", "a/dockerfile"]
        );
        assert_eq!(candidates(Some("my.Dockerfile")), ["my.Dockerfile"]);
        assert_eq!(candidates(None), USUAL_NAMES);
    }
}
