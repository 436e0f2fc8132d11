//! Running an exec vertex: overlay of the snapshot, the process, and what it changed.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_cache::{Kind, Layer, Mtime, Placeholder, Staging, Store, Tree, scan_step};
use kiln_graph::{Digest, Encoder, Exec, Network, PartKind, Security};
use kiln_runtime::{Cancel, Device, Exit, InlineFile, Privilege, RunError, Sandbox, Step};
use kiln_solver::{Outcome, StepFailure, Stream, Task, blocking};
use tokio::sync::OnceCell;

use crate::copy::tree_of;
use crate::credentials::Credentials;
use crate::error::WorkerError;
use crate::mask::{Masker, Masks};
use crate::mounts::Prepared;

/// Bytes of output kept for the message about a failing step.
const TAIL: usize = 64 * 1024;

/// What all steps of a build have in common.
#[derive(Debug, Clone)]
pub struct StepSettings {
    /// Host name that steps see.
    pub hostname: String,
    /// Further lines of `/etc/hosts`: name, then address.
    pub extra_hosts: Vec<(String, String)>,
    /// Size of `/dev/shm` in bytes, if not the usual 64 MiB.
    pub shm_size: Option<u64>,
    /// Secrets and agents that steps may ask for.
    pub credentials: Credentials,
}

impl StepSettings {
    /// Writes what decides about a step. As in BuildKit, the names of further hosts do and their
    /// addresses do not: those differ from machine to machine.
    pub(crate) fn encode(&self, encoder: &mut Encoder) {
        encoder.part(PartKind::Flag, || "hostname".to_owned());
        encoder.text(&self.hostname);
        encoder.part(PartKind::Flag, || "add-host".to_owned());
        let names = self.extra_hosts.iter().map(|(name, _)| name.as_str());
        encoder.shown(|| names.collect::<Vec<_>>().join(" "));
        encoder.number(self.extra_hosts.len() as u64);
        for (name, _) in &self.extra_hosts {
            encoder.text(name);
        }
        encoder.part(PartKind::Flag, || "shm-size".to_owned());
        encoder.shown(|| {
            self.shm_size
                .map(|size| size.to_string())
                .unwrap_or_default()
        });
        match self.shm_size {
            None => encoder.variant(0),
            Some(size) => encoder.variant(1).number(size),
        };
    }
}

/// The sandbox, made when the first step needs it: a build that runs nothing probes nothing.
#[derive(Debug)]
pub struct LazySandbox {
    scratch: PathBuf,
    privilege: Privilege,
    made: OnceCell<Arc<Sandbox>>,
}

impl LazySandbox {
    /// Returns a sandbox to be made, with a folder for its own files.
    pub fn new(scratch: &Path, privilege: &Privilege) -> Self {
        let (scratch, privilege) = (scratch.to_owned(), privilege.clone());
        Self {
            scratch,
            privilege,
            made: OnceCell::new(),
        }
    }

    /// Returns the sandbox; what the kernel cannot do is said once.
    async fn get(&self, task: &Task) -> Result<Arc<Sandbox>, RunError> {
        let make = || async {
            let (scratch, privilege) = (self.scratch.clone(), self.privilege.clone());
            let sandbox = blocking(move || Sandbox::new(&scratch, &privilege)).await?;
            for warning in sandbox.warnings() {
                task.reporter().warn(warning.as_str());
            }
            Ok(Arc::new(sandbox))
        };
        self.made.get_or_try_init(make).await.cloned()
    }
}

/// Kills the step when the future that waits for it is dropped.
struct KillOnDrop(Cancel);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Everything the blocking part of a step needs.
struct Job {
    store: Store,
    sandbox: Arc<Sandbox>,
    step: Step,
    staging: Staging,
    layers: Vec<Layer>,
    /// What the step's mounts need for as long as it runs.
    prepared: Prepared,
    key: Digest,
    task: Task,
    masks: Option<Masks>,
}

/// Runs a step on unpacked layers and returns the layer that it made.
pub(crate) async fn run_step(
    (store, sandbox, settings): (&Store, &LazySandbox, &StepSettings),
    op: &Exec,
    (layers, mut prepared): (Vec<Layer>, Prepared),
    key: &Digest,
    task: &Task,
) -> Result<Outcome<Digest>, WorkerError> {
    let sandbox = sandbox.get(task).await?;
    let cancel = Cancel::new()?;
    let guard = KillOnDrop(cancel.clone());
    let staging = store.stage_layer()?;
    let credentials = &settings.credentials;
    let mut granted = credentials.grant(op, store.temp_path(), task).await?;
    let mut step = step_of(op, settings, &layers, &staging);
    step.env.append(&mut granted.env);
    step.secret_env = std::mem::take(&mut granted.secret_env);
    // Each mount of the op is one or the other, or missing.
    let shown = prepared.mounts.drain(..).zip(granted.mounts.drain(..));
    step.mounts = shown
        .filter_map(|(files, secret)| files.or(secret))
        .collect();
    let (store, task) = (store.clone(), task.clone());
    let job = Job {
        store,
        sandbox,
        step,
        staging,
        layers,
        prepared,
        key: *key,
        task,
        masks: granted.masks.take(),
    };
    let outcome = blocking(move || job.run(&cancel)).await;
    drop(guard);
    // The agents' sockets go when nobody can use them any more.
    drop(granted);
    outcome
}

