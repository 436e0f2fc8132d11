//! OpenSSH's own tools: keys, an agent, and programs that run inside a step.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use tempfile::TempDir;

use super::{Context, command, run, text, wait_until};

/// An `ssh-agent` of the test, stopped when this is dropped.
#[derive(Debug)]
pub(crate) struct SshAgent {
    dir: TempDir,
    process: Child,
}

impl SshAgent {
    /// Starts an agent that has no keys.
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent");
        let mut agent = command("ssh-agent");
        agent.arg("-D").arg("-a").arg(&socket).stdout(Stdio::null());
        let process = agent.spawn().unwrap();
        wait_until("a socket of ssh-agent", || socket.exists());
        Self { dir, process }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("agent")
    }

    /// Runs `ssh-add` and returns what it says.
    pub(crate) fn ssh_add<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> String {
        let mut command = command("ssh-add");
        command.env("SSH_AUTH_SOCK", self.socket()).args(args);
        text(&command.output().unwrap().stdout)
    }
}

impl Drop for SshAgent {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Makes a key with `ssh-keygen`; the public one is in `PATH.pub`.
pub(crate) fn make_key(path: &Path, args: &[&str]) {
    let mut keygen = command("ssh-keygen");
    keygen
        .args(["-q", "-C", "a comment", "-f"])
        .arg(path)
        .args(args);
    if !args.contains(&"-N") {
        keygen.args(["-N", ""]);
    }
    run(&mut keygen);
}

/// Puts programs of the machine below `root/` of a context, with the libraries that they need.
pub(crate) fn add_programs(context: &Context, names: &[&str]) {
    for name in names {
        let program = PathBuf::from("/usr/bin").join(name);
        add(context, &program);
        let listed = text(&run(command("ldd").arg(&program)).stdout);
        let words = listed.split_whitespace();
        for library in words.filter(|word| word.starts_with('/')) {
            add(context, Path::new(library));
        }
    }
}

fn add(context: &Context, path: &Path) {
    let inside = format!("root{}", path.display());
    context.write(&inside, fs::read(path).unwrap());
    context.chmod(&inside, 0o755);
}
