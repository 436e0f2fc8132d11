//! Commits of Git repositories: which one is meant, and its files as a layer.
//!
//! ```text
//!   resolve    branch, tag, commit -> object      asked every time, unless it is a commit
//!   memo       object, folder, options -> layer   then nothing is fetched or checked out
//!   fetch      into the shared repository
//!   check out  into a folder of its own, which becomes the layer
//! ```

mod checkout;

use kiln_graph::{Digest, GitSource, GitTimes, is_full_commit};
use kiln_solver::Task;

use crate::error::WorkerError;
use crate::snapshot::Snapshot;
use crate::sources::error::SourceError;
use crate::sources::git::checkout::Checkout;
use crate::sources::login::Login;
use crate::sources::repository::{Repository, format_of};
use crate::sources::run_git::{Address, Git, Place};
use crate::sources::{Sources, key_of, snapshot_of, wait_for_key};

/// What a reference stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Resolved {
    /// The commit, or the tag that points at it.
    object: String,
    /// The commit, where that is known and not the object.
    commit: Option<String>,
    /// `refs/heads/main`; none for a commit.
    name: Option<String>,
}

impl Resolved {
    fn of_commit(commit: &str) -> Self {
        Self {
            object: commit.to_owned(),
            commit: None,
            name: None,
        }
    }
}

impl Sources {
    /// Returns a snapshot that holds files of a commit.
    pub async fn git(&self, source: &GitSource, task: &Task) -> Result<Snapshot, WorkerError> {
        let address = Address::new(&source.remote);
        let login = self.login(&source.remote, task).await?;
        let git = self.program(&login, &address)?;
        let resolved = resolve(&git, source, task).await?;
        let key = memo_key(source, &address, &resolved);
        if let Some(found) = self.noted_checkout(&key)? {
            task.status("unchanged");
            return Ok(found);
        }
        let _lock = wait_for_key(&self.store, &key, &address.shown, task).await?;
        if let Some(found) = self.noted_checkout(&key)? {
            return Ok(found);
        }
        let (repository, commit) = self.fetched(&git, source, &resolved, task).await?;
        let checkout = Checkout {
            store: &self.store,
            git: &git,
            repository: &repository,
            source,
            name: resolved.name.as_deref(),
            object: &resolved.object,
            commit: &commit,
        };
        task.status("checking out");
        let layer = checkout.layer().await?;
        repository.close()?;
        let note = serde_json::to_vec(&layer).expect("a digest is plain data");
        self.store.set_memo(&key, &note)?;
        Ok(snapshot_of(layer))
    }

    /// Returns when a commit was made, in seconds since 1970.
    pub async fn git_time(&self, source: &GitSource, task: &Task) -> Result<i64, WorkerError> {
        let address = Address::new(&source.remote);
        let login = self.login(&source.remote, task).await?;
        let git = self.program(&login, &address)?;
        let resolved = resolve(&git, source, task).await?;
        let (repository, commit) = self.fetched(&git, source, &resolved, task).await?;
        let time = repository.time_of(&git, &commit).await?;
        repository.close()?;
        Ok(time)
    }

    fn program<'a>(
        &'a self,
        login: &'a Login,
        address: &'a Address,
    ) -> Result<Git<'a>, WorkerError> {
        Ok(Git {
            settings: &self.git,
            login,
            address,
            known_hosts: self.store.kept_dir("git")?.join("known_hosts"),
        })
    }

    /// Returns the repository, which has the commit now, and that commit.
    async fn fetched(
        &self,
        git: &Git<'_>,
        source: &GitSource,
        resolved: &Resolved,
        task: &Task,
    ) -> Result<(Repository, String), WorkerError> {
        task.status("fetching");
        let format = format_of(&resolved.object);
        let repository = Repository::open(&self.store, git, format, task).await?;
        repository.fetch(git, &resolved.object).await?;
        let commit = repository.commit_of(git, &resolved.object).await?;
        check(source, git.address, &[&resolved.object, &commit])?;
        Ok((repository, commit))
    }

    fn noted_checkout(&self, key: &Digest) -> Result<Option<Snapshot>, WorkerError> {
        let memo = self.store.memo(key)?;
        self.noted_layer(memo.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }
}

/// Where `.git` is kept, the layer depends on what the reference is called there, too.
fn memo_key(source: &GitSource, address: &Address, resolved: &Resolved) -> Digest {
    let keeps_git = source.keep_git_dir && source.subdir.is_none();
    let object = match &resolved.commit {
        Some(commit) if !keeps_git => commit,
        _ => &resolved.object,
    };
    let name = resolved.name.as_deref().filter(|_| keeps_git);
    let options = format!(
        "git-dir={keeps_git} submodules={} times={}",
        source.submodules,
        source.times == GitTimes::Commit
    );
    let subdir = source.subdir.as_deref().unwrap_or_default();
    let name = name.unwrap_or_default();
    key_of("commit", &[&address.shown, object, name, subdir, &options])
}

