//! Gives up privileges: system calls, capabilities, groups, ids; in the order that each step
//! still has what the next one needs.

use std::io;

use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{
    CapabilitySet, CapabilitySets, Gid, Uid, capability_is_in_bounding_set,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use crate::plan::{Context as _, Failure, FailureKind};
use crate::root::own_output;
use crate::seccomp;
use crate::step::Security;
use crate::sys;
use crate::user::Identity;

/// What container engines leave to a process by default.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// Number of bits in a capability set.
const N_CAPABILITIES: u32 = 64;

/// Becomes root of the user namespace that this process was created in.
pub(crate) fn become_root(has_groups: bool) -> Result<(), Failure> {
    if has_groups {
        set_thread_groups(&[]).during("drop the groups of the caller")?;
    }
    set_ids(0, 0).during("become root of the step's user namespace")?;
    // A change of ids clears it.
    die_with_parent()
}

/// Arranges to be killed when stage 1 dies.
pub(crate) fn die_with_parent() -> Result<(), Failure> {
    set_parent_process_death_signal(Some(Signal::KILL)).during("tie the step to its init")
}

/// Becomes the step's user with the privileges of a container, or with all that its user
/// namespace has.
pub(crate) fn assume(
    identity: &Identity,
    has_groups: bool,
    security: Security,
) -> Result<(), Failure> {
    clear_ambient_capability_set().during("clear ambient capabilities")?;
    own_output(uid(identity.uid), gid(identity.gid)).map_err(|error| not_mapped(&error))?;
    if security == Security::Sandbox {
        give_up()?;
    }
    if has_groups {
        let groups: Vec<Gid> = identity.groups.iter().copied().map(gid).collect();
        set_thread_groups(&groups).map_err(|error| not_mapped(&error.into()))?;
    }
    // The kernel drops permitted and effective capabilities when the last of the ids leaves 0.
    set_ids(identity.uid, identity.gid).map_err(|error| not_mapped(&error))?;
    die_with_parent()
}

/// Keeps what is usual in a container.
fn give_up() -> Result<(), Failure> {
    // Without `no_new_privs`, which would break set-user-ID programs, a filter needs
    // CAP_SYS_ADMIN, so it comes first; it allows everything that follows.
    sys::install_filter(&seccomp::filter()).during("install the system call filter")?;
    limit_bounding_set().during("limit capabilities")?;
    let sets = CapabilitySets {
        effective: KEPT,
        permitted: KEPT,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).during("drop capabilities")
}

fn limit_bounding_set() -> io::Result<()> {
    for bit in 0..N_CAPABILITIES {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if KEPT.contains(capability) {
            continue;
        }
        match capability_is_in_bounding_set(capability) {
            Ok(true) => remove_capability_from_bounding_set(capability)?,
            Ok(false) => {}
            // Beyond the last one that this kernel knows.
            Err(_) => break,
        }
    }
    Ok(())
}

fn set_ids(to_uid: u32, to_gid: u32) -> io::Result<()> {
    let (to_uid, to_gid) = (uid(to_uid), gid(to_gid));
    set_thread_res_gid(to_gid, to_gid, to_gid)?;
    Ok(set_thread_res_uid(to_uid, to_uid, to_uid)?)
}

/// Ids that do not exist in this user namespace.
fn not_mapped(error: &io::Error) -> Failure {
    Failure {
        kind: FailureKind::User,
        what: "its ids are not available here; give the user who builds more subordinate ids \
               in `/etc/subuid` and `/etc/subgid`"
            .to_owned(),
        errno: error.raw_os_error().unwrap_or(libc::EINVAL),
    }
}

fn uid(raw: u32) -> Uid {
    Uid::from_raw(raw)
}

fn gid(raw: u32) -> Gid {
    Gid::from_raw(raw)
}
