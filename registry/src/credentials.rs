//! Who to be at a registry: what Docker's and Podman's `config.json` says.
//!
//! Inline entries (`auths`), helpers for single hosts (`credHelpers`) and one for all
//! (`credsStore`). Hosts are compared whole, so `azurecr.io` never matches `azurecr.io.evil.example`.
//! Writes no file, and never shows a secret: not in an error, not in `Debug`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;

use crate::helper::{Helper, HelperAnswer};
use crate::server::{HUB_KEY, HUB_NAMES, Server, canonical, split_key};

/// The user name by which a helper says that its secret is an identity token.
const TOKEN_USER: &str = "<token>";

/// Logins for registries.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    inline: Vec<Inline>,
    helpers: BTreeMap<String, String>,
    store: Option<String>,
    helper_path: Option<OsString>,
}

/// Says why credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The text is not a Docker configuration file.
    #[error("the Docker configuration is not valid JSON of the expected shape")]
    Malformed(#[source] serde_json::Error),
    /// An `auth` field is not base64 of `user:password`.
    #[error("the `auth` field of `{0}` is not base64 of a user name, a colon and a password")]
    Auth(String),
    /// A helper's name could name a program outside the search path.
    #[error("`{0}` is not the name of a credential helper")]
    HelperName(String),
    /// A helper is not installed.
    #[error("credential helper `{0}` is not installed")]
    HelperMissing(String),
    /// A helper failed.
    #[error("credential helper `{name}` failed: {reason}")]
    Helper {
        /// The program.
        name: String,
        /// What it said, or how it ended.
        reason: String,
    },
}

/// A password that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Returns the password itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// What proves who one is.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Login {
    /// User name and password.
    Password { user: String, password: String },
    /// A token that a token server changes into access tokens.
    Identity(String),
    /// A token that the registry takes as it is.
    Access(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password { .. } => "Password(..)",
            Self::Identity(_) => "Identity(..)",
            Self::Access(_) => "Access(..)",
        })
    }
}

