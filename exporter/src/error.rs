//! What can go wrong on the way from layers to a destination.

use std::io;
use std::path::Path;

use kiln_cache::StoreError;
use kiln_graph::Digest;
use kiln_registry::RegistryError;

/// An export that failed.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The registry failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Something of the image cannot be read.
    #[error("cannot read {what}")]
    Read {
        /// What, with its name in backticks.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// The destination cannot be written.
    #[error("cannot write {what}")]
    Write {
        /// What, with its name in backticks.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// A file of a layer is not as long as the layer's list says.
    #[error("`{path}` is no longer as it was when its layer was made; the layer is damaged")]
    Changed {
        /// Path in the layer.
        path: String,
    },
    /// A blob is needed that is not in the store.
    #[error("blob {digest} is not in the store and has to be pulled first")]
    Missing {
        /// The blob.
        digest: Digest,
    },
    /// An entry cannot be written in the format asked for.
    #[error("`{path}` cannot be exported: {problem}")]
    Entry {
        /// Path in the image.
        path: String,
        /// Why not.
        problem: &'static str,
    },
    /// What was asked for makes no sense for this image or this destination.
    #[error("{message}")]
    Refused {
        /// What, and what to do instead.
        message: String,
    },
}

impl ExportError {
    /// Returns a function that says what could not be written.
    pub(crate) fn write(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Write { what, source }
    }

    /// As [`ExportError::write`], for a file.
    pub(crate) fn write_path(path: &Path) -> impl FnOnce(io::Error) -> Self {
        Self::write(format!("`{}`", path.display()))
    }

    pub(crate) fn read(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Read { what, source }
    }

    pub(crate) fn entry(path: &[u8], problem: &'static str) -> Self {
        Self::Entry {
            path: shown(path),
            problem,
        }
    }

    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::Refused {
            message: message.into(),
        }
    }
}

/// Returns a path of an image for a message.
pub(crate) fn shown(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path).escape_debug())
}
