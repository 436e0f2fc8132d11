//! Stage 1: the re-executed kiln that gives birth to a container and watches over it.
//!
//! A separate program because namespaces can only be set up by a process with one thread. It has
//! kiln's privileges, runs nothing of the step's, and lives until the container is gone: it kills
//! the container when kiln closes its side of the socket or dies, and is killed together with
//! it by nothing but that. The container dies with it through the parent-death signal.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid};
use rustix::mount::MountAttrFlags;
use rustix::process::{Pid, PidfdFlags, Signal, chdir, pidfd_open, pidfd_send_signal, setsid};

use crate::channel;
use crate::container::{self, Birth};
use crate::devices::Devices;
use crate::mounts;
use crate::plan::{self, Context as _, Failure, Isolation, Plan, Report};
use crate::step::{Device, Network};
use crate::sys::{self, MountAttributes, Namespaces, Usage, WaitStatus};

/// Runs stage 1 on the socket that is standard input; returns the exit code of the process.
pub(crate) fn main() -> i32 {
    let control = UnixStream::from(sys::take_stdin());
    match watch_over(&control) {
        Ok(report) => send(&control, &report),
        Err(failure) => {
            let stubs = Vec::new();
            send(&control, &Report::Failed { failure, stubs })
        }
    }
}

/// Returns whether kiln was there to hear it, as an exit code.
fn send(control: &UnixStream, report: &Report) -> i32 {
    i32::from(plan::send(control, report).is_err())
}

fn watch_over(control: &UnixStream) -> Result<Report, Failure> {
    settle().during("prepare the step's init")?;
    let plan = plan::receive_plan(control).during("read the plan")?;
    let isolation = plan.isolation.clone();
    let bases = plan.layers.bases.clone();
    let (go, container) = give_birth(plan, control)?;
    let process = pidfd_open(container, PidfdFlags::empty()).during("watch the container")?;
    let started = release(&isolation, &bases, container, &go);
    if started.is_err() {
        kill(&process);
    }
    let mut devices = Devices::new(go, &isolation);
    let (status, usage) =
        wait(control, &process, container, &mut devices).during("wait for the container")?;
    started.map(|()| ended(status, usage, devices.into_made()))
}

/// Leaves kiln's terminal, folder and descriptors alone.
fn settle() -> io::Result<()> {
    sys::close_on_exec_from(3)?;
    let _name = rustix::thread::set_name(c"kiln-init");
    setsid()?;
    Ok(chdir(c"/")?)
}

/// Forks the container; it waits for what [`release`] sends through the returned socket.
fn give_birth(plan: Plan, control: &UnixStream) -> Result<(UnixStream, Pid), Failure> {
    let (go, receiver) = UnixStream::pair().during("create a socket")?;
    let control = control.try_clone().during("copy the socket to kiln")?;
    let namespaces = Namespaces {
        user: plan.isolation != Isolation::Shared,
        net: plan.network == Network::None,
    };
    match sys::fork_into(namespaces).during("create namespaces")? {
        Some(container) => Ok((go, container)),
        None => {
            drop(go);
            let go = receiver;
            container::main(&Birth { plan, control, go })
        }
    }
}

/// Maps the container's ids, makes the mounts that only this process can, and lets it go on.
fn release(
    isolation: &Isolation,
    bases: &[std::path::PathBuf],
    container: Pid,
    go: &UnixStream,
) -> Result<(), Failure> {
    let mut mapped = Vec::new();
    if let Isolation::Namespace {
        uid_map,
        gid_map,
        idmap,
        ..
    } = isolation
    {
        let proc = format!("/proc/{}", container.as_raw_nonzero());
        fs::write(format!("{proc}/uid_map"), uid_map).during("map user ids")?;
        fs::write(format!("{proc}/gid_map"), gid_map).during("map group ids")?;
        if *idmap {
            give_output(uid_map, gid_map).during("hand over the output")?;
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let namespace = rustix::fs::open(format!("{proc}/ns/user"), flags, Mode::empty())
                .during("open the user namespace")?;
            for base in bases {
                let mount = map_ids(base, &namespace)
                    .during(&format!("map the ids of `{}`", base.display()))?;
                mapped.push(mount);
            }
        }
    }
    channel::send_descriptors(go, &mapped).during("start the container")
}

/// Makes a detached mount of a folder that shows ids through a namespace's map.
fn map_ids(folder: &std::path::Path, namespace: &OwnedFd) -> io::Result<OwnedFd> {
    let mount = mounts::bind(CWD, folder)?;
    let attributes = MountAttributes {
        set: MountAttrFlags::MOUNT_ATTR_NODEV,
        idmap: Some(namespace.as_fd()),
        recursive: false,
    };
    sys::mount_setattr(&mount, attributes)?;
    Ok(mount)
}

/// Makes the container's root the owner of the output pipes, so that it can pass them on.
fn give_output(uid_map: &str, gid_map: &str) -> io::Result<()> {
    let outer_id = |map: &str| map.split_whitespace().nth(1)?.parse::<u32>().ok();
    let (Some(uid), Some(gid)) = (outer_id(uid_map), outer_id(gid_map)) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    crate::root::own_output(Uid::from_raw(uid), Gid::from_raw(gid))
}

/// Waits for the container, makes its devices, and kills it as soon as kiln wants it or is gone.
fn wait(
    control: &UnixStream,
    process: &OwnedFd,
    container: Pid,
    devices: &mut Devices,
) -> io::Result<(WaitStatus, Usage)> {
    loop {
        let mut watched = vec![
            PollFd::new(process, PollFlags::IN),
            PollFd::new(control, PollFlags::IN | PollFlags::RDHUP),
        ];
        watched.extend(devices.watched());
        match poll(&mut watched, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if !watched[0].revents().is_empty() {
            break;
        }
        if !watched[1].revents().is_empty() {
            kill(process);
            break;
        }
        let revents = watched.get(2).map(PollFd::revents);
        if let Some(revents) = revents.filter(|revents| !revents.is_empty()) {
            devices.attend(revents, process, control);
        }
    }
    // The kernel lets the first process of a pid namespace be reaped after all others are gone.
    sys::wait_with_usage(container)
}

fn kill(process: &OwnedFd) {
    // It fails only for a process that is gone already.
    let _gone = pidfd_send_signal(process, Signal::KILL);
}

fn ended(status: WaitStatus, usage: Usage, devices: Vec<Device>) -> Report {
    let (code, signal) = match status {
        WaitStatus::Code(code) => (Some(code), None),
        WaitStatus::Signal(signal) => (None, Some(signal)),
    };
    Report::Ended {
        code,
        signal,
        cpu_us: usage.cpu_us,
        max_rss: usage.max_rss,
        devices,
    }
}
