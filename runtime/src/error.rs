//! Why a step could not be run.
//!
//! A step that ran and failed is not an error but an [`Outcome`](crate::Outcome).

use std::io;
use std::path::PathBuf;

/// Why a step could not be run, or this process not prepared for running steps.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The kernel, or a policy on top of it, refuses what isolation needs.
    #[error("cannot isolate build steps here: {advice}")]
    Unsupported {
        /// What to do about it.
        advice: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file or folder of the sandbox's own could not be prepared.
    #[error("cannot prepare `{path}`")]
    Prepare {
        /// The file or folder.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The step's init could not be started, or went away without saying how the step ended.
    #[error("cannot supervise the step: {operation}")]
    Supervise {
        /// What was being done.
        operation: &'static str,
        /// What went wrong.
        source: io::Error,
    },
    /// The step's root could not be set up.
    #[error("cannot set up the step: {operation}")]
    Setup {
        /// What was being done.
        operation: String,
        /// What went wrong.
        source: io::Error,
    },
    /// `USER` names nobody, or somebody this process may not become.
    #[error("unable to find user `{user}`: {reason}")]
    User {
        /// The user as written.
        user: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// The step's program could not be executed.
    #[error("exec `{program}`")]
    Exec {
        /// The first argument of the step.
        program: String,
        /// What went wrong.
        source: io::Error,
    },
    /// [`Cancel::cancel`](crate::Cancel::cancel) was called; every process of the step is gone.
    #[error("the step was cancelled")]
    Cancelled,
}

/// What the kernel says of a format that it does not know, and what usually is behind it.
#[derive(Debug, thiserror::Error)]
#[error(
    "{said}; it is a program for another architecture, which needs `qemu-user-static` with \
     `binfmt_misc` on this machine, or a script without a `#!` line"
)]
struct UnknownFormat {
    said: io::Error,
}

impl RunError {
    /// Returns the exit code that a shell gives to this failure, if it is one that shells know:
    /// 127 for a program that does not exist, 126 for one that cannot be executed.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Exec { source, .. } if source.kind() == io::ErrorKind::NotFound => Some(127),
            Self::Exec { .. } => Some(126),
            _ => None,
        }
    }

    /// Returns the error of a program that could not be executed for this reason.
    pub(crate) fn exec(program: String, source: io::Error) -> Self {
        let source = match source.raw_os_error() {
            Some(libc::ENOEXEC) => io::Error::new(source.kind(), UnknownFormat { said: source }),
            _ => source,
        };
        Self::Exec { program, source }
    }

    pub(crate) fn prepare(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Prepare { path, source }
    }

    pub(crate) fn supervise(operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Supervise { operation, source }
    }
}
