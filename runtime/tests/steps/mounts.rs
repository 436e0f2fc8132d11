//! What a step is shown besides its root, and that none of it stays.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use kiln_runtime::{
    Content, Exit, Mount, MountSource, OverlayInterface, Privilege, PrivilegeKind, Sandbox,
    SecretFile, Security, Step,
};

use crate::Case;
use crate::support::{Bench, Lab, chmod, run, write};

pub(crate) const CASES: &[Case] = &[
    ("layers_are_shown_and_changes_thrown_away", layers, false),
    ("a_mount_of_layers_can_be_read_only", read_only, false),
    ("a_part_of_layers_is_looked_up_inside_them", part, false),
    ("a_folder_keeps_what_is_written", folder, false),
    ("links_of_a_folder_stay_inside_it", confined, false),
    ("a_file_in_memory_has_owner_and_mode", file, true),
    ("a_file_in_memory_is_nowhere_on_disk", nowhere, false),
    ("a_tmpfs_has_a_size", tmpfs, false),
    ("a_socket_is_shown", socket, false),
    ("mounts_lie_in_each_other", nested, false),
    ("mount_points_leave_no_trace", no_trace, false),
    ("targets_are_resolved_inside_the_root", targets, false),
    ("proc_and_the_root_cannot_be_covered", uncoverable, false),
    ("every_overlay_interface_shows_layers", interfaces, false),
    ("insecure_means_all_of_its_own_namespace", insecure, false),
];

fn folder_in(bench: &Bench, name: &str) -> PathBuf {
    let path = bench.dir.path().join(name);
    fs::create_dir(&path).unwrap();
    chmod(&path, 0o755);
    path
}

fn mount(target: &str, source: MountSource) -> Mount {
    Mount {
        target: target.to_owned(),
        source,
        read_only: false,
    }
}

/// Two layers: `/a/file` and a link to it below, `/a/other` above.
fn two_layers(bench: &Bench, path: &str) -> MountSource {
    let (low, high) = (folder_in(bench, "low"), folder_in(bench, "high"));
    for layer in [&low, &high] {
        fs::create_dir(layer.join("a")).unwrap();
        chmod(&layer.join("a"), 0o755);
    }
    write(&low.join("a/file"), "low");
    symlink("/a/file", low.join("link")).unwrap();
    write(&high.join("a/other"), "high");
    MountSource::Layers {
        lowers: vec![low, high],
        upper: folder_in(bench, "mount-upper"),
        work: folder_in(bench, "mount-work"),
        path: path.to_owned(),
    }
}

fn with(bench: &Bench, script: &str, mounts: Vec<Mount>) -> Step {
    Step {
        mounts,
        ..bench.step(script)
    }
}

fn sh(lab: &Lab, step: &Step) -> String {
    let ran = lab.run(step).unwrap();
    assert_eq!(
        ran.outcome.exit,
        Exit::Code(0),
        "{}{}",
        ran.stdout,
        ran.stderr
    );
    ran.stdout
}

fn layers(lab: &Lab) {
    let bench = lab.bench();
    let source = two_layers(&bench, "/");
    let script = "cat /m/a/file /m/a/other; echo x >/m/new; rm /m/a/file; ls /m /m/a";
    let out = sh(lab, &with(&bench, script, vec![mount("/m", source)]));
    assert_eq!(out, "lowhigh/m:\na\nlink\nnew\n\n/m/a:\nother\n");
    assert!(bench.changed().is_empty(), "{:?}", bench.changed());
    assert!(bench.dir.path().join("low/a/file").exists());
    let work = fs::read_dir(bench.dir.path().join("mount-work")).unwrap();
    assert_eq!(work.count(), 0);
}

fn read_only(lab: &Lab) {
    let bench = lab.bench();
    let mut mount = mount("/m", two_layers(&bench, "/a"));
    mount.read_only = true;
    let script = "cat /m/file; touch /m/new 2>/dev/null || echo no";
    assert_eq!(sh(lab, &with(&bench, script, vec![mount])), "lowno\n");
}

fn part(lab: &Lab) {
    let bench = lab.bench();
    let source = two_layers(&bench, "/link");
    let out = sh(
        lab,
        &with(&bench, "cat /some/file", vec![mount("/some/file", source)]),
    );
    assert_eq!(out, "low");
    assert!(bench.changed().is_empty(), "{:?}", bench.changed());
}

