//! Device nodes: placeholders for those that a step makes, and nodes of layers that it cannot open.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::time::{Duration, Instant, UNIX_EPOCH};

use kiln_runtime::{Cancel, Device, PrivilegeKind, RunError};
use rustix::fs::{FileType, Mode, makedev};

use crate::Case;
use crate::support::{Bench, Lab};

pub(crate) const CASES: &[Case] = &[
    ("devices_are_placeholders", placeholders, false),
    ("devices_are_made_where_the_caller_means", places, false),
    ("placeholders_are_files_to_the_step", handling, false),
    ("devices_that_cannot_be_fail_as_ever", failures, false),
    ("users_make_no_devices", users, true),
    ("marks_of_deletion_cannot_be_forged", whiteouts, false),
    ("devices_of_layers_cannot_be_opened", below, false),
    (
        "many_devices_are_made_and_a_step_ends_meanwhile",
        many,
        false,
    ),
    ("ordinary_users_make_no_devices", ordinary, false),
];

/// Runs a script; returns its output and the devices that it made.
fn make(lab: &Lab, bench: &Bench, script: &str) -> (String, Vec<Device>) {
    let ran = lab.run(&bench.step(script)).unwrap();
    let (out, err) = (ran.stdout, ran.stderr);
    assert!(ran.outcome.is_success(), "{script}: {out}{err}");
    (out, ran.outcome.devices)
}

/// Returns what a path of the upper folder stands for.
fn device(bench: &Bench, devices: &[Device], path: &str) -> String {
    let path = bench.upper().join(path);
    let metadata = path.symlink_metadata().unwrap();
    let (mode, uid, gid) = (metadata.mode() & 0o7777, metadata.uid(), metadata.gid());
    let value = if metadata.file_type().is_socket() {
        let device = devices.iter().rfind(|it| it.inode == metadata.ino());
        let device = device.unwrap();
        let created = metadata.created().unwrap().duration_since(UNIX_EPOCH);
        assert_eq!(created.unwrap().as_secs(), device.born.0.unsigned_abs());
        let kind = if device.is_block { 'b' } else { 'c' };
        format!("{kind} {}:{}", device.major, device.minor)
    } else {
        assert!(metadata.is_file() && metadata.len() == 0, "{metadata:?}");
        let mut value = [0; 64];
        let length = rustix::fs::lgetxattr(&path, "user.kiln.device", &mut value[..]).unwrap();
        String::from_utf8(value[..length].to_vec()).unwrap()
    };
    format!("{value} {mode:o} {uid}:{gid}")
}

fn is_root(lab: &Lab) -> bool {
    lab.privilege.kind == PrivilegeKind::Root
}

fn placeholders(lab: &Lab) {
    if !is_root(lab) {
        return;
    }
    let bench = lab.bench();
    let (_, devices) = make(
        lab,
        &bench,
        "mknod /null c 1 3; mknod /mem c 1 1; mknod -m 4640 /block b 7 300; mknod /large c 4095 1048575; \
         umask 077; mknod /private b 0 0; mknod -m 666 /pipe p",
    );
    let device = |path| device(&bench, &devices, path);
    assert_eq!(device("null"), "c 1:3 644 0:0");
    assert_eq!(device("mem"), "c 1:1 644 0:0");
    assert_eq!(device("block"), "b 7:300 4640 0:0");
    assert_eq!(device("large"), "c 4095:1048575 644 0:0");
    assert_eq!(device("private"), "b 0:0 600 0:0");
    let pipe = bench.upper().join("pipe").metadata().unwrap();
    assert!(pipe.file_type().is_fifo());
    // Other file systems of the step take them too.
    let script = "for n in 3 5; do mknod /dev/mine c 1 $n; ls /dev/mine; rm /dev/mine; done";
    bench.sh(lab, script);
}

fn places(lab: &Lab) {
    if !is_root(lab) {
        return;
    }
    let bench = lab.bench();
    let (_, devices) = make(
        lab,
        &bench,
        "mkdir -p /d/e /link-to; ln -s /d/e /l; ln -s ../../../../../d /link-to/up; cd /d
         mknod rel c 1 3; mknod e/deep c 1 5; mknod ../back c 1 7; mknod /l/linked c 1 8
         mknod /link-to/up/far b 8 0; mknod /proc/self/root/d/magic c 5 0 2>/dev/null || true
         mkdir -p /new/bin /new/d; cp /bin/busybox /new/bin/
         chroot /new /bin/busybox mknod /d/inner c 1 9
         chroot /new /bin/busybox mknod ../../../outer c 1 9",
    );
    for (path, expected) in [
        ("d/rel", "c 1:3"),
        ("d/e/deep", "c 1:5"),
        ("back", "c 1:7"),
        ("d/e/linked", "c 1:8"),
        ("d/far", "b 8:0"),
        ("new/d/inner", "c 1:9"),
        ("new/outer", "c 1:9"),
    ] {
        assert_eq!(
            device(&bench, &devices, path),
            format!("{expected} 644 0:0"),
            "{path}"
        );
    }
    assert!(!bench.upper().join("outer").exists());
    // Longer than a page, and from a folder deeper than a path may be long.
    bench.sh(
        lab,
        "n=0; while [ $n -lt 30 ]; do p=$p/$(printf %0200d $n); mkdir /d$p 2>/dev/null || \
         { mkdir $(printf %0200d $n); }; cd $(printf %0200d $n) 2>/dev/null || cd /d$p; \
         n=$((n+1)); done; mknod deep c 1 3; ls deep",
    );
}

