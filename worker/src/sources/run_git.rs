//! Running the program `git`, so that nothing of the user and of the machine reaches it.
//!
//! - No configuration but what stands here: not the system's, not the user's; no hooks, no
//!   templates, no credential helpers, no prompts.
//! - Only `http`, `https`, `ssh` and `git` are spoken, also by submodules: never `file`.
//! - The environment is empty but for `PATH`, proxies and, if it was given, an agent of SSH. Keys of
//!   hosts are kept in the store: the first one that is seen is trusted, as BuildKit does. Keys of
//!   the user that no agent holds are not used.
//! - Output is bounded. What `git` says is shown on one line, without passwords.
//! - When the future is dropped, `git` and all that it started are killed.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

use crate::sources::GitSettings;
use crate::sources::error::SourceError;
use crate::sources::login::Login;

/// Longest output of `git` that is kept, in bytes.
const MAX_OUTPUT: usize = 4 << 20;

/// Longest text that is shown of what `git` says.
const MAX_SAID: usize = 600;

const CONFIG: [&str; 18] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "core.logAllRefUpdates=false",
    "core.autocrlf=false",
    "core.symlinks=true",
    "core.fileMode=true",
    "credential.helper=",
    "init.defaultBranch=master",
    "gc.auto=0",
    "maintenance.auto=false",
    "advice.detachedHead=false",
    "submodule.recurse=false",
    "safe.directory=*",
    "user.useConfigOnly=true",
    // A connection that is silent for a minute is given up.
    "http.lowSpeedLimit=1",
    "http.lowSpeedTime=60",
];

/// The address of a repository: what `git` takes, and what may be shown.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) remote: String,
    pub(crate) shown: String,
    /// Name and password.
    login: Option<String>,
}

impl Address {
    pub(crate) fn new(remote: &str) -> Self {
        let plain = Self {
            remote: remote.to_owned(),
            shown: remote.to_owned(),
            login: None,
        };
        let Some((scheme, rest)) = remote.split_once("://") else {
            return plain;
        };
        let end = rest.find('/').unwrap_or(rest.len());
        let Some((login, host)) = rest[..end].rsplit_once('@') else {
            return plain;
        };
        // A name alone is none to hide, but for the token that some servers take as a name.
        if scheme == "ssh" && !login.contains(':') {
            return plain;
        }
        Self {
            remote: remote.to_owned(),
            shown: format!("{scheme}://{host}{}", &rest[end..]),
            login: Some(login.to_owned()),
        }
    }

    /// Returns a text without passwords and control characters, on one line.
    fn clean(&self, text: &str) -> String {
        let mut text = text.replace(&self.remote, &self.shown);
        if let Some(login) = &self.login {
            text = text.replace(&format!("{login}@"), "");
            let password = login
                .split_once(':')
                .map_or(login.as_str(), |(_, word)| word);
            if !password.is_empty() {
                text = text.replace(password, "***");
            }
        }
        let visible = |c: char| if c.is_control() { ' ' } else { c };
        let line: String = text.chars().map(visible).collect();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// Runs `git` for one repository.
pub(crate) struct Git<'a> {
    pub(crate) settings: &'a GitSettings,
    pub(crate) login: &'a Login,
    pub(crate) address: &'a Address,
    /// The file of known keys of SSH hosts.
    pub(crate) known_hosts: PathBuf,
}

/// Where `git` works.
#[derive(Clone, Copy)]
pub(crate) enum Place<'a> {
    /// In no repository.
    Nowhere,
    /// Where a repository is to be made.
    New,
    /// In a repository without files.
    Bare(&'a Path),
    /// In a folder with a `.git`.
    Tree(&'a Path),
}

impl Git<'_> {
    /// Runs a command and returns what it prints. `what` names it in errors.
    pub(crate) async fn run<A: AsRef<OsStr>>(
        &self,
        what: &'static str,
        place: Place<'_>,
        args: impl IntoIterator<Item = A>,
    ) -> Result<Vec<u8>, SourceError> {
        let output = self.try_run(place, args).await?;
        if output.is_success {
            return Ok(output.stdout);
        }
        Err(SourceError::Git {
            what,
            url: self.address.shown.clone(),
            said: output.said,
        })
    }

    /// As [`Git::run`], but failure is an answer, too.
    pub(crate) async fn try_run<A: AsRef<OsStr>>(
        &self,
        place: Place<'_>,
        args: impl IntoIterator<Item = A>,
    ) -> Result<Output, SourceError> {
        let mut command = Command::new("git");
        self.environment(&mut command);
        command.args(CONFIG.iter().flat_map(|entry| ["-c", entry]));
        match place {
            // Not to be looked for, either.
            Place::Nowhere => command.env("GIT_DIR", "/dev/null/none").current_dir("/"),
            Place::New => command.current_dir("/"),
            // Not by its name: what survives a kill must not get at what stands there then.
            Place::Bare(dir) => command.arg("--git-dir=.").current_dir(dir),
            Place::Tree(dir) => {
                command.arg(option("--git-dir=", &dir.join(".git")));
                command.arg(option("--work-tree=", dir)).current_dir(dir)
            }
        };
        command.args(args);
        let failed = |source| SourceError::NoGit {
            url: self.address.shown.clone(),
            source,
        };
        let (is_success, stdout, stderr) = output(command).await.map_err(failed)?;
        Ok(Output {
            is_success,
            stdout,
            said: self.said(&stderr),
        })
    }

    fn environment(&self, command: &mut Command) {
        command.env_clear();
        command.env("PATH", &self.settings.path);
        command.envs(self.settings.proxies.iter().cloned());
        for (name, value) in [
            ("LC_ALL", "C"),
            ("HOME", "/dev/null"),
            ("XDG_CONFIG_HOME", "/dev/null"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ASKPASS", ""),
            ("GIT_ALLOW_PROTOCOL", "http:https:ssh:git"),
            ("GIT_NO_REPLACE_OBJECTS", "1"),
            ("GIT_NO_LAZY_FETCH", "1"),
        ] {
            command.env(name, value);
        }
        command.env("GIT_SSH_COMMAND", ssh_command(&self.known_hosts));
        if let Some(agent) = &self.login.agent {
            command.env("SSH_AUTH_SOCK", agent);
        }
        if let Some((origin, value)) = &self.login.authorization {
            let header = [b"Authorization: ", value.as_bytes()].concat();
            command.env("GIT_CONFIG_COUNT", "1");
            command.env("GIT_CONFIG_KEY_0", format!("http.{origin}.extraHeader"));
            command.env("GIT_CONFIG_VALUE_0", OsStr::from_bytes(&header));
        }
    }

    /// Returns the part of what `git` said that tells why it failed.
    fn said(&self, stderr: &[u8]) -> String {
        let text = String::from_utf8_lossy(stderr);
        let tells = |line: &&str| {
            let words = ["fatal:", "error:", "remote:", "ssh:", "Permission denied"];
            words.iter().any(|word| line.starts_with(word)) && !line.trim_end().ends_with("remote:")
        };
        let mut lines: Vec<&str> = text.lines().filter(tells).collect();
        if lines.is_empty() {
            lines = text.lines().rev().take(3).collect();
            lines.reverse();
        }
        let mut said = self.address.clean(&lines.join("; "));
        if said.is_empty() {
            "git said nothing".clone_into(&mut said);
        }
        if let Some((at, _)) = said.char_indices().nth(MAX_SAID) {
            said.truncate(at);
        }
        said
    }
}

/// What a command gave.
pub(crate) struct Output {
    pub(crate) is_success: bool,
    pub(crate) stdout: Vec<u8>,
    /// What it said, for errors.
    pub(crate) said: String,
}

/// Kills a process and all that it started.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0
            && let Err(error) = kill_process_group(group, Signal::KILL)
        {
            tracing::debug!(%error, "git ended by itself");
        }
    }
}

