//! What all steps of a process share, and the plan of each.
//!
//! The kernel's abilities are found out once, by running an empty step in the strongest form and
//! then in weaker ones until one works.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::cancel::Cancel;
use crate::error::RunError;
use crate::mount::MountSource;
use crate::netfiles;
use crate::overlay::{EMPTY, SKELETON};
use crate::placing;
use crate::plan::{File, Isolation, OverlayInterface, Plan};
use crate::privilege::{self, Privilege, PrivilegeKind};
use crate::reexec;
use crate::step::{Network, Outcome, Security, Step, Stream};
use crate::stubs;
use crate::subid;
use crate::supervise::{self, Ended};

/// First of the ids that root gives to a step. They are far from all ids in use, so that root in
/// a step is nobody on the host.
const HOST_IDS: u32 = 1 << 30;
/// First of the ids at the upper end that stay the same in a step, for -2 and its neighbours,
/// which some systems call nobody. The ones below them go without: there are not enough.
const TOP_IDS: u32 = u32::MAX - (1 << 16);
const DEFAULT_SHM_SIZE: u64 = 64 << 20;
/// Mount points that most layers have; the skeleton has them for those that do not.
const SKELETON_FOLDERS: [&str; 4] = ["dev", "proc", "sys", "etc"];
const SKELETON_FILES: [&str; 2] = ["etc/hosts", "etc/resolv.conf"];

/// Runs steps. One per process is enough; it can be shared by threads.
#[derive(Debug)]
pub struct Sandbox {
    scratch: PathBuf,
    program: OwnedFd,
    isolation: Isolation,
    has_groups: bool,
    overlay: OverlayInterface,
    warnings: Vec<String>,
}

impl Sandbox {
    /// Finds out how steps can be run here. `scratch` is a folder on the file system of the
    /// layers, made if missing; other processes may use the same one.
    pub fn new(scratch: &Path, privilege: &Privilege) -> Result<Self, RunError> {
        let scratch = prepare_scratch(scratch)?;
        let program = reexec::open_program().map_err(RunError::prepare("/proc/self/exe"))?;
        let mut sandbox = Self {
            scratch,
            program,
            isolation: own_namespace(privilege.kind).map_err(RunError::prepare("/proc/self"))?,
            has_groups: privilege::has_groups(),
            overlay: OverlayInterface::Descriptors,
            warnings: Vec::new(),
        };
        let Err(refusal) = sandbox.find_interface() else {
            return Ok(sandbox);
        };
        sandbox.isolation = Isolation::Shared;
        sandbox.find_interface().map_err(unsupported)?;
        let warning = shared_warning(privilege.kind, &refusal);
        sandbox.warnings.push(warning);
        Ok(sandbox)
    }

    /// What a user should know about how steps run here, as sentences.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Uses one way of mounting overlays instead of the newest that works. For diagnosis, and
    /// for tests of the ways that older kernels need.
    #[must_use]
    pub fn with_overlay_interface(mut self, interface: OverlayInterface) -> Self {
        self.overlay = interface;
        self
    }

    /// Runs a step and returns when every process of it is gone. What it writes goes through
    /// `sink` as it comes.
    pub fn run(
        &self,
        step: &Step,
        cancel: &Cancel,
        sink: &mut dyn FnMut(Stream, &[u8]),
    ) -> Result<Outcome, RunError> {
        let plan = self.plan(step)?;
        let Ended { result, stubs } = supervise::run(&self.program, &plan, cancel, sink);
        let mut lowers = vec![self.scratch.join(SKELETON)];
        lowers.extend_from_slice(&step.lowers);
        let cleaned = stubs::remove(&stubs, &step.upper, &lowers)
            .map_err(RunError::prepare(step.upper.clone()))
            .and_then(|()| work_folders(step).try_for_each(empty));
        // What kept the step from running says more than what then could not be tidied up.
        let outcome = result?;
        cleaned?;
        Ok(outcome)
    }

