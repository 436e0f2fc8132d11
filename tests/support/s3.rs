//! An S3 server by another author, on a free port, with its objects in a temporary folder.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};

use tempfile::TempDir;

use super::{cache_dir, command, free_port, wait_until};

/// A server with a bucket called `team`, and with the keys `S3RVER`. Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct S3 {
    child: Child,
    address: String,
    dir: TempDir,
}

impl S3 {
    /// Starts a server, if `packages.sh` could install one.
    pub(crate) fn require() -> Option<Self> {
        let program = cache_dir().join("s3rver/node_modules/.bin/s3rver");
        if !program.exists() {
            println!("skipped: there is no S3 server");
            return None;
        }
        Some(Self::start(&program))
    }

    fn start(program: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let (host, port) = address.split_once(':').unwrap();
        // It must not outlive a test that is killed.
        let mut server = command("setpriv");
        server.args(["--pdeathsig=KILL", "node"]);
        server.arg(program);
        server.args(["-a", host, "-p", port, "--configure-bucket", "team"]);
        server.arg("-d").arg(dir.path());
        server.stdout(Stdio::null()).stderr(Stdio::null());
        let child = server.spawn().unwrap();
        wait_until("the S3 server", || TcpStream::connect(&address).is_ok());
        Self {
            child,
            address,
            dir,
        }
    }

    /// The server's address.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where the objects are.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
