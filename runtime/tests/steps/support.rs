//! A root with busybox in it, and short ways to run steps on it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_runtime::{
    Cancel, Exit, Network, Outcome, Privilege, RunError, Sandbox, Security, Step, Stream,
};
use tempfile::{NamedTempFile, TempDir};

const APPLETS: &str = "sh ls cat echo touch mkdir rm ln mv cp chmod chown id env sleep kill head wc \
    mount umount unshare mknod hostname stat readlink true false test dd ip grep seq yes printf \
    chroot awk find sort su tty mkfifo nslookup";

pub(crate) const PASSWD: &str =
    "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n";
pub(crate) const GROUP: &str = "root:x:0:\nwheel:x:10:root,app\napp:x:1001:\nextra:x:998:app\n";

/// What all cases share.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) sandbox: Sandbox,
    pub(crate) privilege: Privilege,
    base: TempDir,
}

/// Folders of one step.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) dir: TempDir,
    pub(crate) lowers: Vec<PathBuf>,
}

/// A step that ran.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) outcome: Outcome,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Lab {
    pub(crate) fn new(sandbox: Sandbox, privilege: Privilege) -> Self {
        assert!(sandbox.warnings().is_empty(), "{:?}", sandbox.warnings());
        let base = tempfile::tempdir().unwrap();
        make_root(base.path());
        Self {
            sandbox,
            privilege,
            base,
        }
    }

    /// An upper folder on the busybox root.
    pub(crate) fn bench(&self) -> Bench {
        self.bench_on(vec![self.base.path().to_owned()])
    }

    pub(crate) fn bench_on(&self, lowers: Vec<PathBuf>) -> Bench {
        Bench::on(tempfile::tempdir().unwrap(), lowers)
    }

    /// The busybox root with a layer of files on top, which has an upper folder above.
    pub(crate) fn bench_with(&self, fill: impl FnOnce(&Path)) -> Bench {
        let mut bench = self.bench();
        let layer = bench.dir.path().join("layer");
        fs::create_dir(&layer).unwrap();
        chmod(&layer, 0o755);
        fill(&layer);
        bench.lowers.push(layer);
        bench
    }

    pub(crate) fn base(&self) -> &Path {
        self.base.path()
    }

    /// Runs a shell script on a fresh upper folder and expects it to succeed.
    pub(crate) fn sh(&self, script: &str) -> String {
        self.bench().sh(self, script)
    }

    pub(crate) fn run(&self, step: &Step) -> Result<Ran, RunError> {
        run(&self.sandbox, step)
    }
}

impl Bench {
    /// Makes upper and work folders in `dir`.
    pub(crate) fn on(dir: TempDir, lowers: Vec<PathBuf>) -> Self {
        for name in ["upper", "work"] {
            fs::create_dir(dir.path().join(name)).unwrap();
            chmod(&dir.path().join(name), 0o755);
        }
        Self { dir, lowers }
    }

    pub(crate) fn upper(&self) -> PathBuf {
        self.dir.path().join("upper")
    }

    pub(crate) fn step(&self, script: &str) -> Step {
        Step {
            lowers: self.lowers.clone(),
            upper: self.upper(),
            work: self.dir.path().join("work"),
            args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
            cwd: "/".to_owned(),
            user: String::new(),
            network: Network::Host,
            hostname: "buildkitsandbox".to_owned(),
            extra_hosts: Vec::new(),
            files: Vec::new(),
            shm_size: None,
            mounts: Vec::new(),
            security: Security::Sandbox,
        }
    }

    pub(crate) fn sh(&self, lab: &Lab, script: &str) -> String {
        let ran = lab.run(&self.step(script)).unwrap();
        assert_eq!(
            ran.outcome.exit,
            Exit::Code(0),
            "{script}: {}{}",
            ran.stdout,
            ran.stderr
        );
        ran.stdout
    }

    /// Every path in the upper folder, sorted.
    pub(crate) fn changed(&self) -> Vec<String> {
        let mut paths = Vec::new();
        collect(&self.upper(), &self.upper(), &mut paths);
        paths.sort();
        paths
    }
}

fn collect(root: &Path, folder: &Path, paths: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        paths.push(
            path.strip_prefix(root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned(),
        );
        if path.symlink_metadata().unwrap().is_dir() {
            collect(root, &path, paths);
        }
    }
}

pub(crate) fn run(sandbox: &Sandbox, step: &Step) -> Result<Ran, RunError> {
    run_with(sandbox, step, &Cancel::new().unwrap())
}

pub(crate) fn run_with(sandbox: &Sandbox, step: &Step, cancel: &Cancel) -> Result<Ran, RunError> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let outcome = sandbox.run(step, cancel, &mut |stream, bytes| match stream {
        Stream::Stdout => stdout.extend_from_slice(bytes),
        Stream::Stderr => stderr.extend_from_slice(bytes),
    })?;
    Ok(Ran {
        outcome,
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    })
}

/// Puts busybox and account files into a folder.
pub(crate) fn make_root(root: &Path) {
    chmod(root, 0o755);
    for folder in ["bin", "etc", "tmp", "root", "home", "home/app"] {
        fs::create_dir(root.join(folder)).unwrap();
        chmod(&root.join(folder), 0o755);
    }
    chmod(&root.join("tmp"), 0o1777);
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for applet in APPLETS.split_whitespace() {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    write(&root.join("etc/passwd"), PASSWD);
    write(&root.join("etc/group"), GROUP);
}

pub(crate) fn write(path: &Path, content: &str) {
    fs::write(path, content).unwrap();
    chmod(path, 0o644);
}

pub(crate) fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Enters what steps need, or says why not: an error where tests must run, a skip elsewhere.
pub(crate) fn require_namespaces() -> Option<Privilege> {
    match kiln_runtime::enter_user_namespace() {
        Ok(privilege) if Path::new("/bin/busybox").exists() => Some(privilege),
        Ok(_) => skip("`/bin/busybox` is missing (package busybox-static)"),
        Err(error) => skip(&format!("{error}: {:?}", std::error::Error::source(&error))),
    }
}

pub(crate) fn skip<T>(why: &str) -> Option<T> {
    #[expect(clippy::disallowed_methods, reason = "CI must not skip")]
    let in_ci = std::env::var("CI").is_ok();
    assert!(!in_ci, "cannot run steps: {why}");
    println!("skipped: {why}");
    None
}

/// Copies this program to where every user can execute it.
pub(crate) fn reachable_program() -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    fs::copy(std::env::current_exe().unwrap(), file.path()).unwrap();
    chmod(file.path(), 0o755);
    // A file that is open for writing cannot be executed.
    let (_, path) = file.into_parts();
    let reopened = fs::File::open(&path).unwrap();
    NamedTempFile::from_parts(reopened, path)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where tests start programs"
)]
pub(crate) fn command(name: &str) -> Command {
    Command::new(name)
}