fn handling(lab: &Lab) {
    if !is_root(lab) {
        return;
    }
    for (numbers, can_be_used) in [("1 3", true), ("1 5", false), ("5 0", false)] {
        let bench = lab.bench();
        let script = format!(
            "mknod /a c {numbers}; chmod 600 /a; chown 5:6 /a; mv /a /b; ln /b /c
             mknod /gone c {numbers}; rm /gone; mkdir -m 2775 /d; chown :10 /d
             mknod /d/g c {numbers}; for d in /b /d/g; do cat $d 2>&1; done; true"
        );
        let (out, devices) = make(lab, &bench, &script);
        let is_refused = out.matches("No such device or address").count() == 2;
        assert!(is_refused != can_be_used, "{out}");
        let numbers = numbers.replace(' ', ":");
        let device = |path| device(&bench, &devices, path);
        assert_eq!(device("b"), format!("c {numbers} 600 5:6"));
        assert_eq!(device("c"), format!("c {numbers} 600 5:6"));
        assert_eq!(device("d/g"), format!("c {numbers} 644 0:10"));
        assert_eq!(bench.changed(), ["b", "c", "d", "d/g"]);
    }
}

fn failures(lab: &Lab) {
    let bench = lab.bench();
    let long = "x".repeat(256);
    for (path, why) in [
        ("/bin/sh", "File exists"),
        ("/", "File exists"),
        ("/missing/x", "No such file or directory"),
        ("", "No such file or directory"),
        ("/etc/passwd/x", "Not a directory"),
        ("/slash/", "No such file or directory"),
        ("/sys/x", "Read-only file system"),
        (&*long, "File name too long"),
    ] {
        let script = format!("mknod '{path}' c 1 3 2>&1 || true");
        let out = bench.sh(lab, &script);
        assert!(out.contains(why), "{path}: {out}");
    }
    assert!(bench.changed().is_empty(), "{:?}", bench.changed());
}

fn users(lab: &Lab) {
    let bench = lab.bench();
    let mut step = bench.step("cd /tmp; mknod x c 1 3 2>&1; mknod pipe p; ls; umask");
    step.user = "app".to_owned();
    let out = lab.run(&step).unwrap().stdout;
    assert_eq!(out, "mknod: x: Operation not permitted\npipe\n0022\n");
    let out = bench.sh(lab, "su app -c 'mknod /tmp/y c 1 3 2>&1' || ls /tmp");
    assert_eq!(out, "mknod: /tmp/y: Operation not permitted\npipe\n");
}

fn whiteouts(lab: &Lab) {
    let bench = lab.bench();
    bench.sh(lab, "! mknod /x c 0 0 2>/dev/null; ! mknod /etc/y c 0 0");
    assert!(bench.changed().is_empty(), "{:?}", bench.changed());
}

fn below(lab: &Lab) {
    if !is_root(lab) {
        return;
    }
    let bench = lab.bench_with(|layer| {
        for (name, kind, device) in [
            ("null", FileType::CharacterDevice, makedev(1, 3)),
            ("zero", FileType::CharacterDevice, makedev(1, 5)),
            ("disk", FileType::BlockDevice, makedev(254, 0)),
        ] {
            let mode = Mode::from(0o666);
            rustix::fs::mknodat(rustix::fs::CWD, layer.join(name), kind, mode, device).unwrap();
        }
    });
    let out = bench.sh(
        lab,
        "test -c /null && test -c /zero && test -b /disk && stat -c %t:%T /zero
         for d in null zero disk; do
             cat /$d 2>&1 && exit 1; dd if=/bin/sh of=/$d count=1 2>&1 && exit 1; done
         rm /null; ! test -e /null",
    );
    assert!(out.starts_with("1:5\n"), "{out}");
    assert_eq!(out.matches("Permission denied").count(), 6, "{out}");
}

fn many(lab: &Lab) {
    if !is_root(lab) {
        return;
    }
    let bench = lab.bench();
    let script = "for p in 1 2 3 4; do (n=0; while [ $n -lt 25 ]; do mknod /$p-$n c 1 $n || exit 1; \
                  n=$((n+1)); done) & done; wait; ls / | grep -c -";
    let (out, devices) = make(lab, &bench, script);
    assert_eq!((out.as_str(), devices.len()), ("100\n", 96));
    assert_eq!(device(&bench, &devices, "3-24"), "c 1:24 644 0:0");
    // Signals do not repeat a call that is being answered.
    let script = "trap : USR1; (while :; do kill -USR1 $$ || exit; done) 2>/dev/null & n=0; \
                  while [ $n -lt 50 ]; do mknod /s-$n c 1 $((n%2+2)) || exit 1; n=$((n+1)); done";
    bench.sh(lab, script);
    let cancel = Cancel::new().unwrap();
    let step = bench.step("echo up; n=0; while :; do mknod /m-$n c 1 1; n=$((n+1)); done");
    let started = Instant::now();
    let result = lab.sandbox.run(&step, &cancel, &mut |_, _| cancel.cancel());
    assert!(matches!(result, Err(RunError::Cancelled)), "{result:?}");
    assert!(started.elapsed() < Duration::from_secs(5));
}

fn ordinary(lab: &Lab) {
    if is_root(lab) {
        return;
    }
    let bench = lab.bench();
    let out = bench.sh(
        lab,
        "mknod /x c 1 3 2>&1; mknod /y b 8 0 2>&1; mknod /p p; ls -d /p",
    );
    assert_eq!(
        out,
        "mknod: /x: Operation not permitted\nmknod: /y: Operation not permitted\n/p\n"
    );
    assert!(!Path::new(&bench.upper()).join("x").exists());
}
