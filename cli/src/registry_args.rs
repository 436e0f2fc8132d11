//! What is typed about registries: how they are reached, who one is, what goes there.

use std::path::PathBuf;

use clap::Args;
use kiln_registry::Password;

use crate::args::Progress;

/// Whom to trust.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TrustArgs {
    /// Registry that may be plain HTTP or have an unknown certificate
    #[arg(long, value_name = "HOST")]
    pub(crate) insecure_registry: Vec<String>,
    /// Certificate authority to trust beside the system's, a PEM file
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Vec<PathBuf>,
}

/// How registries are reached.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct RegistryArgs {
    /// Whom to trust.
    #[command(flatten)]
    pub(crate) trust: TrustArgs,
    /// Ask another registry first for images of HOST (default: docker.io), HOST=MIRROR[/PATH]; the
    /// registry itself is asked for what the mirror does not give
    #[arg(long, value_name = "HOST=MIRROR")]
    pub(crate) registry_mirror: Vec<String>,
}

/// `kiln push`, with the names of `docker push`.
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// Image of the local store, NAME or NAME:TAG, with all its platforms
    #[arg(value_name = "NAME", required = true)]
    pub(crate) names: Vec<String>,
    /// Push all tags of NAME that are in the local store
    #[arg(short, long)]
    pub(crate) all_tags: bool,
    /// Print only the names that were pushed
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// How progress is shown
    #[arg(
        long,
        value_name = "TYPE",
        env = "BUILDKIT_PROGRESS",
        default_value = "auto"
    )]
    pub(crate) progress: Progress,
    /// How registries are reached.
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// `kiln login`, with the names of `docker login`.
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// Registry, HOST or HOST:PORT (default: Docker Hub)
    #[arg(value_name = "SERVER")]
    pub(crate) server: Option<String>,
    /// User name
    #[arg(short, long, value_name = "USER")]
    pub(crate) username: Option<String>,
    /// Password or access token; other users of the machine can see it here
    #[arg(short, long, value_name = "PASSWORD", value_parser = password)]
    pub(crate) password: Option<Password>,
    /// Take the password from standard input
    #[arg(long, conflicts_with = "password", requires = "username")]
    pub(crate) password_stdin: bool,
    /// How the registry is reached.
    #[command(flatten)]
    pub(crate) trust: TrustArgs,
}

impl LoginArgs {
    /// Returns how the registry is reached; mirrors have nothing to do with it.
    pub(crate) fn registry(&self) -> RegistryArgs {
        RegistryArgs {
            trust: self.trust.clone(),
            ..RegistryArgs::default()
        }
    }
}

/// `kiln logout`.
#[derive(Debug, Args)]
pub(crate) struct LogoutArgs {
    /// Registry, HOST or HOST:PORT (default: Docker Hub)
    #[arg(value_name = "SERVER")]
    pub(crate) server: Option<String>,
}

#[expect(clippy::unnecessary_wraps, reason = "clap wants parsers that can fail")]
fn password(text: &str) -> Result<Password, String> {
    Ok(Password::from(text.to_owned()))
}
