//! What was typed: clap structs, nothing resolved, nothing read.

use std::any::TypeId;
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{
    Arg, ArgAction, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum,
};

use crate::commands::call::{Call, Method};
use crate::docker_flags::DockerFlags;
use crate::duration::duration;
use crate::mount_args::CacheArgs;
use crate::registry_args::{LoginArgs, LogoutArgs, PushArgs, RegistryArgs};
use crate::size::size;

/// Builds container images from Dockerfiles, without a daemon and without root.
#[derive(Debug, Parser)]
#[command(name = "kiln", version, propagate_version = true)]
pub(crate) struct Cli {
    /// Folder that keeps layers, blobs and the cache (default: $XDG_DATA_HOME/kiln, or
    /// /var/lib/kiln for root)
    #[arg(long, global = true, env = "KILN_ROOT", value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build an image from a Dockerfile
    #[command(visible_alias = "b", args_override_self = true)]
    Build(Box<BuildArgs>),
    /// Show an image of the local store: config, history, layers, files
    Inspect(InspectArgs),
    /// List the images of the local store
    Images(ImagesArgs),
    /// Tell why the steps of a build ran, or since when they are cached
    Why(WhyArgs),
    /// Show what the cache takes on disk, by kind and by image
    Du(DuArgs),
    /// Take away what the cache could do without
    Prune(PruneArgs),
    /// Look after what builds keep: the folders of cache mounts
    Cache(CacheArgs),
    /// Look after the store
    Store(StoreArgs),
    /// Push images of the local store to the registries of their names
    Push(PushArgs),
    /// Log in to a registry; the login is kept where Docker keeps it
    Login(LoginArgs),
    /// Log out from a registry
    Logout(LogoutArgs),
}

/// `kiln build`, with the names of `docker build`.
#[derive(Debug, Args)]
#[command(mut_args(as_switch))]
pub(crate) struct BuildArgs {
    /// Folder, Git repository or archive that COPY and ADD take files from; `-` reads an archive or
    /// a Dockerfile from standard input
    #[arg(value_name = "CONTEXT")]
    pub(crate) context: String,
    /// Name of the image, NAME or NAME:TAG; may be given several times
    #[arg(short, long, value_name = "NAME")]
    pub(crate) tag: Vec<String>,
    /// Dockerfile (default: CONTEXT/Dockerfile), a path or an address; `-` reads it from standard
    /// input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<String>,
    /// Set a build argument, NAME=VALUE; NAME alone takes the value from the environment
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) build_arg: Vec<String>,
    /// Set the build arguments that a file lists, one NAME=VALUE or NAME a line
    #[arg(long, value_name = "FILE")]
    pub(crate) build_arg_file: Vec<PathBuf>,
    /// Another context, NAME=VALUE: a folder, a Git repository, an address,
    /// docker-image://REFERENCE or oci-layout://FOLDER
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) build_context: Vec<String>,
    /// Stage to build (default: the last one)
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// Platform of the image, such as linux/arm64; several give one index
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    pub(crate) platform: Vec<String>,
    /// Add a label, NAME=VALUE
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) label: Vec<String>,
    /// Run every step again
    #[arg(long, value_parser = switch, action = ArgAction::Set)]
    pub(crate) no_cache: bool,
    /// Run the steps of these stages again
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub(crate) no_cache_filter: Vec<String>,
    /// Run steps again whose result in the cache is older, such as 24h; 0 is --no-cache
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) cache_ttl: Option<Duration>,
    /// Shared cache to look into: NAME, or type=registry,ref=NAME, type=local,src=DIR,
    /// type=s3,bucket=NAME,…
    #[arg(long, value_name = "SPEC")]
    pub(crate) cache_from: Vec<String>,
    /// Shared cache to write to, as in --cache-from (local: dest=DIR); mode=max for all stages
    #[arg(long, value_name = "SPEC")]
    pub(crate) cache_to: Vec<String>,
    /// Room that the cache may take on disk, such as 20GB; what was not used for longest goes, also
    /// while the build runs (default: max-cache of the configuration file, or no limit)
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) max_cache: Option<u64>,
    /// Tell why each step ran, or since when it is cached: text on standard error, or json on
    /// standard output (with --quiet on standard error)
    #[arg(
        long,
        value_name = "FORMAT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "text"
    )]
    pub(crate) explain: Option<TextOrJson>,
    /// Ask the registry for base images that are known already
    #[arg(long, value_parser = switch, action = ArgAction::Set)]
    pub(crate) pull: bool,
    /// Make one layer of all that is built on top of the base image
    #[arg(long, value_parser = switch, action = ArgAction::Set)]
    pub(crate) squash: bool,
    /// Push the image to the registry of its name; the same as --output=type=registry
    #[arg(long, value_parser = switch, action = ArgAction::Set)]
    pub(crate) push: bool,
    /// Put the image into the local store; the same as --output=type=image
    #[arg(long, value_parser = switch, action = ArgAction::Set)]
    pub(crate) load: bool,
    /// Add an annotation, NAME=VALUE or TYPE:NAME=VALUE, to every image that goes out
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) annotation: Vec<String>,
    /// Where the result goes: type=oci|docker|tar|local|image|registry,dest=PATH,…
    #[arg(short, long, value_name = "SPEC")]
    pub(crate) output: Vec<String>,
    /// Write the digest of the image to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,
    /// Write what the build gave to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    /// Network of RUN: default, none or host
    #[arg(long, value_name = "MODE", default_value = "default")]
    pub(crate) network: String,
    /// What RUN steps may ask for: network.host, security.insecure
    #[arg(long, value_name = "ENTITLEMENT", value_delimiter = ',')]
    pub(crate) allow: Vec<String>,
    /// Add a line to /etc/hosts of RUN steps, HOST:IP
    #[arg(long, value_name = "HOST:IP")]
    pub(crate) add_host: Vec<String>,
    /// Size of /dev/shm of RUN steps, such as 128m
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) shm_size: Option<u64>,
    /// Give a secret to RUN --mount=type=secret: id=NAME[,src=FILE|env=VARIABLE]
    #[arg(long, value_name = "SPEC")]
    pub(crate) secret: Vec<String>,
    /// Give an agent to RUN --mount=type=ssh: default or ID, with =SOCKET or =KEY[,KEY…]
    #[arg(long, value_name = "SPEC")]
    pub(crate) ssh: Vec<String>,
    /// How progress is shown
    #[arg(
        long,
        value_name = "TYPE",
        env = "BUILDKIT_PROGRESS",
        default_value = "auto"
    )]
    pub(crate) progress: Progress,
    /// How mistakes in the Dockerfile are told: text, or a line of JSON each
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) diagnostics: Diagnostics,
    /// Print only the digest of the image
    #[arg(short, long, value_parser = switch, action = ArgAction::Set)]
    pub(crate) quiet: bool,
    /// How many steps run at once (default: no limit)
    #[arg(long, short, value_name = "N")]
    pub(crate) jobs: Option<NonZeroUsize>,
    /// What to do with the Dockerfile: build, check, outline, targets; with `,format=json` as JSON
    #[arg(long, value_name = "METHOD", value_parser = call)]
    pub(crate) call: Option<Call>,
    /// Look for mistakes that do not stop a build; the same as --call=check
    #[arg(long, value_parser = switch, action = ArgAction::Set)]
    pub(crate) check: bool,
    /// `--call` stands behind `--check`.
    #[arg(skip)]
    pub(crate) call_is_last: bool,
    /// Print the graph instead of building
    #[arg(long, value_name = "WHAT")]
    pub(crate) print: Option<Print>,
    /// How registries are reached.
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// What docker has and kiln has not.
    #[command(flatten)]
    pub(crate) docker: DockerFlags,
}