async fn output(mut command: Command) -> io::Result<(bool, Vec<u8>, Vec<u8>)> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.process_group(0).kill_on_drop(true).spawn()?;
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    let mut group = Group(id.and_then(Pid::from_raw));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (stdout, stderr) = tokio::join!(read_all(stdout), read_all(stderr));
    let status = child.wait().await?;
    group.0 = None;
    Ok((status.success(), stdout?, stderr?))
}

/// Reads to the end, keeps the beginning.
async fn read_all(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let (mut kept, mut buffer) = (Vec::new(), vec![0; 16 << 10]);
    let Some(mut pipe) = pipe else {
        return Ok(kept);
    };
    loop {
        let n = pipe.read(&mut buffer).await?;
        if n == 0 {
            return Ok(kept);
        }
        let room = MAX_OUTPUT - kept.len();
        kept.extend_from_slice(&buffer[..n.min(room)]);
    }
}

fn option(name: &str, path: &Path) -> OsString {
    let mut out = OsString::from(name);
    out.push(path);
    out
}

/// Returns a command for the shell that `git` starts: `ssh` without the user's configuration.
fn ssh_command(known_hosts: &Path) -> OsString {
    let mut out = OsString::from(
        "ssh -F /dev/null -o BatchMode=yes -o ConnectTimeout=30 -o IdentityFile=none \
         -o StrictHostKeyChecking=accept-new -o 'UserKnownHostsFile=\"",
    );
    // In quotes of ssh inside quotes of the shell.
    let path = known_hosts.to_string_lossy();
    out.push(
        path.replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\'', "'\\''"),
    );
    out.push("\"'");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_without_passwords() {
        for (remote, shown) in [
            ("https://u:p@h/x.git", "https://h/x.git"),
            ("https://token@h/x.git", "https://h/x.git"),
            ("https://h/x@y.git", "https://h/x@y.git"),
            ("ssh://git@h/x", "ssh://git@h/x"),
            ("ssh://git:p@h/x", "ssh://h/x"),
            ("git@h:x", "git@h:x"),
        ] {
            assert_eq!(Address::new(remote).shown, shown);
        }
    }

    #[test]
    fn what_git_says_holds_no_password() {
        let address = Address::new("https://user:s3cret@h/x.git");
        let said = "fatal: unable to access 'https://user:s3cret@h/x.git/':\n s3cret\x1b[2J";
        let clean = address.clean(said);
        assert_eq!(clean, "fatal: unable to access 'https://h/x.git/': *** [2J");
    }

    #[test]
    fn paths_in_the_command_for_ssh_are_quoted() {
        let command = ssh_command(Path::new("/a b/it's \"x\""));
        let text = command.into_string().unwrap();
        assert!(
            text.ends_with(r#"-o 'UserKnownHostsFile="/a b/it'\''s \"x\""'"#),
            "{text}"
        );
    }
}
