//! Checking a commit out: a folder of its own, then a layer.
//!
//! The folder has a `.git` that borrows the objects of the shared repository. Where `.git` is
//! kept, it gets objects of its own, of this commit only, and the address without a password;
//! else it goes, and those of submodules go with it. Links in the commit are never followed.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_cache::{Kind, Mtime, Staging, Store, Tree, open_dir, scan_upper};
use kiln_graph::{Digest, GitSource, GitTimes};
use kiln_solver::blocking;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, ResolveFlags, Timespec, Timestamps};

use crate::error::WorkerError;
use crate::sources::error::SourceError;
use crate::sources::repository::{Repository, format_of};
use crate::sources::run_git::{Git, Place};

/// A link where none may be.
const ELOOP: i32 = 40;

/// A commit to check out.
pub(crate) struct Checkout<'a> {
    pub(crate) store: &'a Store,
    pub(crate) git: &'a Git<'a>,
    pub(crate) repository: &'a Repository,
    pub(crate) source: &'a GitSource,
    /// The full reference that led here.
    pub(crate) name: Option<&'a str>,
    /// The commit, or the tag that points at it.
    pub(crate) object: &'a str,
    pub(crate) commit: &'a str,
}

/// A folder that goes when it is no longer needed.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.0.display(), %error, "a checkout stays until the next build");
            }
            _ => {}
        }
    }
}

impl Checkout<'_> {
    /// Checks out, and returns the layer.
    pub(crate) async fn layer(&self) -> Result<Digest, WorkerError> {
        let work = Temporary(self.store.temp_path());
        let dir = work.0.as_path();
        self.check_out(dir).await?;
        if self.source.submodules && dir.join(".gitmodules").exists() {
            self.submodules(dir).await?;
        }
        let keeps_git = self.source.keep_git_dir && self.source.subdir.is_none();
        if keeps_git {
            self.make_independent(dir).await?;
        }
        let time = match self.source.times {
            GitTimes::Checkout => None,
            GitTimes::Commit => Some(self.repository.time_of(self.git, self.commit).await?),
        };
        let staging = self.store.stage_layer()?;
        let (subdir, url) = (self.source.subdir.clone(), self.git.address.shown.clone());
        blocking(move || {
            if !keeps_git {
                remove_git(&work.0).map_err(SourceError::keep(".git"))?;
            }
            let from = match &subdir {
                None => open_dir(&work.0).map_err(SourceError::keep("checkout"))?,
                Some(subdir) => open_subdir(&work.0, subdir, &url)?,
            };
            take_files(&from, &staging).map_err(SourceError::keep("checkout"))?;
            commit(staging, time)
        })
        .await
    }

    async fn check_out(&self, dir: &Path) -> Result<(), WorkerError> {
        let keep = || SourceError::keep("checkout");
        let format = format!("--object-format={}", format_of(self.object));
        let init = ["init", "-q", "--template=", &format, "--"].map(Into::into);
        let init = init.into_iter().chain([dir.as_os_str().to_owned()]);
        self.git.run("check out", Place::New, init).await?;
        let info = dir.join(".git/objects/info");
        fs::create_dir_all(&info).map_err(keep())?;
        let mut objects = self.repository.dir.join("objects").into_os_string();
        objects.push("\n");
        fs::write(info.join("alternates"), objects.as_encoded_bytes()).map_err(keep())?;
        let shallow = format!("{}\n", self.commit);
        fs::write(dir.join(".git/shallow"), shallow).map_err(keep())?;
        let args = ["checkout", "-q", "--force", "--detach", self.commit];
        self.git.run("check out", Place::Tree(dir), args).await?;
        Ok(())
    }

    async fn submodules(&self, dir: &Path) -> Result<(), WorkerError> {
        let place = Place::Tree(dir);
        // Relative addresses are relative to this one.
        let remote = match self.source.keep_git_dir {
            // What is noted of submodules stays, so it must hold no password.
            true => &self.git.address.shown,
            false => &self.git.address.remote,
        };
        let url = ["config", "remote.origin.url", remote];
        self.git.run("check out", place, url).await?;
        let update = [
            "submodule",
            "-q",
            "update",
            "--init",
            "--recursive",
            "--force",
            "--checkout",
        ];
        let shallow = self
            .git
            .try_run(place, update.iter().chain(&["--depth=1"]))
            .await?;
        if !shallow.is_success {
            // Not every server gives any commit alone.
            self.git.run("fetch submodules of", place, update).await?;
        }
        Ok(())
    }

    /// Gives `.git` its own objects, the reference, and an origin.
    async fn make_independent(&self, dir: &Path) -> Result<(), WorkerError> {
        let place = Place::Tree(dir);
        let keep = || SourceError::keep(".git");
        if let Some(name) = self.name {
            let args = ["update-ref", name, self.object];
            self.git.run("check out", place, args).await?;
        }
        let repack = ["repack", "-q", "-a", "-d"];
        self.git.run("check out", place, repack).await?;
        fs::remove_file(dir.join(".git/objects/info/alternates")).map_err(keep())?;
        for (name, value) in [
            ("remote.origin.url", self.git.address.shown.as_str()),
            ("remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"),
        ] {
            self.git
                .run("check out", place, ["config", name, value])
                .await?;
        }
        Ok(())
    }
}

