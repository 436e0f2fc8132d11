//! What a step sees besides its layers: `/proc`, `/dev`, `/sys` and the engine's own files.
//!
//! All of it is mounted over the overlay, so nothing of it is in a layer; where a layer lacks the
//! mount point, an empty stub is made and recorded. Resolution is confined to the root, so a root
//! whose `/proc` or `/etc/resolv.conf` is a link gets the mount where the link leads inside.

mod extras;

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, major, minor};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use crate::mounts::{self, INERT, NO_SUID_DEV, NO_SUID_DEV_EXEC, Setting};
use crate::place::{Missing, find_or_make, find_plain};
use crate::plan::{Context as _, Failure, Plan, Stub};
use crate::step::Security;

/// Character devices shared with the host, with their numbers.
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];
const DEV_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];
const MASKED_PROC: [&str; 9] = [
    "acpi",
    "asound",
    "kcore",
    "keys",
    "latency_stats",
    "timer_list",
    "timer_stats",
    "sched_debug",
    "scsi",
];
const READ_ONLY_PROC: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];
const MASKED_SYS: [&str; 2] = ["firmware", "devices/virtual/powercap"];

/// Builds the surroundings of a step in its root.
#[derive(Debug)]
pub(crate) struct Surroundings<'a> {
    plan: &'a Plan,
    root: &'a OwnedFd,
    /// The mounts in which the layers are.
    bases: &'a [OwnedFd],
    /// Holds the engine's files and an empty folder; parked, so that parts can be bound.
    own: OwnedFd,
    /// The host's `/dev/null`, known to be that device.
    null: OwnedFd,
    stubs: &'a mut Vec<Stub>,
    n_parked: usize,
}

impl<'a> Surroundings<'a> {
    /// Mounts everything; `stubs` receives the mount points that were missing. Returns how many
    /// mounts it leaves parked.
    pub(crate) fn mount(
        plan: &'a Plan,
        root: &'a OwnedFd,
        bases: &'a [OwnedFd],
        stubs: &'a mut Vec<Stub>,
    ) -> Result<usize, Failure> {
        let null = device("null", 1, 3)
            .and_then(|found| found.ok_or_else(|| io::ErrorKind::NotFound.into()))
            .during("find the device `/dev/null`")?;
        let own = own_files(plan).during("write the engine's files")?;
        let mut this = Self {
            plan,
            root,
            bases,
            own,
            null,
            stubs,
            n_parked: 1,
        };
        this.proc()?;
        this.sys()?;
        this.dev()?;
        this.show("hosts", "etc/hosts", NO_SUID_DEV_EXEC)?;
        this.show("resolv.conf", "etc/resolv.conf", NO_SUID_DEV_EXEC)?;
        this.extras()?;
        this.files()?;
        Ok(this.n_parked)
    }

    fn target(&mut self, path: &str, missing: Missing) -> Result<OwnedFd, Failure> {
        find_or_make(self.root, path, missing, self.stubs)
            .during(&format!("find or make `{path}` in the root"))
    }

