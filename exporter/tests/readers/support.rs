//! Layers to export, and the programs that read what was exported.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use kiln_cache::{Entry, FileList, Kind, Layer, Store};
use kiln_exporter::{Image, ImageLayer};
use kiln_graph::{Digest, ImageConfig, Platform};

/// Returns true if a program is here. Where it is not, a test fails in CI and is skipped elsewhere.
pub(crate) fn require_program(program: &str) -> bool {
    if command(program).arg("--version").output().is_ok() {
        return true;
    }
    #[expect(clippy::disallowed_methods, reason = "a test may ask where it runs")]
    let in_ci = std::env::var_os("CI").is_some();
    assert!(!in_ci, "{program} is not installed");
    #[expect(clippy::print_stdout, reason = "whoever runs the tests should know")]
    {
        println!("skipped: {program} is not installed");
    }
    false
}

fn command(program: &str) -> Command {
    #[expect(
        clippy::disallowed_methods,
        reason = "other programs' reading is the test"
    )]
    Command::new(program)
}

/// Runs a program in a directory and returns what it prints.
pub(crate) fn run(dir: &Path, line: &str) -> String {
    try_run(dir, line).unwrap_or_else(|errors| panic!("{line}: {errors}"))
}

/// As [`run`]; a failure gives what it prints to standard error.
pub(crate) fn try_run(dir: &Path, line: &str) -> Result<String, String> {
    let words: Vec<&str> = line.split(' ').collect();
    let mut command = command(words[0]);
    let output = command.args(&words[1..]).current_dir(dir).output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(String::from_utf8(output.stdout).unwrap())
}

/// A registry of one's own; ends with the test.
pub(crate) struct Registry {
    child: Child,
    /// `127.0.0.1:PORT`.
    pub(crate) host: String,
}

impl Registry {
    /// Starts Docker's registry with its storage below `dir`.
    pub(crate) fn start(dir: &Path) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = free.local_addr().unwrap().to_string();
        drop(free);
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{host}'}}\n",
            dir.join("registry").display()
        );
        fs::write(dir.join("registry.yml"), config).unwrap();
        let mut child = command("docker-registry")
            .args(["serve", "registry.yml"])
            .current_dir(dir)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "the registry ended");
        }
        // The registry logs on; somebody has to read it.
        let drain = move || std::io::copy(&mut log, &mut std::io::sink()).map(drop);
        #[expect(clippy::disallowed_methods, reason = "ends with the registry")]
        drop(std::thread::spawn(drain));
        Self { child, host }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Makes a layer: `d/` is a directory, `d!/` an opaque one, `-x` a deletion, `a>b` a link,
/// `a=b` a hard link, anything else a file that holds its own name and the layer's.
pub(crate) fn layer(store: &Store, name: &str, entries: &str) -> Layer {
    let staging = store.stage_layer().unwrap();
    let mut list = Vec::new();
    for word in entries.split(' ') {
        let (path, kind, mode) = entry(name, word);
        let target = staging.fs_dir().join(path);
        match kind {
            Kind::Dir { .. } => fs::create_dir_all(target).unwrap(),
            Kind::File { .. } => fs::write(target, content(name, path)).unwrap(),
            _ => {}
        }
        list.push(Entry::root_owned(path.as_bytes(), kind, mode));
    }
    let list = Arc::new(FileList::new(list));
    staging.commit(&list.content_id(), &list).unwrap()
}

/// What a file of a layer holds.
pub(crate) fn content(layer: &str, path: &str) -> String {
    format!("{path} of {layer}\n").repeat(50_000)
}

fn entry<'a>(layer: &str, word: &'a str) -> (&'a str, Kind, u32) {
    if let Some(path) = word.strip_suffix("!/") {
        return (path, Kind::Dir { opaque: true }, 0o755);
    }
    if let Some(path) = word.strip_suffix('/') {
        return (path, Kind::Dir { opaque: false }, 0o755);
    }
    if let Some(path) = word.strip_prefix('-') {
        return (path, Kind::Whiteout, 0);
    }
    if let Some((path, target)) = word.split_once('>') {
        return (
            path,
            Kind::Symlink {
                target: target.as_bytes().to_vec(),
            },
            0o777,
        );
    }
    if let Some((path, target)) = word.split_once('=') {
        return (
            path,
            Kind::Hardlink {
                target: target.as_bytes().to_vec(),
            },
            0o644,
        );
    }
    let content = content(layer, word);
    let (size, digest) = (content.len() as u64, Digest::blake3(content));
    (word, Kind::File { size, digest }, 0o644)
}

/// An image of two layers, where the upper one changes, hides and deletes.
pub(crate) fn image(store: &Store, architecture: &str) -> Image {
    let lower = layer(store, "lower", "d/ d/x d/y h=d/y keep l>d/x o/ o/old");
    let upper = layer(store, "upper", "d/ -d/x d/z -keep o!/ o/new");
    let platform = Platform::linux(architecture);
    let config = ImageConfig {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        created: Some("2024-05-06T07:08:09Z".to_owned()),
        ..ImageConfig::default()
    };
    Image {
        platform,
        config,
        layers: vec![ImageLayer::Built(lower), ImageLayer::Built(upper)],
    }
}
