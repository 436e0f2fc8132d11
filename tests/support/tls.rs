//! Certificates of a test, and a web server that has one.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use tempfile::TempDir;

use super::{command, run};

/// A server of the files in a folder, over TLS; stopped when this is dropped.
#[derive(Debug)]
pub(crate) struct TlsWeb {
    dir: TempDir,
    process: Child,
    host: String,
}

impl TlsWeb {
    /// Starts `openssl s_server`, which is told the port by the system and says it.
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        make_certificates(dir.path());
        let mut server = command("openssl");
        server.args(["s_server", "-WWW", "-accept", "127.0.0.1:0"]);
        server.args(["-cert", "server.crt", "-key", "server.key"]);
        server.current_dir(dir.path());
        server.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = server.stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut lines = lines.map(Result::unwrap);
        let host = lines.find_map(|line| Some(line.strip_prefix("ACCEPT ")?.to_owned()));
        Self {
            dir,
            process,
            host: host.unwrap(),
        }
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Returns the certificate of who signed the server's.
    pub(crate) fn authority(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        fs::write(self.dir.path().join(name), content).unwrap();
    }
}

impl Drop for TlsWeb {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Makes an authority, and a certificate of it for the loopback address.
pub(crate) fn make_certificates(dir: &Path) {
    fs::write(dir.join("extension"), "subjectAltName=IP:127.0.0.1").unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    for line in [
        &format!("req -x509 {key} -keyout ca.key -out ca.crt -subj /CN=ca -days 2"),
        &format!("req {key} -keyout server.key -out server.csr -subj /CN=server"),
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out server.crt -days 2 -extfile extension",
    ] {
        run(command("openssl").args(line.split(' ')).current_dir(dir));
    }
}