    fn plan(&self, step: &Step) -> Result<Plan, RunError> {
        if step.security == Security::Insecure && self.isolation == Isolation::Shared {
            return Err(RunError::Setup {
                operation: "give it all capabilities, without a user namespace of its own"
                    .to_owned(),
                source: io::ErrorKind::PermissionDenied.into(),
            });
        }
        let is_mapped = matches!(self.isolation, Isolation::Namespace { idmap: true, .. });
        let (layers, mounts) = placing::places(&self.scratch, step, is_mapped)?;
        let files = step.files.iter().map(|file| File {
            path: file.path.clone(),
            mode: file.mode,
            content: file.content.clone(),
        });
        Ok(Plan {
            isolation: self.isolation.clone(),
            has_groups: self.has_groups,
            overlay: self.overlay,
            layers,
            network: step.network,
            hostname: step.hostname.clone(),
            hosts: netfiles::hosts(&step.hostname, &step.extra_hosts),
            resolv_conf: netfiles::resolv_conf(&host_resolv_conf(), step.network),
            shm_size: step.shm_size.unwrap_or(DEFAULT_SHM_SIZE),
            files: files.collect(),
            mounts,
            security: step.security,
            user: step.user.clone(),
            cwd: step.cwd.clone(),
            env: step.env.clone(),
            args: step.args.clone(),
        })
    }

    /// Settles on the newest overlay interface that works; returns why none does.
    fn find_interface(&mut self) -> Result<(), RunError> {
        let mut last = Ok(());
        for interface in [
            OverlayInterface::Descriptors,
            OverlayInterface::Paths,
            OverlayInterface::MountString,
        ] {
            self.overlay = interface;
            last = self.probe();
            if last.is_ok() {
                break;
            }
        }
        last
    }

    /// Sets an empty root up and executes nothing in it.
    fn probe(&self) -> Result<(), RunError> {
        let folder = probe_folder(&self.scratch)?;
        let step = Step {
            lowers: Vec::new(),
            upper: folder.join("upper"),
            work: folder.join("work"),
            args: Vec::new(),
            env: Vec::new(),
            cwd: String::new(),
            user: String::new(),
            network: Network::Host,
            hostname: "kiln".to_owned(),
            extra_hosts: Vec::new(),
            files: Vec::new(),
            shm_size: None,
            mounts: Vec::new(),
            security: Security::Sandbox,
        };
        let result = self.run(&step, &Cancel::new()?, &mut |_, _| {});
        fs::remove_dir_all(&folder).map_err(RunError::prepare(&folder))?;
        result.map(|_| ())
    }
}

/// Returns the folders that overlays of the step used.
fn work_folders(step: &Step) -> impl Iterator<Item = &Path> {
    let others = step.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Layers { work, .. } => Some(work),
        _ => None,
    });
    std::iter::once(&step.work)
        .chain(others)
        .map(PathBuf::as_path)
}

/// Removes what the kernel left in a work folder, where no step can write.
fn empty(work: &Path) -> Result<(), RunError> {
    let failed = |source| RunError::prepare(work)(source);
    for entry in fs::read_dir(work).map_err(failed)? {
        fs::remove_dir_all(entry.map_err(failed)?.path()).map_err(failed)?;
    }
    Ok(())
}

/// Explains the refusal that is typical for a container inside another.
fn unsupported(error: RunError) -> RunError {
    match error {
        RunError::Setup { operation, source } if operation.contains("`/proc`") => {
            let advice = "the container that kiln runs in hides parts of `/proc`, and the kernel \
                          gives nobody in it a fuller view; start it with `--privileged`, or with \
                          `--security-opt systempaths=unconfined`";
            RunError::Unsupported {
                advice: advice.to_owned(),
                source,
            }
        }
        other => other,
    }
}

