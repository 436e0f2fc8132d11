//! The new mount API in the few forms that a container needs.
//!
//! A mount is made detached, as a descriptor, and then attached to a folder or file that is also
//! given as a descriptor; no path is looked up twice, and none outside of the caller's control.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};
use rustix::path::Arg;

use crate::sys::{self, MountAttributes};

/// No set-user-ID programs and no devices.
pub(crate) const NO_SUID_DEV: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);
/// [`NO_SUID_DEV`] and no programs.
pub(crate) const NO_SUID_DEV_EXEC: MountAttrFlags =
    NO_SUID_DEV.union(MountAttrFlags::MOUNT_ATTR_NOEXEC);
/// [`NO_SUID_DEV_EXEC`], read-only.
pub(crate) const INERT: MountAttrFlags = NO_SUID_DEV_EXEC.union(MountAttrFlags::MOUNT_ATTR_RDONLY);

/// A mount option: a flag, or a key with a value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Setting<'a> {
    Flag(&'a str),
    Value(&'a str, &'a str),
}

/// Makes a detached mount of a new file system.
pub(crate) fn filesystem(
    kind: &str,
    settings: &[Setting<'_>],
    attributes: MountAttrFlags,
) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for setting in settings {
        match *setting {
            Setting::Flag(key) => fsconfig_set_flag(&context, key)?,
            Setting::Value(key, value) => fsconfig_set_string(&context, key, value)?,
        }
    }
    finish(&context, attributes)
}

/// Makes a detached mount of a configured file system.
pub(crate) fn finish(context: impl AsFd, attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    fsconfig_create(context.as_fd())?;
    Ok(fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?)
}

/// Makes a detached bind mount of a file or folder; an empty path stands for `dir` itself.
pub(crate) fn bind(dir: impl AsFd, path: impl Arg) -> io::Result<OwnedFd> {
    clone_tree(dir, path, OpenTreeFlags::empty())
}

/// Makes a detached bind mount of a folder with everything mounted below.
pub(crate) fn bind_recursive(dir: impl AsFd, path: impl Arg) -> io::Result<OwnedFd> {
    clone_tree(dir, path, OpenTreeFlags::AT_RECURSIVE)
}

fn clone_tree(dir: impl AsFd, path: impl Arg, more: OpenTreeFlags) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | more;
    Ok(open_tree(dir.as_fd(), path, flags)?)
}

/// Attaches a detached mount over the file or folder that `target` refers to.
pub(crate) fn attach(mount: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount.as_fd(), c"", target.as_fd(), c"", flags)?)
}

/// Attaches a detached mount on top of this process's old root, where no path leads to it: it
/// becomes part of the mount namespace, and goes away with the old root.
pub(crate) fn park(mount: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(mount.as_fd(), c"", CWD, c"/", flags)?)
}

/// Sets attributes of one mount.
pub(crate) fn restrict(mount: impl AsFd, set: MountAttrFlags) -> io::Result<()> {
    set_attributes(mount, set, false)
}

/// Sets attributes of a mount and of all below.
pub(crate) fn restrict_recursive(mount: impl AsFd, set: MountAttrFlags) -> io::Result<()> {
    set_attributes(mount, set, true)
}

fn set_attributes(mount: impl AsFd, set: MountAttrFlags, recursive: bool) -> io::Result<()> {
    let attributes = MountAttributes {
        set,
        idmap: None,
        recursive,
    };
    sys::mount_setattr(mount, attributes)
}