    /// Finds the folder of the root that a file system of the kernel's goes over: never the root
    /// itself, which would vanish.
    fn folder(&mut self, path: &str) -> Result<OwnedFd, Failure> {
        let target = self.target(path, Missing::Folder)?;
        let stats = rustix::fs::fstat(&target).and_then(|a| Ok((a, rustix::fs::fstat(self.root)?)));
        let (stat, root) = stats.during(&format!("look at `{path}` in the root"))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            let what = format!("mount `{path}`, which is no folder in the image");
            return Err(Errno::NOTDIR).during(&what);
        }
        if (stat.st_dev, stat.st_ino) == (root.st_dev, root.st_ino) {
            let what = format!("mount `{path}`, which leads to the root of the image");
            return Err(Errno::BUSY).during(&what);
        }
        Ok(target)
    }

    fn proc(&mut self) -> Result<(), Failure> {
        let proc = mounts::filesystem("proc", &[], NO_SUID_DEV_EXEC).during("mount `/proc`")?;
        let target = self.folder("/proc")?;
        mounts::attach(&proc, target).during("attach `/proc`")?;
        if self.plan.security == Security::Insecure {
            // What the step could take away anyway, and what keeps it from mounting its own.
            return Ok(());
        }
        for path in READ_ONLY_PROC {
            self.make_inert(&proc, path)
                .during(&format!("make `/proc/{path}` read-only"))?;
        }
        for path in MASKED_PROC {
            self.mask(&proc, path)
                .during(&format!("mask `/proc/{path}`"))?;
        }
        Ok(())
    }

    fn make_inert(&self, mount: &OwnedFd, path: &str) -> io::Result<()> {
        let Some(target) = find_existing(mount, path)? else {
            return Ok(());
        };
        let bind = mounts::bind_recursive(&target, c"")?;
        mounts::restrict_recursive(&bind, INERT)?;
        mounts::attach(bind, target)
    }

    /// Covers a file with `/dev/null` and a folder with an empty one.
    fn mask(&self, mount: &OwnedFd, path: &str) -> io::Result<()> {
        let Some(target) = find_existing(mount, path)? else {
            return Ok(());
        };
        let stat = rustix::fs::fstat(&target)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return self.cover(&target);
        }
        mounts::attach(mounts::bind(&self.null, c"")?, target)
    }

    fn cover(&self, target: &OwnedFd) -> io::Result<()> {
        let empty = mounts::bind(&self.own, c"empty")?;
        mounts::restrict(&empty, INERT)?;
        mounts::attach(empty, target)
    }

    /// A view of one's own where the network is one's own, else the host's; none if the kernel
    /// gives neither.
    fn sys(&mut self) -> Result<(), Failure> {
        let target = self.folder("/sys")?;
        let Ok(sys) = mounts::filesystem("sysfs", &[], INERT).or_else(|_| host_sys()) else {
            return Ok(());
        };
        mounts::attach(&sys, target).during("attach `/sys`")?;
        for path in MASKED_SYS {
            self.mask(&sys, path)
                .during(&format!("mask `/sys/{path}`"))?;
        }
        self.cgroup(&sys).during("mount `/sys/fs/cgroup`")
    }

    fn cgroup(&self, sys: &OwnedFd) -> io::Result<()> {
        let Some(target) = find_existing(sys, "fs/cgroup")? else {
            return Ok(());
        };
        match mounts::filesystem("cgroup2", &[], INERT) {
            Ok(cgroup) => mounts::attach(cgroup, target),
            Err(_) => self.cover(&target),
        }
    }

    fn dev(&mut self) -> Result<(), Failure> {
        let settings = [
            Setting::Value("mode", "755"),
            Setting::Value("size", "65536k"),
        ];
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID;
        let dev = mounts::filesystem("tmpfs", &settings, attributes).during("mount `/dev`")?;
        let target = self.folder("/dev")?;
        mounts::attach(&dev, target).during("attach `/dev`")?;
        for (name, major, minor) in DEVICES {
            bind_device(&dev, name, major, minor)
                .during(&format!("show the device `/dev/{name}`"))?;
        }
        for (name, to) in DEV_LINKS {
            rustix::fs::symlinkat(to, &dev, name).during(&format!("link `/dev/{name}`"))?;
        }
        terminals(&dev).during("mount `/dev/pts`")?;
        shared_memory(&dev, self.plan.shm_size).during("mount `/dev/shm`")?;
        message_queues(&dev).during("mount `/dev/mqueue`")
    }

    fn files(&mut self) -> Result<(), Failure> {
        for (i, file) in self.plan.files.iter().enumerate() {
            self.show(&i.to_string(), &file.path, NO_SUID_DEV)?;
        }
        Ok(())
    }

    /// Shows one of the engine's files read-only at a path of the root.
    fn show(&mut self, own: &str, path: &str, attributes: MountAttrFlags) -> Result<(), Failure> {
        let target = self.target(path, Missing::File)?;
        mounts::bind(&self.own, own)
            .and_then(|bind| {
                mounts::restrict(&bind, attributes | MountAttrFlags::MOUNT_ATTR_RDONLY)?;
                mounts::attach(bind, target)
            })
            .during(&format!("show `{path}`"))
    }
}

