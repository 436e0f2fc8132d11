//! The container's first process, from its birth in new namespaces to the step's program.
//!
//! One linear sequence, each line a step with its own message if it fails. It begins as a fork of
//! stage 1, has one thread, shares no memory with anyone, and never returns.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read as _};
use std::net::Shutdown;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, StatxFlags, Uid, statx};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::process::{chdir, fchdir, pivot_root, setsid, umask};

use crate::channel;
use crate::identity;
use crate::mounts;
use crate::overlay;
use crate::place::{self, Missing};
use crate::plan::{self, Context as _, Failure, FailureKind, Isolation, Plan, Report, Stub};
use crate::root::Surroundings;
use crate::step::Network;
use crate::sys;
use crate::user::{self, Identity};

/// Where a program without a slash is looked for if the environment does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Larger account files are refused.
const MAX_ACCOUNT_FILE: i64 = 10 << 20;

/// What the fork of stage 1 starts with.
#[derive(Debug)]
pub(crate) struct Birth {
    pub plan: Plan,
    /// To kiln.
    pub control: UnixStream,
    /// From stage 1: the mapped bases, once the user namespace is ready.
    pub go: UnixStream,
}

/// Becomes the step; never returns.
pub(crate) fn main(birth: &Birth) -> ! {
    let mut stubs = Vec::new();
    let code = match set_up(birth, &mut stubs) {
        Ok(identity) => launch(birth, &identity, stubs),
        Err(failure) => report_failure(&birth.control, failure, stubs),
    };
    sys::exit_now(code)
}

fn report_failure(control: &UnixStream, failure: Failure, stubs: Vec<Stub>) -> i32 {
    // If kiln is gone, so will we be in a moment.
    match plan::send(control, &Report::Failed { failure, stubs }) {
        Ok(()) | Err(_) => 1,
    }
}

/// Builds the root and moves into it, as root of the step's user namespace.
fn set_up(birth: &Birth, stubs: &mut Vec<Stub>) -> Result<Identity, Failure> {
    let plan = &birth.plan;
    identity::die_with_parent()?;
    let mapped = receive_go(&birth.go).during("wait for the user namespace")?;
    if plan.isolation != Isolation::Shared {
        identity::become_root(plan.has_groups)?;
    }
    setsid().during("start a session")?;
    umask(Mode::from(0o022));
    mount_change(
        c"/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .during("make mounts private")?;

    for base in &mapped {
        mounts::park(base).during("attach the mapped layers")?;
    }
    let n_mapped = mapped.len();
    let bases = match &plan.isolation {
        Isolation::Namespace { idmap: true, .. } => mapped,
        _ => overlay::open_bases(&plan.layers)?,
    };
    let root = overlay::mount_root(&plan.layers, &bases, plan.overlay)?;
    // Who the step's user is says the image, whatever is mounted over its files.
    let identity = whoever(&root, &plan.user)?;
    let n_parked = Surroundings::mount(plan, &root, &bases, stubs)?;
    drop(bases);
    enter(&root, n_mapped + n_parked).during("enter the root")?;

    rustix::system::sethostname(plan.hostname.as_bytes()).during("set the host name")?;
    if plan.network == Network::None {
        loopback_up().during("bring the loopback device up")?;
    }
    enter_cwd(&root, &plan.cwd, &identity)?;
    Ok(identity)
}

/// Waits until stage 1 has mapped our ids, and takes the mounts it made for us.
fn receive_go(go: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mounts = channel::receive_descriptors(go)?;
    go.shutdown(Shutdown::Both)?;
    Ok(mounts)
}

/// Makes `root` the root of this process and leaves nothing of the old one in reach.
fn enter(root: &OwnedFd, n_parked: usize) -> io::Result<()> {
    fchdir(root)?;
    // The old root is now stacked on the new one, with what was parked stacked on top of it. An
    // unmount of the place takes away the topmost.
    pivot_root(c".", c".")?;
    for _ in 0..=n_parked {
        unmount(c".", UnmountFlags::DETACH)?;
    }
    chdir(c"/")?;
    // As long as anything is stacked on the root, `..` of the root leads to it.
    let mount = |path: &CStr| statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID);
    if mount(c"/..")?.stx_mnt_id != mount(c"/")?.stx_mnt_id {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    Ok(())
}

fn loopback_up() -> io::Result<()> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    sys::bring_loopback_up(socket)
}

fn whoever(root: &OwnedFd, user: &str) -> Result<Identity, Failure> {
    let read = |path: &str| match read_accounts(root, path) {
        // Root needs no entry.
        Err(_) if user.is_empty() => Ok(String::new()),
        other => other.during(&format!("read `{path}`")),
    };
    let (passwd, group) = (read("/etc/passwd")?, read("/etc/group")?);
    user::resolve(user, &passwd, &group).map_err(|reason| Failure {
        kind: FailureKind::User,
        what: reason,
        errno: libc::ENOENT,
    })
}

