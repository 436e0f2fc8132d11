//! What a build is to do: arguments turned into objects, files read, nothing started.

mod build_args;
pub(crate) mod caches;
pub(crate) mod contexts;
mod dockerfile;
mod entitlements;
mod find;
mod multi_platform;
mod outputs;
mod secrets;
mod ssh;

use std::collections::HashMap;
use std::io::Read as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kiln_cache::{Context, IgnoreList};
use kiln_exporter::OutputSpec;
use kiln_frontend::{NoCache, Options};
use kiln_graph::{Network, Platform};
use kiln_registry::Reference;
use kiln_worker::{ContextFiles, Credentials, Reuse, Snapshot, StepSettings};

use crate::args::BuildArgs;
use crate::commands::call::Method;
use crate::context_names::ContextNames;
use crate::environment::{Environment, display_path};
use crate::fetch::USUAL_NAMES;
use crate::plan::build_args::build_args;
use crate::plan::caches::{CachePlan, caches};
use crate::plan::contexts::{ContextPlace, LayoutImage, main_context};
use crate::plan::dockerfile::text_of;
use crate::plan::find::{find_dockerfile, keeps_git_dir, lower_case};
use crate::plan::multi_platform::makes_index;
use crate::plan::outputs::outputs;
use crate::plan::{secrets::secrets, ssh::agents};
use crate::report::Failure;
use crate::writable;

/// Longest Dockerfile in bytes.
pub(crate) const MAX_DOCKERFILE: u64 = 64 << 20;

/// The name that the build context has in a graph.
pub(crate) const CONTEXT: &str = "context";

/// A build, ready to start.
#[derive(Debug)]
pub(crate) struct BuildPlan {
    /// The Dockerfile; empty until it was read.
    pub(crate) dockerfile: Source,
    /// Where the Dockerfile is.
    pub(crate) dockerfile_place: DockerfilePlace,
    /// Options without a platform of their own.
    pub(crate) options: Options,
    /// Platforms to build; several give one index.
    pub(crate) platforms: Vec<Platform>,
    /// Contexts by the name they have in the graph, the main one first.
    pub(crate) contexts: Vec<(String, ContextPlace)>,
    /// The user's agent for SSH.
    pub(crate) ssh_agent: Option<PathBuf>,
    /// Images of OCI layouts, by reference.
    pub(crate) layouts: HashMap<String, LayoutImage>,
    /// Names of the image.
    pub(crate) tags: Vec<Reference>,
    /// Where the result goes.
    pub(crate) outputs: Vec<OutputSpec>,
    /// What steps have in common.
    pub(crate) settings: StepSettings,
    /// Make one layer of all that is built.
    pub(crate) squash: bool,
    /// Put images into an index, even one.
    pub(crate) makes_index: bool,
    /// Ask registries for names that are known.
    pub(crate) refresh: bool,
    /// What of the cache is used.
    pub(crate) reuse: Reuse,
    /// Caches that are shared with others.
    pub(crate) caches: CachePlan,
    /// Steps at once.
    pub(crate) jobs: Option<NonZeroUsize>,
}

/// A Dockerfile's text, and how it is called in messages.
#[derive(Debug, Default)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// Where a Dockerfile is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DockerfilePlace {
    /// It was read.
    Read,
    /// In a context that is fetched, under this name or a usual one.
    Inside(Option<String>),
    /// At this address.
    Web(String),
}

impl BuildPlan {
    /// Reads what the arguments name.
    pub(crate) fn new(args: &BuildArgs, env: &Environment) -> Result<Self, Failure> {
        args.docker.check()?;
        let build_args = build_args(args, env)?;
        let keeps_git = keeps_git_dir(&build_args);
        let context = main_context(&args.context, keeps_git)?;
        let (dockerfile, dockerfile_place, context) = find_dockerfile(args, context)?;
        let names = context_names(&context);
        let named = pairs(&args.build_context, "--build-context", false)?;
        let named = contexts::named_contexts(&named, keeps_git)?;
        let mut contexts = vec![(CONTEXT.to_owned(), context)];
        contexts.extend(named.places);
        let platforms = platforms(&args.platform)?;
        let options = Options {
            build_args,
            target: args.target.clone(),
            explicit_platform: !args.platform.is_empty(),
            several_platforms: platforms.len() > 1,
            labels: pairs(&args.label, "--label", true)?,
            named_contexts: named.named,
            network: network(&args.network)?,
            no_cache: no_cache(args),
            check: is_check(args),
            context: names,
            allowed: entitlements::allowed(&args.allow)?,
            ..Options::for_platform(Platform::host())
        };
        let caches = caches(args, &options.build_args, env)?;
        let tags = tags(&args.tag)?;
        let makes_index = makes_index(&options.build_args, platforms.len())?;
        let outputs = outputs(args, &tags, makes_index, env.is_stdout_terminal)?;
        if args.print.is_none() && args.call().is_none() {
            writable::check(args, &outputs)?;
        }
        let settings = StepSettings {
            hostname: "buildkitsandbox".to_owned(),
            extra_hosts: extra_hosts(&args.add_host)?,
            shm_size: args.shm_size,
            credentials: credentials(args, env)?,
        };
        let (refresh, jobs) = (args.pull, args.jobs);
        let reuse = Reuse {
            max_age: args.cache_ttl,
            origin: origin(&contexts[0].1, &dockerfile.name),
        };
        Ok(Self {
            reuse,
            caches,
            squash: args.squash,
            makes_index,
            dockerfile,
            dockerfile_place,
            options,
            platforms,
            contexts,
            ssh_agent: env.variable("SSH_AUTH_SOCK").map(PathBuf::from),
            layouts: named.layouts,
            tags,
            outputs,
            settings,
            refresh,
            jobs,
        })
    }

