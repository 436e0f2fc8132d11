//! What a step leaves in its upper folder, and what it sees of the folders below.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use kiln_runtime::{OverlayInterface, PrivilegeKind, Sandbox};

use crate::Case;
use crate::support::{Lab, chmod, run, write};

pub(crate) const CASES: &[Case] = &[
    ("files_have_plain_ids_on_disk", ids, true),
    ("root_gives_files_large_ids", large_ids, true),
    ("root_owns_what_it_makes", root_ids, false),
    ("owners_below_are_seen_and_kept", owners_below, true),
    ("removal_leaves_a_whiteout", whiteout, false),
    ("a_replaced_folder_is_opaque", opaque, false),
    ("upper_layers_hide_lower_ones", order, false),
    ("a_step_that_changes_nothing_leaves_nothing", nothing, false),
    ("a_root_of_one_file_is_enough", one_file, false),
    ("hidden_mount_points_are_made_and_removed", hidden, false),
    ("what_the_step_puts_beside_a_stub_stays", beside, false),
    (
        "file_capabilities_are_plain_on_disk",
        file_capabilities,
        false,
    ),
    ("a_missing_working_directory_is_made_and_kept", cwd, false),
    (
        "many_layers_work_with_every_overlay_interface",
        interfaces,
        false,
    ),
];

fn ids(lab: &Lab) {
    let bench = lab.bench();
    bench.sh(
        lab,
        "touch /f; mkdir /d; chown 1000:1001 /d; touch /d/g; chown 65534 /d/g",
    );
    let owner = |path: &str| {
        let metadata = bench.upper().join(path).symlink_metadata().unwrap();
        (metadata.uid(), metadata.gid())
    };
    assert_eq!(owner("f"), (0, 0));
    assert_eq!(owner("d"), (1000, 1001));
    assert_eq!(owner("d/g"), (65534, 0));
}

fn large_ids(lab: &Lab) {
    if lab.privilege.kind != PrivilegeKind::Root {
        return;
    }
    let ids = [1 << 30, 2_000_000_000, i32::MAX as u32 + 1, u32::MAX - 1];
    let bench = lab.bench_with(|layer| {
        for id in ids {
            let path = layer.join(format!("below-{id}"));
            write(&path, "x");
            std::os::unix::fs::chown(path, Some(id), Some(id)).unwrap();
        }
    });
    for id in ids {
        let script = format!(
            "touch /f-{id}; chown {id}:{id} /f-{id}; stat -c %u:%g /f-{id} /below-{id}; \
             echo y >> /below-{id}"
        );
        let owner = format!("{id}:{id}\n");
        assert_eq!(bench.sh(lab, &script), owner.repeat(2));
        for name in ["f", "below"] {
            let path = bench.upper().join(format!("{name}-{id}"));
            let metadata = path.metadata().unwrap();
            assert_eq!((metadata.uid(), metadata.gid()), (id, id), "{name}");
        }
    }
}

fn root_ids(lab: &Lab) {
    let bench = lab.bench();
    bench.sh(
        lab,
        "touch /f; mkdir /d; chmod 4755 /f; stat -c %u:%g /f /d /bin /etc/passwd",
    );
    let metadata = bench.upper().join("f").metadata().unwrap();
    assert_eq!(
        (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777),
        (0, 0, 0o4755)
    );
}

fn owners_below(lab: &Lab) {
    let bench = lab.bench_with(|layer| {
        write(&layer.join("f"), "x");
        std::os::unix::fs::chown(layer.join("f"), Some(7), Some(8)).unwrap();
    });
    assert_eq!(
        bench.sh(lab, "stat -c %u:%g /f; echo y >> /f; stat -c %u:%g /f"),
        "7:8\n7:8\n"
    );
    let copied = bench.upper().join("f").metadata().unwrap();
    assert_eq!((copied.uid(), copied.gid()), (7, 8));
}

fn whiteout(lab: &Lab) {
    let bench = lab.bench();
    bench.sh(lab, "rm /etc/passwd");
    let metadata = bench.upper().join("etc/passwd").symlink_metadata().unwrap();
    assert!(metadata.file_type().is_char_device() && metadata.rdev() == 0);
    assert!(lab.base().join("etc/passwd").exists());
}

fn opaque(lab: &Lab) {
    let bench = lab.bench();
    bench.sh(lab, "rm -r /home; mkdir /home; touch /home/new");
    let mut value = [0; 8];
    let upper = bench.upper().join("home");
    let length = rustix::fs::getxattr(upper, "user.overlay.opaque", &mut value).unwrap();
    assert_eq!(&value[..length], b"y");
    assert_eq!(bench.changed(), ["home", "home/new"]);
}

fn order(lab: &Lab) {
    let mut bench = lab.bench();
    for (name, content) in [("one", "1"), ("two", "2")] {
        let layer = bench.dir.path().join(name);
        fs::create_dir(&layer).unwrap();
        chmod(&layer, 0o755);
        write(&layer.join("f"), content);
        bench.lowers.push(layer);
    }
    assert_eq!(bench.sh(lab, "cat /f"), "2");
}

fn nothing(lab: &Lab) {
    let bench = lab.bench();
    bench.sh(lab, "true");
    assert!(bench.changed().is_empty(), "{:?}", bench.changed());
}

