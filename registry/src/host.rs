//! One registry: its scheme, its connections, its permits, its tokens.
//!
//! A host lives as long as its client. It sends nothing by itself, but for the probe that finds
//! out whether a host speaks TLS: a request that shows nothing of the caller.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use reqwest::{Client as Http, ClientBuilder, Url, redirect};
use tokio::sync::{OnceCell, Semaphore};

use crate::address::{Place, place};
use crate::auth::Auth;
use crate::config::Config;
use crate::error::RegistryError;
use crate::tls::{HostCerts, Trust, tls_cause};

/// How a host is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Security {
    /// TLS, verified.
    Verified,
    /// TLS, not verified.
    Unverified,
    /// Plain HTTP.
    Plain,
    /// TLS, not verified, or else plain HTTP: found out by asking.
    Either,
    /// TLS, verified, or else plain HTTP: found out by asking.
    VerifiedOrPlain,
}

/// What a host is there for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Role {
    /// A rule says that it needs no trusted certificate.
    pub(crate) is_insecure: bool,
    /// Others have what it has: it is not waited for as long.
    pub(crate) is_mirror: bool,
}

/// One registry, or one host that a registry sends us to.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) http: Http,
    pub(crate) permits: Semaphore,
    pub(crate) auth: Auth,
    pub(crate) role: Role,
    /// A mirror that is not asked any more.
    pub(crate) is_given_up: AtomicBool,
    /// A mirror's failure was told.
    pub(crate) is_told: AtomicBool,
    security: Security,
    base: OnceCell<Url>,
    /// Made when a file is asked for over TLS and `http` would not look at certificates.
    verifying: OnceCell<Http>,
}

impl Host {
    pub(crate) fn open(
        config: &Config,
        trust: &Trust,
        name: &str,
        role: Role,
    ) -> Result<Self, RegistryError> {
        let certs = HostCerts::open(&config.certs_dirs, name)?;
        let security = match role.is_insecure && said_of(config, name).is_none() {
            true => Security::Either,
            false => security(config, name, certs.is_some()),
        };
        let builder = builder(config, name);
        let builder = match security {
            Security::Verified | Security::VerifiedOrPlain => {
                trust.apply(builder, certs.unwrap_or_default())
            }
            // Also for plain hosts: nothing but the caller's word vouches for them.
            _ => builder.tls_danger_accept_invalid_certs(true),
        };
        Ok(Self {
            name: name.to_owned(),
            http: build(builder, name)?,
            permits: Semaphore::new(config.concurrency.max(1)),
            auth: Auth::default(),
            role,
            is_given_up: AtomicBool::new(false),
            is_told: AtomicBool::new(false),
            security,
            base: OnceCell::new(),
            verifying: OnceCell::new(),
        })
    }

    /// Returns what asks for a file. That this machine's registries may be plain says nothing for a
    /// server of files that is meant to have a certificate.
    pub(crate) async fn http_of_files(
        &self,
        config: &Config,
        trust: &Trust,
        url: &Url,
    ) -> Result<&Http, RegistryError> {
        let is_vouched_for = said_of(config, &self.name).is_some();
        if self.security != Security::Plain || is_vouched_for || url.scheme() != "https" {
            return Ok(&self.http);
        }
        let open = || async {
            let builder = trust.apply(builder(config, &self.name), HostCerts::default());
            build(builder, &self.name)
        };
        self.verifying.get_or_try_init(open).await
    }

    /// Returns the URL that `path` has at this host, below `/v2/`.
    pub(crate) async fn url(&self, path: &str, timeout: Duration) -> Result<Url, RegistryError> {
        let base = self
            .base
            .get_or_try_init(|| self.find_base(timeout))
            .await?;
        base.join(path)
            .map_err(|source| RegistryError::setup(format!("form a URL for `{path}`"), source))
    }

    async fn find_base(&self, timeout: Duration) -> Result<Url, RegistryError> {
        let scheme = match self.security {
            Security::Verified | Security::Unverified => "https",
            Security::Plain => "http",
            Security::Either | Security::VerifiedOrPlain => self.probe(timeout).await,
        };
        let text = format!("{scheme}://{}/v2/", self.name);
        text.parse()
            .map_err(|source| RegistryError::setup(format!("use host `{}`", self.name), source))
    }