impl Cli {
    /// Reads a command line, the name of the program first.
    pub(crate) fn read<T: Into<OsString> + Clone>(
        words: impl IntoIterator<Item = T>,
    ) -> Result<Self, clap::Error> {
        let matches = Self::command().try_get_matches_from(words)?;
        let mut cli = Self::from_arg_matches(&matches)?;
        if let (Command::Build(build), Some((_, found))) = (&mut cli.command, matches.subcommand())
        {
            let is_typed = |id: &str| found.value_source(id) == Some(ValueSource::CommandLine);
            let place = |id: &str| found.index_of(id).filter(|_| is_typed(id));
            build.call_is_last = place("call") > place("check");
        }
        Ok(cli)
    }
}

fn call(text: &str) -> Result<Call, String> {
    text.parse()
}

impl BuildArgs {
    /// Returns what is asked for instead of a build.
    pub(crate) fn call(&self) -> Option<Call> {
        let check = Call {
            method: Method::Check,
            json: false,
            ignore_status: false,
        };
        match self.call {
            Some(call) if !self.check || self.call_is_last => Some(call),
            Some(call) if call.method == Method::Check => Some(call),
            _ => self.check.then_some(check),
        }
        .filter(|call| call.method != Method::Build)
    }
}

/// Makes what is true or false a switch: without a value it is true, and left out it is false.
fn as_switch(arg: Arg) -> Arg {
    if arg.get_value_parser().type_id() != TypeId::of::<bool>() {
        return arg;
    }
    arg.num_args(0..=1)
        .require_equals(true)
        .required(false)
        .default_missing_value("true")
        .default_value("false")
        .hide_default_value(true)
        .value_name("BOOL")
}