fn step_of(op: &Exec, settings: &StepSettings, layers: &[Layer], staging: &Staging) -> Step {
    let file = |file: &kiln_graph::InlineFile| InlineFile {
        path: file.path.clone(),
        mode: file.mode,
        content: file.content.clone().into_bytes(),
    };
    let lowers = layers
        .iter()
        .filter(|layer| !layer.list.is_empty())
        .map(Layer::fs_dir);
    Step {
        lowers: lowers.collect(),
        upper: staging.fs_dir(),
        work: staging.work_dir(),
        args: op.args.clone(),
        env: op.env.iter().chain(&op.unkeyed_env).cloned().collect(),
        cwd: op.cwd.clone(),
        user: op.user.clone(),
        network: match op.network {
            Network::None => kiln_runtime::Network::None,
            Network::Default | Network::Host => kiln_runtime::Network::Host,
        },
        hostname: settings.hostname.clone(),
        extra_hosts: settings.extra_hosts.clone(),
        files: op.files.iter().map(file).collect(),
        shm_size: settings.shm_size,
        mounts: Vec::new(),
        secret_env: Vec::new(),
        security: match op.security {
            Security::Sandbox => kiln_runtime::Security::Sandbox,
            Security::Insecure => kiln_runtime::Security::Insecure,
        },
    }
}

impl Job {
    fn run(self, cancel: &Cancel) -> Result<Outcome<Digest>, WorkerError> {
        let below = tree_of(&self.layers);
        prepare_root(&self.step.upper, &below)?;
        let mut output = Output::new(&self.store, &self.task, self.masks.as_ref())?;
        let result = self.sandbox.run(&self.step, cancel, &mut |stream, data| {
            output.write(stream, data);
        });
        let log = self.store.log_path(&self.key);
        let output = output.finish(&log)?;
        if let Err(error) = self.store.note_log(&self.key) {
            // What became of the step matters more.
            tracing::warn!(%error, "a log counts from the next build on");
        }
        // The next one who waits for a cache mount need not wait for the layer.
        drop(self.prepared);
        let (exit, devices) = match result {
            Ok(outcome) => (outcome.exit, outcome.devices),
            // As a shell would: no such program, or one that cannot be executed.
            Err(error @ RunError::Exec { .. }) => {
                let exit_code = error.exit_code();
                return Ok(Outcome::Failed(failure(
                    &self.step, &error, exit_code, output,
                )));
            }
            Err(error @ RunError::User { .. }) => {
                return Ok(Outcome::Failed(failure(&self.step, &error, None, output)));
            }
            Err(error) => return Err(error.into()),
        };
        if exit != Exit::Code(0) {
            return Ok(Outcome::Failed(failed_step(&self.step, exit, output)));
        }
        let list = Arc::new(scan_step(
            &self.step.upper,
            &below,
            &placeholders(&devices),
        )?);
        let id = list.content_id();
        self.staging.commit(&id, &list)?;
        Ok(Outcome::Done(id))
    }
}

fn placeholders(devices: &[Device]) -> Vec<Placeholder> {
    let placeholder = |device: &Device| {
        let (major, minor) = (device.major, device.minor);
        let (seconds, nanoseconds) = device.born;
        Placeholder {
            inode: device.inode,
            born: Mtime {
                seconds,
                nanoseconds,
            },
            kind: if device.is_block {
                Kind::BlockDevice { major, minor }
            } else {
                Kind::CharDevice { major, minor }
            },
        }
    };
    devices.iter().map(placeholder).collect()
}

/// The root directory of an overlay is that of its upper layer.
fn prepare_root(upper: &Path, below: &Tree) -> Result<(), WorkerError> {
    let Some(node) = below.get(b"") else {
        return Ok(());
    };
    let failed = |source| WorkerError::Io {
        what: "prepare",
        path: upper.to_owned(),
        source,
    };
    chown(upper, Some(node.entry.uid), Some(node.entry.gid)).map_err(failed)?;
    let mode = fs::Permissions::from_mode(node.entry.mode);
    fs::set_permissions(upper, mode).map_err(failed)
}