    /// Opens the contexts.
    pub(crate) fn open_contexts(&self) -> Result<Vec<(String, ContextFiles)>, Failure> {
        let open = |(name, place): &(String, ContextPlace)| {
            let files = match place {
                ContextPlace::Folder(dir, ignore) => {
                    let context = Context::open(dir, ignore.clone()).map_err(Failure::user)?;
                    ContextFiles::Folder(context)
                }
                ContextPlace::Git(source) => ContextFiles::Git(source.clone()),
                ContextPlace::Http(source) => ContextFiles::Http(source.clone()),
                ContextPlace::Fetched(files) => ContextFiles::Fetched(files.clone()),
                // It is fetched before anything is opened.
                ContextPlace::Stdin => ContextFiles::Fetched(Snapshot::default()),
            };
            Ok((name.clone(), files))
        };
        self.contexts.iter().map(open).collect()
    }
}

/// Returns what is recorded as the origin of what a build makes.
fn origin(context: &ContextPlace, dockerfile: &str) -> String {
    let context = match context {
        ContextPlace::Folder(dir, _) => {
            let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
            display_path(&dir)
        }
        ContextPlace::Git(source) => without_password(&source.remote),
        ContextPlace::Http(source) => without_password(&source.url),
        ContextPlace::Stdin | ContextPlace::Fetched(_) => "standard input".to_owned(),
    };
    match Path::new(dockerfile).file_name() {
        Some(name) if name != "Dockerfile" => format!("{context} ({dockerfile})"),
        _ => context,
    }
}

/// Returns an address without what stands before `@` in its host.
fn without_password(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else {
        return address.to_owned();
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    format!("{scheme}://{host}{path}")
}

fn is_check(args: &BuildArgs) -> bool {
    args.call().is_some_and(|call| call.method == Method::Check)
}

/// Returns what checks can know of the names in the build context: those of a folder.
fn context_names(context: &ContextPlace) -> Option<Arc<dyn kiln_frontend::ContextNames>> {
    match context {
        ContextPlace::Folder(dir, ignore) => {
            Some(Arc::new(ContextNames::new(dir.clone(), ignore.clone())))
        }
        _ => None,
    }
}

/// Reads the Dockerfile; returns its path, too, unless it came from standard input.
fn read_dockerfile(args: &BuildArgs, context: &Path) -> Result<(Source, Option<PathBuf>), Failure> {
    if args.file.as_deref() == Some("-") {
        let bytes = read_limited(std::io::stdin().lock(), "standard input")?;
        let text = dockerfile_text(bytes, "standard input")?;
        return Ok((
            Source {
                name: "Dockerfile".to_owned(),
                text,
            },
            None,
        ));
    }
    let path = match &args.file {
        Some(file) => PathBuf::from(file),
        None => {
            let mut usual = USUAL_NAMES.iter().map(|name| context.join(name));
            let found = usual.find(|path| path.exists());
            found.unwrap_or_else(|| context.join(USUAL_NAMES[0]))
        }
    };
    let path = lower_case(path);
    let name = display_path(&path);
    let file = std::fs::File::open(&path).with_context(|| format!("cannot read `{name}`"));
    let bytes = read_limited(file.map_err(no_dockerfile)?, &name)?;
    let text = dockerfile_text(bytes, &name)?;
    Ok((Source { name, text }, Some(path)))
}

fn no_dockerfile(error: anyhow::Error) -> Failure {
    Failure::user(error).with_hint("name the Dockerfile with --file")
}

pub(crate) fn dockerfile_text(bytes: Vec<u8>, name: &str) -> Result<String, Failure> {
    text_of(bytes).map_err(|line| {
        let error = anyhow::anyhow!("`{name}` is not UTF-8 text in line {line}");
        Failure::user(error).with_hint("only comments, LABEL and MAINTAINER may have other bytes")
    })
}

fn read_limited(reader: impl std::io::Read, name: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = reader.take(MAX_DOCKERFILE + 1).read_to_end(&mut bytes);
    read.with_context(|| format!("cannot read `{name}`"))
        .map_err(Failure::user)?;
    if bytes.len() as u64 > MAX_DOCKERFILE {
        return Err(Failure::user(anyhow::anyhow!(
            "`{name}` is too large for a Dockerfile"
        )));
    }
    Ok(bytes)
}

/// Reads `<Dockerfile>.dockerignore`, else `.dockerignore` of the context.
fn read_ignore(context: &Path, dockerfile: Option<&Path>) -> Result<IgnoreList, Failure> {
    let beside = dockerfile.map(|path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    let path = match beside {
        Some(path) if path.exists() => path,
        _ => context.join(".dockerignore"),
    };
    let name = display_path(&path);
    let file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(IgnoreList::default());
        }
        Err(error) => {
            return Err(Failure::user(
                anyhow::Error::new(error).context(format!("cannot read `{name}`")),
            ));
        }
    };
    let bytes = read_limited(file, &name)?;
    IgnoreList::parse(&bytes)
        .map(|list| list.named(&name))
        .with_context(|| format!("cannot use `{name}`"))
        .map_err(Failure::user)
}

