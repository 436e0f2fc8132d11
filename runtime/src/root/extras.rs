//! The mounts that a step asks for: files and folders of layers and of the host, file systems in
//! memory, files that are nowhere else.
//!
//! They come after the engine's own, so they can cover these. Each source is looked up inside
//! its own root and each target inside the step's, so a link in either leads nowhere else.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Gid, Mode, OFlags, PROC_SUPER_MAGIC, Stat, Uid};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use crate::mounts::{self, NO_SUID_DEV_EXEC, Setting};
use crate::overlay;
use crate::place::{Missing, find};
use crate::plan::{Context as _, Failure, PlannedMount, PlannedSource};
use crate::root::Surroundings;

impl Surroundings<'_> {
    /// Mounts what the step asks for.
    pub(super) fn extras(&mut self) -> Result<(), Failure> {
        let plan = self.plan;
        for (number, mount) in plan.mounts.iter().enumerate() {
            let source = self.source(number, mount)?;
            self.put(mount, &source)?;
        }
        Ok(())
    }

    /// Returns what is to be mounted, detached.
    fn source(&mut self, number: usize, mount: &PlannedMount) -> Result<OwnedFd, Failure> {
        let target = &mount.target;
        match &mount.source {
            PlannedSource::Layers { stack, path } => {
                let (layers, interface) = (&self.plan.layers, self.plan.overlay);
                let overlay = overlay::mount_other(stack, layers, self.bases, interface)?;
                self.park(&overlay)
                    .during(&format!("attach the source of `{target}`"))?;
                part(&overlay, path)
            }
            PlannedSource::Folder { folder, path } => {
                part(&overlay::open(folder, self.bases)?, path)
            }
            PlannedSource::Tmpfs { size } => {
                tmpfs(*size).during(&format!("make a file system in memory for `{target}`"))
            }
            PlannedSource::File {
                mode,
                uid,
                gid,
                content,
            } => {
                let (uid, gid) = (Uid::from_raw(*uid), Gid::from_raw(*gid));
                self.write(number, &content.0, *mode, (uid, gid))
                    .during(&format!(
                        "write `{target}` for {}:{}",
                        uid.as_raw(),
                        gid.as_raw()
                    ))
            }
        }
    }

    fn park(&mut self, mount: &OwnedFd) -> io::Result<()> {
        mounts::park(mount)?;
        self.n_parked += 1;
        Ok(())
    }

    /// Writes a file that nobody sees before it has its owner and mode.
    fn write(
        &self,
        number: usize,
        content: &[u8],
        mode: u32,
        (uid, gid): (Uid, Gid),
    ) -> io::Result<OwnedFd> {
        let name = format!("mount-{number}");
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&self.own, &name, flags, Mode::from(0o600))?;
        let mut file = File::from(made);
        file.write_all(content)?;
        // In this order: a change of owner clears special bits.
        rustix::fs::fchown(&file, Some(uid), Some(gid))?;
        rustix::fs::fchmod(&file, Mode::from(mode & 0o7777))?;
        let bind = mounts::bind(&self.own, name)?;
        mounts::restrict(&bind, NO_SUID_DEV_EXEC)?;
        Ok(bind)
    }

    /// Attaches a detached mount in the root.
    fn put(&mut self, mount: &PlannedMount, source: &OwnedFd) -> Result<(), Failure> {
        let path = &mount.target;
        let what = format!("mount `{path}`");
        let shows_folder = is_folder(&rustix::fs::fstat(source).during(&what)?);
        let missing = match shows_folder {
            true => Missing::Folder,
            false => Missing::File,
        };
        let target = self.target(path, missing)?;
        self.check_target(path, &target, shows_folder)?;
        if mount.read_only {
            mounts::restrict(source, MountAttrFlags::MOUNT_ATTR_RDONLY).during(&what)?;
        }
        mounts::attach(source, target).during(&what)
    }

    /// Refuses to cover the root, which would have no effect, what the kernel tells about
    /// processes, which programs trust, and a file with a folder or a folder with a file.
    fn check_target(
        &self,
        path: &str,
        target: &OwnedFd,
        shows_folder: bool,
    ) -> Result<(), Failure> {
        let what = format!("look at `{path}` in the root");
        let stat = rustix::fs::fstat(target).during(&what)?;
        let root = rustix::fs::fstat(self.root).during(&what)?;
        if (stat.st_dev, stat.st_ino) == (root.st_dev, root.st_ino) {
            let what = format!("mount `{path}`, which leads to the root of the image");
            return Err(Errno::BUSY).during(&what);
        }
        if rustix::fs::fstatfs(target).during(&what)?.f_type == PROC_SUPER_MAGIC {
            return Err(Errno::PERM).during(&format!("mount `{path}`, which is inside `/proc`"));
        }
        match (shows_folder, is_folder(&stat)) {
            (true, false) => {
                let what = format!("mount a folder on `{path}`, which is no folder in the image");
                Err(Errno::NOTDIR).during(&what)
            }
            (false, true) => {
                let what = format!("mount a file on `{path}`, which is a folder in the image");
                Err(Errno::ISDIR).during(&what)
            }
            _ => Ok(()),
        }
    }
}

fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Returns a detached mount of what a path means inside a folder.
fn part(root: &OwnedFd, path: &str) -> Result<OwnedFd, Failure> {
    find(root, path, OFlags::empty())
        .and_then(|found| mounts::bind(found, c""))
        .during(&format!("find `{path}` in the source of a mount"))
}

fn tmpfs(size: Option<u64>) -> io::Result<OwnedFd> {
    let size = size.map(|size| size.to_string());
    let mut settings = vec![Setting::Value("mode", "1777")];
    settings.extend(size.as_deref().map(|size| Setting::Value("size", size)));
    mounts::filesystem("tmpfs", &settings, MountAttrFlags::MOUNT_ATTR_NOSUID)
}
