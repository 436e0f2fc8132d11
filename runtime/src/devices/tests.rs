//! What calls mean, without a kernel.

use rustix::thread::CapabilitySet;

use super::*;
use crate::devices::caller::Credentials;

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const X32_BIT: u32 = 0x4000_0000;

const fn call(arch: u32, number: u32, args: [u64; 6]) -> WaitingCall {
    WaitingCall {
        id: 1,
        thread: 1,
        arch,
        number,
        args,
    }
}

fn char_device(mode: u32, major: u32, minor: u32) -> Node {
    Node {
        mode,
        is_block: false,
        major,
        minor,
    }
}

#[test]
fn devices_are_told_from_other_nodes() {
    assert_eq!(Node::new(0o20_666, 0x103), Some(char_device(0o666, 1, 3)));
    let block = Node::new(0o60_600, 0x700).unwrap();
    assert_eq!((block.is_block, block.major, block.minor), (true, 7, 0));
    // A regular file (twice), a pipe, a socket, a folder, a link, and kinds that there are not.
    for mode in [
        0, 0o100_644, 0o10_644, 0o140_644, 0o40_755, 0o120_777, 0o30_644, 0o70_644,
    ] {
        assert_eq!(Node::new(mode, 0x103), None, "{mode:o}");
    }
}

#[test]
fn marks_of_deletion_stay_with_the_kernel() {
    assert_eq!(Node::new(0o20_000, 0), None);
    assert_eq!(Node::new(0o20_000, 1 << 32), None);
    assert!(Node::new(0o60_000, 0).is_some());
}

#[test]
fn arguments_are_as_wide_as_the_kernel_has_them() {
    let wide = Node::new(
        0xffff_ffff_0000_0000 | 0o26_755,
        0xabcd_ef01_fff0_0000 | 0x0f_ffff,
    );
    assert_eq!(wide, Some(char_device(0o6755, 0xfff, 0xf_ffff)));
    // Bits of a mode above the sixteenth are none.
    assert_eq!(
        Node::new(0x1_0000 | 0o20_644, 0x103),
        Some(char_device(0o644, 1, 3))
    );
}

#[test]
fn the_attribute_names_kind_and_numbers() {
    assert_eq!(char_device(0, 1, 3).to_string(), "c 1:3");
    assert_eq!(Node::new(0o60_600, 0x700).unwrap().to_string(), "b 7:0");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn both_calls_are_understood_on_every_architecture() {
    let node = char_device(0o666, 1, 3);
    let cwd = Request {
        dir: libc::AT_FDCWD,
        path: 0x7f00,
        node,
    };
    let at = Request { dir: 5, ..cwd };
    for (arch, mknod, mknodat) in [
        (X86_64, 133, 259),
        (X86_64, X32_BIT + 133, X32_BIT + 259),
        (I386, 14, 297),
    ] {
        let args = [0x7f00, 0o20_666, 0x103, 9, 9, 9];
        assert_eq!(Request::new(&call(arch, mknod, args)), Some(cwd));
        let args = [5, 0x7f00, 0o20_666, 0x103, 9, 9];
        assert_eq!(Request::new(&call(arch, mknodat, args)), Some(at));
        // A 32-bit program passes AT_FDCWD without its upper half.
        let args = [0xffff_ff9c, 0x7f00, 0o20_666, 0x103, 9, 9];
        assert_eq!(Request::new(&call(arch, mknodat, args)), Some(cwd));
    }
    // open(2) of one architecture has the number of no such call.
    assert_eq!(
        Request::new(&call(X86_64, 14, [0, 0o20_666, 0x103, 0, 0, 0])),
        None
    );
    assert_eq!(
        Request::new(&call(1, 133, [0, 0o20_666, 0x103, 0, 0, 0])),
        None
    );
}

#[test]
fn lack_of_room_is_told_and_all_else_is_the_kernels() {
    let of = |code| answer(Some(WaitStatus::Code(code)));
    assert_eq!(of(0), Answer::Done);
    assert_eq!(of(libc::ENOSPC), Answer::Failed(libc::ENOSPC));
    for errno in [libc::EEXIST, libc::EACCES, libc::EOPNOTSUPP, libc::EPERM] {
        assert_eq!(of(errno), Answer::Kernel);
    }
    assert_eq!(answer(Some(WaitStatus::Signal(9))), Answer::Kernel);
    assert_eq!(answer(None), Answer::Kernel);
}

#[test]
fn credentials_are_those_for_files() {
    let status = "Name:\tUid:\nUmask:\t0027\nUid:\t0\t1\t2\t3\nGid:\t4\t5\t6\t7\n\
                  Groups:\t10 11 \nCapPrm:\t00000000a80425fb\nCapEff:\t0000000008000002\n";
    let expected = Credentials {
        uid: 3,
        gid: 7,
        groups: vec![10, 11],
        capabilities: CapabilitySet::MKNOD | CapabilitySet::DAC_OVERRIDE,
        umask: 0o27,
    };
    assert_eq!(Credentials::parse(status), Some(expected));
    assert_eq!(Credentials::parse("Uid:\t0\t0\t0\t0\n"), None);
}
