//! What kiln itself may do, and how an ordinary user gets it: a user namespace for the process.
//!
//! Inside, kiln is uid 0 and owns the user's subordinate ids, so folders of layers look the same
//! as they do to root. newuidmap and newgidmap must run outside of the namespace, which this
//! process is in from the moment it exists; so a helper is started before, and told to go on
//! after. No thread may exist yet.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::path::Path;
use std::process::Child;

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{getegid, geteuid};
use rustix::thread::{CapabilitySet, capabilities};

use crate::error::RunError;
use crate::reexec;
use crate::subid::{self, Extent};
use crate::sys;

/// What this process may do, after [`enter_user_namespace`].
#[derive(Debug, Clone)]
pub struct Privilege {
    /// The ids at its command.
    pub kind: PrivilegeKind,
    /// What a user should know and could improve, as sentences.
    pub warnings: Vec<String>,
}

/// The ids a process can give to files and steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrivilegeKind {
    /// All of the machine's.
    Root,
    /// Those of a user namespace with this many.
    Mapped {
        /// How many user ids there are.
        n_ids: u64,
    },
    /// Root's only: files and steps can have no other owner.
    SingleId,
}

/// Makes this process able to run steps: as it is if it is root, else by moving it into a user
/// namespace of its own.
///
/// The second line of `main`, after [`intercept`](crate::intercept): the process must have a
/// single thread.
pub fn enter_user_namespace() -> Result<Privilege, RunError> {
    let mut warnings = Vec::new();
    if is_privileged() {
        let kind = current_kind().map_err(unreadable)?;
        if kind == PrivilegeKind::SingleId {
            warnings.push(single_id_warning(
                "the container that kiln runs in has no other ids",
            ));
        }
        if kind != PrivilegeKind::Root {
            // Root of a container: mounts may belong to a namespace further out.
            sys::unshare_mounts().map_err(refused)?;
            keep_mounts_private()?;
        }
    } else {
        enter(&mut warnings)?;
    }
    let kind = current_kind().map_err(unreadable)?;
    Ok(Privilege { kind, warnings })
}

fn is_privileged() -> bool {
    let has_admin =
        capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN));
    has_admin && geteuid().is_root()
}

fn current_kind() -> io::Result<PrivilegeKind> {
    let extents = own_map("uid_map")?;
    let n_ids = subid::n_ids(&extents);
    Ok(match n_ids {
        _ if n_ids == u64::from(u32::MAX) => PrivilegeKind::Root,
        0 | 1 => PrivilegeKind::SingleId,
        _ => PrivilegeKind::Mapped { n_ids },
    })
}

/// Returns one of this process's id maps.
pub(crate) fn own_map(name: &str) -> io::Result<Vec<Extent>> {
    Ok(subid::parse_map(&fs::read_to_string(
        Path::new("/proc/self").join(name),
    )?))
}

/// Returns whether supplementary groups can be set in this user namespace.
pub(crate) fn has_groups() -> bool {
    fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "allow")
}

fn enter(warnings: &mut Vec<String>) -> Result<(), RunError> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let mapper = match start_mapper(uid, gid) {
        Ok(mapper) => Some(mapper),
        Err(reason) => {
            warnings.push(single_id_warning(&reason));
            None
        }
    };
    sys::unshare_user_and_mounts().map_err(refused)?;
    if let Some(mapper) = mapper
        && let Err(reason) = finish_mapper(mapper)
    {
        warnings.push(single_id_warning(&reason));
    }
    map_what_is_missing(uid, gid).map_err(refused)?;
    keep_mounts_private()
}

fn single_id_warning(reason: &str) -> String {
    format!(
        "files in the image can only be owned by root, and steps can only run as root: {reason}"
    )
}

/// Starts the helper, unless it is known to have nothing to work with.
fn start_mapper(uid: u32, gid: u32) -> Result<Child, String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let passwd = read("/etc/passwd");
    let name = subid::name_of(&passwd, uid);
    let user_ranges = subid::ranges(&read("/etc/subuid"), name, uid);
    let group_ranges = subid::ranges(&read("/etc/subgid"), name, uid);
    if user_ranges.is_empty() || group_ranges.is_empty() {
        let who = name.map_or_else(|| uid.to_string(), str::to_owned);
        return Err(format!(
            "user `{who}` has no subordinate ids in `/etc/subuid` and `/etc/subgid` (root can \
             add them with `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {who}`)"
        ));
    }
    let mut args = vec![std::process::id().to_string()];
    args.push(arguments(&subid::layout(uid, &user_ranges)));
    args.push(arguments(&subid::layout(gid, &group_ranges)));
    reexec::start_id_mapper(&args).map_err(|error| error.to_string())
}

