//! Runs compiled filters in a small interpreter and checks the profile call by call.

use super::*;
use crate::seccomp::bpf::{
    JUMP, JUMP_ANY_BIT, JUMP_EQUAL, JUMP_GREATER_OR_EQUAL, LOAD, RET_ALLOW, RET_ERRNO,
    RET_KILL_PROCESS, RET_USER_NOTIF, RETURN,
};

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;
const ARM32: u32 = 0x4000_0028;

fn compile(archs: &[Arch]) -> Vec<Instruction> {
    super::compile(archs, false)
}

fn interpret(program: &[Instruction], number: u32, arch: u32, arg0: u64) -> u32 {
    interpret_all(program, number, arch, [arg0, 0, 0])
}

fn interpret_all(program: &[Instruction], number: u32, arch: u32, args: [u64; 3]) -> u32 {
    let (mut at, mut accumulator) = (0, 0u32);
    loop {
        let i = program[at];
        at += 1;
        let mut jump =
            |holds: bool| at += usize::from(if holds { i.jump_true } else { i.jump_false });
        match i.code {
            LOAD => {
                accumulator = match i.k {
                    0 => number,
                    4 => arch,
                    16 => (args[0] & 0xffff_ffff) as u32,
                    20 => (args[0] >> 32) as u32,
                    24 => (args[1] & 0xffff_ffff) as u32,
                    32 => (args[2] & 0xffff_ffff) as u32,
                    other => panic!("load of offset {other}"),
                }
            }
            JUMP => at += i.k as usize,
            JUMP_EQUAL => jump(accumulator == i.k),
            JUMP_GREATER_OR_EQUAL => jump(accumulator >= i.k),
            JUMP_ANY_BIT => jump(accumulator & i.k != 0),
            RETURN => return i.k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn number(name: &str, column: Column) -> u32 {
    let row = CALLS.iter().find(|(n, _)| *n == name);
    row.unwrap_or_else(|| panic!("{name} is not in the table"))
        .1[column as usize]
}

#[test]
fn every_listed_call_of_every_architecture_has_its_action() {
    for (archs, audit, column, base) in [
        (X86, X86_64, Column::X86_64, 0),
        (X86, X86_64, Column::X32, X32_BIT),
        (X86, I386, Column::I386, 0),
        (ARM, AARCH64, Column::Aarch64, 0),
        (ARM, ARM32, Column::Arm, 0),
    ] {
        let program = compile(archs);
        for (name, numbers) in CALLS {
            let number = numbers[column as usize];
            if number != NONE {
                let expected = if *name == "clone3" {
                    RET_ERRNO | 38
                } else {
                    RET_ALLOW
                };
                let got = interpret(&program, base + number, audit, 0);
                assert_eq!(got, expected, "{name} on {column:?}");
            }
        }
    }
}

#[test]
fn every_unlisted_number_fails() {
    let program = compile(X86);
    for n in 0..1000 {
        let listed = CALLS.iter().any(|(_, numbers)| numbers[0] == n);
        let last = number("removexattrat", Column::X86_64);
        let expected = match n {
            _ if listed => continue,
            _ if n > last => RET_ERRNO | 38,
            _ => RET_ERRNO | 1,
        };
        assert_eq!(interpret(&program, n, X86_64, 0), expected, "{n}");
    }
}

#[test]
fn privileged_calls_are_refused() {
    // mount, umount2, unshare, setns, bpf, userfaultfd, keyctl, add_key, io_uring_setup,
    // perf_event_open, open_by_handle_at, init_module, kexec_load, reboot, open_tree, fsopen.
    let program = filter_for_x86();
    for n in [
        165, 166, 272, 308, 321, 323, 250, 248, 425, 298, 304, 175, 246, 169, 428, 430,
    ] {
        assert_eq!(interpret(&program, n, X86_64, 0), RET_ERRNO | 1, "{n}");
    }
}

fn filter_for_x86() -> Vec<Instruction> {
    compile(X86)
}

#[test]
fn clone_is_refused_with_namespace_flags_only() {
    let program = filter_for_x86();
    let clone = number("clone", Column::X86_64);
    assert_eq!(interpret(&program, clone, X86_64, 0x0100_0011), RET_ALLOW);
    for flag in [0x0002_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000u64] {
        assert_eq!(
            interpret(&program, clone, X86_64, flag | 17),
            RET_ERRNO | 1,
            "{flag:#x}"
        );
    }
}

#[test]
fn sockets_and_personalities_are_limited_to_the_listed_values() {
    let program = filter_for_x86();
    let socket = number("socket", Column::X86_64);
    let allowed = |family| interpret(&program, socket, X86_64, family) == RET_ALLOW;
    assert!([1, 2, 10, 16, 17, 45].into_iter().all(allowed));
    assert!(![12, 19, 38, 40, 46, 1 << 32].into_iter().any(allowed));
    let personality = number("personality", Column::X86_64);
    let allowed = |value| interpret(&program, personality, X86_64, value) == RET_ALLOW;
    assert!(
        [0, 8, 0x20000, 0x20008, 0xffff_ffff]
            .into_iter()
            .all(allowed)
    );
    assert!(![1, 0x40_0000, 0x1_0000_0000].into_iter().any(allowed));
}

#[test]
fn devices_are_asked_for_and_other_nodes_are_made() {
    const KINDS: [(u64, bool); 8] = [
        (0, false),
        (0o010_000, false),
        (0o020_000, true),
        (0o040_000, false),
        (0o060_000, true),
        (0o100_000, false),
        (0o120_000, false),
        (0o140_000, false),
    ];
    for (archs, audit, column, base) in [
        (X86, X86_64, Column::X86_64, 0),
        (X86, X86_64, Column::X32, X32_BIT),
        (X86, I386, Column::I386, 0),
        (ARM, AARCH64, Column::Aarch64, 0),
        (ARM, ARM32, Column::Arm, 0),
    ] {
        let (asking, plain) = (super::compile(archs, true), compile(archs));
        for (name, mode_argument) in [("mknod", 1), ("mknodat", 2)] {
            let own = number(name, column);
            if own == NONE {
                continue;
            }
            for (kind, is_device) in KINDS {
                // The mode in the other arguments' places must not count, nor its upper bits.
                let mut args = [0o20_000; 3];
                args[mode_argument] = 0xffff_ffff_ffff_0000 | kind | 0o666;
                let result = |program| interpret_all(program, base + own, audit, args);
                let expected = if is_device { RET_USER_NOTIF } else { RET_ALLOW };
                assert_eq!(result(&asking), expected, "{name} {kind:o} on {column:?}");
                assert_eq!(result(&plain), RET_ALLOW, "{name} {kind:o} on {column:?}");
            }
        }
    }
}

#[test]
fn only_the_calls_that_make_nodes_are_asked_about() {
    let program = super::compile(X86, true);
    for n in (0..1000).filter(|n| ![133, 259].contains(n)) {
        let result = interpret_all(&program, n, X86_64, [0o20_000; 3]);
        assert_ne!(result, RET_USER_NOTIF, "{n}");
    }
}

#[test]
fn a_foreign_architecture_kills() {
    assert_eq!(interpret(&compile(X86), 0, AARCH64, 0), RET_KILL_PROCESS);
    assert_eq!(interpret(&compile(ARM), 0, X86_64, 0), RET_KILL_PROCESS);
}

#[test]
fn arm_private_calls_do_not_widen_the_known_range() {
    let program = compile(ARM);
    assert_eq!(interpret(&program, 0xf_0002, ARM32, 0), RET_ALLOW);
    assert_eq!(interpret(&program, 0xf_0003, ARM32, 0), RET_ERRNO | 38);
    assert_eq!(interpret(&program, 5000, ARM32, 0), RET_ERRNO | 38);
}

#[test]
fn the_table_agrees_with_the_numbers_of_this_build() {
    let column = if cfg!(target_arch = "aarch64") {
        Column::Aarch64
    } else {
        Column::X86_64
    };
    for (name, n) in [
        ("read", libc::SYS_read),
        ("execve", libc::SYS_execve),
        ("openat2", libc::SYS_openat2),
        ("ptrace", libc::SYS_ptrace),
        ("statx", libc::SYS_statx),
    ] {
        assert_eq!(i64::from(number(name, column)), n, "{name}");
    }
}

#[test]
fn filters_fit_the_kernels_limit() {
    assert!(super::compile(X86, true).len() < 4096);
    assert!(super::compile(ARM, true).len() < 4096);
}
