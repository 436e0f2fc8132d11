//! Who a step runs as.

use std::fs;

use kiln_runtime::{PrivilegeKind, RunError};

use crate::Case;
use crate::support::{Lab, chmod, write};

pub(crate) const CASES: &[Case] = &[
    ("users_and_groups_come_from_the_root", users, true),
    ("root_has_the_groups_of_its_entry", root_groups, true),
    ("an_unknown_user_is_a_named_error", unknown, false),
    ("an_unmapped_user_is_a_named_error", unmapped, false),
    ("other_users_have_no_capabilities", no_capabilities, true),
    ("other_users_can_write_to_their_output", output, true),
    ("set_user_id_programs_work", set_user_id, true),
    ("home_is_that_of_the_user", home, true),
    ("an_entry_without_home_has_an_empty_one", empty_home, false),
    ("root_gives_large_ids_to_steps", large_user, true),
];

fn as_user(lab: &Lab, user: &str, script: &str) -> String {
    let bench = lab.bench();
    let mut step = bench.step(script);
    step.user = user.to_owned();
    let ran = lab.run(&step).unwrap();
    assert!(ran.outcome.is_success(), "{user}: {}", ran.stderr);
    ran.stdout
}

fn users(lab: &Lab) {
    for (user, expected) in [
        ("app", "1000 1001 1001 10 998"),
        ("1000", "1000 1001 1001 10 998"),
        ("app:wheel", "1000 10 10"),
        ("1000:5", "1000 5 5"),
        ("77", "77 0 0"),
        ("77:88", "77 88 88"),
    ] {
        let out = as_user(lab, user, "echo $(id -u) $(id -g) $(id -G)");
        assert_eq!(out.trim(), expected, "{user}");
    }
}

fn root_groups(lab: &Lab) {
    assert_eq!(as_user(lab, "", "id -G"), "0 10\n");
    assert_eq!(as_user(lab, "0:0", "id -G"), "0\n");
}

fn error_of(lab: &Lab, user: &str) -> RunError {
    let bench = lab.bench();
    let mut step = bench.step("true");
    step.user = user.to_owned();
    lab.run(&step).unwrap_err()
}

fn unknown(lab: &Lab) {
    assert_eq!(
        error_of(lab, "ghost").to_string(),
        "unable to find user `ghost`: no matching entries in passwd file"
    );
    let error = error_of(lab, "app:ghosts").to_string();
    assert!(
        error.contains("`ghosts`: no matching entries in group file"),
        "{error}"
    );
}

fn unmapped(lab: &Lab) {
    if lab.privilege.kind == PrivilegeKind::SingleId {
        let error = error_of(lab, "app").to_string();
        assert!(error.contains("subordinate ids"), "{error}");
    } else if lab.privilege.kind != PrivilegeKind::Root {
        let error = error_of(lab, "2000000000").to_string();
        assert!(error.contains("ids are not available"), "{error}");
    }
}

fn no_capabilities(lab: &Lab) {
    let out = as_user(
        lab,
        "app",
        "grep -E '^Cap(Eff|Prm|Inh|Amb)' /proc/self/status",
    );
    assert!(
        out.lines().all(|line| line.ends_with("0000000000000000")),
        "{out}"
    );
    let out = as_user(
        lab,
        "app",
        "if touch /f 2>/dev/null; then echo possible; fi",
    );
    assert_eq!(out, "");
}

fn output(lab: &Lab) {
    assert_eq!(
        as_user(lab, "app", "echo a > /dev/stdout; echo b > /dev/stderr"),
        "a\n"
    );
}

fn set_user_id(lab: &Lab) {
    let bench = lab.bench();
    bench.sh(
        lab,
        "cp /bin/busybox /bin/id2; cp /bin/busybox /bin/su; chmod 4755 /bin/su",
    );
    let mut step = bench.step("su root -c 'id -u'");
    step.user = "app".to_owned();
    // An empty password field lets busybox in without asking.
    bench.sh(
        lab,
        "echo 'root::0:0:root:/root:/bin/sh' > /etc/passwd; \
                   echo 'app:x:1000:1001::/home/app:/bin/sh' >> /etc/passwd",
    );
    let ran = lab.run(&step).unwrap();
    assert_eq!(ran.stdout, "0\n", "{}", ran.stderr);
}

fn home(lab: &Lab) {
    assert_eq!(as_user(lab, "app", "echo $HOME"), "/home/app\n");
    assert_eq!(as_user(lab, "1000:0", "echo $HOME"), "/home/app\n");
    assert_eq!(as_user(lab, "77", "echo $HOME"), "/\n");
}

fn empty_home(lab: &Lab) {
    let bench = lab.bench_with(|layer| {
        fs::create_dir(layer.join("etc")).unwrap();
        chmod(&layer.join("etc"), 0o755);
        write(&layer.join("etc/passwd"), "root:x:0:0:root::/bin/sh\n");
    });
    assert_eq!(bench.sh(lab, "env | grep ^HOME"), "HOME=\n");
}

fn large_user(lab: &Lab) {
    if lab.privilege.kind != PrivilegeKind::Root {
        return;
    }
    let out = as_user(
        lab,
        "2000000000:2147483647",
        "id -u; id -g; touch /dev/shm/f",
    );
    assert_eq!(out, "2000000000\n2147483647\n");
}
