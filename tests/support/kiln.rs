//! Runs the kiln that was built, with a store and a home of its own.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;
use tempfile::TempDir;

use super::{Context, PATIENCE, Tree, User, command, output, run, text};

/// kiln with its own store. Removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Kiln {
    dir: TempDir,
    user: Option<(User, PathBuf)>,
}

/// A `kiln build` that is about to run.
#[derive(Debug)]
pub(crate) struct Build<'a> {
    command: Command,
    /// Must live until the build runs.
    context: &'a Context,
}

/// A build that runs.
#[derive(Debug)]
pub(crate) struct Running<'a> {
    child: Child,
    /// Must live until the build ends.
    _context: &'a Context,
    lines: Receiver<String>,
    seen: Vec<String>,
}

/// What became of a run of kiln.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

/// A step as the plain progress shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shown {
    number: String,
    name: String,
    is_cached: bool,
    is_done: bool,
}

impl Kiln {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("home")).unwrap();
        Self { dir, user: None }
    }

    /// Returns a kiln that an ordinary user runs, if the test may make one.
    pub(crate) fn of_ordinary_user() -> Option<Self> {
        let user = User::require()?;
        let program = user.copy_program(Path::new(env!("CARGO_BIN_EXE_kiln")));
        let mut kiln = Self::new();
        kiln.user = Some((user, program));
        Some(kiln)
    }

    pub(crate) fn user(&self) -> Option<&User> {
        self.user.as_ref().map(|(user, _)| user)
    }

    /// The root folder of the store.
    pub(crate) fn root(&self) -> PathBuf {
        self.home().join("store")
    }

    pub(crate) fn home(&self) -> PathBuf {
        match &self.user {
            Some((user, _)) => user.home(),
            None => self.dir.path().join("home"),
        }
    }

    /// A folder in which kiln may write results.
    pub(crate) fn out(&self, name: &str) -> PathBuf {
        self.home().join(name)
    }

    /// Returns a command that starts kiln.
    pub(crate) fn command(&self) -> Command {
        let mut command = match &self.user {
            Some((user, program)) => user.command(program),
            None => command(env!("CARGO_BIN_EXE_kiln")),
        };
        command
            .env("HOME", self.home())
            .env("KILN_ROOT", self.root());
        command
    }

    /// Runs kiln with these arguments.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Outcome {
        outcome(self.command().args(args))
    }

    /// Returns a build of `context`, with plain progress.
    pub(crate) fn build<'a>(&self, context: &'a Context) -> Build<'a> {
        let mut command = self.command();
        command.args(["build", "--progress=plain"]);
        Build { command, context }
    }

    /// Runs a build, which must succeed, and returns the files it makes, with owners as in the
    /// image.
    pub(crate) fn tree_of(&self, build: Build<'_>) -> (Outcome, Tree) {
        let archive = self.out("tree.tar");
        let outcome = build.arg("-o").arg(output("tar", &archive)).ok();
        let dir = tempfile::tempdir().unwrap();
        let mut tar = command("tar");
        tar.args(["--numeric-owner", "-xpf"]).arg(&archive);
        run(tar.arg("-C").arg(dir.path()));
        (outcome, Tree::read(dir.path()))
    }

    /// Returns what `kiln inspect` says of an image of the local store.
    pub(crate) fn inspect(&self, name: &str) -> Value {
        let outcome = self.run(["inspect", name]).succeeded();
        serde_json::from_slice(&outcome.stdout).unwrap()
    }
}

impl<'a> Build<'a> {
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Gives the build argument `BASE`, which the tests' Dockerfiles begin with.
    pub(crate) fn base(self, name: &str) -> Self {
        self.arg(format!("--build-arg=BASE={name}"))
    }

    pub(crate) fn tag(self, name: &str) -> Self {
        self.args(["-t", name])
    }

    pub(crate) fn run(mut self) -> Outcome {
        outcome(self.command.arg(self.context.path()))
    }

    /// Runs the build, which must succeed.
    pub(crate) fn ok(self) -> Outcome {
        self.run().succeeded()
    }

    /// Runs the build, which must end with this exit code.
    pub(crate) fn fails(self, code: i32) -> Outcome {
        let outcome = self.run();
        assert_eq!(outcome.status.code(), Some(code), "{}", outcome.stderr);
        outcome
    }

    /// Starts the build in a process group of its own.
    #[expect(
        clippy::disallowed_methods,
        reason = "a build that is waited for line by line needs a reader"
    )]
    pub(crate) fn start(mut self) -> Running<'a> {
        let command = self.command.arg(self.context.path()).process_group(0);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Running {
            child,
            _context: self.context,
            lines,
            seen: Vec::new(),
        }
    }

    /// Returns the command, for those who run it in their own way.
    pub(crate) fn into_command(mut self) -> Command {
        self.command.arg(self.context.path());
        self.command
    }
}

