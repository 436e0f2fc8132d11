//! Debian's docker-registry on a free port, with its storage in a temporary folder.

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = "docker-registry";

/// A running registry. Ends when it is dropped.
pub(crate) struct Peer {
    child: Child,
    host: String,
    dir: tempfile::TempDir,
}

/// Returns true if docker-registry is installed; fails where it has to be.
pub(crate) fn require_docker_registry() -> bool {
    is_installed(PROGRAM)
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests are told by CI where they run"
)]
fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    if !found {
        assert!(
            std::env::var_os("CI").is_none(),
            "{program} is not installed"
        );
        report(&format!("skipped: {program} is not installed"));
    }
    found
}

#[expect(
    clippy::disallowed_methods,
    reason = "the place where tests start processes"
)]
fn command(program: &str) -> Command {
    Command::new(program)
}

#[expect(clippy::print_stderr, reason = "a skipped test has to say so")]
fn report(message: &str) {
    eprintln!("{message}");
}

/// Runs openssl in a folder; returns false if it is not installed.
pub(crate) fn openssl(dir: &Path, arguments: &str) -> bool {
    if !is_installed("openssl") {
        return false;
    }
    let mut command = command("openssl");
    command.args(arguments.split(' ')).current_dir(dir);
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments}: {stderr}");
    true
}

impl Peer {
    /// Starts a registry; `more` is added to its configuration, where `DIR` stands for its folder,
    /// which `prepare` may fill.
    pub(crate) fn start(http_more: &str, more: &str, prepare: impl Fn(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let port = free_port();
        let host = format!("127.0.0.1:{port}");
        let root = dir.path().to_str().unwrap();
        let text = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage:\n  filesystem: {{rootdirectory: \
             DIR/storage}}\nhttp:\n  addr: {host}\n{http_more}\n{more}\n"
        );
        let file = dir.path().join("registry.yml");
        let mut out = fs::File::create(&file).unwrap();
        out.write_all(text.replace("DIR", root).as_bytes()).unwrap();
        let child = command(PROGRAM)
            .arg("serve")
            .arg(&file)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut peer = Self { child, host, dir };
        peer.wait();
        peer
    }

    pub(crate) fn plain() -> Self {
        Self::start("", "", |_| {})
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Waits until the port answers; there is nothing else to wait for.
    fn wait(&mut self) {
        let end = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(&self.host).is_err() {
            let ended = self.child.try_wait().unwrap();
            let log = || fs::read_to_string(self.dir.path().join("log")).unwrap();
            assert!(
                ended.is_none() && Instant::now() < end,
                "no registry: {}",
                log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
