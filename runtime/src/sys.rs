//! System calls that neither std nor rustix offers as safe functions.
//!
//! The only file of the workspace with unsafe code. Every function takes and returns safe types,
//! does one system call, and decides nothing.
#![expect(
    unsafe_code,
    reason = "raw system calls have no safe wrapper; they are all here"
)]

use std::ffi::CStr;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::ptr;

use rustix::mount::MountAttrFlags;
use rustix::process::Pid;

use crate::seccomp::Instruction;

/// Resources that a reaped process and its own reaped children used.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// CPU time in user and kernel mode, in microseconds.
    pub cpu_us: u64,
    /// Largest resident set of any one process, in bytes.
    pub max_rss: u64,
}

/// How a process ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum WaitStatus {
    Code(i32),
    Signal(i32),
}

/// Namespaces to create along with a process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Namespaces {
    pub user: bool,
    pub net: bool,
}

/// Attributes for [`mount_setattr`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct MountAttributes<'a> {
    /// Flags to set.
    pub set: MountAttrFlags,
    /// User namespace whose mapping the mount gets.
    pub idmap: Option<BorrowedFd<'a>>,
    /// Applies to the mounts below too.
    pub recursive: bool,
}

/// Forks a child into new namespaces (always mount, pid, ipc, uts, cgroup), where it is pid 1.
/// Returns its pid, or `None` in the child.
///
/// The caller has a single thread, so the child may go on using the whole program.
pub(crate) fn fork_into(namespaces: Namespaces) -> io::Result<Option<Pid>> {
    let mut flags = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    if namespaces.user {
        flags |= libc::CLONE_NEWUSER;
    }
    if namespaces.net {
        flags |= libc::CLONE_NEWNET;
    }
    let flags = i64::from(flags | libc::SIGCHLD);
    // SAFETY: without CLONE_VM the child has its own copy of memory and, with a null stack,
    // goes on on its copy of ours; no pointer is passed. The process has a single thread.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(i32::try_from(pid).ok().and_then(Pid::from_raw))
}

/// Moves this single-threaded process into a new user and mount namespace.
pub(crate) fn unshare_user_and_mounts() -> io::Result<()> {
    // SAFETY: no pointers; descriptor tables are not unshared.
    let result = unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) };
    check(i64::from(result))
}

/// Moves this single-threaded process into a new mount namespace.
pub(crate) fn unshare_mounts() -> io::Result<()> {
    // SAFETY: no pointers; descriptor tables are not unshared.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    check(i64::from(result))
}

/// Ends the process at once, without running exit handlers.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Waits for a child and returns how it ended and what it used.
pub(crate) fn wait_with_usage(pid: Pid) -> io::Result<(WaitStatus, Usage)> {
    let mut status = 0;
    // SAFETY: `rusage` is plain integers, for which zeroes are valid.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live, writable values of the right types.
        let got = unsafe {
            libc::wait4(
                pid.as_raw_nonzero().get(),
                &raw mut status,
                0,
                &raw mut usage,
            )
        };
        if got >= 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let micros = |t: libc::timeval| t.tv_sec.unsigned_abs() * 1_000_000 + t.tv_usec.unsigned_abs();
    let usage = Usage {
        cpu_us: micros(usage.ru_utime) + micros(usage.ru_stime),
        max_rss: usage.ru_maxrss.unsigned_abs() * 1024,
    };
    let ended = if libc::WIFSIGNALED(status) {
        WaitStatus::Signal(libc::WTERMSIG(status))
    } else {
        WaitStatus::Code(libc::WEXITSTATUS(status))
    };
    Ok((ended, usage))
}

