//! What the black-box tests share: a registry, base images, a runner of kiln, foreign tools.
//!
//! Everything here is real. A test says what it needs with `require_tools` or `require_root`,
//! which fail where `CI` is set and let the test be skipped, with a message, elsewhere.

mod context;
mod image;
mod kiln;
mod leftovers;
mod peers;
mod proxy;
mod random;
mod registry;
mod s3;
mod ssh;
mod tls;
mod tree;
mod user;
mod web;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub(crate) use context::Context;
pub(crate) use image::{Image, list_tar};
pub(crate) use kiln::{Build, Kiln, Outcome};
pub(crate) use leftovers::{assert_store_is_clean, assert_store_is_quiet, processes_with};
pub(crate) use peers::{buildah, copy_to_registry, pull_with_skopeo, run_bundle, unpack};
pub(crate) use proxy::{Flow, Proxy};
pub(crate) use random::{Random, number_from_env};
pub(crate) use registry::{Registry, free_port, make_base};
pub(crate) use s3::S3;
pub(crate) use ssh::{SshAgent, add_programs, make_key};
pub(crate) use tls::{TlsWeb, make_certificates};
pub(crate) use tree::Tree;
pub(crate) use user::User;
pub(crate) use web::{Asked, Web};

/// How long a test waits for something that must happen before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Returns a command with a clean environment.
#[expect(
    clippy::disallowed_methods,
    reason = "the place where tests start processes"
)]
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", search_path());
    command.env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    command
}

/// Runs a program that must succeed.
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    let status = output.status;
    assert!(status.success(), "{command:?}: {status}\n{stdout}{stderr}");
    output
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Returns true if all programs are installed.
pub(crate) fn require_tools(programs: &[&str]) -> bool {
    let path = search_path();
    let is_there = |name: &&&str| {
        path.split(':')
            .any(|dir| Path::new(dir).join(name).is_file())
    };
    let missing: Vec<_> = programs.iter().filter(|name| !is_there(name)).collect();
    require(missing.is_empty(), &format!("not installed: {missing:?}"))
}

/// Returns true if the test runs as root.
pub(crate) fn require_root() -> bool {
    require(is_root(), "needs root")
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests are told by CI where they run"
)]
fn require(is_met: bool, what: &str) -> bool {
    if !is_met {
        assert!(std::env::var_os("CI").is_none(), "{what}");
        println!("skipped: {what}");
    }
    is_met
}

#[expect(clippy::disallowed_methods, reason = "programs are where PATH says")]
fn search_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/local/sbin:/usr/sbin:/sbin")
}

/// The folder of the repository.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A folder that survives the tests, for what takes long to make.
pub(crate) fn cache_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).to_owned()
}

/// Returns a command that sleeps for longer than any test, and that no other test has.
pub(crate) fn long_sleep() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("sleep 987.{}0{number}1", std::process::id())
}

/// Waits until `is_so`; fails after [`PATIENCE`].
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What most tests need: kiln, and a registry with busybox.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) registry: Registry,
    pub(crate) kiln: Kiln,
}

impl Lab {
    /// Returns a lab, if the test may have one here.
    pub(crate) fn require() -> Option<Self> {
        Self::of(Kiln::new)
    }

    /// As [`Lab::require`], with a kiln that an ordinary user runs.
    pub(crate) fn of_ordinary_user() -> Option<Self> {
        let kiln = Kiln::of_ordinary_user()?;
        Self::of(|| kiln)
    }

    fn of(kiln: impl FnOnce() -> Kiln) -> Option<Self> {
        let is_ready = require_tools(&["docker-registry", "skopeo", "busybox"]);
        is_ready.then(|| Self {
            registry: Registry::with_busybox(),
            kiln: kiln(),
        })
    }

    /// Returns a build of a Dockerfile that begins with `ARG BASE`, which is busybox.
    pub(crate) fn build<'a>(&self, context: &'a Context) -> Build<'a> {
        self.kiln.build(context).base(&self.busybox())
    }

    /// The full name of busybox in the registry.
    pub(crate) fn busybox(&self) -> String {
        self.registry.name("busybox:latest")
    }

    /// Builds an image and returns it.
    pub(crate) fn image(&self, context: &Context) -> Image {
        self.image_of(self.build(context))
    }

    /// Runs a build and returns the image it makes.
    pub(crate) fn image_of(&self, build: Build<'_>) -> Image {
        let archive = self.kiln.out("image.tar");
        build.arg("-o").arg(output("oci", &archive)).ok();
        Image::open_archive(&archive)
    }

    /// Builds an image and returns its files, with owners as in the image.
    pub(crate) fn tree(&self, context: &Context) -> Tree {
        self.kiln.tree_of(self.build(context)).1
    }
}

/// Returns the value of `--output` for a file.
pub(crate) fn output(kind: &str, dest: &Path) -> String {
    format!("type={kind},dest={}", dest.display())
}

/// Bytes that cannot be compressed.
pub(crate) fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..size).map(|_| next()).collect()
}
