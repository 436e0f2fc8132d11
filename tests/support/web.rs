//! A web server for files and Git repositories, with a list of what was asked for.
//!
//! Files lie below a folder of their own and have an `ETag`. `/smart/…` are repositories through
//! `git http-backend`, the same ones are plain files below `/git/…`. `/redirect/URL` leads to a URL.

use std::collections::HashMap;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use super::{command, run, text};

/// A server; lives as long as the process, its files as long as the value.
#[derive(Debug)]
pub(crate) struct Web {
    dir: TempDir,
    host: String,
    requests: Arc<Mutex<Vec<Asked>>>,
}

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// `GET /file`.
    pub(crate) line: String,
    /// Names in lower case.
    pub(crate) headers: HashMap<String, String>,
    /// The status of the answer.
    pub(crate) status: u16,
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Web {
    #[expect(
        clippy::disallowed_methods,
        reason = "the server ends with the test's process"
    )]
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("git")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (root, requests) = (dir.path().to_owned(), Arc::<Mutex<Vec<Asked>>>::default());
        let shared = Arc::clone(&requests);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (root, requests) = (root.clone(), Arc::clone(&shared));
                std::thread::spawn(move || serve(client, &root, &requests));
            }
        });
        Self {
            dir,
            host,
            requests,
        }
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.host)
    }

    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Makes a repository of what a script of `sh` does in an empty one.
    pub(crate) fn repository(&self, name: &str, script: &str) {
        let work = tempfile::tempdir().unwrap();
        let bare = self.dir.path().join("git").join(name);
        let script = format!(
            "set -eu; git init -q -b main .; {script}\n\
             rm -rf '{bare}'; git clone -q --bare . '{bare}'; git -C '{bare}' update-server-info\n\
             git -C '{bare}' config uploadpack.allowAnySHA1InWant true",
            bare = bare.display()
        );
        let mut shell = command("sh");
        for (name, value) in [
            ("HOME", "/nonexistent"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_AUTHOR_NAME", "a"),
            ("GIT_AUTHOR_EMAIL", "a@b"),
            ("GIT_AUTHOR_DATE", "2020-01-02T03:04:05Z"),
            ("GIT_COMMITTER_NAME", "a"),
            ("GIT_COMMITTER_EMAIL", "a@b"),
            ("GIT_COMMITTER_DATE", "2020-01-02T03:04:05Z"),
        ] {
            shell.env(name, value);
        }
        run(shell.args(["-c", &script]).current_dir(work.path()));
    }

    /// Returns what a reference of a repository stands for.
    pub(crate) fn commit(&self, name: &str, reference: &str) -> String {
        let dir = self.dir.path().join("git").join(name);
        let output = run(command("git")
            .arg("-C")
            .arg(dir)
            .args(["rev-parse", reference]));
        text(&output.stdout).trim().to_owned()
    }

    /// Returns the requests since the last call.
    pub(crate) fn take_requests(&self) -> Vec<Asked> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

fn serve(client: TcpStream, root: &Path, requests: &Mutex<Vec<Asked>>) {
    let mut reader = BufReader::new(client);
    while let Ok(Some((line, headers, body))) = read_request(&mut reader) {
        let answer = answer(&line, &headers, &body, root);
        requests.lock().unwrap().push(Asked {
            line,
            headers,
            status: answer.status,
        });
        if answer.write(reader.get_mut()).is_err() {
            return;
        }
    }
}

type Request = (String, HashMap<String, String>, Vec<u8>);

fn read_request(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let line = line.trim_end().replace(" HTTP/1.1", "");
    let mut headers = HashMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(": ") else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers
        .get("content-length")
        .and_then(|text| text.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    Ok(Some((line, headers, body)))
}

fn answer(line: &str, headers: &HashMap<String, String>, body: &[u8], root: &Path) -> Answer {
    let (method, target) = line.split_once(' ').unwrap_or_default();
    if let Some(to) = target.strip_prefix("/redirect/") {
        let location = vec![("Location".to_owned(), to.to_owned())];
        return Answer::new(302, location, Vec::new());
    }
    if let Some(rest) = target.strip_prefix("/smart") {
        return smart(method, rest, headers, body, root);
    }
    let path = target.split('?').next().unwrap_or_default();
    let Ok(content) = fs::read(root.join(path.trim_start_matches('/'))) else {
        return Answer::new(404, Vec::new(), b"no such file".to_vec());
    };
    let etag = format!("\"{}\"", kiln_graph::Digest::sha256(&content).hex());
    if headers.get("if-none-match") == Some(&etag) {
        return Answer::new(304, vec![("ETag".to_owned(), etag)], Vec::new());
    }
    let mut head = vec![("ETag".to_owned(), etag)];
    let modified = "Thu, 04 Mar 2021 05:06:07 GMT".to_owned();
    head.push(("Last-Modified".to_owned(), modified));
    Answer::new(200, head, content)
}

/// Answers as `git http-backend` does (CGI, RFC 3875).
fn smart(
    method: &str,
    target: &str,
    headers: &HashMap<String, String>,
    body: &[u8],
    root: &Path,
) -> Answer {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let header = |name: &str| headers.get(name).cloned().unwrap_or_default();
    let project: PathBuf = root.join("git");
    let mut backend = command("git");
    backend.arg("http-backend").env("GIT_PROJECT_ROOT", project);
    for (name, value) in [
        ("GIT_HTTP_EXPORT_ALL", "1".to_owned()),
        ("REQUEST_METHOD", method.to_owned()),
        ("PATH_INFO", path.to_owned()),
        ("QUERY_STRING", query.to_owned()),
        ("CONTENT_TYPE", header("content-type")),
        ("CONTENT_LENGTH", body.len().to_string()),
        ("HTTP_CONTENT_ENCODING", header("content-encoding")),
        ("GIT_PROTOCOL", header("git-protocol")),
        ("REMOTE_ADDR", "127.0.0.1".to_owned()),
        ("GIT_CONFIG_COUNT", "1".to_owned()),
        ("GIT_CONFIG_KEY_0", "safe.directory".to_owned()),
        ("GIT_CONFIG_VALUE_0", "*".to_owned()),
    ] {
        backend.env(name, value);
    }
    backend.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = backend.spawn().unwrap();
    child.stdin.take().unwrap().write_all(body).ok();
    let output = child.wait_with_output().unwrap().stdout;
    let end = output
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap();
    let (mut status, mut head) = (200, Vec::new());
    for line in text(&output[..end]).lines() {
        let (name, value) = line.split_once(": ").unwrap();
        match name {
            "Status" => status = value[..3].parse().unwrap(),
            _ => head.push((name.to_owned(), value.to_owned())),
        }
    }
    Answer::new(status, head, output[end + 4..].to_vec())
}

impl Answer {
    fn new(status: u16, headers: Vec<(String, String)>, body: Vec<u8>) -> Self {
        Self {
            status,
            headers,
            body,
        }
    }

    fn write(&self, client: &mut TcpStream) -> io::Result<()> {
        let mut head = format!("HTTP/1.1 {} x\r\n", self.status);
        for (name, value) in &self.headers {
            head = head + name + ": " + value + "\r\n";
        }
        head = format!("{head}Content-Length: {}\r\n\r\n", self.body.len());
        client.write_all(head.as_bytes())?;
        client.write_all(&self.body)
    }
}
