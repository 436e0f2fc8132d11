//! What is typed after `kiln cache`.

use clap::{Args, Subcommand};

use crate::args::TextOrJson;
use crate::registry_args::RegistryArgs;

/// `kiln cache`.
#[derive(Debug, Args)]
pub(crate) struct CacheArgs {
    /// Of what.
    #[command(subcommand)]
    pub(crate) command: CacheCommand,
}

/// What builds keep.
#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// List, remove, export and import the folders of RUN --mount=type=cache
    Mounts(MountsArgs),
}

/// `kiln cache mounts`.
#[derive(Debug, Args)]
pub(crate) struct MountsArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: MountsCommand,
}

/// What can be done to cache mounts.
#[derive(Debug, Subcommand)]
pub(crate) enum MountsCommand {
    /// List the cache mounts: id, name, size on disk, last use
    #[command(visible_alias = "list")]
    Ls(MountsLsArgs),
    /// Take cache mounts away, but for those that a build uses just now
    Rm(MountsRmArgs),
    /// Copy a cache mount to a folder, an archive or a registry; to a folder or a registry goes only
    /// what is not there yet
    Export(MountsExportArgs),
    /// Put an exported cache mount in the place of the one of its name, for the next build
    Import(MountsImportArgs),
}

/// `kiln cache mounts ls`.
#[derive(Debug, Args)]
pub(crate) struct MountsLsArgs {
    /// How it is printed
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: TextOrJson,
}

/// `kiln cache mounts rm`.
#[derive(Debug, Args)]
pub(crate) struct MountsRmArgs {
    /// Id of the cache mount, or the beginning of its name, as `ls` shows them
    #[arg(value_name = "ID", required_unless_present = "all")]
    pub(crate) ids: Vec<String>,
    /// All cache mounts
    #[arg(long, conflicts_with = "ids")]
    pub(crate) all: bool,
}

/// `kiln cache mounts export`.
#[derive(Debug, Args)]
pub(crate) struct MountsExportArgs {
    /// Id of the cache mount, or the beginning of its name, as `ls` shows them
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Where it goes: type=local,dest=DIR, type=tar,dest=FILE or type=registry,ref=NAME; a path is a
    /// folder, or an archive if it ends in .tar; `-` is an archive on standard output
    #[arg(long, value_name = "SPEC")]
    pub(crate) to: String,
    /// How the registry is reached.
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// `kiln cache mounts import`.
#[derive(Debug, Args)]
pub(crate) struct MountsImportArgs {
    /// Where it comes from: type=local,dest=DIR, type=tar,dest=FILE or type=registry,ref=NAME; a path
    /// is a folder, or an archive if it ends in .tar; `-` is an archive on standard input
    #[arg(long, value_name = "SPEC")]
    pub(crate) from: String,
    /// How the registry is reached.
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}
