//! Ops: what a vertex does, without its inputs.
//!
//! Every op that makes files makes exactly one layer on top of its first input.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::encode::{Encode, Encoder};
use crate::platform::Platform;

/// One operation with its own parameters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Op {
    /// The root file system of an image; no inputs.
    Image(ImageSource),
    /// A folder of the machine that builds: the build context or a named one; no inputs.
    Local(LocalSource),
    /// Runs a process; input 0 is its root.
    Exec(Exec),
    /// Copies files; input 0 is the destination, later ones are sources.
    Copy(Copy),
    /// Makes a directory and its missing parents; input 0 is the destination.
    MakeDir(MakeDir),
}

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

/// A process to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// Program and arguments.
    pub args: Vec<String>,
    /// The whole environment, in order.
    pub env: Vec<(String, String)>,
    /// Variables that the process sees but that never decide about the cache: proxy settings.
    #[serde(default, skip_serializing)]
    pub unkeyed_env: Vec<(String, String)>,
    /// Working directory, absolute; made if missing.
    pub cwd: String,
    /// `USER` as written: empty, `name`, `uid`, `name:group`, `uid:gid`.
    pub user: String,
    /// What of the network the process sees.
    pub network: Network,
    /// Files shown read-only for the time of the step, never part of its layer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<InlineFile>,
}

/// What of the network a step sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// What the builder gives by default.
    Default,
    /// A loopback device and nothing else.
    None,
    /// The network of the host.
    Host,
}

/// A file whose content is part of the op.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InlineFile {
    /// Absolute path for [`Exec`], file name for [`CopySource::Inline`].
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// The content.
    pub content: String,
}

/// Files copied into a directory tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    /// What to copy, in order.
    pub sources: Vec<CopySource>,
    /// Absolute destination; a trailing slash says that it is a directory.
    pub destination: String,
    /// Owner of everything copied; without it, files from a local folder are root's and files
    /// from a snapshot keep theirs.
    pub owner: Option<Owner>,
    /// Permission bits of everything copied, symlinks excepted.
    pub mode: Option<u32>,
    /// Unpacks archives (`ADD` of local files).
    pub unpack: bool,
}

/// One source of a [`struct@Copy`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CopySource {
    /// A path, maybe with wildcards, below an input's root.
    Path {
        /// Which input of the vertex, 1 or more.
        input: usize,
        /// Path from the root of that input.
        path: String,
    },
    /// A file whose content stands in the Dockerfile.
    Inline(InlineFile),
}

/// Owner of copied files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// User.
    pub user: Principal,
    /// Group; without it, the user's number if that is one, or the user's own group.
    pub group: Option<Principal>,
}

/// A user or group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Principal {
    /// A number.
    Id(u32),
    /// A name, looked up in the destination's own `/etc/passwd` or `/etc/group`.
    Name(String),
}

/// A directory to make, with its missing parents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeDir {
    /// Absolute path.
    pub path: String,
    /// Permission bits of what is made.
    pub mode: u32,
    /// Owner of what is made, as `USER` writes it; an existing directory is left alone.
    pub user: String,
}

impl Encode for Op {
    fn encode(&self, encoder: &mut Encoder) {
        match self {
            Self::Image(op) => encoder.variant(0).value(op),
            Self::Local(op) => encoder.variant(1).text(&op.name),
            Self::Exec(op) => encoder.variant(2).value(op),
            Self::Copy(op) => encoder.variant(3).value(op),
            Self::MakeDir(op) => encoder.variant(4).value(op),
        };
    }
}

impl Encode for ImageSource {
    fn encode(&self, encoder: &mut Encoder) {
        encoder.value(&self.manifest).value(&self.platform);
    }
}

impl Encode for Exec {
    fn encode(&self, encoder: &mut Encoder) {
        encoder
            .value(&self.args)
            .value(&self.env)
            .text(&self.cwd)
            .text(&self.user);
        encoder.variant(match self.network {
            Network::Default => 0,
            Network::None => 1,
            Network::Host => 2,
        });
        encoder.value(&self.files);
    }
}

impl Encode for InlineFile {
    fn encode(&self, encoder: &mut Encoder) {
        encoder
            .text(&self.path)
            .number(self.mode.into())
            .text(&self.content);
    }
}

impl Encode for Copy {
    fn encode(&self, encoder: &mut Encoder) {
        encoder
            .value(&self.sources)
            .text(&self.destination)
            .value(&self.owner);
        encoder.value(&self.mode.map(Number)).flag(self.unpack);
    }
}

struct Number(u32);

impl Encode for Number {
    fn encode(&self, encoder: &mut Encoder) {
        encoder.number(self.0.into());
    }
}

impl Encode for CopySource {
    fn encode(&self, encoder: &mut Encoder) {
        match self {
            Self::Path { input, path } => encoder.variant(0).number(*input as u64).text(path),
            Self::Inline(file) => encoder.variant(1).value(file),
        };
    }
}

impl Encode for Owner {
    fn encode(&self, encoder: &mut Encoder) {
        encoder.value(&self.user).value(&self.group);
    }
}

impl Encode for Principal {
    fn encode(&self, encoder: &mut Encoder) {
        match self {
            Self::Id(id) => encoder.variant(0).number((*id).into()),
            Self::Name(name) => encoder.variant(1).text(name),
        };
    }
}

impl Encode for MakeDir {
    fn encode(&self, encoder: &mut Encoder) {
        encoder
            .text(&self.path)
            .number(self.mode.into())
            .text(&self.user);
    }
}