/// Writes the files that the step is shown to a private file system.
fn own_files(plan: &Plan) -> io::Result<OwnedFd> {
    let own = mounts::filesystem("tmpfs", &[Setting::Value("mode", "755")], NO_SUID_DEV)?;
    rustix::fs::mkdirat(&own, "empty", Mode::from(0o755))?;
    write_file(&own, "hosts", 0o644, plan.hosts.as_bytes())?;
    write_file(&own, "resolv.conf", 0o644, plan.resolv_conf.as_bytes())?;
    for (i, file) in plan.files.iter().enumerate() {
        write_file(&own, &i.to_string(), file.mode, &file.content)?;
    }
    mounts::park(&own)?;
    Ok(own)
}

fn write_file(dir: &OwnedFd, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(dir, name, flags, Mode::from(0o600))?);
    file.write_all(content)?;
    Ok(rustix::fs::fchmod(file, Mode::from(mode & 0o7777))?)
}

/// Opens what a path means in a mount of the kernel's; `None` if this kernel has no such thing.
fn find_existing(mount: &OwnedFd, path: &str) -> io::Result<Option<OwnedFd>> {
    match find_plain(mount, Path::new(path), OFlags::PATH | OFlags::NOFOLLOW) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn host_sys() -> io::Result<OwnedFd> {
    let sys = mounts::bind_recursive(CWD, c"/sys")?;
    mounts::restrict_recursive(&sys, INERT)?;
    Ok(sys)
}

/// Opens a device of the host if it is there and has the numbers it should have.
fn device(name: &str, want_major: u32, want_minor: u32) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(found) = rustix::fs::openat(CWD, format!("/dev/{name}"), flags, Mode::empty()) else {
        return Ok(None);
    };
    let stat = rustix::fs::statat(&found, c"", AtFlags::EMPTY_PATH)?;
    let is_right = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && (major(stat.st_rdev), minor(stat.st_rdev)) == (want_major, want_minor);
    Ok(is_right.then_some(found))
}

fn bind_device(dev: &OwnedFd, name: &str, major: u32, minor: u32) -> io::Result<()> {
    let Some(device) = device(name, major, minor)? else {
        return Ok(());
    };
    write_file(dev, name, 0o666, b"")?;
    let target = find_plain(dev, Path::new(name), OFlags::PATH)?;
    mounts::attach(mounts::bind(device, c"")?, target)
}

fn folder(dev: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    rustix::fs::mkdirat(dev, name, Mode::from(0o755))?;
    find_plain(dev, Path::new(name), OFlags::PATH)
}

/// The group `tty` owns terminals where it is mapped; with a single id it is not.
fn terminals(dev: &OwnedFd) -> io::Result<()> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NOEXEC);
    let settings = [
        Setting::Flag("newinstance"),
        Setting::Value("ptmxmode", "0666"),
        Setting::Value("mode", "0620"),
        Setting::Value("gid", "5"),
    ];
    let pts = mounts::filesystem("devpts", &settings, attributes)
        .or_else(|_| mounts::filesystem("devpts", &settings[..3], attributes))?;
    mounts::attach(pts, folder(dev, "pts")?)
}

fn shared_memory(dev: &OwnedFd, size: u64) -> io::Result<()> {
    let size = size.to_string();
    let settings = [
        Setting::Value("mode", "1777"),
        Setting::Value("size", &size),
    ];
    let shm = mounts::filesystem("tmpfs", &settings, NO_SUID_DEV_EXEC)?;
    mounts::attach(shm, folder(dev, "shm")?)
}

/// Left out on kernels built without them.
fn message_queues(dev: &OwnedFd) -> io::Result<()> {
    match mounts::filesystem("mqueue", &[], NO_SUID_DEV_EXEC) {
        Ok(queues) => mounts::attach(queues, folder(dev, "mqueue")?),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Lets the step's user open its output again by name (`/dev/stderr`); a pipe belongs to who
/// made it.
pub(crate) fn own_output(uid: Uid, gid: Gid) -> io::Result<()> {
    for stream in [io::stdout().as_fd(), io::stderr().as_fd()] {
        rustix::fs::fchown(stream, Some(uid), Some(gid))?;
    }
    Ok(())
}
