//! Mounts: what a step sees besides its root.

use serde::{Deserialize, Serialize};

use crate::encode::{Encode, Encoder};

/// Something mounted for the time of a step; nothing of it is in the step's layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path in the step's root; none for a secret that is only a variable, and for an
    /// agent at its usual place.
    pub target: Option<String>,
    /// What is mounted.
    #[serde(flatten)]
    pub kind: MountKind,
}

/// What a [`Mount`] shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum MountKind {
    /// Files of an input.
    Bind {
        /// Which input of the vertex, 1 or more.
        input: usize,
        /// Path from the root of that input.
        source: String,
        /// What is written is thrown away after the step.
        writable: bool,
    },
    /// A folder that stays from build to build.
    Cache(CacheMount),
    /// An empty file system in memory.
    Tmpfs {
        /// Its largest size in bytes.
        size: Option<u64>,
        /// The step cannot write.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        read_only: bool,
    },
    /// A secret of the builder's.
    Secret(SecretMount),
    /// An agent that signs for SSH.
    Ssh(SshMount),
}

/// A folder that stays from build to build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheMount {
    /// Which folder: two mounts of one id, name space and base are the same.
    pub id: String,
    /// Who may use it at the same time.
    pub sharing: Sharing,
    /// The input that a new folder starts as, 1 or more; an empty folder if none.
    pub input: Option<usize>,
    /// Path from the root of the folder.
    pub source: String,
    /// The step cannot write.
    pub read_only: bool,
    /// What a new folder is, which then is empty; folders that began in different ways are
    /// different folders.
    pub new: Option<NewFolder>,
}

/// What the folder of a cache mount is when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewFolder {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Who may use a cache mount at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    /// Everybody.
    Shared,
    /// One step; another one gets another folder.
    Private,
    /// One step; another one waits.
    Locked,
}

/// A secret of the builder's. Its value is nowhere in a graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretMount {
    /// Which secret.
    pub id: String,
    /// The variable that holds it; empty if it is missing.
    pub env: Option<String>,
    /// The step fails without it.
    pub required: bool,
    /// Permission bits of the file.
    pub mode: u32,
    /// Owner of the file.
    pub uid: u32,
    /// Group of the file.
    pub gid: u32,
}

/// A socket of an agent that signs for SSH.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshMount {
    /// Which agent.
    pub id: String,
    /// The step fails without it.
    pub required: bool,
    /// Permission bits of the socket.
    pub mode: u32,
    /// Owner of the socket.
    pub uid: u32,
    /// Group of the socket.
    pub gid: u32,
}

impl Encode for Mount {
    fn encode(&self, encoder: &mut Encoder) {
        encoder.value(&self.target).value(&self.kind);
    }
}

impl Encode for MountKind {
    fn encode(&self, encoder: &mut Encoder) {
        match self {
            Self::Bind {
                input,
                source,
                writable,
            } => encoder
                .variant(0)
                .number(*input as u64)
                .text(source)
                .flag(*writable),
            Self::Cache(cache) => encoder.variant(1).value(cache),
            Self::Tmpfs { size, read_only } => {
                encoder.variant(2).value(&size.map(Number)).flag(*read_only)
            }
            Self::Secret(secret) => encoder.variant(3).value(secret),
            Self::Ssh(ssh) => encoder.variant(4).value(ssh),
        };
    }
}

impl Encode for CacheMount {
    fn encode(&self, encoder: &mut Encoder) {
        encoder.text(&self.id).variant(match self.sharing {
            Sharing::Shared => 0,
            Sharing::Private => 1,
            Sharing::Locked => 2,
        });
        encoder
            .value(&self.input.map(|input| Number(input as u64)))
            .text(&self.source)
            .flag(self.read_only)
            .value(&self.new);
    }
}

impl Encode for NewFolder {
    fn encode(&self, encoder: &mut Encoder) {
        encoder
            .number(self.mode.into())
            .number(self.uid.into())
            .number(self.gid.into());
    }
}

impl Encode for SecretMount {
    fn encode(&self, encoder: &mut Encoder) {
        encoder
            .text(&self.id)
            .value(&self.env)
            .flag(self.required)
            .number(self.mode.into())
            .number(self.uid.into())
            .number(self.gid.into());
    }
}

impl Encode for SshMount {
    fn encode(&self, encoder: &mut Encoder) {
        encoder
            .text(&self.id)
            .flag(self.required)
            .number(self.mode.into())
            .number(self.uid.into())
            .number(self.gid.into());
    }
}

struct Number(u64);

impl Encode for Number {
    fn encode(&self, encoder: &mut Encoder) {
        encoder.number(self.0);
    }
}
