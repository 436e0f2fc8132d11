//! What can go wrong with a cache that is elsewhere.

use std::io;

use kiln_registry::RegistryError;

/// An operation on a cache that failed.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The registry failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A file operation failed.
    #[error("cannot {what}")]
    Io {
        /// What was tried: "read `DIR/segments/x`".
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// It is there, but is not what it should be.
    #[error("{what} is unusable: {why}")]
    Unusable {
        /// What: a segment, a blob, an answer.
        what: String,
        /// Why.
        why: String,
    },
    /// It took too long.
    #[error("it did not answer in {0} s")]
    Slow(u64),
}

impl RemoteError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    pub(crate) fn unusable(what: impl Into<String>, why: &(impl ToString + ?Sized)) -> Self {
        Self::Unusable {
            what: what.into(),
            why: why.to_string(),
        }
    }

    /// Returns true if what was asked for is not there.
    pub(crate) fn is_absent(&self) -> bool {
        match self {
            Self::Registry(error) => matches!(error, RegistryError::NotFound { .. }),
            Self::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }
}