/// Reads an account file of the root, which may be anything that an image can hold; a missing
/// one is empty. Looks before it opens, so that no device or pipe is ever opened; nobody else is
/// in the root yet to change it in between.
fn read_accounts(root: &OwnedFd, path: &str) -> io::Result<String> {
    let found = match place::find(root, path, OFlags::empty()) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    let stat = rustix::fs::fstat(&found)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    if stat.st_size > MAX_ACCOUNT_FILE {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    let file = place::find_readable(root, path)?;
    let mut bytes = Vec::new();
    File::from(file).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Changes to the working directory; what is missing of it is made for the step's user and
/// stays.
fn enter_cwd(root: &OwnedFd, cwd: &str, identity: &Identity) -> Result<(), Failure> {
    let context = format!("enter the working directory `{cwd}`");
    let mut made = Vec::new();
    let folder = place::find_or_make(root, cwd, Missing::Folder, &mut made).during(&context)?;
    for stub in &made {
        let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
        place::give(root, stub, uid, gid).during(&context)?;
    }
    fchdir(folder).during(&context)
}

/// Gives up privileges and executes the program. Returns an exit code if that fails, or if there
/// is nothing to execute.
fn launch(birth: &Birth, identity: &Identity, stubs: Vec<Stub>) -> i32 {
    match prepare(birth, identity, &stubs) {
        Ok(None) => 0,
        Ok(Some(program)) => {
            let failure = program.execute();
            report_failure(&birth.control, failure, stubs)
        }
        Err(failure) => report_failure(&birth.control, failure, stubs),
    }
}

fn prepare(birth: &Birth, identity: &Identity, stubs: &[Stub]) -> Result<Option<Program>, Failure> {
    let plan = &birth.plan;
    let program = Program::new(plan, identity).map_err(|_| exec_failure(libc::EINVAL))?;
    open_null().during("open `/dev/null`")?;
    sys::close_on_exec_from(3).during("close descriptors")?;
    sys::reset_signals();
    identity::assume(identity, plan.has_groups, plan.security)?;
    let ready = Report::Ready {
        stubs: stubs.to_vec(),
    };
    plan::send(&birth.control, &ready).during("report to kiln")?;
    Ok(program)
}

/// Standard input is the step's own `/dev/null`, so that no descriptor leads outside.
fn open_null() -> io::Result<()> {
    let null = rustix::fs::open(
        c"/dev/null",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    sys::replace_stdin(null.as_fd())
}

/// What to execute, as the kernel takes it.
#[derive(Debug)]
struct Program {
    candidates: Vec<CString>,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Program {
    /// Returns `None` for a plan without a program.
    fn new(plan: &Plan, identity: &Identity) -> io::Result<Option<Self>> {
        let Some(program) = plan.args.first() else {
            return Ok(None);
        };
        let strings = |all: &[String]| all.iter().map(|s| Ok(CString::new(s.as_str())?)).collect();
        let variables = environment(&plan.env, &identity.home);
        let path = variables.iter().find(|(name, _)| *name == "PATH");
        let path = path.map_or(DEFAULT_PATH, |(_, value)| value);
        let env: Vec<String> = variables
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let candidates: io::Result<Vec<CString>> = strings(&candidates(program, path));
        let args: io::Result<Vec<CString>> = strings(&plan.args);
        let env: io::Result<Vec<CString>> = strings(&env);
        Ok(Some(Self {
            candidates: candidates?,
            args: args?,
            env: env?,
        }))
    }

    /// Replaces this process; returns why no candidate would do.
    fn execute(&self) -> Failure {
        let args: Vec<&CStr> = self.args.iter().map(CString::as_c_str).collect();
        let env: Vec<&CStr> = self.env.iter().map(CString::as_c_str).collect();
        let mut reason = libc::ENOENT;
        for candidate in &self.candidates {
            let errno = sys::execve(candidate, &args, &env).raw_os_error();
            match errno {
                Some(libc::ENOENT | libc::ENOTDIR) => {}
                Some(libc::EACCES) => reason = libc::EACCES,
                other => return exec_failure(other.unwrap_or(libc::EINVAL)),
            }
        }
        exec_failure(reason)
    }
}

/// Returns the variables of the program: each name once, at its first place with its last value;
/// the home of the user unless another is given.
fn environment<'a>(given: &'a [(String, String)], home: &'a str) -> Vec<(&'a str, &'a str)> {
    let mut variables: Vec<(&str, &str)> = Vec::with_capacity(given.len() + 1);
    for (name, value) in given {
        match variables.iter_mut().find(|(known, _)| known == name) {
            Some(variable) => variable.1 = value,
            None => variables.push((name, value)),
        }
    }
    variables.retain(|&(name, value)| name != "HOME" || !value.is_empty());
    if !variables.iter().any(|(name, _)| *name == "HOME") {
        variables.push(("HOME", home));
    }
    variables
}

/// Returns the paths at which a program may be.
fn candidates(program: &str, path: &str) -> Vec<String> {
    if program.is_empty() {
        return Vec::new();
    }
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    let folders = path.split(':');
    folders
        .map(|folder| if folder.is_empty() { "." } else { folder })
        .map(|folder| format!("{}/{program}", folder.trim_end_matches('/')))
        .collect()
}

fn exec_failure(errno: i32) -> Failure {
    Failure {
        kind: FailureKind::Exec,
        what: String::new(),
        errno,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_looked_up_in_every_folder_of_the_path() {
        assert_eq!(
            candidates("sh", "/bin:/usr/bin/"),
            ["/bin/sh", "/usr/bin/sh"]
        );
        assert_eq!(candidates("sh", ":"), ["./sh", "./sh"]);
    }

    #[test]
    fn the_last_value_of_a_variable_counts() {
        let given = [("A", "1"), ("HOME", "/x"), ("A", "2"), ("B", "3")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(
            environment(&given, "/root"),
            [("A", "2"), ("HOME", "/x"), ("B", "3")]
        );
        let empty = [("HOME".to_owned(), String::new())];
        assert_eq!(environment(&empty, "/root"), [("HOME", "/root")]);
    }

    #[test]
    fn a_program_with_a_slash_is_taken_as_it_is() {
        assert_eq!(candidates("./run", "/bin"), ["./run"]);
        assert!(candidates("", "/bin").is_empty());
    }
}
