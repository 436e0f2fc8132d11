//! Runs real steps in real namespaces: as root, as a user with subordinate ids, and as a user
//! without.
//!
//! Not libtest: this program is what the sandbox re-executes as its init, so its `main` has to
//! begin as kiln's does, and a user namespace can only be entered before threads exist. When
//! started by root it runs itself again as the two kinds of users. Any argument that is not an
//! option selects the cases whose names contain it.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that is not libtest's"
)]

mod attacks;
mod identity;
mod isolation;
mod layers;
mod mounts;
mod process;
mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use kiln_runtime::{PrivilegeKind, Sandbox};

use crate::support::{Lab, command};

/// A case and whether it needs more ids than root's.
type Case = (&'static str, fn(&Lab), bool);

fn main() -> ExitCode {
    kiln_runtime::intercept();
    match std::env::args().nth(1).as_deref() {
        Some("--long-step") => return process::long_step(),
        Some("--fallback") => return isolation::in_fallback(),
        _ => {}
    }
    let is_root = rustix::process::geteuid().is_root();
    let Some(privilege) = support::require_namespaces() else {
        return ExitCode::SUCCESS;
    };
    let scratch = tempfile::tempdir().unwrap();
    let lab = Lab::new(Sandbox::new(scratch.path(), &privilege).unwrap(), privilege);
    let mut is_good = run_all(&lab);
    drop(lab);
    if is_root {
        is_good &= run_as("4242", &["--clear-groups"]);
        is_good &= run_as_user_with_ids();
    }
    if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn run_all(lab: &Lab) -> bool {
    let filter: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let who = match lab.privilege.kind {
        PrivilegeKind::Root => "root",
        PrivilegeKind::Mapped { .. } => "user",
        PrivilegeKind::SingleId => "single",
    };
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts_before = mounts();
    let mut is_good = true;
    for (name, case, needs_ids) in cases() {
        let is_selected = filter.is_empty() || filter.iter().any(|f| name.contains(f));
        if !is_selected || (needs_ids && lab.privilege.kind == PrivilegeKind::SingleId) {
            continue;
        }
        let verdict = catch_unwind(AssertUnwindSafe(|| case(lab)));
        println!(
            "test {who}::{name} ... {}",
            if verdict.is_ok() { "ok" } else { "FAILED" }
        );
        is_good &= verdict.is_ok();
    }
    assert_eq!(mounts(), mounts_before, "mounts were left behind");
    is_good
}

fn cases() -> Vec<Case> {
    [
        process::CASES,
        isolation::CASES,
        layers::CASES,
        mounts::CASES,
        identity::CASES,
        attacks::CASES,
    ]
    .concat()
}

/// Runs this program as a user whom nobody gave subordinate ids, or as one given by options.
fn run_as(id: &str, options: &[&str]) -> bool {
    let program = support::reachable_program();
    let mut setpriv = command("setpriv");
    setpriv
        .args(["--reuid", id, "--regid", id])
        .args(options)
        .arg("--inh-caps=-all");
    setpriv
        .arg(program.path())
        .args(std::env::args().skip(1))
        .current_dir("/");
    setpriv.status().unwrap().success()
}

fn run_as_user_with_ids() -> bool {
    let name = "kiln-test-peer";
    let exists = command("id").arg(name).output().unwrap().status.success();
    if !exists
        && !command("useradd")
            .args(["-m", name])
            .status()
            .unwrap()
            .success()
    {
        return support::skip::<()>("cannot make a user with subordinate ids").is_none();
    }
    let is_good = run_as(name, &["--init-groups"]);
    if !exists {
        // The account was made for this run.
        let _removed = command("userdel").args(["-r", name]).output().unwrap();
    }
    is_good
}