impl Running<'_> {
    /// Waits until a line with this text is written.
    pub(crate) fn wait_for(&mut self, text: &str) {
        self.wait_for_one_of(&[text]);
    }

    /// Waits until a line with one of these texts is written; returns which of them.
    pub(crate) fn wait_for_one_of(&mut self, texts: &[&str]) -> usize {
        let end = Instant::now() + PATIENCE;
        loop {
            let last = self.seen.last().map(String::as_str).unwrap_or_default();
            if let Some(found) = texts.iter().position(|text| last.contains(text)) {
                return found;
            }
            let left = end.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("waited in vain for {texts:?} in {:#?}", self.seen);
            };
            self.seen.push(line);
        }
    }

    /// Sends a signal to kiln, not to its children.
    pub(crate) fn signal(&self, signal: Signal) {
        let id = Pid::from_child(&self.child);
        kill_process(id, signal).unwrap();
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for the end.
    pub(crate) fn wait(mut self) -> Outcome {
        let status = self.child.wait().unwrap();
        self.seen.extend(self.lines.iter());
        let stderr = self.seen.join("\n");
        Outcome {
            status,
            stdout: Vec::new(),
            stderr,
        }
    }

    /// Kills kiln and all its children at once, and waits.
    pub(crate) fn kill_group(self) -> Outcome {
        // Whoever ended by itself is no error.
        kill_process_group(Pid::from_child(&self.child), Signal::KILL).ok();
        self.wait()
    }

    /// Kills kiln as the kernel does when memory is short, and waits.
    pub(crate) fn kill(self) -> Outcome {
        self.signal(Signal::KILL);
        self.wait()
    }
}

impl Outcome {
    pub(crate) fn succeeded(self) -> Self {
        let (status, stderr) = (self.status, &self.stderr);
        assert!(status.success(), "{status}: {stderr}");
        self
    }

    /// Asserts that the messages have all these texts.
    pub(crate) fn says(&self, texts: &[&str]) -> &Self {
        for text in texts {
            assert!(
                self.stderr.contains(text),
                "no {text:?} in:\n{}",
                self.stderr
            );
        }
        self
    }

    /// Asserts that exactly these instructions ran, in any order; the others were cached or not
    /// looked at. `FROM` and what is not an instruction do not count.
    pub(crate) fn ran(&self, expected: &[&str]) -> &Self {
        self.assert_steps(expected, |step| !step.is_cached)
    }

    /// Asserts that exactly these instructions were shown as cached.
    pub(crate) fn cached(&self, expected: &[&str]) -> &Self {
        self.assert_steps(expected, |step| step.is_cached)
    }

    fn assert_steps(&self, expected: &[&str], is_meant: impl Fn(&Shown) -> bool) -> &Self {
        let mut names = self.names(is_meant);
        let mut expected = expected.to_vec();
        names.sort_unstable();
        expected.sort_unstable();
        assert_eq!(names, expected, "{}", self.stderr);
        self
    }

    /// Returns the instructions that ran, in the order of their numbers.
    pub(crate) fn names_of_ran(&self) -> Vec<String> {
        self.names(|step| !step.is_cached)
    }

    fn names(&self, is_meant: impl Fn(&Shown) -> bool) -> Vec<String> {
        let steps = self.steps().into_iter();
        let meant = steps.filter(|step| is_meant(step) && step.is_done);
        meant.map(|step| step.name).collect()
    }

    /// Returns the instructions in the order of their numbers.
    fn steps(&self) -> Vec<Shown> {
        let mut steps: Vec<Shown> = Vec::new();
        for line in self.stderr.lines() {
            let Some((number, rest)) = line.strip_prefix('#').and_then(|l| l.split_once(' '))
            else {
                continue;
            };
            match steps.iter_mut().find(|step| step.number == number) {
                Some(step) => step.note(rest),
                None => steps.extend(Shown::begin(number, rest)),
            }
        }
        steps
    }
}

impl Shown {
    /// Reads `[build 2/5] RUN make`.
    fn begin(number: &str, rest: &str) -> Option<Self> {
        let (place, name) = rest.strip_prefix('[')?.split_once("] ")?;
        let is_step = place.ends_with(|c: char| c.is_ascii_digit()) && !name.starts_with("FROM ");
        is_step.then(|| Self {
            number: number.to_owned(),
            name: name.to_owned(),
            is_cached: false,
            is_done: false,
        })
    }

    fn note(&mut self, rest: &str) {
        self.is_cached |= rest == "CACHED";
        self.is_done |= rest == "CACHED" || rest.starts_with("DONE");
    }
}

fn outcome(command: &mut Command) -> Outcome {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let (mut out, mut messages) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| stdout.read_to_end(&mut out).unwrap());
        stderr.read_to_end(&mut messages).unwrap();
    });
    let status = child.wait().unwrap();
    Outcome {
        status,
        stdout: out,
        stderr: text(&messages),
    }
}
