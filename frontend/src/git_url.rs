//! Git URLs, as `ADD` and build contexts have them.
//!
//! ```text
//!   https://host/path.git   http://…          only with `.git` at the end of the path
//!   ssh://…   git://…   user@host:path        always
//!   github.com/owner/name                     only as a build context
//!
//!   URL[?key=value&…][#[reference][:subdirectory]]
//! ```
//!
//! Says what a text means, reads nothing. What `git` could take for an option, a refspec or a
//! pattern is refused here: whoever runs `git` gets plain names.

use kiln_graph::{GitSource, GitTimes, is_full_commit};

use crate::paths;

/// A Git repository, and what is wanted of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitUrl {
    /// Where the repository is, as `git fetch` takes it; may hold a password.
    pub remote: String,
    /// Branch, tag, full reference or commit; the default branch if none.
    pub reference: Option<String>,
    /// The folder wanted, clean, without slashes around it.
    pub subdir: Option<String>,
    /// What the commit's hash must start with.
    pub checksum: Option<String>,
    /// Whether `.git` is kept, if the URL says so.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are checked out, if the URL says so.
    pub submodules: Option<bool>,
    /// Which times files get.
    pub times: GitTimes,
    /// Fetches `checksum`, a full commit, instead of `reference`.
    pub fetch_by_commit: bool,
    /// It is written `github.com/…`, which may be a folder's name as well.
    pub is_shorthand: bool,
}

/// Why a Git URL cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GitUrlError {
    /// A key that is not known.
    #[error("unexpected query `{0}`")]
    UnknownKey(String),
    /// A key without a value.
    #[error("query `{0}` has no value")]
    NoValue(String),
    /// A key given more than once.
    #[error("query `{0}` has multiple values")]
    SeveralValues(String),
    /// A value that the key does not take.
    #[error("invalid {key} value: `{value}` (expected {expected})")]
    InvalidValue {
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What it takes.
        expected: &'static str,
    },
    /// Two parts of the URL that say different things.
    #[error("{what} conflicts: `{first}` vs `{second}`")]
    Conflict {
        /// `ref` or `subdir`.
        what: &'static str,
        /// What the one says.
        first: String,
        /// What the other says.
        second: String,
    },
    /// Both a branch and a tag.
    #[error("branch conflicts with tag")]
    BranchAndTag,
    /// `fetch-by-commit` without a full commit.
    #[error("fetch-by-commit needs `checksum` with a full commit hash")]
    NoCommit,
    /// Something that `git` could misunderstand.
    #[error("{what} `{text}` is not valid")]
    Invalid {
        /// What it is.
        what: &'static str,
        /// How it is written.
        text: String,
    },
}

impl GitUrl {
    /// Returns what is fetched, if `.git` is kept or not unless the URL says otherwise.
    pub fn source(&self, keep_git_dir: bool) -> GitSource {
        GitSource {
            remote: self.remote.clone(),
            reference: self.reference.clone(),
            subdir: self.subdir.clone(),
            checksum: self.checksum.clone(),
            keep_git_dir: self.keep_git_dir.unwrap_or(keep_git_dir),
            submodules: self.submodules.unwrap_or(true),
            times: self.times,
            fetch_by_commit: self.fetch_by_commit,
        }
    }
}

/// Returns the Git repository that a text names; `None` if it names something else.
pub fn git_url(text: &str) -> Result<Option<GitUrl>, GitUrlError> {
    let Some(parts) = split(text) else {
        return Ok(None);
    };
    check_remote(&parts.remote, parts.host)?;
    let (reference, subdir) = match parts.fragment.split_once(':') {
        Some((reference, subdir)) => (reference, subdir),
        None => (parts.fragment.as_str(), ""),
    };
    let mut url = GitUrl {
        reference: filled(reference),
        subdir: filled(&clean_subdir(subdir)),
        is_shorthand: parts.is_shorthand,
        ..GitUrl::default()
    };
    load_query(&mut url, &query_pairs(parts.query))?;
    url.remote = parts.remote;
    check_reference(url.reference.as_deref())?;
    check_commit(&mut url)?;
    let is_odd = |subdir: &&String| subdir.contains(char::is_control);
    match url.subdir.as_ref().filter(is_odd) {
        Some(subdir) => Err(invalid("subdirectory", subdir)),
        None => Ok(Some(url)),
    }
}

