//! Ops: what a vertex does, without its inputs.
//!
//! Every op that makes files makes exactly one layer on top of its first input.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::encode::{Encode, Encoder};
use crate::mode::Mode;
use crate::mount::Mount;
use crate::record::{PartKind, is_secret_name};
use crate::source::{GitSource, HttpSource, ImageSource, LocalSource};

/// One operation with its own parameters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Op {
    /// The root file system of an image; no inputs.
    Image(ImageSource),
    /// A build context, the main one or a named one: a folder of the machine that builds, or
    /// files that were fetched before the graph was made; no inputs.
    Local(LocalSource),
    /// A file that is downloaded; no inputs.
    Http(HttpSource),
    /// Files of a commit of a Git repository; no inputs.
    Git(GitSource),
    /// Runs a process; input 0 is its root.
    Exec(Exec),
    /// Copies files; input 0 is the destination, later ones are sources.
    Copy(Copy),
    /// Makes a directory and its missing parents; input 0 is the destination.
    MakeDir(MakeDir),
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
    /// What is mounted for the time of the step, in the order of the Dockerfile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// What the process may do.
    #[serde(default, skip_serializing_if = "Security::is_sandbox")]
    pub security: Security,
}

/// What a process may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Security {
    /// What is usual in a build.
    #[default]
    Sandbox,
    /// All that its user namespace allows (`RUN --security=insecure`).
    Insecure,
}

impl Security {
    fn is_sandbox(&self) -> bool {
        *self == Self::Sandbox
    }
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
    pub mode: Option<Mode>,
    /// The layer is made without looking at the destination (`--link`).
    #[serde(default, skip_serializing_if = "is_false")]
    pub link: bool,
    /// Keeps the parent directories of sources (`--parents`).
    #[serde(default, skip_serializing_if = "is_false")]
    pub parents: bool,
    /// Patterns of what is left out, as in an ignore file, relative to each source.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_false(flag: &bool) -> bool {
    !flag
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
        /// Unpacks archives.
        unpack: bool,
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
            Self::Http(op) => encoder.variant(5).value(op),
            Self::Git(op) => encoder.variant(6).value(op),
        };
    }
}

impl Encode for Exec {
    fn encode(&self, encoder: &mut Encoder) {
        encoder.part(PartKind::Instruction, String::new);
        encoder.value(&self.args);
        encoder.part(PartKind::Shape, || "variables".to_owned());
        encoder.number(self.env.len() as u64);
        for (name, value) in &self.env {
            encoder.part(PartKind::Variable, || name.clone());
            if is_secret_name(name) {
                encoder.hide();
            }
            encoder.field("name").text(name).field("value").text(value);
        }
        flag(encoder, "WORKDIR", || self.cwd.clone()).text(&self.cwd);
        flag(encoder, "USER", || self.user.clone()).text(&self.user);
        let (number, name) = match self.network {
            Network::Default => (0, "default"),
            Network::None => (1, "none"),
            Network::Host => (2, "host"),
        };
        flag(encoder, "network", || name.to_owned()).variant(number);
        encoder.part(PartKind::Instruction, || "files".to_owned());
        encoder.value(&self.files);
        encoder.part(PartKind::Shape, || "mounts".to_owned());
        encoder.number(self.mounts.len() as u64);
        for mount in &self.mounts {
            encoder.part(PartKind::Mount, || mount.target.clone().unwrap_or_default());
            encoder.value(mount);
        }
        let is_insecure = self.security == Security::Insecure;
        let name = if is_insecure { "insecure" } else { "sandbox" };
        flag(encoder, "security", || name.to_owned()).flag(is_insecure);
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
        encoder.part(PartKind::Instruction, || "sources".to_owned());
        encoder.value(&self.sources);
        encoder.part(PartKind::Instruction, || "destination".to_owned());
        encoder.text(&self.destination);
        let owner = || self.owner.as_ref().map(Owner::to_string);
        flag(encoder, "chown", || owner().unwrap_or_default()).value(&self.owner);
        let mode = || self.mode.as_ref().map(Mode::to_string);
        flag(encoder, "chmod", || mode().unwrap_or_default()).value(&self.mode);
        flag(encoder, "link", || self.link.to_string()).flag(self.link);
        flag(encoder, "parents", || self.parents.to_string()).flag(self.parents);
        flag(encoder, "exclude", || self.exclude.join(" ")).value(&self.exclude);
    }
}

impl Encode for CopySource {
    fn encode(&self, encoder: &mut Encoder) {
        match self {
            Self::Path {
                input,
                path,
                unpack,
            } => encoder
                .variant(0)
                .number(*input as u64)
                .text(path)
                .flag(*unpack),
            Self::Inline(file) => encoder.variant(1).value(file),
        };
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.user)?;
        match &self.group {
            Some(group) => write!(f, ":{group}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Name(name) => f.write_str(name),
        }
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
        encoder.part(PartKind::Instruction, String::new);
        encoder.text(&self.path);
        flag(encoder, "mode", || format!("{:04o}", self.mode)).number(self.mode.into());
        flag(encoder, "USER", || self.user.clone()).text(&self.user);
    }
}

/// Begins the part that is a flag, with its value as a user writes it.
fn flag<'a>(
    encoder: &'a mut Encoder,
    name: &'static str,
    shown: impl FnOnce() -> String,
) -> &'a mut Encoder {
    encoder.part(PartKind::Flag, || name.to_owned());
    encoder.shown(shown)
}
