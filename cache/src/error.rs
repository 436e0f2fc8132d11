//! What can go wrong with the store.

use std::io;
use std::path::{Path, PathBuf};

use kiln_graph::Digest;

/// An operation on the store that failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file operation failed.
    #[error("cannot {what} `{}`", path.display())]
    Io {
        /// What was tried, as a verb: `write`.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The database failed.
    #[error("cannot {what} in the store's database")]
    Database {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: rusqlite::Error,
    },
    /// The folder was written by a newer kiln, or is not a store at all.
    #[error(
        "`{}` is not a store that this version of kiln reads (it says `{found}`); \
         use the kiln that made it, or another folder with --root",
        path.display()
    )]
    Version {
        /// The folder.
        path: PathBuf,
        /// What its version file says.
        found: String,
    },
    /// Content does not match its name.
    #[error(
        "content with digest {expected} was damaged (it had {actual}) and is gone; build again"
    )]
    WrongDigest {
        /// What was asked for.
        expected: Digest,
        /// What was there.
        actual: Digest,
    },
    /// Something recorded does not parse.
    #[error("{what} in the store is damaged")]
    Damaged {
        /// What it is: `file list of layer …`.
        what: String,
    },
    /// A file changed while it was read.
    #[error("`{}` changed while it was read; build again when nothing writes to it", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
}

impl StoreError {
    /// Returns a function that turns an I/O error into a [`StoreError`].
    pub(crate) fn io<E: Into<io::Error>>(
        what: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io {
            what,
            path,
            source: source.into(),
        }
    }

    pub(crate) fn db(what: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| Self::Database { what, source }
    }
}