fn folder(lab: &Lab) {
    let bench = lab.bench();
    let folder = folder_in(&bench, "cache");
    let source = MountSource::Folder {
        folder: folder.clone(),
        path: "/".to_owned(),
    };
    let mounts = vec![mount("/c", source)];
    let script = "echo one >>/c/log; cat /c/log; stat -c %u:%g /c/log";
    assert_eq!(sh(lab, &with(&bench, script, mounts.clone())), "one\n0:0\n");
    assert_eq!(sh(lab, &with(&bench, script, mounts)), "one\none\n0:0\n");
    assert_eq!(
        fs::read_to_string(folder.join("log")).unwrap(),
        "one\none\n"
    );
    assert!(bench.changed().is_empty(), "{:?}", bench.changed());
}

fn confined(lab: &Lab) {
    let bench = lab.bench();
    let folder = folder_in(&bench, "cache");
    fs::create_dir(folder.join("inside")).unwrap();
    write(&folder.join("inside/file"), "mine");
    symlink("/inside", folder.join("link")).unwrap();
    symlink("../../../../../etc", folder.join("out")).unwrap();
    let of = |path: &str| MountSource::Folder {
        folder: folder.clone(),
        path: path.to_owned(),
    };
    let step = with(&bench, "cat /c/file", vec![mount("/c", of("link"))]);
    assert_eq!(sh(lab, &step), "mine");
    let step = with(&bench, "true", vec![mount("/c", of("out"))]);
    let error = lab.run(&step).unwrap_err().to_string();
    assert!(error.contains("find `out`"), "{error}");
}

fn secret(mode: u32, uid: u32) -> MountSource {
    MountSource::File(SecretFile {
        content: Content(b"s3cret".to_vec()),
        mode,
        uid,
        gid: uid,
    })
}

fn file(lab: &Lab) {
    let bench = lab.bench();
    let script = "cat /run/secrets/it; stat -c ' %a %u:%g' /run/secrets/it";
    let step = with(
        &bench,
        script,
        vec![mount("/run/secrets/it", secret(0o440, 7))],
    );
    assert_eq!(sh(lab, &step), "s3cret 440 7:7\n");
    assert!(bench.changed().is_empty(), "{:?}", bench.changed());
}

fn nowhere(lab: &Lab) {
    let bench = lab.bench();
    let mut mount = mount("/it", secret(0o400, 0));
    mount.read_only = true;
    let script = "cat /it; echo x >/it 2>/dev/null || echo no; grep ' /it ' /proc/self/mountinfo";
    let out = sh(lab, &with(&bench, script, vec![mount]));
    assert!(out.starts_with("s3cretno\n"), "{out}");
    assert!(
        out.contains("tmpfs") && out.contains("ro,nosuid,nodev,noexec"),
        "{out}"
    );
    assert!(bench.changed().is_empty(), "{:?}", bench.changed());
}

fn tmpfs(lab: &Lab) {
    let bench = lab.bench();
    let source = MountSource::Tmpfs {
        size: Some(1 << 20),
    };
    let script = "stat -c %a /t; dd if=/dev/zero of=/t/f bs=1024 count=2000 2>/dev/null || \
                  stat -c %s /t/f";
    let out = sh(lab, &with(&bench, script, vec![mount("/t", source)]));
    assert_eq!(out, "1777\n1048576\n");
}

fn socket(lab: &Lab) {
    let bench = lab.bench();
    let path = bench.dir.path().join("socket");
    let _listener = UnixListener::bind(&path).unwrap();
    chmod(&path, 0o600);
    let source = MountSource::Socket { path };
    let script = "test -S /run/agent && stat -c '%a %u:%g' /run/agent";
    let out = sh(
        lab,
        &with(&bench, script, vec![mount("/run/agent", source)]),
    );
    assert_eq!(out, "600 0:0\n");
    assert!(bench.changed().is_empty(), "{:?}", bench.changed());
}

fn nested(lab: &Lab) {
    let bench = lab.bench();
    let tmpfs = || MountSource::Tmpfs { size: None };
    let mounts = vec![
        mount("/m/a/deep", tmpfs()),
        mount("/m", two_layers(&bench, "/")),
        mount("/m/a/file", tmpfs()),
        mount("/m/a/file", secret(0o444, 0)),
    ];
    let out = sh(lab, &with(&bench, "cat /m/a/file; ls /m/a", mounts));
    assert_eq!(out, "s3cretdeep\nfile\nother\n");
    assert!(bench.changed().is_empty(), "{:?}", bench.changed());
}

