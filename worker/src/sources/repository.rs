//! Shared repositories: what was fetched from one address, kept in the store.
//!
//! A bare repository for each address below `git/`, in which each object that was asked for has a
//! reference `refs/kiln/OBJECT`. One process works in it at a time, under a lock. A mark stands in
//! it meanwhile: whoever finds the mark has come after one that was killed, and starts over.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use kiln_cache::{KeyLock, Store};
use kiln_solver::{Task, blocking};

use crate::error::WorkerError;
use crate::sources::error::SourceError;
use crate::sources::run_git::{Git, Place};
use crate::sources::{key_of, wait_for_key};

const MARK: &str = "kiln-working";

/// A shared repository that this process works in.
pub(crate) struct Repository {
    pub(crate) dir: PathBuf,
    _lock: KeyLock,
}

/// Returns the format of the objects of a repository, by one of its hashes.
pub(crate) fn format_of(object: &str) -> &'static str {
    if object.len() == 64 { "sha256" } else { "sha1" }
}

impl Repository {
    /// Waits for the repository of an address, and makes it if it is missing.
    pub(crate) async fn open(
        store: &Store,
        git: &Git<'_>,
        format: &str,
        task: &Task,
    ) -> Result<Self, WorkerError> {
        // Without the password: it is nobody's key, and one that changes fetches nothing anew.
        let key = key_of("git repository", &[&git.address.shown, format]);
        let lock = wait_for_key(store, &key, &git.address.shown, task).await?;
        let dir = store.kept_dir("git")?.join(key.hex());
        let (aside, known) = (store.temp_path(), dir.clone());
        let is_there = blocking(move || is_whole(&known, &aside)).await;
        if !is_there.map_err(SourceError::keep("git"))? {
            let new = store.temp_path();
            let format = format!("--object-format={format}");
            let args = ["init", "-q", "--bare", "--template=", &format, "--"].map(Into::into);
            let args = args.into_iter().chain([new.clone().into_os_string()]);
            git.run("make a repository for", Place::New, args).await?;
            fs::rename(&new, &dir).map_err(SourceError::keep("git"))?;
        }
        fs::write(dir.join(MARK), "").map_err(SourceError::keep("git"))?;
        Ok(Self { dir, _lock: lock })
    }

    /// Says that nothing is half done.
    pub(crate) fn close(self) -> Result<(), WorkerError> {
        fs::remove_file(self.dir.join(MARK)).map_err(SourceError::keep("git"))?;
        Ok(())
    }

    /// Makes sure that an object is here, with all that it needs but older commits.
    pub(crate) async fn fetch(&self, git: &Git<'_>, object: &str) -> Result<(), WorkerError> {
        if self.has(git, object).await? {
            return Ok(());
        }
        let name = format!("{object}:refs/kiln/{object}");
        let shallow = ["--depth=1", "--force", "--", &git.address.remote, &name];
        let first = self.try_fetch(git, &shallow).await?;
        if first.is_none() && self.has(git, object).await? {
            return Ok(());
        }
        // A server of plain files knows no depth, an old one gives only what it advertises.
        let is_shallow = self.dir.join("shallow").exists();
        let depth = if is_shallow { "--unshallow" } else { "--force" };
        let all = [
            depth,
            "--force",
            "--",
            &git.address.remote,
            "+refs/heads/*:refs/kiln/heads/*",
            "+refs/tags/*:refs/kiln/tags/*",
        ];
        let second = self.try_fetch(git, &all).await?;
        if self.has(git, object).await? {
            return Ok(());
        }
        let said = first.or(second);
        Err(SourceError::Git {
            what: "fetch from",
            url: git.address.shown.clone(),
            said: said.unwrap_or_else(|| format!("it has no commit `{object}`")),
        }
        .into())
    }

    /// Fetches; returns what `git` says if it fails.
    async fn try_fetch(&self, git: &Git<'_>, args: &[&str]) -> Result<Option<String>, SourceError> {
        let fixed = [
            "fetch",
            "-q",
            "--no-tags",
            "--no-recurse-submodules",
            "--no-write-fetch-head",
        ];
        let args = fixed.iter().chain(args);
        let output = git.try_run(Place::Bare(&self.dir), args).await?;
        Ok((!output.is_success).then_some(output.said))
    }

    async fn has(&self, git: &Git<'_>, object: &str) -> Result<bool, SourceError> {
        let commit = format!("{object}^{{commit}}");
        let args = ["cat-file", "-e", &commit];
        Ok(git.try_run(Place::Bare(&self.dir), args).await?.is_success)
    }

    /// Returns the commit that an object is, or that a tag points at.
    pub(crate) async fn commit_of(
        &self,
        git: &Git<'_>,
        object: &str,
    ) -> Result<String, SourceError> {
        let commit = format!("{object}^{{commit}}");
        let args = ["rev-parse", "--verify", "--end-of-options", &commit];
        let out = git.run("read", Place::Bare(&self.dir), args).await?;
        Ok(String::from_utf8_lossy(&out).trim().to_owned())
    }

    /// Returns when a commit was made, in seconds since 1970.
    pub(crate) async fn time_of(&self, git: &Git<'_>, commit: &str) -> Result<i64, SourceError> {
        let args = ["show", "-s", "--format=%ct", commit];
        let out = git.run("read", Place::Bare(&self.dir), args).await?;
        let text = String::from_utf8_lossy(&out).trim().to_owned();
        text.parse().map_err(|_| SourceError::Git {
            what: "read",
            url: git.address.shown.clone(),
            said: format!("commit `{commit}` has no time"),
        })
    }
}

/// Returns true if there is a repository that nobody left half done; else makes room for one.
fn is_whole(dir: &Path, aside: &Path) -> io::Result<bool> {
    if !dir.join(MARK).exists() && dir.join("HEAD").exists() {
        return Ok(true);
    }
    match fs::rename(dir, aside) {
        Ok(()) => tracing::warn!(dir = %dir.display(), "left by a killed build, and fetched again"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(false)
}