/// Removes each `.git` below a folder. No file of a commit can have that name.
fn remove_git(dir: &Path) -> io::Result<()> {
    let mut pending = vec![dir.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir)? {
            let (path, kind) = {
                let entry = entry?;
                (entry.path(), entry.file_type()?)
            };
            let is_git = path.file_name().is_some_and(|name| name == ".git");
            match (is_git, kind.is_dir()) {
                (true, true) => fs::remove_dir_all(&path)?,
                (true, false) => fs::remove_file(&path)?,
                (false, true) => pending.push(path),
                (false, false) => {}
            }
        }
    }
    Ok(())
}

/// Opens a folder of the commit; as BuildKit has it, no link may lead there.
fn open_subdir(dir: &Path, subdir: &str, url: &str) -> Result<OwnedFd, SourceError> {
    let open = || -> io::Result<OwnedFd> {
        let root = open_dir(dir)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        Ok(rustix::fs::openat2(
            root,
            subdir,
            flags,
            Mode::empty(),
            resolve,
        )?)
    };
    open().map_err(|error| SourceError::Subdir {
        url: url.to_owned(),
        subdir: subdir.to_owned(),
        why: match error.kind() {
            io::ErrorKind::NotFound => "it is not there".to_owned(),
            io::ErrorKind::NotADirectory => "it is not a folder".to_owned(),
            _ if error.raw_os_error() == Some(ELOOP) => "a link stands on the way".to_owned(),
            _ => error.to_string(),
        },
    })
}

/// Moves all that is in a folder into the layer.
fn take_files(from: &OwnedFd, staging: &Staging) -> io::Result<()> {
    let to = open_dir(&staging.fs_dir())?;
    let mut names = Vec::new();
    for entry in Dir::read_from(from)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    for name in names {
        rustix::fs::renameat(from.as_fd(), &name, to.as_fd(), &name)?;
    }
    Ok(())
}

/// Makes the layer visible, with one time for all files if there is one.
fn commit(staging: Staging, time: Option<i64>) -> Result<Digest, WorkerError> {
    let dir = staging.fs_dir();
    let mut list = scan_upper(&dir, &Tree::default())?;
    if let Some(seconds) = time {
        let mut entries = list.entries().to_vec();
        for entry in &mut entries {
            entry.mtime = Mtime {
                seconds,
                nanoseconds: 0,
            };
        }
        // Writing a time below a folder leaves the folder's own as it is.
        for entry in entries
            .iter()
            .filter(|e| !matches!(e.kind, Kind::Hardlink { .. }))
        {
            set_time(&dir, &entry.path, seconds).map_err(SourceError::keep("checkout"))?;
        }
        list = kiln_cache::FileList::new(entries);
    }
    let list = Arc::new(list);
    let id = list.content_id();
    staging.commit(&id, &list)?;
    Ok(id)
}

fn set_time(dir: &Path, path: &[u8], seconds: i64) -> io::Result<()> {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    let (parent, name) = kiln_cache::split_path(path);
    let root = open_dir(dir)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let parent = if parent.is_empty() { b"." } else { parent };
    let name = if name.is_empty() { b"." } else { name };
    let parent = rustix::fs::openat2(root, parent, flags, Mode::empty(), resolve)?;
    Ok(rustix::fs::utimensat(
        parent,
        name,
        &times,
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_do_not_lead_out_of_a_commit() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("etc/deep")).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        for (name, target) in [("abs", "/etc"), ("up", "../../../etc"), ("gone", "nowhere")] {
            std::os::unix::fs::symlink(target, dir.path().join(name)).unwrap();
        }
        let names = |subdir: &str| {
            let found =
                open_subdir(dir.path(), subdir, "url").map_err(|error| error.to_string())?;
            let entries = Dir::read_from(&found).unwrap();
            let names =
                entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned());
            let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
            names.sort();
            Ok::<_, String>(names.join(" "))
        };
        assert_eq!(names("etc").as_deref(), Ok("deep"));
        for (subdir, why) in [
            ("abs", "a link"),
            ("up/deep", "a link"),
            ("gone", "a link"),
            ("file", "not a folder"),
            ("x", "not there"),
        ] {
            assert!(names(subdir).unwrap_err().contains(why), "{subdir}");
        }
    }

    #[test]
    fn every_git_folder_goes() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(".git/objects")).unwrap();
        fs::create_dir_all(dir.path().join("sub/.github")).unwrap();
        fs::write(dir.path().join("sub/.git"), "gitdir: x").unwrap();
        fs::write(dir.path().join("sub/.gitignore"), "").unwrap();
        remove_git(dir.path()).unwrap();
        assert!(!dir.path().join(".git").exists() && !dir.path().join("sub/.git").exists());
        assert!(
            dir.path().join("sub/.github").exists() && dir.path().join("sub/.gitignore").exists()
        );
    }
}