fn no_trace(lab: &Lab) {
    let bench = lab.bench_with(|layer| {
        fs::create_dir(layer.join("opt")).unwrap();
        chmod(&layer.join("opt"), 0o700);
    });
    let tmpfs = || MountSource::Tmpfs { size: None };
    let mounts = vec![
        mount("/opt/a/b", tmpfs()),
        mount("/opt/c", secret(0o444, 0)),
        mount("/new/deep", tmpfs()),
    ];
    let script = "touch /opt/a/b/x; echo /opt/a/b/* /opt/c /new/deep";
    let out = sh(lab, &with(&bench, script, mounts.clone()));
    assert_eq!(out, "/opt/a/b/x /opt/c /new/deep\n");
    assert!(bench.changed().is_empty(), "{:?}", bench.changed());

    sh(
        lab,
        &with(&bench, "touch /opt/mine -d @1000; touch /new/mine", mounts),
    );
    assert_eq!(bench.changed(), ["new", "new/mine", "opt", "opt/mine"]);
    let after = fs::metadata(bench.upper().join("opt")).unwrap();
    assert_eq!(after.permissions().mode() & 0o7777, 0o700);
}

fn targets(lab: &Lab) {
    let bench = lab.bench_with(|layer| {
        symlink("/../../../inside", layer.join("link")).unwrap();
    });
    let step = with(
        &bench,
        "ls -d /inside/* /link/*",
        vec![mount("/link/x", secret(0o444, 0))],
    );
    assert_eq!(sh(lab, &step), "/inside/x\n/link/x\n");
    assert!(bench.changed().is_empty(), "{:?}", bench.changed());
}

fn uncoverable(lab: &Lab) {
    let bench = lab.bench_with(|layer| symlink("/", layer.join("link")).unwrap());
    for (target, reason) in [
        ("/etc/passwd", "which is no folder"),
        ("/proc", "inside `/proc`"),
        ("/proc/sys", "inside `/proc`"),
        ("/link", "leads to the root"),
        ("/", "leads to the root"),
    ] {
        let source = MountSource::Tmpfs { size: None };
        let step = with(&bench, "true", vec![mount(target, source)]);
        let error = lab.run(&step).unwrap_err().to_string();
        assert!(error.contains(reason), "{target}: {error}");
    }
}

fn interfaces(lab: &Lab) {
    for interface in [
        OverlayInterface::Descriptors,
        OverlayInterface::Paths,
        OverlayInterface::MountString,
    ] {
        let bench = lab.bench();
        let sandbox = sandbox(bench.dir.path(), &lab.privilege).with_overlay_interface(interface);
        let source = two_layers(&bench, "/a");
        let empty = MountSource::Layers {
            lowers: Vec::new(),
            upper: folder_in(&bench, "empty-upper"),
            work: folder_in(&bench, "empty-work"),
            path: "/".to_owned(),
        };
        let mounts = vec![mount("/m", source), mount("/e", empty)];
        let step = with(&bench, "ls /m /e; cat /m/file", mounts);
        let out = run(&sandbox, &step).unwrap().stdout;
        assert_eq!(out, "/e:\n\n/m:\nfile\nother\nlow", "{interface:?}");
        assert!(bench.changed().is_empty(), "{:?}", bench.changed());
    }
}

fn sandbox(dir: &Path, privilege: &Privilege) -> Sandbox {
    Sandbox::new(&dir.join("scratch"), privilege).unwrap()
}

fn insecure(lab: &Lab) {
    let bench = lab.bench();
    let script = "grep -E '^(CapEff|Seccomp):' /proc/self/status; cat /proc/self/uid_map; \
                  mount -t tmpfs none /tmp && echo mounted; hostname other && hostname; \
                  echo x >/proc/sys/kernel/domainname 2>/dev/null; \
                  cat /proc/kcore 2>/dev/null | head -c 1; mknod /disk b 8 0 2>/dev/null || echo no";
    let mut step = bench.step(script);
    step.security = Security::Insecure;
    let out = sh(lab, &step);
    let lines: Vec<&str> = out.lines().collect();
    let capabilities = lines[0].split_whitespace().last().unwrap();
    let all = u64::from_str_radix(capabilities, 16).unwrap();
    assert!(all.count_ones() >= 40, "{out}");
    assert!(lines[1].ends_with('0'), "{out}");
    assert!(lines.ends_with(&["mounted", "other", "no"]), "{out}");
    if lab.privilege.kind == PrivilegeKind::Root {
        assert!(lines[2].contains("1073741824"), "{out}");
    }
}
