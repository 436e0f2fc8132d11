//! Roots and steps made to reach the host. A canary beside the layers must stay as it is.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kiln_runtime::{Cancel, InlineFile, RunError};

use crate::Case;
use crate::process::init_pid;
use crate::support::{Bench, Lab, chmod, write};

pub(crate) const CASES: &[Case] = &[
    ("linked_mount_points_stay_inside", linked_files, false),
    ("linked_kernel_folders_stay_inside", linked_folders, false),
    (
        "kernel_folders_that_cannot_be_are_named",
        impossible_folders,
        false,
    ),
    ("a_linked_working_directory_stays_inside", linked_cwd, false),
    (
        "descriptors_cannot_be_a_working_directory",
        descriptor_cwd,
        false,
    ),
    ("stub_removal_follows_no_links", stub_removal, false),
    ("account_files_can_be_anything", account_files, false),
    ("the_engine_cannot_be_overwritten", overwrite, false),
    ("steps_do_not_see_other_processes", processes, false),
];

struct Canary(PathBuf);

impl Canary {
    fn new(bench: &Bench) -> Self {
        let path = bench.dir.path().join("canary");
        write(&path, "alive");
        Self(path)
    }

    fn check(&self) {
        assert_eq!(fs::read_to_string(&self.0).unwrap(), "alive");
    }

    /// The canary's path as an image would guess it.
    fn far(&self) -> String {
        format!("../../../../../../../..{}", self.0.display())
    }
}

fn linked_files(lab: &Lab) {
    let mut target = String::new();
    let bench = lab.bench_with(|layer| {
        target = format!("{}/../canary", layer.display());
        fs::create_dir(layer.join("etc")).unwrap();
        chmod(&layer.join("etc"), 0o755);
        symlink("/../canary", layer.join("etc/resolv.conf")).unwrap();
        symlink(&target, layer.join("etc/hosts")).unwrap();
    });
    let canary = Canary::new(&bench);
    let out = bench.sh(
        lab,
        "cat /etc/hosts; test -e /canary && echo inside; ! echo x > /etc/hosts",
    );
    assert!(out.contains("localhost") && out.contains("inside"), "{out}");
    canary.check();
    assert!(bench.changed().is_empty(), "{:?}", bench.changed());
}

fn linked_folders(lab: &Lab) {
    let bench = lab.bench_with(|layer| {
        for name in ["dev", "proc", "sys"] {
            symlink(format!("/../../tmp/real-{name}"), layer.join(name)).unwrap();
        }
    });
    let out = bench.sh(
        lab,
        "test -c /dev/null && test -e /proc/self && head -c1 /proc/kcore | wc -c; ls -d /tmp/*; \
         if echo x 2>/dev/null > /proc/sys/kernel/hostname; then echo open; fi",
    );
    assert_eq!(out, "0\n/tmp/real-dev\n/tmp/real-proc\n/tmp/real-sys\n");
    assert!(bench.changed().is_empty(), "{:?}", bench.changed());
    assert!(!Path::new("/tmp/real-proc").exists());
}

fn impossible_folders(lab: &Lab) {
    type Fill = fn(&Path);
    let fills: [(Fill, &str); 4] = [
        (|path| symlink("/", path).unwrap(), "the root of the image"),
        (
            |path| symlink("../missing/..", path).unwrap(),
            "the root of the image",
        ),
        (|path| write(path, "x"), "is no folder in the image"),
        (
            |path| symlink("/bin/sh", path).unwrap(),
            "is no folder in the image",
        ),
    ];
    for name in ["proc", "sys", "dev"] {
        for (fill, why) in fills {
            let bench = lab.bench_with(|layer| fill(&layer.join(name)));
            let error = lab.run(&bench.step("true")).unwrap_err();
            assert!(matches!(error, RunError::Setup { .. }), "{error:?}");
            let text = error.to_string();
            assert!(text.contains(&format!("`/{name}`")), "{text}");
            assert!(text.contains(why), "{text}");
            assert!(bench.changed().is_empty(), "{:?}", bench.changed());
        }
    }
}

fn linked_cwd(lab: &Lab) {
    let bench = lab.bench();
    let canary = Canary::new(&bench);
    bench.sh(
        lab,
        &format!("ln -s {} /w; ln -s ../../../../.. /up", canary.far()),
    );
    let mut step = bench.step("pwd; echo $(ls -A / | wc -l) $(ls -A | wc -l)");
    step.cwd = "/up/made".to_owned();
    assert!(lab.run(&step).unwrap().stdout.starts_with("/made\n"));
    step.cwd = "/w/deep".to_owned();
    let ran = lab.run(&step).unwrap();
    assert!(ran.stdout.ends_with("/canary/deep\n") || ran.outcome.is_success());
    canary.check();
    assert!(canary.0.is_file());
}

