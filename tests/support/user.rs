//! An ordinary user with subordinate ids, who exists only for the processes that a test starts.
//!
//! `/etc/passwd`, `/etc/subuid` and their kin are replaced in a mount namespace of their own, so
//! that the machine stays as it is.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::{command, require_root, require_tools};

const NAME: &str = "builder";
const ID: u32 = 54321;

/// Enters the namespace: binds the files, becomes the user, runs the rest of the arguments.
const ENTER: &str = r#"
set -e
for name in passwd group subuid subgid; do
  [ -e /etc/$name ] || continue
  mount --bind "$1/$name" /etc/$name
done
id=$2
shift 2
exec setpriv --reuid=$id --regid=$id --init-groups --inh-caps=-all -- "$@"
"#;

/// An ordinary user with a home.
#[derive(Debug)]
pub(crate) struct User {
    dir: TempDir,
}

impl User {
    /// Returns a user, if the test may make one here.
    pub(crate) fn require() -> Option<Self> {
        let is_possible = require_root() && require_tools(&["newuidmap", "unshare", "setpriv"]);
        is_possible.then(Self::new)
    }

    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        make_public(dir.path());
        let user = Self { dir };
        let (home, etc) = (user.home(), user.etc());
        fs::create_dir(&etc).unwrap();
        fs::create_dir(&home).unwrap();
        user.give(&home);
        let account = format!("{NAME}:x:{ID}:{ID}::{}:/bin/sh\n", home.display());
        let ids = format!("{NAME}:2000000:65536\n");
        for (name, line) in [
            ("passwd", account),
            ("group", format!("{NAME}:x:{ID}:\n")),
            ("subuid", ids.clone()),
            ("subgid", ids),
        ] {
            let old = fs::read_to_string(Path::new("/etc").join(name)).unwrap_or_default();
            fs::write(etc.join(name), old + &line).unwrap();
        }
        user
    }

    /// The user's home, which nobody else uses.
    pub(crate) fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// Takes the user's subordinate ids away.
    pub(crate) fn forget_subordinate_ids(&self) {
        for name in ["subuid", "subgid"] {
            fs::write(self.etc().join(name), "").unwrap();
        }
    }

    fn etc(&self) -> PathBuf {
        self.dir.path().join("etc")
    }

    /// Makes a file or folder the user's own.
    pub(crate) fn give(&self, path: &Path) {
        chown(path, Some(ID), Some(ID)).unwrap();
    }

    /// Returns a command that runs a program as the user.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = command("unshare");
        command.args(["--mount", "--", "sh", "-c", ENTER, "sh"]);
        command.arg(self.etc()).arg(ID.to_string()).arg(program);
        command.env("HOME", self.home()).env("USER", NAME);
        command.current_dir(self.home());
        command
    }

    /// Copies a program to where the user can execute it.
    pub(crate) fn copy_program(&self, program: &Path) -> PathBuf {
        let copy = self.dir.path().join(program.file_name().unwrap());
        fs::copy(program, &copy).unwrap();
        make_public(&copy);
        copy
    }
}

fn make_public(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
