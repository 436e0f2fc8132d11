//! This program run again under another name: the only place that starts processes.
//!
//! kiln does its delicate work in helpers that have one thread. They are this same binary with
//! another `argv[0]`, recognised in the first line of `main`. The init is executed from a
//! read-only mount of the binary (or from a sealed copy in memory), so that even a step that gets
//! hold of `/proc/self/exe` while its program is being executed has nothing to write to.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use rustix::fs::{CWD, MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::mount::MountAttrFlags;

use crate::mounts;
use crate::{init, privilege};

const INIT: &str = "kiln-init";
const ID_MAPPER: &str = "kiln-idmap";
const OWN_PROGRAM: &str = "/proc/self/exe";

/// Runs the helper that this process was started as, if it was, and exits; else returns at once.
///
/// The first line of `main`: helpers rely on having a single thread.
pub fn intercept() {
    let mut args = std::env::args_os();
    let code = match args.next() {
        Some(name) if name == INIT => init::main(),
        Some(name) if name == ID_MAPPER => privilege::map_ids_main(args),
        _ => return,
    };
    #[expect(
        clippy::exit,
        reason = "a helper ends here; its caller's main is not its own"
    )]
    std::process::exit(code)
}

/// Opens this program in a form that cannot be written to through the process it becomes.
pub(crate) fn open_program() -> io::Result<OwnedFd> {
    open_read_only_mount().or_else(|_| copy_to_memory())
}

/// Fails where the binary is in another mount namespace, was replaced, or mounts are refused.
fn open_read_only_mount() -> io::Result<OwnedFd> {
    let path = std::env::current_exe()?;
    let mount = mounts::bind(CWD, &path)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | mounts::NO_SUID_DEV;
    mounts::restrict(&mount, attributes)?;
    let running = std::fs::metadata(OWN_PROGRAM)?;
    let found = rustix::fs::fstat(&mount)?;
    if (running.dev(), running.ino()) != (found.st_dev, found.st_ino) {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(mount)
}

fn copy_to_memory() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut copy = File::from(memfd_create(INIT, flags)?);
    io::copy(&mut File::open(OWN_PROGRAM)?, &mut copy)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_add_seals(&copy, seals)?;
    Ok(copy.into())
}

/// Starts stage 1 of a step from what [`open_program`] returned.
pub(crate) fn start_init(
    program: &OwnedFd,
    control: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
) -> io::Result<Child> {
    command(&format!("/proc/self/fd/{}", program.as_raw_fd()))
        .arg0(INIT)
        .env_clear()
        .stdin(control)
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
}

/// Starts the helper of [`privilege`] that maps ids when its standard input ends.
pub(crate) fn start_id_mapper(args: &[String]) -> io::Result<Child> {
    command(OWN_PROGRAM)
        .arg0(ID_MAPPER)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
}

/// Runs a program found in `PATH`; whether it succeeded. Its messages go to standard error.
pub(crate) fn run_program(name: &str, args: &[String]) -> io::Result<bool> {
    Ok(command(name).args(args).status()?.success())
}

#[expect(
    clippy::disallowed_methods,
    reason = "processes are started here and nowhere else in this crate"
)]
fn command(program: &str) -> Command {
    Command::new(program)
}