/// Changes attributes of the mount that `mount` refers to (Linux 5.12).
pub(crate) fn mount_setattr(mount: impl AsFd, attributes: MountAttributes<'_>) -> io::Result<()> {
    let mut flags = libc::AT_EMPTY_PATH;
    if attributes.recursive {
        flags |= libc::AT_RECURSIVE;
    }
    let mut attr = libc::mount_attr {
        attr_set: u64::from(attributes.set.bits()),
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    if let Some(namespace) = attributes.idmap {
        attr.attr_set |= libc::MOUNT_ATTR_IDMAP;
        attr.userns_fd = u64::from(namespace.as_raw_fd().unsigned_abs());
    }
    // SAFETY: the path is a C string and `attr` a live value whose size is passed; the kernel
    // only reads both.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw mut attr,
            size_of::<libc::mount_attr>(),
        )
    };
    check(result)
}

/// Marks every descriptor from `first` on as closed by execve (Linux 5.11).
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: no pointers; with CLOEXEC no descriptor is closed under its owner.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    check(result)
}

/// Takes over standard input, which nothing else in this process uses.
pub(crate) fn take_stdin() -> OwnedFd {
    // SAFETY: callers are re-executed helpers whose descriptor 0 was opened for this purpose and
    // is taken once; std's handle to it is not used.
    unsafe { OwnedFd::from_raw_fd(0) }
}

/// Puts `fd` in the place of standard input.
pub(crate) fn replace_stdin(fd: impl AsFd) -> io::Result<()> {
    // SAFETY: descriptor numbers only; whatever was 0 before is not owned by anyone.
    let result = unsafe { libc::dup2(fd.as_fd().as_raw_fd(), 0) };
    check(i64::from(result))
}

/// Gives every signal its default action and unblocks them all.
///
/// Not by way of the C library, which refuses to touch the two signals that it uses itself.
pub(crate) fn reset_signals() {
    // The kernel's `struct sigaction`: handler, flags, restorer, mask; zero is SIG_DFL.
    let default = [0u64; 4];
    let none = 0u64;
    for signal in 1..=64 {
        // SAFETY: `default` is live and as large as the structure that the kernel reads. The
        // calls for signals that cannot be changed fail, which is right.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                &raw const default,
                ptr::null::<u64>(),
                size_of::<u64>(),
            )
        };
    }
    // SAFETY: `none` is a live signal set of the size given; no old set is asked for.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const none,
            ptr::null::<u64>(),
            size_of::<u64>(),
        )
    };
}

/// Installs a system call filter on this single-threaded process for good.
pub(crate) fn install_filter(program: &[Instruction]) -> io::Result<()> {
    let mut code: Vec<libc::sock_filter> = program
        .iter()
        .map(|i| libc::sock_filter {
            code: i.code,
            jt: i.jump_true,
            jf: i.jump_false,
            k: i.k,
        })
        .collect();
    let filter = libc::sock_fprog {
        len: u16::try_from(code.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: code.as_mut_ptr(),
    };
    // SAFETY: `filter` describes `code`, both live until the call returns; the kernel copies.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            &raw const filter,
        )
    };
    check(result)
}

/// Replaces the program of this process; returns only the reason why that failed.
pub(crate) fn execve(program: &CStr, args: &[&CStr], env: &[&CStr]) -> io::Error {
    let pointers = |strings: &[&CStr]| {
        let mut all: Vec<_> = strings.iter().map(|s| s.as_ptr()).collect();
        all.push(ptr::null());
        all
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: `program` and all elements are C strings that outlive the call, and both arrays
    // end with a null pointer.
    unsafe { libc::execve(program.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Brings the loopback device of this network namespace up.
pub(crate) fn bring_loopback_up(socket: impl AsFd) -> io::Result<()> {
    // SAFETY: `ifreq` is integers and bytes, for which zeroes are valid.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes_with_nul()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = 1; // IFF_UP
    // SAFETY: `request` is a live `ifreq`, which is what this request reads.
    let result = unsafe {
        libc::ioctl(
            socket.as_fd().as_raw_fd(),
            libc::SIOCSIFFLAGS,
            &raw mut request,
        )
    };
    check(i64::from(result))
}

fn check(result: i64) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
