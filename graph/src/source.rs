//! Sources: where files come from that no step made.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::encode::{Encode, Encoder};
use crate::platform::Platform;
use crate::redact::serialize_redacted;

/// An image in a registry, already resolved to one platform's manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSource {
    /// Full reference: `docker.io/library/debian:bookworm`, with a digest if it was pinned. Not
    /// part of the digest of the op: two names of one manifest are one vertex.
    pub reference: String,
    /// Digest of the platform's manifest.
    pub manifest: Digest,
    /// The platform asked for.
    pub platform: Platform,
}

/// A folder of the machine that builds, read in place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalSource {
    /// `context` for the build context, else the name given with `--build-context`.
    pub name: String,
}

/// A file that is downloaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpSource {
    /// Where it is, `http` or `https`; as JSON without its password.
    #[serde(serialize_with = "serialize_redacted")]
    pub url: String,
    /// What it is called in the result, which holds nothing else.
    pub file_name: String,
    /// SHA-256 of its content, if that is pinned.
    pub checksum: Option<Digest>,
}

/// Files of a commit of a Git repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitSource {
    /// Where the repository is, as `git fetch` takes it; as JSON without its password.
    #[serde(serialize_with = "serialize_redacted")]
    pub remote: String,
    /// Branch, tag, full reference or commit; the default branch if none.
    pub reference: Option<String>,
    /// The folder of the repository that becomes the root of the result.
    pub subdir: Option<String>,
    /// What the commit's hash must start with.
    pub checksum: Option<String>,
    /// Keeps `.git`.
    pub keep_git_dir: bool,
    /// Checks submodules out, too.
    pub submodules: bool,
    /// Which times the files get.
    pub times: GitTimes,
    /// Fetches `checksum`, a full commit, instead of `reference`.
    pub fetch_by_commit: bool,
}

/// Which modification times files of a Git repository get.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GitTimes {
    /// The time of the checkout.
    #[default]
    Checkout,
    /// The time of the commit.
    Commit,
}

/// Returns true for a whole hash of a commit: 40 hexadecimal digits, or 64.
pub fn is_full_commit(text: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    matches!(text.len(), 40 | 64) && text.bytes().all(is_digit)
}

impl Encode for ImageSource {
    fn encode(&self, encoder: &mut Encoder) {
        encoder.value(&self.manifest).value(&self.platform);
    }
}

impl Encode for HttpSource {
    fn encode(&self, encoder: &mut Encoder) {
        encoder
            .text(&self.url)
            .text(&self.file_name)
            .value(&self.checksum);
    }
}

impl Encode for GitSource {
    fn encode(&self, encoder: &mut Encoder) {
        encoder
            .text(&self.remote)
            .value(&self.reference)
            .value(&self.subdir)
            .value(&self.checksum)
            .flag(self.keep_git_dir)
            .flag(self.submodules)
            .flag(self.times == GitTimes::Commit)
            .flag(self.fetch_by_commit);
    }
}
