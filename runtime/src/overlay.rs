//! The overlay of a step: layers below, what the step changes on top.
//!
//! Runs as root of the step's user namespace, whose credentials the overlay keeps for its own
//! work on the layers. Marks of deletion go to `user.overlay.*` attributes (`userxattr`), because
//! `trusted.*` is closed to user namespaces; with it the kernel also refuses `metacopy` and
//! redirected folders, so every upper folder can be read without knowing the ones below.
//! `volatile` leaves out syncing to disk: what a step writes is worth keeping only as a whole,
//! after it ended.

use std::ffi::CString;
use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, OFlags};
use rustix::mount::{
    FsOpenFlags, MountAttrFlags, MountFlags, UnmountFlags, fsconfig_set_fd, fsconfig_set_flag,
    fsconfig_set_string, fsopen, mount, unmount,
};

use crate::mounts;
use crate::place::find_plain;
use crate::plan::{Context as _, Failure, Layers, OverlayInterface, Place, Stack};

/// Folder below the scratch folder that is the lowest layer of every root and, while nobody else
/// can see it, the place where the overlay is attached.
pub(crate) const SKELETON: &str = "skeleton";

/// Empty folder below the scratch folder that is the lowest layer of every other overlay.
pub(crate) const EMPTY: &str = "empty";

const FLAGS: [&str; 2] = ["userxattr", "volatile"];
const VALUES: [(&str, &str); 2] = [("index", "off"), ("xino", "off")];

#[derive(Debug)]
struct Folders {
    lowers: Vec<OwnedFd>,
    upper: OwnedFd,
    work: OwnedFd,
}

/// Mounts the overlay of a step's root and returns that root.
pub(crate) fn mount_root(
    layers: &Layers,
    bases: &[OwnedFd],
    interface: OverlayInterface,
) -> Result<OwnedFd, Failure> {
    let folders = Folders::open(&layers.root, bases)?;
    let scratch = open(&layers.scratch, bases)?;
    if interface == OverlayInterface::MountString {
        return mount_by_string(&folders, &scratch).during("mount the overlay by mount(2)");
    }
    let root = detached(&folders, interface).during("mount the overlay")?;
    find_plain(&scratch, Path::new(SKELETON), OFlags::PATH)
        .and_then(|target| mounts::attach(&root, target))
        .during("attach the overlay")?;
    Ok(root)
}

/// Makes a detached mount of another overlay, once the root's is mounted.
pub(crate) fn mount_other(
    stack: &Stack,
    layers: &Layers,
    bases: &[OwnedFd],
    interface: OverlayInterface,
) -> Result<OwnedFd, Failure> {
    let folders = Folders::open(stack, bases)?;
    if interface != OverlayInterface::MountString {
        return detached(&folders, interface).during("mount an overlay");
    }
    let scratch = open(&layers.scratch, bases)?;
    // For a moment it lies on the root, where a copy of the mount is made.
    mount_by_string(&folders, &scratch)
        .and_then(|attached| mounts::bind(attached, c""))
        .and_then(|copy| {
            let place = format!("{}/{SKELETON}", descriptor_path(&scratch));
            unmount(place, UnmountFlags::DETACH)?;
            Ok(copy)
        })
        .during("mount an overlay by mount(2)")
}

impl Folders {
    fn open(stack: &Stack, bases: &[OwnedFd]) -> Result<Self, Failure> {
        let lowers = stack.lowers.iter().map(|place| open(place, bases));
        Ok(Self {
            lowers: lowers.collect::<Result<_, _>>()?,
            upper: open(&stack.upper, bases)?,
            work: open(&stack.work, bases)?,
        })
    }
}

/// Opens a folder where the mount of its base shows it.
pub(crate) fn open(place: &Place, bases: &[OwnedFd]) -> Result<OwnedFd, Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    find_plain(&bases[place.base], &place.path, flags)
        .during(&format!("open layer `{}`", place.path.display()))
}

fn detached(folders: &Folders, interface: OverlayInterface) -> io::Result<OwnedFd> {
    let context = configure(folders, interface)?;
    mounts::finish(context, MountAttrFlags::empty())
}

fn configure(folders: &Folders, interface: OverlayInterface) -> io::Result<OwnedFd> {
    let context = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "overlay")?;
    for flag in FLAGS {
        fsconfig_set_flag(&context, flag)?;
    }
    for (key, value) in VALUES {
        fsconfig_set_string(&context, key, value)?;
    }
    let set = |key: &str, folder: &OwnedFd| match interface {
        OverlayInterface::Descriptors => fsconfig_set_fd(&context, key, folder),
        _ => fsconfig_set_string(&context, key, descriptor_path(folder)),
    };
    // The first one is the topmost.
    for lower in folders.lowers.iter().rev() {
        set("lowerdir+", lower)?;
    }
    set("upperdir", &folders.upper)?;
    set("workdir", &folders.work)?;
    Ok(context)
}

fn mount_by_string(folders: &Folders, scratch: &OwnedFd) -> io::Result<OwnedFd> {
    let mut options = FLAGS.join(",");
    for (key, value) in VALUES {
        let _infallible = write!(options, ",{key}={value}");
    }
    let lowers: Vec<String> = folders.lowers.iter().rev().map(descriptor_path).collect();
    let (upper, work) = (
        descriptor_path(&folders.upper),
        descriptor_path(&folders.work),
    );
    let _infallible = write!(
        options,
        ",lowerdir={},upperdir={upper},workdir={work}",
        lowers.join(":")
    );
    let options = CString::new(options)?;
    let target = format!("{}/{SKELETON}", descriptor_path(scratch));
    mount(
        c"overlay",
        target,
        c"overlay",
        MountFlags::empty(),
        &*options,
    )?;
    // Looked up again from the folder above, the name leads into the new mount.
    find_plain(
        scratch,
        Path::new(SKELETON),
        OFlags::PATH | OFlags::DIRECTORY,
    )
}

fn descriptor_path(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Opens the bases where they are, for a user namespace that needs no mapping of layers.
pub(crate) fn open_bases(layers: &Layers) -> Result<Vec<OwnedFd>, Failure> {
    let open = |base: &std::path::PathBuf| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, base, flags, rustix::fs::Mode::empty())
            .during(&format!("open `{}`", base.display()))
    };
    layers.bases.iter().map(open).collect()
}