fn shared_warning(kind: PrivilegeKind, refusal: &RunError) -> String {
    let reason = match std::error::Error::source(refusal) {
        Some(source) => format!("{refusal}: {source}"),
        None => refusal.to_string(),
    };
    let consequence = match kind {
        PrivilegeKind::Root => {
            "root in a build step is root on this machine, held back only by dropped \
             capabilities and a system call filter"
        }
        _ => "build steps share the user namespace of kiln",
    };
    format!("{consequence}, because they cannot have one of their own ({reason})")
}

/// Returns the user namespace that steps should have.
fn own_namespace(kind: PrivilegeKind) -> io::Result<Isolation> {
    if kind == PrivilegeKind::Root {
        let map = root_map();
        return Ok(Isolation::Namespace {
            uid_map: map.clone(),
            gid_map: map,
            idmap: true,
        });
    }
    Ok(Isolation::Namespace {
        uid_map: subid::identity_map(&privilege::own_map("uid_map")?),
        gid_map: subid::identity_map(&privilege::own_map("gid_map")?),
        idmap: false,
    })
}

/// Gives a step every id above [`HOST_IDS`]; the last one of all means "no id".
fn root_map() -> String {
    let (low, top) = (TOP_IDS - HOST_IDS, u32::MAX - TOP_IDS);
    format!("0 {HOST_IDS} {low}\n{TOP_IDS} {TOP_IDS} {top}\n")
}

/// Makes the scratch folder and the skeleton in it; what is there already stays.
fn prepare_scratch(scratch: &Path) -> Result<PathBuf, RunError> {
    fs::create_dir_all(scratch).map_err(RunError::prepare(scratch))?;
    let scratch = fs::canonicalize(scratch).map_err(RunError::prepare(scratch))?;
    let skeleton = scratch.join(SKELETON);
    let set_mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(RunError::prepare(path))
    };
    let folders = SKELETON_FOLDERS.map(|name| skeleton.join(name));
    for path in [scratch.join(EMPTY), skeleton.clone()]
        .into_iter()
        .chain(folders)
    {
        match fs::create_dir(&path) {
            Ok(()) => set_mode(&path, 0o755)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(RunError::prepare(path)(error)),
        }
    }
    for file in SKELETON_FILES {
        let path = skeleton.join(file);
        if !path.exists() {
            fs::write(&path, "").map_err(RunError::prepare(&path))?;
            set_mode(&path, 0o644)?;
        }
    }
    Ok(scratch)
}

fn probe_folder(scratch: &Path) -> Result<PathBuf, RunError> {
    let mut n = 0;
    let folder = loop {
        let folder = scratch.join(format!("probe-{}-{n}", std::process::id()));
        match fs::create_dir(&folder) {
            Ok(()) => break folder,
            // Another thread's, or left by a process of the same number that was killed.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => n += 1,
            Err(error) => return Err(RunError::prepare(folder)(error)),
        }
    };
    for path in [folder.join("upper"), folder.join("work")] {
        fs::create_dir(&path).map_err(RunError::prepare(path))?;
    }
    Ok(folder)
}

/// A missing file is an empty one.
fn host_resolv_conf() -> String {
    let read = |path: &str| fs::read_to_string(path).ok();
    let text = read("/etc/resolv.conf").unwrap_or_default();
    if netfiles::names_systemd_only(&text) {
        return read("/run/systemd/resolve/resolv.conf").unwrap_or(text);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_gives_all_ids_above_those_of_the_host() {
        let extents = subid::parse_map(&root_map());
        assert!(extents.iter().all(|extent| extent.outside >= HOST_IDS));
        assert_eq!(subid::n_ids(&extents), u64::from(u32::MAX - HOST_IDS));
        let has = |id| {
            let mut all = extents.iter();
            all.any(|extent| (extent.inside..extent.inside + extent.count).contains(&id))
        };
        for id in [0, 1 << 30, i32::MAX.cast_unsigned(), 1 << 31, u32::MAX - 1] {
            assert!(has(id), "{id}");
        }
    }
}
