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

/// A system call that a filter put to its listener.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WaitingCall {
    /// Names it until it is answered.
    pub id: u64,
    /// Id of the calling thread in the listener's pid namespace; 0 if it is in another one.
    pub thread: u32,
    /// Architecture as the kernel names it to a filter.
    pub arch: u32,
    pub number: u32,
    pub args: [u64; 6],
}

/// What becomes of a [`WaitingCall`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It was done.
    Done,
    /// It fails with this error number.
    Failed(i32),
    /// The kernel executes it, with the rights of the caller.
    Kernel,
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

/// Forks a child; the caller has a single thread, so it may go on using the whole program.
/// Returns its pid, or `None` in the child.
pub(crate) fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: the process has a single thread, so no lock is held by a thread that is not copied.
    let pid = unsafe { libc::fork() };
    check(i64::from(pid)).map(|()| Pid::from_raw(pid))
}

/// Closes every descriptor of a forked child but these; it leaves by [`exit_now`], so no owner of
/// another one ever closes it again.
pub(crate) fn close_all_but(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let number = |fd: &BorrowedFd<'_>| fd.as_raw_fd().unsigned_abs();
    let mut kept: Vec<u32> = kept.iter().map(number).collect();
    kept.sort_unstable();
    let mut first = 0;
    for fd in kept.into_iter().chain([u32::MAX]) {
        if first < fd {
            // SAFETY: no pointers; the owners of what is closed never run again.
            let result = unsafe { libc::syscall(libc::SYS_close_range, first, fd - 1, 0) };
            check(result)?;
        }
        first = fd.saturating_add(1);
    }
    Ok(())
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
    load_filter(program, libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW).map(drop)
}

/// As [`install_filter`], and returns the listener that the filter puts calls to. A call that was
/// put to it can only be interrupted by what kills the caller (Linux 5.19).
pub(crate) fn install_filter_with_listener(program: &[Instruction]) -> io::Result<OwnedFd> {
    let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW
        | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER
        | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    let listener = i32::try_from(load_filter(program, flags)?).map_err(io::Error::other)?;
    // SAFETY: with NEW_LISTENER the result is a new descriptor (close-on-exec), owned by nobody.
    Ok(unsafe { OwnedFd::from_raw_fd(listener) })
}

fn load_filter(program: &[Instruction], flags: libc::c_ulong) -> io::Result<i64> {
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
            flags,
            &raw const filter,
        )
    };
    check(result).map(|()| result)
}

/// Takes a waiting call from a filter's listener; waits for one, so poll first.
pub(crate) fn receive_call(listener: impl AsFd) -> io::Result<WaitingCall> {
    // SAFETY: `seccomp_notif` is plain integers, for which zeroes are valid.
    let mut call: libc::seccomp_notif = unsafe { mem::zeroed() };
    // SAFETY: `call` is live and of the type that the request's number stands for.
    let result = unsafe {
        libc::ioctl(
            listener.as_fd().as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_RECV,
            &raw mut call,
        )
    };
    check(i64::from(result))?;
    Ok(WaitingCall {
        id: call.id,
        thread: call.pid,
        arch: call.data.arch,
        number: call.data.nr.cast_unsigned(),
        args: call.data.args,
    })
}

/// Returns true if the call still waits, and with it the thread that it is of.
pub(crate) fn is_waiting(listener: impl AsFd, id: u64) -> bool {
    // SAFETY: `id` is a live `u64`, which is what the request reads.
    let result = unsafe {
        libc::ioctl(
            listener.as_fd().as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_ID_VALID,
            &raw const id,
        )
    };
    result == 0
}

/// Lets a waiting call go on.
pub(crate) fn answer_call(listener: impl AsFd, id: u64, answer: Answer) -> io::Result<()> {
    let (error, flags) = match answer {
        Answer::Done => (0, 0),
        Answer::Failed(errno) => (-errno, 0),
        Answer::Kernel => (0, 1), // SECCOMP_USER_NOTIF_FLAG_CONTINUE
    };
    let mut response = libc::seccomp_notif_resp {
        id,
        val: 0,
        error,
        flags,
    };
    // SAFETY: `response` is live and of the type that the request's number stands for.
    let result = unsafe {
        libc::ioctl(
            listener.as_fd().as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_SEND,
            &raw mut response,
        )
    };
    check(i64::from(result))
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
