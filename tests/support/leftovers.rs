//! What a build must not leave behind: processes, mounts, temporary files.

use std::fs;
use std::path::Path;

use super::wait_until;

/// Returns the ids of processes with `marker` in their command line.
pub(crate) fn processes_with(marker: &str) -> Vec<u32> {
    processes("cmdline", marker)
}

/// Returns the processes whose `/proc/PID/FILE` has `marker`; itself not.
fn processes(file: &str, marker: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let others = ids.filter(|id| *id != std::process::id());
    let has_marker = |id: &u32| {
        let bytes = fs::read(format!("/proc/{id}/{file}")).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).replace('\0', " ");
        text.contains(marker)
    };
    others.filter(has_marker).collect()
}

/// Waits until no process but tests sees a mount of the store, and `tmp` holds no session.
///
/// `marker` is something in the command line of the build's steps.
pub(crate) fn assert_store_is_clean(root: &Path, marker: &str) {
    assert_store_is_quiet(root, marker);
    let tmp = root.join("tmp");
    let names = |dir: &Path| -> Vec<_> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name()).collect()
    };
    let left: Vec<_> = names(&tmp)
        .into_iter()
        .filter(|name| name != ".lock")
        .collect();
    assert!(left.is_empty(), "left in {}: {left:?}", tmp.display());
}

/// As [`assert_store_is_clean`], but temporary files may wait for the next build.
pub(crate) fn assert_store_is_quiet(root: &Path, marker: &str) {
    let root = root.to_str().unwrap();
    // The kernel kills a step's processes one after the other.
    wait_until("no process of a step", || processes_with(marker).is_empty());
    wait_until("no mount of the store", || {
        processes("mountinfo", root).is_empty()
    });
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(root), "mounted: {mounts}");
}
