//! What a RUN step can see and do, and what of it stays out of the layer.

use std::fs;

use crate::support::{Context, Lab, output, processes_with};

/// Runs `script` as a step and returns what it wrote to `/out`.
fn see(lab: &Lab, script: &str, args: &[&str]) -> String {
    let dockerfile = format!(
        "ARG BASE\nFROM $BASE AS run\nRUN <<'EOF'\nset -e\n{{\n{script}\n}} > /out 2>&1\nEOF\n\
         FROM scratch\nCOPY --from=run /out /\n"
    );
    let context = Context::new(&dockerfile);
    let dest = lab.kiln.out("seen");
    lab.build(&context)
        .args(args)
        .arg("-o")
        .arg(output("local", &dest))
        .ok();
    fs::read_to_string(dest.join("out")).unwrap()
}

fn status_line<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_default().trim()
}

#[test]
fn step_is_confined() {
    let Some(lab) = Lab::require() else {
        return;
    };
    confined(&lab);
}

#[test]
fn step_of_an_ordinary_user_is_confined() {
    let Some(lab) = Lab::of_ordinary_user() else {
        return;
    };
    confined(&lab);
}

fn confined(lab: &Lab) {
    let status = see(lab, "cat /proc/self/status", &[]);
    // The 14 capabilities that Docker gives: chown, dac_override, fowner, fsetid, kill, setgid,
    // setuid, setpcap, net_bind_service, net_raw, sys_chroot, mknod, audit_write, setfcap.
    assert_eq!(status_line(&status, "CapEff:"), "00000000a80425fb");
    assert_eq!(status_line(&status, "CapBnd:"), "00000000a80425fb");
    assert_eq!(status_line(&status, "Seccomp:"), "2");
    assert_eq!(status_line(&status, "Uid:"), "0\t0\t0\t0");
}

#[test]
fn step_has_namespaces_of_its_own() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let names = ["user", "mnt", "pid", "ipc", "uts", "cgroup", "net"];
    let script = names
        .map(|name| format!("readlink /proc/self/ns/{name}"))
        .join("\n");
    let own = |name: &str| {
        let link = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        link.to_str().unwrap().to_owned()
    };
    for (mode, n_own) in [("--network=host", 6), ("--network=none", 7)] {
        let seen = see(&lab, &script, &[mode]);
        let n_differs = seen
            .lines()
            .zip(names)
            .filter(|(line, name)| *line != own(name))
            .count();
        assert_eq!(n_differs, n_own, "{mode}: {seen}");
    }
}

#[test]
fn step_sees_its_own_processes_only() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let seen = see(&lab, "ls -d /proc/[0-9]* | wc -l", &[]);
    let n_processes: usize = seen.trim().parse().unwrap();
    assert!(n_processes < 10, "{seen}");
    assert!(processes_with("").len() >= n_processes);
}

#[test]
fn dangerous_paths_are_masked_or_read_only() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let script = "
for path in /proc/kcore /proc/keys /proc/timer_list; do
  [ ! -e $path ] || [ -z \"$(head -c 1 $path 2>/dev/null)\" ] || echo open $path
done
[ -z \"$(ls /proc/acpi /sys/firmware 2>/dev/null | grep -v :)\" ] || echo not empty
for path in /proc/sys/kernel/hostname /proc/sysrq-trigger /proc/irq/default_smp_affinity; do
  (: >> $path) 2>/dev/null && echo writable $path
done
mkdir /sys/fs/cgroup/x 2>/dev/null && echo cgroup writable
mount -t tmpfs tmpfs /mnt 2>/dev/null && echo mounted
unshare -U true 2>/dev/null && echo unshared
mknod /dev/sda-x b 8 0 2>/dev/null && head -c 1 /dev/sda-x >/dev/null 2>&1 && echo disk
dmesg > /dev/null 2>&1 && [ -n \"$(dmesg 2>/dev/null)\" ] && echo kernel log
echo end";
    assert_eq!(see(&lab, script, &[]), "end\n");
}

#[test]
fn devices_are_the_usual_few() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let seen = see(
        &lab,
        "ls /dev; echo x > /dev/null; head -c 4 /dev/urandom | wc -c",
        &[],
    );
    let names: Vec<_> = seen.split_whitespace().collect();
    for name in [
        "null", "zero", "full", "random", "urandom", "tty", "fd", "stdin", "shm", "pts", "4",
    ] {
        assert!(names.contains(&name), "no {name} in {seen}");
    }
    assert!(names.len() < 20, "{seen}");
    assert!(
        !names.contains(&"kmsg") && !names.contains(&"mem"),
        "{seen}"
    );
}

#[test]
fn network_of_none_has_loopback_only() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let seen = see(
        &lab,
        "cut -d: -f1 /proc/net/dev | tail -n +3; ping -c 1 -W 1 127.0.0.1 >/dev/null; echo $?",
        &["--network=none"],
    );
    let words: Vec<_> = seen.split_whitespace().collect();
    assert_eq!(words.first(), Some(&"lo"), "{seen}");
    assert!(!words.contains(&"eth0"), "{seen}");
}