    /// Returns the scheme that the host speaks.
    async fn probe(&self, timeout: Duration) -> &'static str {
        let request = self.http.get(format!("https://{}/v2/", self.name));
        match request.timeout(timeout).send().await {
            Ok(_) => "https",
            Err(error) if speaks_tls(&error) => "https",
            Err(error) => {
                let error = error.without_url();
                tracing::debug!(host = self.name, %error, "no TLS, trying plain HTTP");
                "http"
            }
        }
    }
}

/// Returns the settings that all requests to a host share.
fn builder(config: &Config, name: &str) -> ClientBuilder {
    let builder = Http::builder()
        .user_agent(&config.user_agent)
        .connect_timeout(config.connect_timeout)
        // The start window of HTTP/2 makes large blobs slow, and small requests are few.
        .http1_only()
        .referer(false)
        // Redirects are followed by hand, because of what they must not carry along.
        .redirect(redirect::Policy::none())
        .tcp_keepalive(Duration::from_secs(30));
    match place(name) {
        Place::Loopback => builder.no_proxy(),
        _ => builder,
    }
}

fn build(builder: ClientBuilder, name: &str) -> Result<Http, RegistryError> {
    let failed = |source| RegistryError::setup(format!("set up TLS for `{name}`"), source);
    builder.build().map_err(failed)
}

/// Returns true if a host that did not answer spoke TLS all the same: it failed later, or because
/// one side did not like the other's certificate. Such a host is never spoken to in plain HTTP.
fn speaks_tls(error: &reqwest::Error) -> bool {
    if !error.is_connect() {
        return true;
    }
    tls_cause(error).is_some_and(|cause| !matches!(cause, rustls::Error::InvalidMessage(_)))
}

/// Returns true if plain HTTP may be spoken to a host: on this machine, or by the caller's word.
pub(crate) fn may_be_plain(config: &Config, name: &str) -> bool {
    !matches!(
        security(config, name, false),
        Security::Verified | Security::Unverified
    )
}

/// Decides how a host is spoken to. See the crate's documentation.
fn security(config: &Config, name: &str, has_certs: bool) -> Security {
    if let Some(said) = said_of(config, name) {
        return said;
    }
    if place(name) != Place::Loopback || has_certs {
        return Security::Verified;
    }
    if config.extra_ca_files.is_empty() {
        return Security::Plain;
    }
    Security::VerifiedOrPlain
}

/// Returns what the caller said of a host.
fn said_of(config: &Config, name: &str) -> Option<Security> {
    for entry in &config.insecure_hosts {
        let (said, host) = if let Some(host) = entry.strip_prefix("http://") {
            (Security::Plain, host)
        } else if let Some(host) = entry.strip_prefix("https://") {
            (Security::Unverified, host)
        } else {
            (Security::Either, entry.as_str())
        };
        if host.trim_end_matches('/').eq_ignore_ascii_case(name) {
            return Some(said);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_of_hosts() {
        let insecure = ["lan:5000", "http://plain.lan", "https://tls.lan/"].map(str::to_owned);
        let config = Config {
            insecure_hosts: insecure.to_vec(),
            ..Config::default()
        };
        for (name, has_certs, expected) in [
            ("ghcr.io", false, Security::Verified),
            ("localhost:5000", false, Security::Plain),
            ("127.0.0.1:5000", false, Security::Plain),
            ("[::1]:5000", false, Security::Plain),
            ("127.0.0.1:5000", true, Security::Verified),
            ("lan:5000", false, Security::Either),
            ("lan", false, Security::Verified),
            ("plain.lan", true, Security::Plain),
            ("tls.lan", false, Security::Unverified),
        ] {
            assert_eq!(security(&config, name, has_certs), expected, "{name}");
        }
    }

    #[test]
    fn extra_authorities_make_hosts_of_this_machine_worth_asking() {
        let config = Config {
            extra_ca_files: vec!["ca.crt".into()],
            insecure_hosts: vec!["http://127.0.0.1:80".to_owned()],
            ..Config::default()
        };
        for (name, has_certs, expected) in [
            ("localhost:5000", false, Security::VerifiedOrPlain),
            ("localhost:5000", true, Security::Verified),
            ("127.0.0.1:80", false, Security::Plain),
            ("ghcr.io", false, Security::Verified),
        ] {
            assert_eq!(security(&config, name, has_certs), expected, "{name}");
        }
        assert!(may_be_plain(&config, "localhost:5000"));
        assert!(!may_be_plain(&config, "ghcr.io"));
    }
}
