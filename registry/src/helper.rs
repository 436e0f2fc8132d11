//! Credential helpers: programs named `docker-credential-NAME` that keep secrets elsewhere.
//!
//! The only place in this crate that starts a process. A helper has a bounded time and a bounded
//! output, and is killed when it is no longer waited for. What it says of a failure is shown without the
//! secret that it was given.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use crate::credentials::CredentialsError;
use crate::error::clean;

const MAX_OUTPUT: u64 = 1 << 20;
/// What helpers print when they have nothing for a server.
const NOT_FOUND: &str = "credentials not found";

/// A helper's program and where to look for it.
#[derive(Debug)]
pub(crate) struct Helper<'a> {
    program: String,
    path: Option<&'a OsStr>,
}

/// What a helper knows.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct HelperAnswer {
    #[serde(default)]
    pub(crate) username: String,
    pub(crate) secret: String,
}

/// What a helper is given to keep.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct HelperLogin<'a> {
    #[serde(rename = "ServerURL")]
    pub(crate) server: &'a str,
    pub(crate) username: &'a str,
    pub(crate) secret: &'a str,
}

/// How a helper ended, and what it wrote.
struct Said {
    is_success: bool,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Said {
    fn has_nothing(&self) -> bool {
        String::from_utf8_lossy(&self.stdout).contains(NOT_FOUND)
    }

    fn text(&self) -> String {
        let (out, err) = (
            String::from_utf8_lossy(&self.stdout),
            String::from_utf8_lossy(&self.stderr),
        );
        clean(&format!("{out} {err}"))
    }
}

impl<'a> Helper<'a> {
    pub(crate) fn new(name: &str, path: Option<&'a OsStr>) -> Result<Self, CredentialsError> {
        let is_word = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if name.is_empty() || !name.bytes().all(is_word) {
            return Err(CredentialsError::HelperName(name.to_owned()));
        }
        let program = format!("docker-credential-{name}");
        Ok(Self { program, path })
    }

    /// Asks for the login at `server`; `None` if the helper has none.
    pub(crate) async fn get(
        &self,
        server: &str,
        timeout: Duration,
    ) -> Result<Option<HelperAnswer>, CredentialsError> {
        let said = self.ask("get", server, timeout).await?;
        if said.is_success {
            // The parser's message could quote the secret.
            let wrong = |_| self.failure("its answer is not the expected JSON".to_owned());
            return serde_json::from_slice(&said.stdout)
                .map(Some)
                .map_err(wrong);
        }
        match said.has_nothing() {
            true => Ok(None),
            false => Err(self.failure(said.text())),
        }
    }

    /// Gives the helper a login to keep.
    pub(crate) async fn store(
        &self,
        login: &HelperLogin<'_>,
        timeout: Duration,
    ) -> Result<(), CredentialsError> {
        let input = serde_json::to_string(login).expect("plain data");
        let said = self.ask("store", &input, timeout).await?;
        match said.is_success {
            true => Ok(()),
            false => Err(self.failure(said.text().replace(login.secret, "***"))),
        }
    }

    /// Has the helper forget the login at `server`.
    pub(crate) async fn erase(
        &self,
        server: &str,
        timeout: Duration,
    ) -> Result<(), CredentialsError> {
        let said = self.ask("erase", server, timeout).await?;
        match said.is_success || said.has_nothing() {
            true => Ok(()),
            false => Err(self.failure(said.text())),
        }
    }

    async fn ask(
        &self,
        verb: &str,
        input: &str,
        timeout: Duration,
    ) -> Result<Said, CredentialsError> {
        let Ok(outcome) = tokio::time::timeout(timeout, self.run(verb, input)).await else {
            let reason = format!("it gave no answer within {} s", timeout.as_secs_f32());
            return Err(self.failure(reason));
        };
        outcome
    }

    async fn run(&self, verb: &str, input: &str) -> Result<Said, CredentialsError> {
        let failed = |error: std::io::Error| self.failure(error.to_string());
        let mut child = self.start(verb)?;
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        if let Some(mut stdin) = stdin {
            // A helper need not read the name before it answers.
            if let Err(error) = stdin.write_all(input.as_bytes()).await {
                tracing::debug!(helper = self.program, %error, "it did not read its input");
            }
        }
        let (stdout, stderr) = tokio::join!(read_all(stdout), read_all(stderr));
        let status = child.wait().await.map_err(failed)?;
        Ok(Said {
            is_success: status.success(),
            stdout: stdout.map_err(failed)?,
            stderr: stderr.map_err(failed)?,
        })
    }

    fn start(&self, verb: &str) -> Result<Child, CredentialsError> {
        let mut command = Command::new(&self.program);
        if let Some(path) = self.path {
            command.env("PATH", path);
        }
        command.arg(verb).kill_on_drop(true);
        command.stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().map_err(|error| {
            if error.kind() == std::io::ErrorKind::NotFound {
                return CredentialsError::HelperMissing(self.program.clone());
            }
            self.failure(error.to_string())
        })
    }

    fn failure(&self, reason: String) -> CredentialsError {
        let name = self.program.clone();
        CredentialsError::Helper { name, reason }
    }
}

async fn read_all(pipe: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(MAX_OUTPUT).read_to_end(&mut out).await?;
    }
    Ok(out)
}