#[test]
fn hosts_and_shm_are_as_asked_for() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let args = ["--add-host=peer:10.1.2.3", "--shm-size=7m"];
    let seen = see(&lab, "cat /etc/hosts; df -k /dev/shm | tail -1", &args);
    assert!(seen.contains("10.1.2.3\tpeer"), "{seen}");
    assert!(seen.contains("localhost"), "{seen}");
    assert!(seen.contains("7168"), "{seen}");
}

/// Paths that kiln provides to a step never enter its layer, read or written.
#[test]
fn provided_files_are_not_in_the_layer() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new(
        "ARG BASE\nFROM $BASE\nRUN cat /etc/hosts /etc/resolv.conf > /seen; echo 1.2.3.4 x >> /etc/hosts; \
         touch /dev/shm/x /proc/x 2> /dev/null; true\n",
    );
    let image = lab.image(&context);
    let layer = image.layer(image.n_layers() - 1);
    assert_eq!(
        layer
            .iter()
            .filter(|path| !path.ends_with('/'))
            .collect::<Vec<_>>(),
        ["seen"]
    );
}

#[test]
fn removed_and_replaced_paths_become_whiteouts() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new(
        "ARG BASE\nFROM $BASE\nRUN mkdir -p /d/sub /e; touch /d/a /d/b /d/sub/c /e/old\n\
         RUN rm /d/a; rm -r /d/sub; rm -r /e; mkdir /e; touch /e/new\n",
    );
    let image = lab.image(&context);
    let layer = image.layer(image.n_layers() - 1);
    for path in ["d/.wh.a", "d/.wh.sub", "e/.wh..wh..opq", "e/new"] {
        assert!(
            layer.iter().any(|name| name == path),
            "no {path} in {layer:?}"
        );
    }
    assert!(!layer.iter().any(|name| name == "d/b"), "{layer:?}");
    let tree = lab.tree(&context);
    let paths: Vec<_> = tree
        .paths()
        .filter(|p| p.starts_with("/d") || p.starts_with("/e/"))
        .collect();
    assert_eq!(
        paths
            .into_iter()
            .filter(|p| !p.starts_with("/dev"))
            .collect::<Vec<_>>(),
        ["/d", "/d/b", "/e/new"]
    );
}

#[test]
fn step_gets_no_input_and_a_clean_environment() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let seen = see(&lab, "env | cut -d= -f1 | sort | tr '\\n' ' '; cat", &[]);
    assert_eq!(seen, "HOME OLDPWD PATH PWD SHLVL ".replace("OLDPWD ", ""));
}

#[test]
fn users_groups_and_folders_are_as_the_dockerfile_says() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new(
        "ARG BASE\nFROM $BASE\nUSER www\nWORKDIR /work/dir\nRUN (id; pwd; echo $HOME) > /tmp/a\n\
         USER 7:50\nRUN id > /tmp/b; touch /tmp/c\nUSER root\n",
    );
    let dest = lab.kiln.out("files");
    lab.build(&context)
        .arg("-o")
        .arg(output("local", &dest))
        .ok();
    let read = |name: &str| fs::read_to_string(dest.join(name)).unwrap();
    assert!(
        read("tmp/a").starts_with("uid=1000(www) gid=1000(www)"),
        "{}",
        read("tmp/a")
    );
    assert!(
        read("tmp/a").ends_with("/work/dir\n/\n"),
        "{}",
        read("tmp/a")
    );
    assert!(
        read("tmp/b").starts_with("uid=7 gid=50(staff)"),
        "{}",
        read("tmp/b")
    );
    assert!(lab.tree(&context).get("/tmp/c").contains(" 7:50 "));
}
