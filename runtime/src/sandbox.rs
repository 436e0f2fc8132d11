//! What all steps of a process share, and the plan of each.
//!
//! The kernel's abilities are found out once, by running an empty step in the strongest form and
//! then in weaker ones until one works.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use crate::cancel::Cancel;
use crate::error::RunError;
use crate::netfiles;
use crate::overlay::SKELETON;
use crate::plan::{File, Isolation, Layers, OverlayInterface, Place, Plan};
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
        let layers = self.layers(step)?;
        let plan = self.plan(step, layers);
        let Ended { result, stubs } = supervise::run(&self.program, &plan, cancel, sink);
        let mut lowers = vec![self.scratch.join(SKELETON)];
        lowers.extend_from_slice(&step.lowers);
        let cleaned = stubs::remove(&stubs, &step.upper, &lowers)
            .map_err(RunError::prepare(step.upper.clone()))
            .and_then(|()| empty(&step.work).map_err(RunError::prepare(step.work.clone())));
        // What kept the step from running says more than what then could not be tidied up.
        let outcome = result?;
        cleaned?;
        Ok(outcome)
    }

    fn plan(&self, step: &Step, layers: Layers) -> Plan {
        let files = step.files.iter().map(|file| File {
            path: file.path.clone(),
            mode: file.mode,
            content: file.content.clone(),
        });
        Plan {
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
            user: step.user.clone(),
            cwd: step.cwd.clone(),
            env: step.env.clone(),
            args: step.args.clone(),
        }
    }

    fn layers(&self, step: &Step) -> Result<Layers, RunError> {
        let mut folders = vec![self.scratch.clone(), self.scratch.join(SKELETON)];
        for path in [&step.upper, &step.work].into_iter().chain(&step.lowers) {
            let path = fs::canonicalize(path).map_err(RunError::prepare(path))?;
            folders.push(path);
        }
        let (bases, places) = match &self.isolation {
            Isolation::Namespace { idmap: true, .. } => by_mount(&folders)?,
            _ => (vec![PathBuf::from("/")], below_root(&folders)),
        };
        let [scratch, skeleton, upper, work, lowers @ ..] = &places[..] else {
            unreachable!("four folders were pushed first");
        };
        Ok(Layers {
            bases,
            scratch: scratch.clone(),
            lowers: [std::slice::from_ref(skeleton), lowers].concat(),
            upper: upper.clone(),
            work: work.clone(),
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

/// Removes what the kernel left in a work folder, where no step can write.
fn empty(work: &Path) -> io::Result<()> {
    for entry in fs::read_dir(work)? {
        fs::remove_dir_all(entry?.path())?;
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
    for folder in [""].into_iter().chain(SKELETON_FOLDERS) {
        let path = skeleton.join(folder);
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

/// Finds for each mount that folders lie in the deepest folder that holds them all.
fn by_mount(folders: &[PathBuf]) -> Result<(Vec<PathBuf>, Vec<Place>), RunError> {
    let mut bases: Vec<PathBuf> = Vec::new();
    let mut numbers: HashMap<u64, usize> = HashMap::new();
    let mut base_of = Vec::with_capacity(folders.len());
    for folder in folders {
        let mount = mount_id(folder).map_err(RunError::prepare(folder))?;
        match numbers.entry(mount) {
            Entry::Occupied(number) => {
                let base = &mut bases[*number.get()];
                *base = common(base, folder);
                base_of.push(*number.get());
            }
            Entry::Vacant(vacant) => {
                base_of.push(*vacant.insert(bases.len()));
                bases.push(folder.clone());
            }
        }
    }
    let place = |(folder, base): (&PathBuf, usize)| Place {
        base,
        path: relative(&bases[base], folder),
    };
    let places = folders.iter().zip(base_of).map(place).collect();
    Ok((bases, places))
}

fn below_root(folders: &[PathBuf]) -> Vec<Place> {
    let place = |folder: &PathBuf| Place {
        base: 0,
        path: relative(Path::new("/"), folder),
    };
    folders.iter().map(place).collect()
}

fn mount_id(folder: &Path) -> io::Result<u64> {
    Ok(statx(CWD, folder, AtFlags::empty(), StatxFlags::MNT_ID)?.stx_mnt_id)
}

fn common(a: &Path, b: &Path) -> PathBuf {
    let pairs = a.components().zip(b.components());
    pairs
        .take_while(|(a, b)| a == b)
        .map(|(component, _): (Component<'_>, _)| component)
        .collect()
}

fn relative(base: &Path, folder: &Path) -> PathBuf {
    folder.strip_prefix(base).unwrap_or(folder).to_owned()
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

    #[test]
    fn the_common_folder_is_the_deepest_one() {
        let common = |a: &str, b: &str| common(Path::new(a), Path::new(b));
        assert_eq!(common("/a/b/c", "/a/b/d/e"), Path::new("/a/b"));
        assert_eq!(common("/a/bc", "/a/b"), Path::new("/a"));
        assert_eq!(common("/a", "/b"), Path::new("/"));
        assert_eq!(common("/a", "/a"), Path::new("/a"));
    }

    #[test]
    fn folders_of_one_mount_share_a_base() {
        let folder = tempfile::tempdir().unwrap();
        let path = fs::canonicalize(folder.path()).unwrap();
        let (one, two) = (path.join("one"), path.join("two/three"));
        fs::create_dir_all(&one).unwrap();
        fs::create_dir_all(&two).unwrap();
        let (bases, places) = by_mount(&[one, two]).unwrap();
        assert_eq!(bases, [path]);
        assert_eq!(places[0].path, Path::new("one"));
        assert_eq!(places[1].path, Path::new("two/three"));
    }
}
