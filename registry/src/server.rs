//! Servers that one logs in to: a registry's host, as a user or a configuration file names it.
//!
//! A login is for a whole host. Docker Hub has several names, and one under which configuration
//! files and helpers keep its login.

use std::fmt;
use std::str::FromStr;

use crate::reference::{ParseReferenceError, check_host};

/// The names under which Docker Hub's credentials may be kept.
pub(crate) const HUB_NAMES: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];
/// The name that files and helpers know Docker Hub by.
pub(crate) const HUB_KEY: &str = "https://index.docker.io/v1/";

/// The host of a registry, with its port: what a login is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    host: String,
}

impl Server {
    /// Docker Hub.
    pub fn hub() -> Self {
        Self {
            host: HUB_NAMES[0].to_owned(),
        }
    }

    /// Returns the host as references have it.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the name under which configuration files and helpers keep the login.
    pub fn key(&self) -> &str {
        if self.host == HUB_NAMES[0] {
            HUB_KEY
        } else {
            &self.host
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())
    }
}

impl FromStr for Server {
    type Err = ParseReferenceError;

    /// Takes a host, or a URL or a path of which the host counts.
    fn from_str(text: &str) -> Result<Self, ParseReferenceError> {
        let host = canonical(split_key(text).0);
        check_host(&host).map_err(|reason| ParseReferenceError {
            text: text.to_owned(),
            reason,
        })?;
        Ok(Self { host })
    }
}

/// Splits a key of `auths` into host and path. A URL stands for its whole host, as in Docker.
pub(crate) fn split_key(key: &str) -> (&str, &str) {
    let bare = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"));
    let is_url = bare.is_some();
    let (host, path) = match bare.unwrap_or(key).split_once('/') {
        Some((host, path)) => (host, path.trim_end_matches('/')),
        None => (bare.unwrap_or(key), ""),
    };
    let is_whole = is_url || matches!(path, "v1" | "v2");
    (host, if is_whole { "" } else { path })
}

/// Returns the one name that a host has here.
pub(crate) fn canonical(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    if HUB_NAMES.contains(&host.as_str()) {
        HUB_NAMES[0].to_owned()
    } else {
        host
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_have_one_name_and_one_key() {
        for (text, host, key) in [
            ("docker.io", "docker.io", HUB_KEY),
            ("https://index.docker.io/v1/", "docker.io", HUB_KEY),
            ("registry-1.docker.io", "docker.io", HUB_KEY),
            ("https://r.example/v2/", "r.example", "r.example"),
            ("R.example:5000/team", "r.example:5000", "r.example:5000"),
            ("[::1]:5000", "[::1]:5000", "[::1]:5000"),
        ] {
            let server: Server = text.parse().unwrap();
            assert_eq!((server.host(), server.key()), (host, key), "{text}");
        }
        for text in ["", "https://", "a b", "u:p@r.example", "ftp://r.example"] {
            assert!(text.parse::<Server>().is_err(), "{text}");
        }
    }
}
