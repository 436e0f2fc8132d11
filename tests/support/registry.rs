//! Debian's docker-registry on a free port, with its storage in a temporary folder.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Instant;

use tempfile::TempDir;

use super::{PATIENCE, cache_dir, command, copy_to_registry, repository, run, wait_until};

/// bcrypt of `secret`, as htpasswd writes it.
const HTPASSWD: &str = "kiln:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// A running registry. Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Registry {
    child: Child,
    host: String,
    dir: TempDir,
}

impl Registry {
    /// Starts an empty registry.
    pub(crate) fn start() -> Self {
        Self::configured("", "", |_| {})
    }

    /// Starts a registry that has `busybox:latest`.
    pub(crate) fn with_busybox() -> Self {
        let registry = Self::start();
        registry.add_base("busybox", "latest");
        registry
    }

    /// Starts a registry; `http` and `more` are added to its configuration, where `DIR` stands
    /// for its folder, which `prepare` may fill.
    pub(crate) fn configured(http: &str, more: &str, prepare: impl Fn(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let host = format!("127.0.0.1:{}", free_port());
        let mut registry = Self {
            child: spawn(dir.path(), &host, http, more),
            host,
            dir,
        };
        registry.wait();
        registry
    }

    /// Starts an empty registry that takes the user `kiln` with the password `secret`.
    pub(crate) fn with_password() -> Self {
        let auth = "auth:\n  htpasswd: {realm: test, path: DIR/htpasswd}";
        Self::configured("", auth, |dir| {
            fs::write(dir.join("htpasswd"), HTPASSWD).unwrap();
        })
    }

    /// The registry's host and port.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Returns the full name of an image in it.
    pub(crate) fn name(&self, image: &str) -> String {
        format!("{}/{image}", self.host)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes a base image, unless it is made already, and pushes it.
    pub(crate) fn add_base(&self, name: &str, tag: &str) {
        let layout = make_base(name);
        copy_to_registry(&layout, tag, &self.name(&format!("{name}:{tag}")), &[]);
    }

    /// Returns where the registry keeps the bytes of a blob.
    pub(crate) fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap();
        let blobs = self.path("storage/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }

    /// Removes all that was ever pushed.
    pub(crate) fn forget(&self) {
        fs::remove_dir_all(self.path("storage")).unwrap();
    }

    /// Ends the registry; nobody listens on its port afterwards.
    pub(crate) fn stop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    fn wait(&mut self) {
        let end = Instant::now() + PATIENCE;
        wait_until("the registry", || {
            let ended = self.child.try_wait().unwrap();
            let log = || fs::read_to_string(self.dir.path().join("log")).unwrap();
            let is_alive = ended.is_none() && Instant::now() < end;
            assert!(is_alive, "no registry: {}", log());
            TcpStream::connect(&self.host).is_ok()
        });
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn(dir: &Path, host: &str, http: &str, more: &str) -> Child {
    let text = format!(
        "version: 0.1\nlog: {{level: warn}}\nstorage:\n  filesystem: {{rootdirectory: DIR/storage}}\n  \
         delete: {{enabled: true}}\nhttp:\n  addr: {host}\n{http}\n{more}\n"
    );
    let file = dir.join("registry.yml");
    fs::write(&file, text.replace("DIR", dir.to_str().unwrap())).unwrap();
    // It must not outlive a test that is killed.
    let mut command = command("setpriv");
    command.args(["--pdeathsig=KILL", "docker-registry", "serve"]);
    command.arg(&file);
    command.env("OTEL_TRACES_EXPORTER", "none");
    command.stdout(Stdio::null());
    command.stderr(fs::File::create(dir.join("log")).unwrap());
    command.spawn().unwrap()
}

/// Returns a base image as an OCI layout; makes it if it is not there.
pub(crate) fn make_base(name: &str) -> PathBuf {
    let bases = cache_dir().join("bases");
    let script = repository().join("tests/support/bases.sh");
    run(command(script).arg(name).arg(&bases));
    bases.join(name)
}

/// A loopback port on which nobody listens.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
