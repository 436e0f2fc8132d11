//! What a client is told by its caller: credentials, trust, patience.
//!
//! Plain values. Reading the environment and finding the files is the caller's.

use std::path::PathBuf;
use std::time::Duration;

use crate::credentials::Credentials;
use crate::mirrors::Registries;

/// How to speak to registries.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who to be.
    pub credentials: Credentials,
    /// Hosts (with port, as in references) that need no trusted certificate. `host` tries TLS
    /// without verifying it and falls back to plain HTTP, `http://host` uses plain HTTP,
    /// `https://host` uses TLS without verifying it.
    pub insecure_hosts: Vec<String>,
    /// Which registries have mirrors, are elsewhere, or are not to be used.
    pub registries: Registries,
    /// PEM files of certificate authorities to trust beside the system's. If there are any, a
    /// loopback host is asked first whether it speaks TLS, which then is verified.
    pub extra_ca_files: Vec<PathBuf>,
    /// Folders like `/etc/docker/certs.d`: in the folder named like a host (with port), `*.crt`
    /// are authorities to trust for it, `NAME.cert` with `NAME.key` is what to show it.
    pub certs_dirs: Vec<PathBuf>,
    /// How many requests run at a time at one host.
    pub concurrency: usize,
    /// The `User-Agent`.
    pub user_agent: String,
    /// How long a connection may take to open.
    pub connect_timeout: Duration,
    /// How long a connection may be silent.
    pub idle_timeout: Duration,
    /// How long a credential helper may take.
    pub helper_timeout: Duration,
    /// How often a request is tried again after a failure that may pass.
    pub retries: u32,
    /// The first pause before trying again; each further one is twice as long.
    pub backoff: Duration,
    /// The longest pause, also where the registry asks for a longer one: then it fails instead.
    pub max_pause: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            credentials: Credentials::default(),
            insecure_hosts: Vec::new(),
            registries: Registries::default(),
            extra_ca_files: Vec::new(),
            certs_dirs: ["/etc/docker/certs.d", "/etc/containers/certs.d"]
                .map(PathBuf::from)
                .to_vec(),
            concurrency: 6,
            user_agent: concat!("kiln/", env!("CARGO_PKG_VERSION")).to_owned(),
            connect_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(60),
            helper_timeout: Duration::from_secs(30),
            retries: 5,
            backoff: Duration::from_millis(500),
            max_pause: Duration::from_secs(60),
        }
    }
}