fn descriptor_cwd(lab: &Lab) {
    let bench = lab.bench();
    for n in 0..40 {
        let mut step = bench.step("pwd; ls");
        step.cwd = format!("/proc/self/fd/{n}");
        let result = lab.run(&step);
        assert!(
            matches!(result, Err(RunError::Setup { .. } | RunError::User { .. })),
            "{n}: {result:?}"
        );
    }
    let out = bench.sh(
        lab,
        "cd /proc/self/fd; for n in *; do ls -d $n/.. 2>/dev/null; done; true",
    );
    assert_eq!(out, "");
}

fn stub_removal(lab: &Lab) {
    let bench = lab.bench();
    let outside = bench.dir.path().join("outside");
    fs::create_dir_all(outside.join("b")).unwrap();
    write(&outside.join("b/c"), "");
    let script = format!(
        "mv /a /elsewhere; ln -s {} /a; ls /elsewhere/b",
        outside.display()
    );
    let mut step = bench.step(&script);
    step.files = vec![InlineFile {
        path: "/a/b/c".to_owned(),
        mode: 0o644,
        content: b"content".to_vec(),
    }];
    let ran = lab.run(&step).unwrap();
    assert_eq!(ran.stdout, "c\n", "{}", ran.stderr);
    assert!(outside.join("b/c").exists(), "a file outside was removed");
}

fn account_files(lab: &Lab) {
    type Fill = fn(&Path);
    let fills: [(&str, Fill); 4] = [
        ("device", |path| symlink("/dev/zero", path).unwrap()),
        ("pipe", |path| {
            let mode = rustix::fs::Mode::from(0o644);
            let kind = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
        }),
        ("huge", |path| {
            fs::File::create(path).unwrap().set_len(10 << 30).unwrap();
        }),
        ("folder", |path| fs::create_dir(path).unwrap()),
    ];
    for (name, fill) in fills {
        let bench = lab.bench_with(|layer| {
            fs::create_dir(layer.join("etc")).unwrap();
            chmod(&layer.join("etc"), 0o755);
            fill(&layer.join("etc/passwd"));
        });
        let mut step = bench.step("true");
        step.user = "app".to_owned();
        let started = Instant::now();
        let result = lab.run(&step);
        assert!(
            matches!(result, Err(RunError::Setup { .. } | RunError::User { .. })),
            "{name}: {result:?}"
        );
        assert!(started.elapsed() < Duration::from_secs(10), "{name}");
    }
    let bench = lab.bench_with(|layer| {
        fs::create_dir(layer.join("etc")).unwrap();
        chmod(&layer.join("etc"), 0o755);
        symlink("../../../../../etc/passwd-inside", layer.join("etc/passwd")).unwrap();
        write(
            &layer.join("etc/passwd-inside"),
            "root:x:0:0::/inside:/bin/sh\n",
        );
    });
    assert_eq!(bench.sh(lab, "echo $HOME"), "/inside\n");
}

fn overwrite(lab: &Lab) {
    let bench = lab.bench();
    // What a process of the step could open is on a read-only mount, whoever owns the file.
    let mut is_read_only = None;
    let cancel = Cancel::new().unwrap();
    let step = bench.step("echo up; sleep 1000");
    let result = lab.sandbox.run(&step, &cancel, &mut |_, _| {
        let program = format!("/proc/{}/exe", init_pid());
        let flags = rustix::fs::statvfs(program).unwrap().f_flag;
        is_read_only = Some(flags.contains(rustix::fs::StatVfsMountFlags::RDONLY));
        cancel.cancel();
    });
    assert!(matches!(result, Err(RunError::Cancelled)), "{result:?}");
    assert_eq!(is_read_only, Some(true));
    // The kernel opens the interpreter while the process is still the engine's init.
    bench.sh(lab, "echo '#!/proc/self/exe' > /evil; chmod 755 /evil");
    let before = fs::metadata("/proc/self/exe").unwrap().len();
    let mut step = bench.step("");
    step.args = vec!["/evil".to_owned()];
    // Whatever comes of it, it must not be a container that runs the engine for long.
    let _result = lab.run(&step);
    assert_eq!(fs::metadata("/proc/self/exe").unwrap().len(), before);
    let out = bench.sh(lab, "readlink /proc/self/exe; readlink /proc/1/exe");
    assert_eq!(out, "/bin/busybox\n/bin/busybox\n");
}

fn processes(lab: &Lab) {
    let out = lab.sh("for p in /proc/[0-9]*; do cat $p/comm; done | sort -u");
    assert!(!out.contains("kiln"), "{out}");
    assert_eq!(lab.sh("set -- /proc/[0-9]*; echo $#"), "1\n");
}
