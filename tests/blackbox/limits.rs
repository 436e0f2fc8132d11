//! Places that do not take what kiln writes: read-only, not ours, full.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::support::{
    Context, Lab, assert_store_is_clean, command, output, require_root, run, text,
};

/// Exit code of a mistake in what was given.
const USER: i32 = 1;

/// A small file system; unmounted when it is dropped.
struct SmallDisk<'a> {
    dir: &'a Path,
}

impl<'a> SmallDisk<'a> {
    fn mount(dir: &'a Path, options: &str) -> Self {
        fs::create_dir_all(dir).unwrap();
        let mut mount = command("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]);
        run(mount.arg(dir));
        Self { dir }
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        run(command("umount").arg(self.dir));
    }
}

#[test]
fn store_that_cannot_be_written_is_told() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new("ARG BASE\nFROM $BASE\nRUN true\n");
    // A file stands where the folder should be; this stops root, too.
    fs::write(lab.kiln.root(), "").unwrap();
    let outcome = lab.build(&context).fails(USER);
    outcome.says(&[lab.kiln.root().to_str().unwrap(), "--root"]);
}

#[test]
fn read_only_store_is_told() {
    let Some(lab) = Lab::require() else {
        return;
    };
    if !require_root() {
        return;
    }
    let root = lab.kiln.root();
    let _disk = SmallDisk::mount(&root, "ro");
    let context = Context::new("ARG BASE\nFROM $BASE\nRUN true\n");
    lab.build(&context)
        .fails(USER)
        .says(&[root.to_str().unwrap(), "ead-only"]);
}

#[test]
fn folder_of_somebody_else_is_told() {
    let Some(lab) = Lab::of_ordinary_user() else {
        return;
    };
    let other = tempfile::tempdir().unwrap();
    fs::set_permissions(other.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let context = Context::new("ARG BASE\nFROM $BASE\nRUN true\n");
    let root = other.path().join("store");
    let build = lab.build(&context).arg("--root").arg(&root);
    build
        .fails(USER)
        .says(&[root.to_str().unwrap(), "ermission denied"]);
}

#[test]
fn full_disk_during_a_pull_is_told() {
    full_disk("size=512k", "RUN true");
}

#[test]
fn full_disk_during_a_copy_is_told() {
    full_disk("size=8m", "COPY large /large");
}

#[test]
fn full_disk_during_a_step_fails_the_step() {
    full_disk("size=8m", "RUN dd if=/dev/zero of=/large bs=1M count=30");
}

/// Builds on a disk that is too small; then, with what takes less room, on the same store.
fn full_disk(size: &str, instruction: &str) {
    if !require_root() {
        return;
    }
    let Some(lab) = Lab::require() else {
        return;
    };
    let (home, root) = (lab.kiln.home(), lab.kiln.root());
    let disk = SmallDisk::mount(&home, size);
    let context = Context::new(&format!("ARG BASE\nFROM $BASE\n{instruction}\n"));
    context.write("large", vec![7; 30 << 20]);
    let outcome = lab.build(&context).run();
    assert!(!outcome.status.success(), "{}", outcome.stderr);
    outcome.says(&["No space left on device"]);
    assert_store_is_clean(&root, "dd if=/dev/zero of=/large");
    run(command("mount").args(["-o", "remount,size=64m"]).arg(&home));
    context.edit(instruction, "RUN echo small > /small");
    lab.build(&context).ok();
    drop(disk);
}

#[test]
fn full_disk_can_be_pruned() {
    if !require_root() {
        return;
    }
    let Some(lab) = Lab::require() else {
        return;
    };
    let home = lab.kiln.home();
    let disk = SmallDisk::mount(&home, "size=64m");
    let context = Context::new("ARG BASE\nFROM $BASE\nRUN dd if=/dev/zero of=/l bs=1M count=9\n");
    lab.build(&context).ok();
    // To the last byte: there is no room for a line of text.
    let mut fill = command("sh");
    fill.arg("-c")
        .arg("cat /dev/zero > full; while echo >> full; do :; done");
    fill.current_dir(&home).output().unwrap();
    let failed = lab.build(&context).fails(USER);
    failed.says(&["kiln prune"]);
    let pruned = lab.kiln.run(["prune", "--force"]).succeeded();
    assert!(text(&pruned.stdout).contains("RUN dd"));
    lab.build(&context).ok();
    // What was given back is there again when there is room for it.
    fs::remove_file(home.join("full")).unwrap();
    lab.kiln.run(["du"]).succeeded();
    assert!(lab.kiln.root().join("reserve").exists());
    drop(disk);
}

#[test]
fn result_that_cannot_be_written_is_told() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new("FROM scratch\nCOPY Dockerfile /\n");
    fs::write(lab.kiln.out("file"), "").unwrap();
    for (kind, dest) in [
        ("oci", lab.kiln.out("no/such/folder/image.tar")),
        ("tar", lab.kiln.out("file/image.tar")),
        ("local", lab.kiln.out("file/dir")),
    ] {
        let build = lab.kiln.build(&context).arg("-o").arg(output(kind, &dest));
        build.fails(USER).says(&[dest.to_str().unwrap()]);
    }
}

#[test]
fn file_that_is_there_survives_a_failed_export() {
    if !require_root() {
        return;
    }
    let Some(lab) = Lab::require() else {
        return;
    };
    let dir = lab.kiln.out("small");
    let _disk = SmallDisk::mount(&dir, "size=256k");
    let dest = dir.join("image.tar");
    fs::write(&dest, "as it was").unwrap();
    let context = Context::new("FROM scratch\nCOPY large /\n");
    context.write("large", vec![7; 1 << 20]);
    let build = lab.kiln.build(&context).arg("-o").arg(output("tar", &dest));
    build.fails(USER).says(&["No space left on device"]);
    assert_eq!(fs::read_to_string(&dest).unwrap(), "as it was");
    let names: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, ["image.tar"]);
}