/// One entry of `auths`.
#[derive(Debug, Clone)]
struct Inline {
    host: String,
    /// Podman's: only for repositories at or below this path.
    path: String,
    login: Login,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ConfigFile {
    auths: Option<BTreeMap<String, Entry>>,
    cred_helpers: Option<BTreeMap<String, String>>,
    creds_store: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl Credentials {
    /// Reads the text of a Docker configuration file, or of Podman's `auth.json`.
    pub fn parse(text: &str) -> Result<Self, CredentialsError> {
        let file: ConfigFile = serde_json::from_str(text).map_err(CredentialsError::Malformed)?;
        let mut inline = Vec::new();
        for (key, entry) in file.auths.unwrap_or_default() {
            if let Some(login) = entry.login(&key)? {
                let (host, path) = split_key(&key);
                let (host, path) = (canonical(host), path.to_owned());
                inline.push(Inline { host, path, login });
            }
        }
        let helpers = file.cred_helpers.unwrap_or_default();
        let helpers = helpers
            .into_iter()
            .map(|(key, name)| (canonical(split_key(&key).0), name));
        Ok(Self {
            inline,
            helpers: helpers.collect(),
            store: file.creds_store.filter(|name| !name.is_empty()),
            helper_path: None,
        })
    }

    /// Returns the password of one user at one server.
    pub fn of(server: &Server, user: &str, password: &Password) -> Self {
        let login = Login::Password {
            user: user.to_owned(),
            password: password.expose().to_owned(),
        };
        let (host, path) = (server.host().to_owned(), String::new());
        Self {
            inline: vec![Inline { host, path, login }],
            ..Self::default()
        }
    }

    /// Returns true if there is a login for a server; asks its helper, if it has one.
    pub async fn has(&self, server: &Server, timeout: Duration) -> Result<bool, CredentialsError> {
        Ok(self.for_host(server.host(), timeout).await?.is_some())
    }

    /// Sets the `PATH` that helpers are looked up in and run with; else it is the process's.
    #[must_use]
    pub fn with_helper_path(mut self, path: OsString) -> Self {
        self.helper_path = Some(path);
        self
    }

    /// Returns the entry for the longest path that contains `repository`, if it is for a path.
    pub(crate) fn for_path(&self, host: &str, repository: &str) -> Option<Login> {
        let host = canonical(host);
        let contains = |path: &str| {
            let rest = repository.strip_prefix(path);
            !path.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let fits = |entry: &&Inline| entry.host == host && contains(&entry.path);
        let entry = self.inline.iter().filter(fits).max_by_key(|e| e.path.len());
        entry.map(|entry| entry.login.clone())
    }

    /// Returns the login for a whole host, and asks a helper if one is configured.
    pub(crate) async fn for_host(
        &self,
        host: &str,
        timeout: Duration,
    ) -> Result<Option<Login>, CredentialsError> {
        let host = canonical(host);
        if let Some(name) = self.helpers.get(&host) {
            return self.ask(name, &host, timeout).await;
        }
        if let Some(name) = &self.store {
            match self.ask(name, &host, timeout).await {
                Ok(None) => {}
                // A configuration made on another machine must not hinder anonymous pulls.
                Err(error @ CredentialsError::HelperMissing(_)) => {
                    tracing::warn!(%host, %error, "going on without it");
                }
                answer => return answer,
            }
        }
        let whole = |entry: &&Inline| entry.host == host && entry.path.is_empty();
        Ok(self.inline.iter().find(whole).map(|e| e.login.clone()))
    }

    async fn ask(
        &self,
        name: &str,
        host: &str,
        timeout: Duration,
    ) -> Result<Option<Login>, CredentialsError> {
        let key = if host == HUB_NAMES[0] { HUB_KEY } else { host };
        let helper = Helper::new(name, self.helper_path.as_deref())?;
        let answer = helper.get(key, timeout).await?;
        Ok(answer.map(|HelperAnswer { username, secret }| {
            if username == TOKEN_USER {
                return Login::Identity(secret);
            }
            let (user, password) = (username, secret);
            Login::Password { user, password }
        }))
    }
}

impl Entry {
    /// Returns the entry's login; `docker login` with a store leaves an entry without one.
    fn login(self, key: &str) -> Result<Option<Login>, CredentialsError> {
        let given = |field: Option<String>| field.filter(|text| !text.is_empty());
        if let Some(token) = given(self.registrytoken) {
            return Ok(Some(Login::Access(token)));
        }
        if let Some(token) = given(self.identitytoken) {
            return Ok(Some(Login::Identity(token)));
        }
        if let Some(auth) = given(self.auth) {
            let wrong = || CredentialsError::Auth(key.to_owned());
            let (user, password) = decode(auth.trim()).ok_or_else(wrong)?;
            return Ok(Some(Login::Password { user, password }));
        }
        let pair = given(self.username).zip(given(self.password));
        Ok(pair.map(|(user, password)| Login::Password { user, password }))
    }
}

fn decode(auth: &str) -> Option<(String, String)> {
    let engine = if auth.ends_with('=') {
        STANDARD
    } else {
        STANDARD_NO_PAD
    };
    let text = String::from_utf8(engine.decode(auth).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    // Old versions of Docker ended the text with a NUL.
    let password = password.trim_end_matches('\0');
    Some((user.to_owned(), password.to_owned()))
}

/// Shares credentials between the hosts of a client, and remembers what helpers said.
#[derive(Debug)]
pub(crate) struct Logins {
    credentials: Credentials,
    timeout: Duration,
    /// For one host: what [`Credentials::for_host`] said.
    answers: std::sync::Mutex<BTreeMap<String, Arc<tokio::sync::OnceCell<Option<Login>>>>>,
}

impl Logins {
    pub(crate) fn new(credentials: Credentials, timeout: Duration) -> Self {
        Self {
            credentials,
            timeout,
            answers: std::sync::Mutex::default(),
        }
    }

    /// Returns the login for a repository; a helper is asked at most once for a host.
    pub(crate) async fn find(
        &self,
        host: &str,
        repository: &str,
    ) -> Result<Option<Login>, CredentialsError> {
        if let Some(login) = self.credentials.for_path(host, repository) {
            return Ok(Some(login));
        }
        let answer = {
            let mut answers = self.answers.lock().expect("no holder of this lock panics");
            answers.entry(host.to_owned()).or_default().clone()
        };
        let ask = || self.credentials.for_host(host, self.timeout);
        Ok(answer.get_or_try_init(ask).await?.clone())
    }
}

#[cfg(test)]
mod tests;