/// A URL's parts before they are understood.
struct Parts<'a> {
    remote: String,
    host: &'a str,
    query: &'a str,
    fragment: String,
    is_shorthand: bool,
}

/// Returns the parts of what has the form of a Git URL.
fn split(text: &str) -> Option<Parts<'_>> {
    if text.starts_with("./") || text.starts_with("../") {
        return None;
    }
    let (before, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (base, query) = before.split_once('?').unwrap_or((before, ""));
    let is_shorthand = base.starts_with("github.com/");
    let parts = |remote: String, host, fragment| Parts {
        remote,
        host,
        query,
        fragment,
        is_shorthand,
    };
    if is_shorthand {
        let fragment = percent_decoded(fragment, false)?;
        percent_decoded(base, false)?;
        return Some(parts(format!("https://{base}"), "github.com", fragment));
    }
    let Some((scheme, rest)) = base.split_once("://").filter(|(s, _)| is_scheme(s)) else {
        let host = scp_host(base)?;
        return Some(parts(base.to_owned(), host, fragment.to_owned()));
    };
    let scheme = scheme.to_ascii_lowercase();
    if !matches!(scheme.as_str(), "http" | "https" | "ssh" | "git") {
        return None;
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, h)| h);
    let is_web = scheme.starts_with("http");
    if !is_host(host) || is_web && !percent_decoded(path, false)?.ends_with(".git") {
        return None;
    }
    let fragment = percent_decoded(fragment, false)?;
    Some(parts(format!("{scheme}://{rest}"), host, fragment))
}

fn is_scheme(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// A host with an optional port, as a URL may have it.
fn is_host(text: &str) -> bool {
    let port = match text.rfind(']') {
        Some(end) => &text[end + 1..],
        None => text.find(':').map_or("", |at| &text[at..]),
    };
    let is_port = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    let is_odd = |c: char| c.is_whitespace() || c.is_control() || "\"<>\\^`{|}".contains(c);
    is_port && !text.contains(is_odd)
}

/// Returns the host of `user@host:path`.
fn scp_host(text: &str) -> Option<&str> {
    let (user, rest) = text.split_once('@')?;
    let (host, path) = rest.split_once(':')?;
    let is_word = |text: &str, more: &str| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    (is_word(user, "-_") && is_word(host, "-.") && !path.contains('\n')).then_some(host)
}

/// Returns the keys and values of a query; what is malformed is left out, as Go does.
fn query_pairs(query: &str) -> Vec<(String, String)> {
    let pairs = query
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.contains(';'));
    let decoded = pairs.filter_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((percent_decoded(key, true)?, percent_decoded(value, true)?))
    });
    decoded.collect()
}

/// Returns true for what `ADD` fetches: web addresses and Git URLs, wrong ones included.
pub(crate) fn is_remote(source: &str) -> bool {
    let is_web = source.starts_with("http://") || source.starts_with("https://");
    is_web || git_url(source).map_or(true, |url| url.is_some_and(|url| !url.is_shorthand))
}

pub(crate) fn percent_decoded(text: &str, plus_is_blank: bool) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                let digits = std::str::from_utf8(after.get(..2)?).ok()?;
                let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
                out.push(u8::from_str_radix(digits, 16).ok().filter(|_| is_hex)?);
                rest = &after[2..];
            }
            b'+' if plus_is_blank => out.push(b' '),
            byte => out.push(byte),
        }
    }
    String::from_utf8(out).ok()
}

fn load_query(url: &mut GitUrl, pairs: &[(String, String)]) -> Result<(), GitUrlError> {
    let (mut tag, mut branch) = (None, None);
    for (at, (key, value)) in pairs.iter().enumerate() {
        if pairs[..at].iter().any(|(earlier, _)| earlier == key) {
            return Err(GitUrlError::SeveralValues(key.clone()));
        }
        let is_switch = matches!(
            key.as_str(),
            "submodules" | "keep-git-dir" | "fetch-by-commit"
        );
        let known = [
            "ref", "tag", "branch", "subdir", "checksum", "commit", "mtime",
        ];
        if !is_switch && !known.contains(&key.as_str()) {
            return Err(GitUrlError::UnknownKey(key.clone()));
        }
        if value.is_empty() && !is_switch {
            return Err(GitUrlError::NoValue(key.clone()));
        }
        match key.as_str() {
            "ref" => agree("ref", &mut url.reference, value)?,
            "tag" => tag = Some(prefixed("refs/tags/", value)),
            "branch" => branch = Some(prefixed("refs/heads/", value)),
            "subdir" => {
                let subdir = clean_subdir(value);
                agree("subdir", &mut url.subdir, &subdir)?;
                url.subdir = filled(&subdir);
            }
            "keep-git-dir" => url.keep_git_dir = Some(switch(key, value)?),
            "submodules" => url.submodules = Some(switch(key, value)?),
            "fetch-by-commit" => url.fetch_by_commit = switch(key, value)?,
            "mtime" => url.times = times(value)?,
            _ => agree("checksum", &mut url.checksum, value)?,
        }
    }
    if let Some(tag) = &tag {
        agree("ref", &mut url.reference, tag)?;
    }
    if let Some(branch) = &branch {
        if tag.is_some() {
            return Err(GitUrlError::BranchAndTag);
        }
        agree("ref", &mut url.reference, branch)?;
    }
    Ok(())
}

