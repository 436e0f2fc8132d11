//! What a step cannot see or do.

use std::path::PathBuf;
use std::process::ExitCode;

use kiln_runtime::{Network, PrivilegeKind, Sandbox};

use crate::Case;
use crate::support::{Bench, Lab, command, make_root, run};

pub(crate) const CASES: &[Case] = &[
    ("capabilities_are_the_fourteen", capabilities, false),
    ("system_calls_are_filtered", seccomp, false),
    ("root_of_a_step_is_nobody_outside", id_map, false),
    ("surroundings_are_those_of_a_container", surroundings, false),
    ("kernel_interfaces_are_masked_and_read_only", masked, false),
    ("the_network_can_be_taken_away", network, false),
    ("names_are_those_of_the_step", names, false),
    ("nothing_of_the_host_is_mounted", mounts, false),
    (
        "where_ids_cannot_be_mapped_steps_run_with_a_warning",
        fallback,
        false,
    ),
    ("mounts_and_devices_are_refused", refused, false),
];

fn capabilities(lab: &Lab) {
    let out = lab.sh("grep ^Cap /proc/self/status");
    let of = |name: &str| {
        let line = out.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit('\t').next().unwrap().to_owned()
    };
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(of(set), "00000000a80425fb", "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(of(set), "0000000000000000", "{set}");
    }
}

fn seccomp(lab: &Lab) {
    let out = lab.sh("grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status");
    assert_eq!(out, "NoNewPrivs:\t0\nSeccomp:\t2\n");
    lab.sh("! unshare -U true 2>/dev/null && ! unshare -m true 2>/dev/null");
}

fn id_map(lab: &Lab) {
    let map = lab.sh("cat /proc/self/uid_map");
    let fields: Vec<&str> = map.split_whitespace().collect();
    match lab.privilege.kind {
        PrivilegeKind::Root => {
            let numbers: Vec<u64> = fields.iter().map(|field| field.parse().unwrap()).collect();
            for extent in numbers.chunks(3) {
                assert!(
                    extent[1] >= 1 << 30,
                    "an id of the host's is in reach: {map}"
                );
            }
            assert_eq!(numbers[..2], [0, 1 << 30]);
        }
        PrivilegeKind::Mapped { n_ids } => {
            let lines: Vec<&str> = map.lines().collect();
            assert!(lines.len() >= 2 && n_ids > 60_000, "{map}");
        }
        PrivilegeKind::SingleId => assert_eq!(fields, ["0", "0", "1"]),
    }
}

fn surroundings(lab: &Lab) {
    assert_eq!(
        lab.sh("ls /dev"),
        "fd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\n\
         urandom\nzero\n"
    );
    let modes = lab.sh("cd /dev; stat -c '%n %a' . null zero random shm pts");
    assert_eq!(
        modes,
        ". 755\nnull 666\nzero 666\nrandom 666\nshm 1777\npts 755\n"
    );
    let script = "echo x > /dev/null; head -c 3 /dev/zero | wc -c; head -c 3 /dev/urandom | wc -c; \
                  ! echo x > /dev/full 2>/dev/null && echo full; echo x > /dev/shm/f; cat /dev/shm/f";
    assert_eq!(lab.sh(script), "3\n3\nfull\nx\n");
    let bench = lab.bench();
    let mut step = bench.step("grep ' /dev/shm ' /proc/mounts");
    assert!(lab.run(&step).unwrap().stdout.contains("size=65536k"));
    step.shm_size = Some(1 << 20);
    assert!(lab.run(&step).unwrap().stdout.contains("size=1024k"));
}

fn masked(lab: &Lab) {
    let script = "for f in kcore keys timer_list latency_stats sched_debug; do
        if test -e /proc/$f; then head -c1 /proc/$f | wc -c; fi; done | sort -u";
    assert_eq!(lab.sh(script), "0\n");
    let script = "for d in /proc/acpi /proc/scsi /sys/firmware /sys/devices/virtual/powercap; do
        if test -e $d; then ls $d; fi; done";
    assert_eq!(lab.sh(script), "");
    let script = "for f in /proc/sys/kernel/hostname /proc/sysrq-trigger /sys/kernel/mm/ksm/run \
                  /proc/irq/default_smp_affinity /proc/sys/vm/drop_caches; do
        if echo x 2>/dev/null > $f; then echo $f is open; fi; done; \
        ! mkdir /sys/fs/cgroup/x 2>/dev/null";
    assert_eq!(lab.sh(script), "");
}