/// Reads the value of a switch as Go does: `--pull` is `--pull=true`.
pub(crate) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Progress {
    /// `tty` on a terminal, else `plain`.
    Auto,
    /// One line an event.
    Plain,
    /// A picture that is drawn again and again.
    Tty,
    /// JSON lines, as BuildKit writes them.
    Rawjson,
    /// Nothing but errors.
    #[value(alias = "none")]
    Quiet,
}

/// How diagnostics are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Diagnostics {
    /// With an excerpt of the Dockerfile.
    Text,
    /// One JSON document a line, on standard error.
    Json,
}

/// How something is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TextOrJson {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// What is printed instead of building.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Print {
    /// The graph as JSON.
    Graph,
    /// The graph in the DOT language.
    GraphDot,
}

/// `kiln inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Name of the image
    pub(crate) name: String,
    /// Platform, if the name stands for several images
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    /// List the files instead: mode, owner, size, path
    #[arg(long)]
    pub(crate) files: bool,
}

/// `kiln images`.
#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `kiln why`.
#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// Only steps whose name contains this
    pub(crate) step: Option<String>,
    /// Number of the build (default: the latest)
    #[arg(long, value_name = "N")]
    pub(crate) build: Option<i64>,
    /// How it is printed
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: TextOrJson,
}

/// `kiln du`.
#[derive(Debug, Args)]
pub(crate) struct DuArgs {
    /// Show only what is like this, such as type=exec.cachemount or description~=pip
    #[arg(long, value_name = "FILTER")]
    pub(crate) filter: Vec<String>,
    /// Show everything that is known of each item
    #[arg(long)]
    pub(crate) verbose: bool,
    /// How it is printed
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: TextOrJson,
}

/// `kiln prune`, with the names of `docker buildx prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Take away records of steps and lists of files, too
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Take away only what is like this, such as until=24h or type=exec.cachemount
    #[arg(long, value_name = "FILTER")]
    pub(crate) filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Keep what was used in this time, such as 24h
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) keep_duration: Option<Duration>,
    /// Stop when the cache takes no more than this
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) max_used_space: Option<u64>,
    /// Room that the cache may keep in any case
    #[arg(long, value_name = "SIZE", alias = "keep-storage", value_parser = size)]
    pub(crate) reserved_space: Option<u64>,
    /// Stop when this much is free on the disk
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) min_free_space: Option<u64>,
    /// Show whole ids
    #[arg(long)]
    pub(crate) verbose: bool,
}

/// `kiln store`.
#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: StoreCommand,
}

/// What can be done to the store.
#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Read all layers and blobs and the database, and say what is damaged
    Verify(VerifyArgs),
}

/// `kiln store verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Take out what is damaged; builds make or fetch it again
    #[arg(long)]
    pub(crate) repair: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Box<BuildArgs>, clap::Error> {
        let cli = Cli::read(["kiln", "build"].iter().chain(args))?;
        match cli.command {
            Command::Build(args) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn definition_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn switches_take_a_value_or_none() {
        type Get = fn(&BuildArgs) -> bool;
        let switches: [(&str, Get); 6] = [
            ("--pull", |args| args.pull),
            ("--push", |args| args.push),
            ("--load", |args| args.load),
            ("--no-cache", |args| args.no_cache),
            ("--quiet", |args| args.quiet),
            ("-q", |args| args.quiet),
        ];
        for (name, get) in switches {
            let with = |value: &str| parse(&[&format!("{name}{value}"), "."]);
            assert!(!get(&parse(&["."]).unwrap()), "{name}");
            for value in ["", "=true", "=1"] {
                let args = with(value).unwrap();
                assert!(get(&args), "{name}{value}");
                assert_eq!(args.context, ".", "{name} must not swallow the context");
            }
            for value in ["=false", "=0"] {
                assert!(!get(&with(value).unwrap()), "{name}{value}");
            }
            assert!(with("=moon").is_err(), "{name}");
        }
    }

    #[test]
    fn short_switches_stand_together_with_others() {
        let args = parse(&["-qt", "app", "."]).unwrap();
        assert!(args.quiet);
        assert_eq!(args.tag, ["app"]);
    }

    #[test]
    fn last_of_several_holds() {
        let args = parse(&["--pull", "--pull=false", "--target=a", "--target=b", "."]).unwrap();
        assert!(!args.pull);
        assert_eq!(args.target.as_deref(), Some("b"));
        let method = |args: &[&str]| parse(args).unwrap().call().map(|call| call.method);
        for (args, expected) in [
            (&["--check", "--call=outline", "."][..], Method::Outline),
            (&["--call=outline", "--check", "."], Method::Check),
            (&["--call=outline", "--check=false", "."], Method::Outline),
            (&["--check=false", "--call=targets", "."], Method::Targets),
        ] {
            assert_eq!(method(args), Some(expected), "{args:?}");
        }
        assert_eq!(method(&["--check", "--call=build", "."]), None);
    }
}