/// Sets what is not set yet; else both must say the same.
fn agree(what: &'static str, slot: &mut Option<String>, value: &str) -> Result<(), GitUrlError> {
    match slot {
        Some(first) if first != value => Err(GitUrlError::Conflict {
            what,
            first: first.clone(),
            second: value.to_owned(),
        }),
        _ => {
            *slot = Some(value.to_owned());
            Ok(())
        }
    }
}

fn prefixed(prefix: &str, name: &str) -> String {
    match name.starts_with(prefix) {
        true => name.to_owned(),
        false => format!("{prefix}{name}"),
    }
}

fn switch(key: &str, value: &str) -> Result<bool, GitUrlError> {
    match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(GitUrlError::InvalidValue {
            key: key.to_owned(),
            value: value.to_owned(),
            expected: "true or false",
        }),
    }
}

fn times(value: &str) -> Result<GitTimes, GitUrlError> {
    match value {
        "checkout" => Ok(GitTimes::Checkout),
        "commit" => Ok(GitTimes::Commit),
        _ => Err(GitUrlError::InvalidValue {
            key: "mtime".to_owned(),
            value: value.to_owned(),
            expected: "checkout or commit",
        }),
    }
}

/// Returns a path without `.`, `..` and slashes that mean nothing; it never climbs.
fn clean_subdir(path: &str) -> String {
    paths::clean(path).trim_start_matches('/').to_owned()
}

fn filled(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn invalid(what: &'static str, text: &str) -> GitUrlError {
    GitUrlError::Invalid {
        what,
        text: text.escape_debug().to_string(),
    }
}

/// Neither `git` nor `ssh` may take the address, its user or its host for an option.
fn check_remote(remote: &str, host: &str) -> Result<(), GitUrlError> {
    let is_odd = |c: char| c.is_control() || c == ' ';
    let looks_like_option = remote.starts_with('-') || host.starts_with('-');
    if looks_like_option || remote.contains("://-") || remote.contains(is_odd) {
        // What is odd here is no password.
        return Err(invalid("address of a Git repository", host));
    }
    Ok(())
}

/// Accepts what git-check-ref-format(1) does, and nothing with a meaning of its own to `git`.
fn check_reference(reference: Option<&str>) -> Result<(), GitUrlError> {
    let Some(name) = reference else {
        return Ok(());
    };
    let is_odd = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    let is_bad_part =
        |part: &str| part.is_empty() || part.starts_with('.') || part.ends_with(".lock");
    let is_bad = name.starts_with(['-', '+'])
        || name.contains(is_odd)
        || name.contains("..")
        || name.contains("@{")
        || name == "@"
        || name.ends_with('.')
        || name.split('/').any(is_bad_part);
    if is_bad {
        return Err(invalid("reference", name));
    }
    Ok(())
}

/// A whole commit without a reference is what is fetched.
fn check_commit(url: &mut GitUrl) -> Result<(), GitUrlError> {
    if let Some(checksum) = &url.checksum {
        if !checksum.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(GitUrlError::InvalidValue {
                key: "checksum".to_owned(),
                value: checksum.clone(),
                expected: "a hexadecimal commit hash",
            });
        }
        if url.reference.is_none() && is_full_commit(checksum) {
            url.reference = Some(checksum.clone());
        }
    }
    if url.fetch_by_commit && !url.checksum.as_deref().is_some_and(is_full_commit) {
        return Err(GitUrlError::NoCommit);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