fn network(lab: &Lab) {
    let bench = lab.bench();
    let mut step = bench.step("ls /sys/class/net; ip -o addr; awk 'NR>2' /proc/net/dev");
    step.network = Network::None;
    let ran = lab.run(&step).unwrap();
    assert!(
        ran.stdout.starts_with("lo\n"),
        "{}{}",
        ran.stdout,
        ran.stderr
    );
    assert!(ran.stdout.contains("127.0.0.1/8"), "{}", ran.stdout);
    assert_eq!(
        ran.stdout
            .lines()
            .filter(|line| line.contains(":") && !line.contains("lo"))
            .count(),
        0
    );
    let host = std::fs::read_to_string("/proc/net/dev")
        .unwrap()
        .lines()
        .count();
    assert_eq!(lab.sh("cat /proc/net/dev").lines().count(), host);
}

fn names(lab: &Lab) {
    let bench = lab.bench();
    let mut step = bench.step("hostname; cat /etc/hosts");
    step.hostname = "box".to_owned();
    step.extra_hosts = vec![("db".to_owned(), "10.0.0.9".to_owned())];
    let out = lab.run(&step).unwrap().stdout;
    assert!(out.starts_with("box\n127.0.0.1\tlocalhost box\n"), "{out}");
    assert!(out.ends_with("10.0.0.9\tdb\n"), "{out}");
}

fn mounts(lab: &Lab) {
    let out = lab.sh("awk '{print $5}' /proc/self/mountinfo | sort");
    for path in out.lines() {
        let is_ours = path == "/"
            || ["/proc", "/dev", "/sys", "/etc/hosts", "/etc/resolv.conf"]
                .iter()
                .any(|ours| path == *ours || path.starts_with(&format!("{ours}/")));
        assert!(is_ours, "{path} in {out}");
    }
    lab.sh("test \"$(ls -A /proc/1/root/ | sort)\" = \"$(ls -A / | sort)\"");
}

/// Another process mounts a file system without support for mapped ids, for itself only.
fn fallback(lab: &Lab) {
    if lab.privilege.kind != PrivilegeKind::Root {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = "mount -t ramfs none \"$1\" && exec \"$0\" --fallback \"$1\"";
    let status = command("unshare")
        .args(["-m", "sh", "-c", script])
        .args([std::env::current_exe().unwrap().as_path(), dir.path()])
        .status()
        .unwrap();
    assert!(status.success());
}

pub(crate) fn in_fallback() -> ExitCode {
    let dir = PathBuf::from(std::env::args().nth(2).unwrap());
    let privilege = kiln_runtime::enter_user_namespace().unwrap();
    let sandbox = Sandbox::new(&dir.join("scratch"), &privilege).unwrap();
    let [warning] = sandbox.warnings() else {
        panic!("{:?}", sandbox.warnings());
    };
    assert!(warning.contains("root on this machine"), "{warning}");
    let root = dir.join("root");
    std::fs::create_dir(&root).unwrap();
    make_root(&root);
    let bench = Bench::on(tempfile::tempdir_in(&dir).unwrap(), vec![root]);
    let script = "grep -E '^(CapEff|Seccomp):' /proc/self/status; cat /proc/self/uid_map; \
                  touch /f; mount -t tmpfs none /tmp 2>/dev/null || echo refused";
    let out = run(&sandbox, &bench.step(script)).unwrap().stdout;
    let words: Vec<&str> = out.split_whitespace().collect();
    assert_eq!(words[..4], ["CapEff:", "00000000a80425fb", "Seccomp:", "2"]);
    assert_eq!(words[4..], ["0", "0", "4294967295", "refused"]);
    assert_eq!(bench.changed(), ["f"]);
    // Root there can make devices, and open none.
    let script = "for d in /zero /dev/mine; do mknod $d c 1 5; test -c $d && echo made; \
                  head -c 1 $d | wc -c; done 2>/dev/null; rm /zero; head -c 1 /dev/zero | wc -c";
    let out = run(&sandbox, &bench.step(script)).unwrap().stdout;
    assert_eq!(out, "made\n0\nmade\n0\n1\n");
    ExitCode::SUCCESS
}

fn refused(lab: &Lab) {
    for script in [
        "mount -t tmpfs none /tmp",
        "mount --bind /etc /tmp",
        "umount /proc",
        "umount /proc/kcore",
        "mknod /disk b 8 0 && head -c 1 /disk",
        "mknod /mem c 1 1 && head -c 1 /mem",
        "mknod /dev/disk b 8 0 && head -c 1 /dev/disk",
        "rm /etc/hosts",
        "echo x > /etc/hosts",
        "echo x > /etc/resolv.conf",
        "mv /etc/resolv.conf /x",
        "hostname other",
        "chroot /proc/1/root/../../../.. ls /work",
    ] {
        let out = lab.sh(&format!("if {script} 2>/dev/null; then echo possible; fi"));
        assert_eq!(out, "", "{script}");
    }
}
