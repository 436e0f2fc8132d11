//! Image references: `[host/]repository[:tag][@digest]`, with Docker's defaults.
//!
//! Follows `distribution/reference`: a first part without a dot, a colon or an upper-case letter
//! that is not `localhost` belongs to the repository on Docker Hub. What has been parsed is safe
//! to put into a URL path. Does not know `scratch`, stage names or contexts.

use std::fmt;
use std::str::FromStr;

use kiln_graph::Digest;

const HUB: &str = "docker.io";
const OLD_HUB: &str = "index.docker.io";
const OFFICIAL: &str = "library/";
const DEFAULT_TAG: &str = "latest";
const MAX_REPOSITORY: usize = 255;
const MAX_TAG: usize = 128;

/// Names an image, or a repository, in a registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Says why a text is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an image reference: {reason}")]
pub struct ParseReferenceError {
    /// What was to be parsed.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Reference {
    /// Returns the registry's host, and port if one was named: `docker.io`, `[::1]:5000`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the repository in the registry: `library/debian`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Returns the tag; `latest` if neither a tag nor a digest was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest, if one was given.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Returns the same repository, with the same tag, at `digest`.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self {
            digest: Some(digest),
            ..self.clone()
        }
    }

    /// Returns the same repository at `tag`, without a digest.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ParseReferenceError> {
        check_tag(tag).map_err(|reason| ParseReferenceError {
            text: tag.to_owned(),
            reason,
        })?;
        Ok(Self {
            tag: Some(tag.to_owned()),
            digest: None,
            ..self.clone()
        })
    }

    /// Returns the host and repository, without tag and digest: `docker.io/library/debian`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }

    /// Returns the short form that users write: `debian:bookworm`.
    pub fn familiar(&self) -> String {
        format!("{}{}", self.familiar_name(), self.suffix())
    }

    fn familiar_name(&self) -> String {
        if self.host != HUB {
            return self.name();
        }
        match self.repository.strip_prefix(OFFICIAL) {
            // A path below library/ would be read as a repository of a user.
            Some(short) if !short.contains('/') => short.to_owned(),
            _ => self.repository.clone(),
        }
    }

    fn suffix(&self) -> String {
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}"));
        let digest = self.digest.map(|digest| format!("@{digest}"));
        format!("{}{}", tag.unwrap_or_default(), digest.unwrap_or_default())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.host, self.repository, self.suffix())
    }
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, ParseReferenceError> {
        parse(text).map_err(|reason| ParseReferenceError {
            text: text.to_owned(),
            reason,
        })
    }
}

fn parse(text: &str) -> Result<Reference, String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if text.len() == 64 && text.bytes().all(is_lower_hex) {
        return Err("64 hexadecimal digits are an image id, not a repository".to_owned());
    }
    let (rest, digest) = split_digest(text)?;
    let (host, rest) = split_host(rest);
    let (path, tag) = match rest.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (rest, None),
    };
    check_host(host)?;
    let repository = if host == HUB && !path.contains('/') {
        format!("{OFFICIAL}{path}")
    } else {
        path.to_owned()
    };
    check_repository(path)?;
    if repository.len() > MAX_REPOSITORY {
        let message = format!("its repository is longer than {MAX_REPOSITORY} characters");
        return Err(message);
    }
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    let default_tag = digest.is_none().then_some(DEFAULT_TAG);
    Ok(Reference {
        host: host.to_owned(),
        repository,
        tag: tag.or(default_tag).map(str::to_owned),
        digest,
    })
}

fn split_digest(text: &str) -> Result<(&str, Option<Digest>), String> {
    let Some((rest, digest)) = text.split_once('@') else {
        return Ok((text, None));
    };
    let wrong = |_| format!("`{digest}` is not `sha256:` and 64 hexadecimal digits");
    if !digest.starts_with("sha256:") {
        return Err(format!(
            "`{digest}` is not a digest that is supported; sha256 is"
        ));
    }
    Ok((rest, Some(digest.parse().map_err(wrong)?)))
}

/// Splits the host off, by the rule that Docker uses to tell a host from a user's name.
fn split_host(text: &str) -> (&str, &str) {
    let Some((first, rest)) = text.split_once('/') else {
        return (HUB, text);
    };
    let is_host = first == "localhost"
        || first.contains(['.', ':'])
        || first.bytes().any(|byte| byte.is_ascii_uppercase());
    match (is_host, first) {
        (true, OLD_HUB) => (HUB, rest),
        (true, host) => (host, rest),
        (false, _) => (HUB, text),
    }
}

pub(crate) fn check_host(host: &str) -> Result<(), String> {
    let wrong = || format!("`{host}` is not a host name with an optional port");
    let (name, port) = if let Some(rest) = host.strip_prefix('[') {
        let (address, port) = rest.split_once(']').ok_or_else(wrong)?;
        address.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
        (None, port)
    } else {
        let at = host.find(':').unwrap_or(host.len());
        (Some(&host[..at]), &host[at..])
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if name.is_some_and(|name| !name.split('.').all(label)) {
        return Err(wrong());
    }
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok(()),
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => match digits.parse::<u16>() {
            Ok(port) if port > 0 => Ok(()),
            _ => Err(wrong()),
        },
        _ => Err(wrong()),
    }
}

fn check_repository(path: &str) -> Result<(), String> {
    if path.is_empty() {
        return Err("it names no repository".to_owned());
    }
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(format!("repository `{path}` must be lower case"));
    }
    match path.split('/').find(|part| !is_path_part(part)) {
        None => Ok(()),
        Some("") => Err(format!("repository `{path}` has an empty part")),
        Some(part) => Err(format!(
            "`{part}` is not part of a repository name: letters and digits, with `.`, `_`, `__` \
             or `-` between them"
        )),
    }
}

/// Returns true for words of letters and digits joined by `.`, `_`, `__` or any number of `-`.
fn is_path_part(part: &str) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = part.as_bytes();
    let edges = bytes.first().is_some_and(is_word) && bytes.last().is_some_and(is_word);
    let joined = bytes
        .split(is_word)
        .all(|gap| matches!(gap, b"" | b"." | b"_" | b"__") || gap.iter().all(|b| *b == b'-'));
    edges && joined
}

fn check_tag(tag: &str) -> Result<(), String> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let is_tag = tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || b".-".contains(&byte));
    if is_tag {
        return Ok(());
    }
    Err(format!(
        "`{tag}` is not a tag: up to {MAX_TAG} letters, digits, `_`, `.` and `-`, and neither `.` \
         nor `-` first"
    ))
}

fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests;