fn platforms(written: &[String]) -> Result<Vec<Platform>, Failure> {
    let mut platforms: Vec<Platform> = Vec::new();
    for text in written {
        let text = text.trim();
        let platform: Platform = text.parse().map_err(|error| {
            let failure = Failure::usage(format!("--platform: {error}"));
            match kiln_frontend::nearest_platform(text) {
                Some(meant) => failure.with_hint(format!("did you mean `{meant}`?")),
                None => failure,
            }
        })?;
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    if platforms.is_empty() {
        platforms.push(Platform::host());
    }
    Ok(platforms)
}

fn pairs(
    written: &[String],
    flag: &str,
    may_be_empty: bool,
) -> Result<Vec<(String, String)>, Failure> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        None if may_be_empty && !text.is_empty() => Ok((text.clone(), String::new())),
        _ => Err(Failure::usage(format!(
            "{flag} {text}: expected NAME=VALUE"
        ))),
    };
    written.iter().map(pair).collect()
}

fn network(written: &str) -> Result<Network, Failure> {
    match written {
        "default" | "" => Ok(Network::Default),
        "none" => Ok(Network::None),
        "host" => Ok(Network::Host),
        other => {
            let message = format!("--network {other}: expected default, none or host");
            Err(Failure::usage(message))
        }
    }
}

fn no_cache(args: &BuildArgs) -> NoCache {
    if args.no_cache || args.cache_ttl == Some(Duration::ZERO) {
        NoCache::All
    } else if args.no_cache_filter.is_empty() {
        NoCache::None
    } else {
        NoCache::Stages(args.no_cache_filter.clone())
    }
}

fn tags(written: &[String]) -> Result<Vec<Reference>, Failure> {
    let parse = |text: &String| {
        let tag: Reference = text
            .parse()
            .map_err(|error| Failure::usage(format!("--tag {text}: {error}")))?;
        match tag.digest() {
            Some(_) => Err(Failure::usage(format!(
                "--tag {text}: a name for an image has no digest"
            ))),
            None => Ok(tag),
        }
    };
    written.iter().map(parse).collect()
}

fn credentials(args: &BuildArgs, env: &Environment) -> Result<Credentials, Failure> {
    Ok(Credentials {
        secrets: secrets(&args.secret, env)?,
        agents: agents(&args.ssh, env)?,
    })
}

fn extra_hosts(written: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let parse = |text: &String| {
        let pair = text.split_once('=').or_else(|| text.split_once(':'));
        match pair {
            Some((host, address)) if !host.is_empty() => {
                let address = address.trim_start_matches('[').trim_end_matches(']');
                let parsed: Result<std::net::IpAddr, _> = address.parse();
                let bad =
                    |_| Failure::usage(format!("--add-host {text}: `{address}` is no IP address"));
                Ok((host.to_owned(), parsed.map_err(bad)?.to_string()))
            }
            _ => Err(Failure::usage(format!(
                "--add-host {text}: expected HOST:IP"
            ))),
        }
    };
    written.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_addresses() {
        let hosts = |text: &str| extra_hosts(&[text.to_owned()]);
        assert_eq!(
            hosts("a:1.2.3.4").unwrap(),
            [("a".to_owned(), "1.2.3.4".to_owned())]
        );
        assert_eq!(
            hosts("a:::1").unwrap(),
            [("a".to_owned(), "::1".to_owned())]
        );
        assert_eq!(
            hosts("a=[::1]").unwrap(),
            [("a".to_owned(), "::1".to_owned())]
        );
        assert!(hosts("a").is_err() && hosts("a:b").is_err());
    }

    #[test]
    fn platforms_are_normal_and_once() {
        let list = ["linux/x86_64", "linux/amd64"].map(str::to_owned);
        assert_eq!(platforms(&list).unwrap(), [Platform::linux("amd64")]);
        assert!(platforms(&["linux/a/b/c/d".to_owned()]).is_err());
    }
}
