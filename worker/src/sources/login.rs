//! What remote sources are shown of the user: secrets with certain names, and the default agent.
//!
//! `HTTP_AUTH_HEADER_<host>` and `HTTP_AUTH_TOKEN_<host>` are for files, `GIT_AUTH_HEADER.<host>`,
//! `GIT_AUTH_TOKEN.<host>`, and both without a host, for repositories, as in BuildKit. They are never
//! part of a key, and never in the arguments of a program.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_solver::{Task, blocking};
use rustix::process::{getegid, geteuid};

use crate::agents::{AgentError, Served, Socket};
use crate::credentials::CredentialError;
use crate::error::WorkerError;
use crate::secrets::{SecretError, SecretValue};
use crate::sources::Sources;

/// The agent that `git` may use.
const DEFAULT_AGENT: &str = "default";

/// What `git` is given besides its settings.
#[derive(Debug, Default)]
pub(crate) struct Login {
    /// An origin, and the value of `Authorization` for it.
    pub(crate) authorization: Option<(String, SecretValue)>,
    /// The socket of an agent.
    pub(crate) agent: Option<PathBuf>,
    /// Keeps the socket.
    _served: Option<Served>,
}

/// The origin of an address.
#[derive(Debug, PartialEq, Eq)]
struct Origin<'a> {
    scheme: &'a str,
    /// Host and port.
    authority: &'a str,
    host: &'a str,
}

impl Sources {
    /// Returns the value of `Authorization` for a file.
    pub(crate) async fn file_authorization(
        &self,
        url: &str,
    ) -> Result<Option<SecretValue>, WorkerError> {
        let Some(origin) = web_origin(url) else {
            return Ok(None);
        };
        let header = origin.names("HTTP_AUTH_HEADER_");
        let token = origin.names("HTTP_AUTH_TOKEN_");
        self.first_of(header, token, |token| [b"Bearer ", token].concat())
            .await
    }

    /// Returns what `git` needs for a repository.
    pub(crate) async fn login(&self, remote: &str, task: &Task) -> Result<Login, WorkerError> {
        let Some(origin) = web_origin(remote) else {
            return Ok(self.agent_login(task)?);
        };
        let mut header = origin.names("GIT_AUTH_HEADER.");
        header.push("GIT_AUTH_HEADER".to_owned());
        let mut token = origin.names("GIT_AUTH_TOKEN.");
        token.push("GIT_AUTH_TOKEN".to_owned());
        let basic = |token: &[u8]| {
            let both = STANDARD.encode([b"x-access-token:", token].concat());
            format!("basic {both}").into_bytes()
        };
        let found = self.first_of(header, token, basic).await?;
        let place = format!("{}://{}/", origin.scheme, origin.authority);
        Ok(Login {
            authorization: found.map(|value| (place, value)),
            ..Login::default()
        })
    }

    fn agent_login(&self, task: &Task) -> Result<Login, CredentialError> {
        let Some(agent) = self.credentials.agents.get(DEFAULT_AGENT) else {
            return Ok(Login {
                agent: self.ssh_agent.clone(),
                ..Login::default()
            });
        };
        if let Some(socket) = agent.socket() {
            let agent = Some(socket.to_owned());
            return Ok(Login {
                agent,
                ..Login::default()
            });
        }
        let mut served = Served::new(self.store.temp_path());
        let own = Socket {
            id: DEFAULT_AGENT,
            mode: 0o600,
            uid: geteuid().as_raw(),
            gid: getegid().as_raw(),
        };
        let path = served
            .add(agent, own, task)
            .map_err(|source| AgentError::Serve {
                id: DEFAULT_AGENT.to_owned(),
                source,
            })?;
        Ok(Login {
            agent: Some(path),
            _served: Some(served),
            ..Login::default()
        })
    }

    /// Returns the first secret that was given: a whole value, or a token to be made one.
    async fn first_of(
        &self,
        headers: Vec<String>,
        tokens: Vec<String>,
        of_token: impl Fn(&[u8]) -> Vec<u8> + Send + 'static,
    ) -> Result<Option<SecretValue>, WorkerError> {
        let secrets = self.credentials.secrets.clone();
        let find = move || -> Result<Option<SecretValue>, SecretError> {
            for id in headers {
                if let Some(value) = secrets.get(&id)? {
                    return Ok(Some(SecretValue::new(
                        value.as_bytes().trim_ascii().to_vec(),
                    )));
                }
            }
            for id in tokens {
                if let Some(value) = secrets.get(&id)? {
                    let value = of_token(value.as_bytes().trim_ascii());
                    return Ok(Some(SecretValue::new(value)));
                }
            }
            Ok(None)
        };
        Ok(blocking(find).await.map_err(CredentialError::from)?)
    }
}

impl Origin<'_> {
    /// Returns the names of secrets for this host: with its port, and without.
    fn names(&self, prefix: &str) -> Vec<String> {
        let mut names = vec![format!("{prefix}{}", self.authority)];
        if self.host != self.authority {
            names.push(format!("{prefix}{}", self.host));
        }
        names
    }
}

/// Returns the origin of an address that is `http` or `https`.
fn web_origin(url: &str) -> Option<Origin<'_>> {
    let (scheme, rest) = url.split_once("://")?;
    if !matches!(scheme, "http" | "https") {
        return None;
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let authority = rest[..end].rsplit('@').next().unwrap_or_default();
    let is_port = |port: &&str| port.bytes().all(|byte| byte.is_ascii_digit());
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if is_port(&port) => host,
        _ => authority,
    };
    Some(Origin {
        scheme,
        authority,
        host,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_named_by_host() {
        let names = |url| web_origin(url).map(|origin| origin.names("X_"));
        let expected = |all: &[&str]| Some(all.iter().map(|name| format!("X_{name}")).collect());
        assert_eq!(names("https://h.example/a"), expected(&["h.example"]));
        assert_eq!(names("http://u:p@h:81?q"), expected(&["h:81", "h"]));
        assert_eq!(names("https://[::1]:5/x"), expected(&["[::1]:5", "[::1]"]));
        assert_eq!(names("https://h/x@other/"), expected(&["h"]));
        assert_eq!(names("ssh://git@h/x"), None);
        assert_eq!(names("git@h:x"), None);
    }
}