/// Finds out what a reference stands for; asks the server unless it is a commit.
async fn resolve(git: &Git<'_>, source: &GitSource, task: &Task) -> Result<Resolved, WorkerError> {
    if let (true, Some(commit)) = (source.fetch_by_commit, &source.checksum) {
        return Ok(Resolved::of_commit(&commit.to_ascii_lowercase()));
    }
    let wanted = source.reference.as_deref().filter(|name| *name != "HEAD");
    if let Some(commit) = wanted.filter(|name| is_full_commit(name)) {
        check(source, git.address, &[commit])?;
        return Ok(Resolved::of_commit(commit));
    }
    task.status("asking what is there");
    let resolved = match wanted {
        Some(name) => named(git, name).await?,
        None => default_branch(git).await?,
    };
    let objects: Vec<&str> = [Some(resolved.object.as_str()), resolved.commit.as_deref()]
        .into_iter()
        .flatten()
        .collect();
    check(source, git.address, &objects)?;
    Ok(resolved)
}

/// The checksum must be the beginning of one of these.
fn check(source: &GitSource, address: &Address, objects: &[&str]) -> Result<(), SourceError> {
    let Some(checksum) = &source.checksum else {
        return Ok(());
    };
    let wanted = checksum.to_ascii_lowercase();
    if objects.iter().any(|object| object.starts_with(&wanted)) {
        return Ok(());
    }
    Err(SourceError::Commit {
        url: address.shown.clone(),
        expected: checksum.clone(),
        actual: objects.join("` or `"),
    })
}

async fn named(git: &Git<'_>, name: &str) -> Result<Resolved, WorkerError> {
    let peeled = format!("{name}^{{}}");
    let args = ["ls-remote", "-q", "--", &git.address.remote, name, &peeled];
    let out = git.run("look into", Place::Nowhere, args).await?;
    let lines = parse_lines(&String::from_utf8_lossy(&out));
    let looks_short = (4..40).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_hexdigit());
    choose(&lines, name).ok_or_else(|| {
        let hint = match looks_short {
            true => "; if it is a commit, give its whole hash",
            false => "",
        };
        let no_reference = SourceError::NoReference {
            url: git.address.shown.clone(),
            reference: name.to_owned(),
            hint,
        };
        no_reference.into()
    })
}

async fn default_branch(git: &Git<'_>) -> Result<Resolved, WorkerError> {
    let args = [
        "ls-remote",
        "-q",
        "--symref",
        "--",
        &git.address.remote,
        "HEAD",
    ];
    let out = git.run("look into", Place::Nowhere, args).await?;
    let text = String::from_utf8_lossy(&out);
    let name = text.lines().find_map(|line| {
        let (target, name) = line.strip_prefix("ref: ")?.split_once('\t')?;
        (name == "HEAD").then(|| target.to_owned())
    });
    let lines = parse_lines(&text);
    let head = lines.iter().find(|(_, name)| name == "HEAD");
    let resolved = head.map(|(object, _)| Resolved {
        object: object.clone(),
        commit: None,
        name,
    });
    resolved.ok_or_else(|| {
        let no_branch = SourceError::NoReference {
            url: git.address.shown.clone(),
            reference: "HEAD".to_owned(),
            hint: "; it may be empty",
        };
        no_branch.into()
    })
}

/// Reads `OBJECT<TAB>NAME` lines.
fn parse_lines(text: &str) -> Vec<(String, String)> {
    let pairs = text.lines().filter_map(|line| line.split_once('\t'));
    let pairs = pairs.filter(|(object, _)| is_full_commit(object));
    pairs
        .map(|(object, name)| (object.to_owned(), name.to_owned()))
        .collect()
}

/// A full reference wins over a branch, and a branch over a tag.
fn choose(lines: &[(String, String)], name: &str) -> Option<Resolved> {
    let find = |wanted: &str| {
        let line = lines.iter().find(|(_, name)| name == wanted);
        line.map(|(object, _)| object.clone())
    };
    let strip = |prefix: &str| name.strip_prefix(prefix).unwrap_or(name);
    let full = format!("refs/{}", strip("refs/"));
    let branch = format!("refs/heads/{}", strip("refs/heads/"));
    let tag = format!("refs/tags/{}", strip("refs/tags/"));
    [full, branch, tag].into_iter().find_map(|name| {
        Some(Resolved {
            object: find(&name)?,
            commit: find(&format!("{name}^{{}}")),
            name: Some(name),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(digit: char) -> String {
        std::iter::repeat_n(digit, 40).collect()
    }

    #[test]
    fn references_are_chosen_by_kind() {
        let text = [
            ("1", "refs/heads/x/main"),
            ("2", "refs/heads/main"),
            ("3", "refs/tags/main"),
            ("4", "refs/tags/v1"),
            ("5", "refs/tags/v1^{}"),
            ("6", "refs/pull/1/head"),
        ]
        .map(|(digit, name)| format!("{}\t{name}\n", digit.repeat(40)))
        .concat();
        let lines = parse_lines(&text);
        let chosen = |name: &str| {
            let found = choose(&lines, name)?;
            Some((found.object, found.commit, found.name.unwrap()))
        };
        let plain = |digit, name: &str| Some((object(digit), None, name.to_owned()));
        assert_eq!(chosen("main"), plain('2', "refs/heads/main"));
        assert_eq!(chosen("refs/tags/main"), plain('3', "refs/tags/main"));
        assert_eq!(chosen("pull/1/head"), plain('6', "refs/pull/1/head"));
        let tag = Some((object('4'), Some(object('5')), "refs/tags/v1".to_owned()));
        assert_eq!(chosen("v1"), tag);
        assert_eq!(chosen("nothing"), None);
        assert!(parse_lines("warning: x\ty\nnothing").is_empty());
    }
}
