//! What can go wrong while a vertex is worked on.

use std::io;
use std::path::PathBuf;

use kiln_cache::{LinkLoop, PatternError, StoreError};
use kiln_graph::{Digest, ParseDigestError};
use kiln_registry::{ParseReferenceError, RegistryError};
use kiln_runtime::RunError;

use crate::credentials::CredentialError;
use crate::sources::SourceError;

/// Why a vertex has no value.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// What the Dockerfile asks for cannot be done with these files.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The build context cannot be read.
    #[error(transparent)]
    Context(StoreError),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// A registry failed, or what it sent is wrong.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// An image is not what its manifest says, or kiln cannot use it.
    #[error("image `{reference}` cannot be used: {why}")]
    Image {
        /// Which image.
        reference: String,
        /// What is wrong with it.
        why: String,
    },
    /// A layer could not be unpacked.
    #[error("cannot unpack layer {layer}")]
    Unpack {
        /// Digest of its uncompressed tar.
        layer: Digest,
        /// Why not.
        source: UnpackError,
    },
    /// A layer that a shared cache has recorded cannot be had.
    #[error("what the cache `{cache}` has of `{name}` cannot be used")]
    Promise {
        /// The cache.
        cache: String,
        /// What made the layer.
        name: String,
        /// Why not.
        source: Box<kiln_remote::RemoteError>,
    },
    /// A remote source cannot be had.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A secret or an agent that is needed cannot be had.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The step could not be run.
    #[error("cannot run the step")]
    Run(#[from] RunError),
    /// A file operation of kiln itself failed.
    #[error("cannot {what} `{}`", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A COPY, ADD or WORKDIR that cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A source is not there.
    #[error("`{path}`: not found{}", hint_of(hint.as_deref()))]
    NotFound {
        /// The source as the Dockerfile has it.
        path: String,
        /// What may help: an ignore pattern, a similar name.
        hint: Option<String>,
    },
    /// A directory meets something else.
    #[error("cannot copy to non-directory: `/{path}`")]
    NotADirectory {
        /// What is in the way.
        path: String,
    },
    /// A file meets a directory.
    #[error("cannot replace directory `/{path}` with a file")]
    IsADirectory {
        /// What is in the way.
        path: String,
    },
    /// A user or group is not in the image.
    #[error(
        "unable to find {kind} `{name}` in `/etc/{file}` of the image: make it in a RUN before, or \
         write its number"
    )]
    UnknownName {
        /// `user` or `group`.
        kind: &'static str,
        /// The name.
        name: String,
        /// `passwd` or `group`.
        file: &'static str,
    },
    /// A wildcard is malformed.
    #[error("bad wildcard")]
    Pattern(#[from] PatternError),
    /// Links go round in circles.
    #[error("cannot follow links")]
    Links(#[from] LinkLoop),
    /// An archive cannot be unpacked.
    #[error("cannot unpack archive `{path}`")]
    Archive {
        /// The archive.
        path: String,
        /// Why not.
        source: UnpackError,
    },
    /// A name that would mean a deletion.
    #[error(
        "`{path}` would delete a file of a lower layer: names that begin with `.wh.` cannot be in an image"
    )]
    WhiteoutName {
        /// The file.
        path: String,
    },
}

fn hint_of(hint: Option<&str>) -> String {
    hint.map(|hint| format!(" ({hint})")).unwrap_or_default()
}

/// Why an archive or layer was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It cannot be read.
    #[error("cannot read it")]
    Read(#[source] io::Error),
    /// It is not a well-formed archive.
    #[error("it is malformed")]
    Archive(#[from] kiln_cache::ArchiveError),
    /// An entry cannot be placed.
    #[error("entry `{name}` cannot be placed: {why}")]
    Entry {
        /// The entry.
        name: String,
        /// Why not.
        why: String,
    },
    /// An entry could not be written.
    #[error("cannot write `{name}`")]
    Write {
        /// The entry.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// The content is not what its digest says.
    #[error("expected content {expected}, got {actual}")]
    WrongDigest {
        /// The digest in the image's config.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
}

impl WorkerError {
    pub(crate) fn image(reference: &str, why: impl Into<String>) -> Self {
        Self::Image {
            reference: reference.to_owned(),
            why: why.into(),
        }
    }
}

impl From<(String, ParseReferenceError)> for WorkerError {
    fn from((reference, error): (String, ParseReferenceError)) -> Self {
        Self::Image {
            reference,
            why: error.to_string(),
        }
    }
}

impl From<(String, ParseDigestError)> for WorkerError {
    fn from((reference, error): (String, ParseDigestError)) -> Self {
        Self::Image {
            reference,
            why: error.to_string(),
        }
    }
}
