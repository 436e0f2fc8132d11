//! Docker's configuration file, as logging in and out changes it.
//!
//! Text in, text out: reading and writing the file is the caller's. What is not about logins stays
//! as it is, in its order. A login goes to the helper that the file names for the server
//! (`credHelpers`) or for all (`credsStore`), and else into the file, not encrypted.

use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::credentials::{Credentials, CredentialsError, Password};
use crate::helper::{Helper, HelperLogin};
use crate::server::{Server, canonical, split_key};

const AUTHS: &str = "auths";

/// A configuration file that logins are kept in.
#[derive(Clone, Default)]
pub struct DockerConfig {
    document: Map<String, Value>,
    helper_path: Option<OsString>,
    helper_timeout: Duration,
}

/// Where a login is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// In the file, for everybody who can read it.
    File,
    /// By a credential helper.
    Helper,
}

impl fmt::Debug for DockerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DockerConfig(..)")
    }
}

impl DockerConfig {
    /// Reads the text of the file; an empty one has nothing in it.
    pub fn parse(text: &str) -> Result<Self, CredentialsError> {
        let text = if text.trim().is_empty() { "{}" } else { text };
        // Whatever would be an error when it is used is one now.
        Credentials::parse(text)?;
        Ok(Self {
            document: serde_json::from_str(text).map_err(CredentialsError::Malformed)?,
            ..Self::default()
        })
    }

    /// Sets the `PATH` that helpers are looked up in and run with, and how long they may take.
    #[must_use]
    pub fn with_helpers(mut self, path: OsString, timeout: Duration) -> Self {
        (self.helper_path, self.helper_timeout) = (Some(path), timeout);
        self
    }

    /// Keeps a login in the place of the one that the server had.
    pub async fn keep(
        &mut self,
        server: &Server,
        user: &str,
        password: &Password,
    ) -> Result<Kept, CredentialsError> {
        let Some(helper) = self.helper(server)? else {
            let auth = STANDARD.encode(format!("{user}:{}", password.expose()));
            self.set(server, json!({ "auth": auth }));
            return Ok(Kept::File);
        };
        let login = HelperLogin {
            server: server.key(),
            username: user,
            secret: password.expose(),
        };
        helper.store(&login, self.helper_timeout).await?;
        // Docker lists whom it is logged in to, and leaves the rest to the helper.
        self.set(server, json!({}));
        Ok(Kept::Helper)
    }

    /// Forgets the login for a server; returns false if there was none.
    pub async fn forget(&mut self, server: &Server) -> Result<bool, CredentialsError> {
        let mut is_known = false;
        if let Some(helper) = self.helper(server)? {
            is_known = helper
                .get(server.key(), self.helper_timeout)
                .await?
                .is_some();
            if is_known {
                helper.erase(server.key(), self.helper_timeout).await?;
            }
        }
        Ok(self.remove(server) || is_known)
    }

    /// Returns the text of the file.
    pub fn to_text(&self) -> String {
        let mut out = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
        serde::Serialize::serialize(&self.document, &mut serializer).expect("plain data");
        String::from_utf8(out).expect("JSON is UTF-8") + "\n"
    }

    /// Returns the helper that keeps the login for a server, if one does.
    fn helper(&self, server: &Server) -> Result<Option<Helper<'_>>, CredentialsError> {
        let helpers = self.document.get("credHelpers").and_then(Value::as_object);
        let mut helpers = helpers.into_iter().flatten();
        let own = helpers.find(|(key, _)| is_for(key, server));
        let name = own.map(|(_, name)| name);
        let name = name.or_else(|| self.document.get("credsStore"));
        let name = name.and_then(Value::as_str).filter(|name| !name.is_empty());
        name.map(|name| Helper::new(name, self.helper_path.as_deref()))
            .transpose()
    }

    fn set(&mut self, server: &Server, entry: Value) {
        self.remove(server);
        let auths = self.document.entry(AUTHS).or_insert(Value::Null);
        if !auths.is_object() {
            *auths = json!({});
        }
        auths[server.key()] = entry;
    }

    /// Takes out all that the file has for the whole server, under whichever name.
    fn remove(&mut self, server: &Server) -> bool {
        let auths = self.document.get_mut(AUTHS);
        let Some(auths) = auths.and_then(Value::as_object_mut) else {
            return false;
        };
        let n_before = auths.len();
        auths.retain(|key, _| !is_for(key, server));
        auths.len() < n_before
    }
}

fn is_for(key: &str, server: &Server) -> bool {
    let (host, path) = split_key(key);
    path.is_empty() && canonical(host) == server.host()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn keep(config: &mut DockerConfig, server: &str, password: &str) {
        let password = Password::from(password.to_owned());
        let server: Server = server.parse().unwrap();
        let kept = config.keep(&server, "u", &password).await.unwrap();
        assert_eq!(kept, Kept::File);
    }

    #[tokio::test]
    async fn a_login_changes_nothing_else() {
        let text = r#"{"psFormat":"x","auths":{"q.io/team":{"auth":"dDp4"},
            "https://r.io/v1/":{"auth":"b2xkOm9sZA=="}},"detachKeys":"y","n":1.50}"#;
        let mut config = DockerConfig::parse(text).unwrap();
        keep(&mut config, "r.io", "p:q").await;
        keep(&mut config, "q.io", "w").await;
        let auth = |pair: &str| STANDARD.encode(pair);
        let expected = json!({
            "psFormat": "x",
            "auths": {
                "q.io/team": { "auth": "dDp4" },
                "r.io": { "auth": auth("u:p:q") },
                "q.io": { "auth": auth("u:w") },
            },
            "detachKeys": "y",
            "n": 1.5,
        });
        let written: Value = serde_json::from_str(&config.to_text()).unwrap();
        assert_eq!(written.to_string(), expected.to_string());
        assert!(!format!("{config:?}").contains("dDp4"));
    }

    #[tokio::test]
    async fn docker_hub_has_one_entry() {
        let mut config = DockerConfig::parse("").unwrap();
        keep(&mut config, "docker.io", "p").await;
        keep(&mut config, "https://index.docker.io/v1/", "q").await;
        let written: Value = serde_json::from_str(&config.to_text()).unwrap();
        let auths = written["auths"].as_object().unwrap();
        assert_eq!(auths.len(), 1);
        assert_eq!(auths["https://index.docker.io/v1/"]["auth"], "dTpx");
    }

    #[tokio::test]
    async fn forgetting_says_whether_there_was_something() {
        let text = r#"{"auths":{"r.io":{},"r.io/team":{"auth":"dDp4"}}}"#;
        let mut config = DockerConfig::parse(text).unwrap();
        let server: Server = "r.io".parse().unwrap();
        assert!(config.forget(&server).await.unwrap());
        assert!(!config.forget(&server).await.unwrap());
        assert!(config.to_text().contains("r.io/team"));
        let mut nothing = DockerConfig::parse(r#"{"auths":null}"#).unwrap();
        assert!(!nothing.forget(&server).await.unwrap());
        keep(&mut nothing, "r.io", "p").await;
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        for text in ["[]", "{\"auths\": []}", "{", "{\"credsStore\": 1}"] {
            assert!(DockerConfig::parse(text).is_err(), "{text}");
        }
    }
}
