//! What can go wrong while a remote source is fetched. No message holds a password: addresses are
//! shown without them.

use std::io;

use kiln_graph::Digest;

/// Why a remote source cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A file is not what its checksum says.
    #[error("digest mismatch for `{url}`: got {actual}, expected {expected}")]
    Checksum {
        /// The file.
        url: String,
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// A file could not be written or unpacked.
    #[error("cannot keep `{what}`")]
    Keep {
        /// The file or folder.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// A file of what was fetched cannot be read.
    #[error("cannot read `{what}` of the build context")]
    Read {
        /// The file.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// A compressed file that holds no archive.
    #[error("`{0}` is compressed, but holds no tar archive")]
    NoArchive(String),
    /// `git` cannot be started.
    #[error(
        "`{url}` needs the program `git`, which cannot be started; install it, or put it into PATH"
    )]
    NoGit {
        /// The repository.
        url: String,
        /// Why not.
        source: io::Error,
    },
    /// `git` failed.
    #[error("cannot {what} `{url}`: {said}")]
    Git {
        /// What was tried.
        what: &'static str,
        /// The repository.
        url: String,
        /// What `git` said.
        said: String,
    },
    /// There is no such branch, tag or commit.
    #[error("repository `{url}` does not contain ref `{reference}`{hint}")]
    NoReference {
        /// The repository.
        url: String,
        /// What was asked for.
        reference: String,
        /// What may help.
        hint: &'static str,
    },
    /// A commit is another one than its checksum says.
    #[error("expected checksum of `{url}` to match `{expected}`, got `{actual}`")]
    Commit {
        /// The repository.
        url: String,
        /// What was asked for.
        expected: String,
        /// What is there.
        actual: String,
    },
    /// A folder of a repository that is none.
    #[error("`{subdir}` of repository `{url}` cannot be used: {why}")]
    Subdir {
        /// The repository.
        url: String,
        /// The folder.
        subdir: String,
        /// Why not.
        why: String,
    },
}

impl SourceError {
    /// Returns a function that says what could not be kept.
    pub(crate) fn keep(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Keep { what, source }
    }
}