fn one_file(lab: &Lab) {
    let dir = tempfile::tempdir().unwrap();
    chmod(dir.path(), 0o755);
    fs::copy("/bin/busybox", dir.path().join("busybox")).unwrap();
    let bench = lab.bench_on(vec![dir.path().to_owned()]);
    let mut step = bench.step("");
    step.args = ["/busybox", "ls", "/", "/etc"].map(str::to_owned).to_vec();
    let ran = lab.run(&step).unwrap();
    assert_eq!(
        ran.stdout,
        "/:\nbusybox\ndev\netc\nproc\nsys\n\n/etc:\nhosts\nresolv.conf\n"
    );
    assert!(bench.changed().is_empty(), "{:?}", bench.changed());
    // Not even that: a copy of the program made by an earlier step into an empty root.
    let empty = lab.bench_on(Vec::new());
    fs::copy("/bin/busybox", empty.upper().join("busybox")).unwrap();
    let mut step = empty.step("");
    step.args = ["/busybox", "true"].map(str::to_owned).to_vec();
    assert!(lab.run(&step).unwrap().outcome.is_success());
    assert_eq!(empty.changed(), ["busybox"]);
}

/// A layer whose `/etc` hides the one of the skeleton, and which has `/proc` removed.
fn hiding(layer: &Path) {
    fs::create_dir(layer.join("etc")).unwrap();
    chmod(&layer.join("etc"), 0o750);
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(layer.join("etc"), "user.overlay.opaque", b"y", flags).unwrap();
    write(&layer.join("etc/kept"), "kept");
    let kind = rustix::fs::FileType::CharacterDevice;
    let mode = rustix::fs::Mode::empty();
    rustix::fs::mknodat(rustix::fs::CWD, layer.join("proc"), kind, mode, 0).unwrap();
}

fn hidden(lab: &Lab) {
    let bench = lab.bench_with(hiding);
    let before = bench.lowers[1].join("etc").metadata().unwrap().mtime_nsec();
    let upper_before = bench.upper().metadata().unwrap().mtime_nsec();
    let out = bench.sh(
        lab,
        "ls /etc; test -s /etc/hosts && test -e /proc/self && echo there",
    );
    assert_eq!(out, "hosts\nkept\nresolv.conf\nthere\n");
    assert!(bench.changed().is_empty(), "{:?}", bench.changed());
    assert_eq!(
        bench.lowers[1].join("etc").metadata().unwrap().mtime_nsec(),
        before
    );
    assert_eq!(bench.upper().metadata().unwrap().mtime_nsec(), upper_before);
}

fn beside(lab: &Lab) {
    let bench = lab.bench_with(hiding);
    bench.sh(lab, "touch /etc/new");
    assert_eq!(bench.changed(), ["etc", "etc/new"]);
    let bench = lab.bench_with(hiding);
    bench.sh(lab, "chmod 700 /etc");
    assert_eq!(bench.changed(), ["etc"]);
}

fn file_capabilities(lab: &Lab) {
    let bench = lab.bench();
    // cap_net_bind_service=ep, as setcap(8) writes it.
    let plain = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let setcap = "/sbin/setcap";
    if !Path::new(setcap).exists() {
        return;
    }
    // The host's own program and libraries, to set them from inside.
    let mut step = bench.step("touch /f && /run/setcap cap_net_bind_service=ep /f");
    let layer = bench.dir.path().join("tools");
    fs::create_dir_all(layer.join("run")).unwrap();
    chmod(&layer, 0o755);
    chmod(&layer.join("run"), 0o755);
    copy_with_libraries(setcap, &layer);
    step.lowers.push(layer);
    let ran = lab.run(&step).unwrap();
    assert!(ran.outcome.is_success(), "{}", ran.stderr);
    let mut value = [0; 64];
    let upper = bench.upper().join("f");
    let length = rustix::fs::getxattr(upper, "security.capability", &mut value).unwrap();
    assert_eq!(value[..length], plain);
}

fn copy_with_libraries(program: &str, layer: &Path) {
    fs::copy(program, layer.join("run/setcap")).unwrap();
    let libraries = crate::support::command("ldd")
        .arg(program)
        .output()
        .unwrap()
        .stdout;
    let libraries = String::from_utf8(libraries).unwrap();
    for path in libraries
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
    {
        let target = layer.join(path.trim_start_matches('/'));
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(path, target).unwrap();
    }
}

fn cwd(lab: &Lab) {
    let bench = lab.bench();
    let mut step = bench.step("pwd; stat -c '%a %u' . ..");
    step.cwd = "/srv/app".to_owned();
    if lab.privilege.kind != PrivilegeKind::SingleId {
        step.user = "app".to_owned();
    }
    let ran = lab.run(&step).unwrap();
    let uid = if step.user.is_empty() { 0 } else { 1000 };
    assert_eq!(ran.stdout, format!("/srv/app\n755 {uid}\n755 {uid}\n"));
    assert_eq!(bench.changed(), ["srv", "srv/app"]);
    assert_eq!(bench.upper().join("srv/app").metadata().unwrap().uid(), uid);
}

fn interfaces(lab: &Lab) {
    let mut bench = lab.bench();
    for n in 0..60 {
        let layer = bench.dir.path().join(format!("layer-{n}"));
        fs::create_dir(&layer).unwrap();
        chmod(&layer, 0o755);
        write(&layer.join(format!("f{n}")), "x");
        bench.lowers.push(layer);
    }
    for interface in [
        OverlayInterface::Descriptors,
        OverlayInterface::Paths,
        OverlayInterface::MountString,
    ] {
        let scratch = tempfile::tempdir().unwrap();
        let sandbox = Sandbox::new(scratch.path(), &lab.privilege)
            .unwrap()
            .with_overlay_interface(interface);
        let upper = lab.bench_on(bench.lowers.clone());
        let ran = run(&sandbox, &upper.step("ls -d /f* | wc -l; touch /new")).unwrap();
        assert_eq!(ran.stdout, "60\n", "{interface:?}");
        assert_eq!(upper.changed(), ["new"], "{interface:?}");
    }
}