fn command_of(step: &Step) -> String {
    step.args.join(" ")
}

fn failed_step(step: &Step, exit: Exit, log_tail: Vec<u8>) -> StepFailure {
    let (how, exit_code) = match exit {
        Exit::Code(code) => (format!("exit code: {code}"), code),
        // As a shell counts them.
        Exit::Signal(signal) => (format!("killed by signal {signal}"), 128 + signal),
    };
    let command = command_of(step);
    let message = format!("process \"{command}\" did not complete successfully: {how}");
    StepFailure {
        message,
        exit_code: Some(exit_code),
        log_tail,
    }
}

fn failure(
    step: &Step,
    error: &RunError,
    exit_code: Option<i32>,
    log_tail: Vec<u8>,
) -> StepFailure {
    let mut why = error.to_string();
    if let Some(source) = std::error::Error::source(error) {
        why = format!("{why}: {source}");
    }
    let command = command_of(step);
    let how = exit_code
        .map(|code| format!("exit code: {code}: "))
        .unwrap_or_default();
    let message = format!("process \"{command}\" did not complete successfully: {how}{why}");
    StepFailure {
        message,
        exit_code,
        log_tail,
    }
}

/// A step's output: shown as it comes, kept whole on disk, its end in memory; secrets nowhere.
struct Output<'a> {
    /// For standard output and standard error.
    maskers: Option<[Masker; 2]>,
    task: &'a Task,
    path: PathBuf,
    file: io::BufWriter<File>,
    tail: Vec<u8>,
    error: Option<io::Error>,
}

impl<'a> Output<'a> {
    fn new(store: &Store, task: &'a Task, masks: Option<&Masks>) -> Result<Self, WorkerError> {
        let path = store.temp_path();
        let create = File::create_new(&path);
        let failed = |source| WorkerError::Io {
            what: "write",
            path: path.clone(),
            source,
        };
        let file = io::BufWriter::new(create.map_err(failed)?);
        Ok(Self {
            maskers: masks.map(|masks| [masks.masker(), masks.masker()]),
            task,
            path,
            file,
            tail: Vec::new(),
            error: None,
        })
    }

    fn write(&mut self, stream: kiln_runtime::Stream, data: &[u8]) {
        let (stream, number) = match stream {
            kiln_runtime::Stream::Stdout => (Stream::Stdout, 0),
            kiln_runtime::Stream::Stderr => (Stream::Stderr, 1),
        };
        match &mut self.maskers {
            None => self.keep(stream, data),
            Some(maskers) => {
                let masked = maskers[number].push(data);
                self.keep(stream, &masked);
            }
        }
    }

    fn keep(&mut self, stream: Stream, data: &[u8]) {
        self.task.log(stream, data);
        if let Err(error) = self.file.write_all(data) {
            self.error.get_or_insert(error);
        }
        self.tail.extend_from_slice(data);
        if self.tail.len() > 2 * TAIL {
            self.tail.drain(..self.tail.len() - TAIL);
        }
    }

    /// Moves the log beside the action and returns its end.
    fn finish(mut self, log: &Path) -> Result<Vec<u8>, WorkerError> {
        if let Some([mut stdout, mut stderr]) = self.maskers.take() {
            self.keep(Stream::Stdout, &stdout.finish());
            self.keep(Stream::Stderr, &stderr.finish());
        }
        let flushed = self.error.take().map_or_else(|| self.file.flush(), Err);
        let kept = flushed.and_then(|()| fs::rename(&self.path, log));
        kept.map_err(|source| WorkerError::Io {
            what: "write",
            path: log.to_owned(),
            source,
        })?;
        let from = self.tail.len().saturating_sub(TAIL);
        Ok(self.tail.split_off(from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_a_step_can_see_decide_about_it() {
        let key = |settings: &StepSettings| {
            let mut encoder = Encoder::new("test");
            settings.encode(&mut encoder);
            encoder.finish()
        };
        let host = |name: &str, address: &str| (name.to_owned(), address.to_owned());
        let first = StepSettings {
            hostname: "a".to_owned(),
            extra_hosts: vec![host("peer", "10.0.0.1")],
            shm_size: None,
            credentials: Credentials::default(),
        };
        let (mut named, mut hosts, mut shm, mut address) =
            (first.clone(), first.clone(), first.clone(), first.clone());
        named.hostname = "b".to_owned();
        hosts.extra_hosts.push(host("other", "10.0.0.1"));
        shm.shm_size = Some(0);
        address.extra_hosts[0].1 = "10.0.0.2".to_owned();
        for other in [named, hosts, shm] {
            assert_ne!(key(&first), key(&other), "{other:?}");
        }
        assert_eq!(key(&first), key(&address));
    }
}