fn arguments(extents: &[Extent]) -> String {
    let numbers = extents
        .iter()
        .flat_map(|extent| [extent.inside, extent.outside, extent.count]);
    numbers.map(|n| n.to_string()).collect::<Vec<_>>().join(" ")
}

fn finish_mapper(mut mapper: Child) -> Result<(), String> {
    drop(mapper.stdin.take());
    let mut message = String::new();
    if let Some(mut stderr) = mapper.stderr.take() {
        let _partial = stderr.read_to_string(&mut message);
    }
    match mapper.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(message.trim().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// The helper: waits until its parent is in the new namespace, then maps that namespace's ids.
/// Returns the exit code.
pub(crate) fn map_ids_main(args: impl Iterator<Item = OsString>) -> i32 {
    let args: Option<Vec<String>> = args.map(|arg| arg.into_string().ok()).collect();
    let Some([pid, users, groups]) = args.as_deref() else {
        return 2;
    };
    let _end = io::stdin().read_to_end(&mut Vec::new());
    let map = |program: &str, extents: &str| {
        let args: Vec<String> = [pid.as_str()]
            .into_iter()
            .chain(extents.split(' '))
            .map(str::to_owned)
            .collect();
        match reexec::run_program(program, &args) {
            Ok(is_success) => is_success,
            Err(error) => {
                let message = format!("cannot run `{program}` (package uidmap): {error}\n");
                let _reported = io::Write::write_all(&mut io::stderr(), message.as_bytes());
                false
            }
        }
    };
    i32::from(!(map("newuidmap", users) && map("newgidmap", groups)))
}

/// Maps 0 to the user's own ids where the helper did not map more.
fn map_what_is_missing(uid: u32, gid: u32) -> io::Result<()> {
    if own_map("uid_map")?.is_empty() {
        fs::write("/proc/self/uid_map", format!("0 {uid} 1\n"))?;
    }
    if own_map("gid_map")?.is_empty() {
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/gid_map", format!("0 {gid} 1\n"))?;
    }
    Ok(())
}

/// Keeps this process's mounts from the rest of the system, but not the other way round.
fn keep_mounts_private() -> Result<(), RunError> {
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change(c"/", flags).map_err(|error| refused(error.into()))
}

fn unreadable(source: io::Error) -> RunError {
    RunError::Prepare {
        path: "/proc/self/uid_map".into(),
        source,
    }
}

fn refused(source: io::Error) -> RunError {
    let advice = advice(|path| fs::read_to_string(path).ok());
    RunError::Unsupported { advice, source }
}

/// Returns what to do when user namespaces are refused, by what the kernel's settings say.
fn advice(setting: impl Fn(&str) -> Option<String>) -> String {
    let is = |path: &str, value: &str| setting(path).is_some_and(|text| text.trim() == value);
    if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        return "user namespaces are switched off for ordinary users; as root, run \
                `sysctl -w kernel.unprivileged_userns_clone=1`"
            .to_owned();
    }
    if is("/proc/sys/user/max_user_namespaces", "0") {
        return "user namespaces are switched off; as root, run \
                `sysctl -w user.max_user_namespaces=65536`"
            .to_owned();
    }
    if is(
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
    ) {
        return "AppArmor keeps user namespaces from unknown programs; as root, run \
                `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` or install a profile \
                that gives kiln `userns`"
            .to_owned();
    }
    "user namespaces are refused; in a container, run it with `--security-opt \
     seccomp=unconfined --security-opt apparmor=unconfined`, or run kiln as root with \
     CAP_SYS_ADMIN"
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice_with(path: &'static str, value: &'static str) -> String {
        advice(|asked| (asked == path).then(|| format!("{value}\n")))
    }

    #[test]
    fn advice_names_the_setting_that_is_in_the_way() {
        let found = advice_with("/proc/sys/kernel/unprivileged_userns_clone", "0");
        assert!(found.contains("kernel.unprivileged_userns_clone=1"));
        let found = advice_with(
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
        );
        assert!(found.contains("AppArmor"));
        let found = advice_with("/proc/sys/kernel/unprivileged_userns_clone", "1");
        assert!(found.contains("CAP_SYS_ADMIN"));
    }

    #[test]
    fn extents_become_arguments_of_newuidmap() {
        let extents = subid::layout(1000, &[(100_000, 65_536)]);
        assert_eq!(arguments(&extents), "0 1000 1 1 100000 65536");
    }
}
