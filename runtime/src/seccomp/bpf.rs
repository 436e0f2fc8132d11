//! Classic BPF for seccomp: branching on architecture and call number.
//!
//! Knows the layout of `struct seccomp_data` on little-endian machines and nothing of which calls
//! are allowed. Conditional jumps reach 255 instructions, unconditional ones any distance, so a
//! long branch is a conditional skip over an unconditional jump.

use crate::seccomp::Action;

/// One instruction, laid out as the kernel's `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instruction {
    /// Class and mode.
    pub code: u16,
    /// Instructions to skip when the condition holds.
    pub jump_true: u8,
    /// Instructions to skip when it does not.
    pub jump_false: u8,
    /// Operand.
    pub k: u32,
}

/// Call numbers from `start` up to the next range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub start: u32,
    pub action: Action,
}

pub(super) const LOAD: u16 = 0x20;
pub(super) const JUMP: u16 = 0x05;
pub(super) const JUMP_EQUAL: u16 = 0x15;
pub(super) const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
pub(super) const JUMP_ANY_BIT: u16 = 0x45;
pub(super) const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARG0_LOW: u32 = 16;
const ARG0_HIGH: u32 = 20;
const ARG_SIZE: u32 = 8;

/// In a mode, of the kinds with this bit the devices are those with none of the others.
const DEVICE_BIT: u32 = 0o020_000;
const OTHER_KIND_BITS: u32 = 0o110_000;

pub(super) const RET_KILL_PROCESS: u32 = 0x8000_0000;
pub(super) const RET_ERRNO: u32 = 0x0005_0000;
pub(super) const RET_USER_NOTIF: u32 = 0x7fc0_0000;
pub(super) const RET_ALLOW: u32 = 0x7fff_0000;

/// A filter under construction.
#[derive(Debug, Default)]
pub(crate) struct Program {
    code: Vec<Instruction>,
}

impl Program {
    /// Adds the branch of one architecture; `ranges` are sorted and begin at number 0.
    pub(crate) fn arch(&mut self, audit: u32, ranges: &[Range]) {
        let mut body = vec![op(LOAD, NUMBER)];
        body.extend(search(ranges));
        if self.code.is_empty() {
            self.code.push(op(LOAD, ARCH));
        }
        self.code.push(branch(JUMP_EQUAL, audit, 1, 0));
        self.code.push(op(JUMP, distance(body.len())));
        self.code.extend(body);
    }

    /// Returns the program, with what happens on any other architecture.
    pub(crate) fn finish(mut self, otherwise: Action) -> Vec<Instruction> {
        self.code.extend(leaf(otherwise));
        self.code
    }
}

/// Finds the range that holds the loaded number.
fn search(ranges: &[Range]) -> Vec<Instruction> {
    if let [only] = ranges {
        return leaf(only.action);
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let (left, right) = (search(low), search(high));
    let mut code = match u8::try_from(left.len()) {
        Ok(skip) => vec![branch(JUMP_GREATER_OR_EQUAL, high[0].start, skip, 0)],
        Err(_) => vec![
            branch(JUMP_GREATER_OR_EQUAL, high[0].start, 0, 1),
            op(JUMP, distance(left.len())),
        ],
    };
    code.extend(left);
    code.extend(right);
    code
}

fn leaf(action: Action) -> Vec<Instruction> {
    match action {
        Action::Allow => vec![op(RETURN, RET_ALLOW)],
        Action::Errno(number) => vec![op(RETURN, RET_ERRNO | u32::from(number))],
        Action::Kill => vec![op(RETURN, RET_KILL_PROCESS)],
        Action::AllowUnlessMasked(mask) => vec![
            op(LOAD, ARG0_LOW),
            branch(JUMP_ANY_BIT, mask, 1, 0),
            op(RETURN, RET_ALLOW),
            op(RETURN, RET_ERRNO | 1),
        ],
        Action::AllowWithin(values) => within(values),
        Action::AskForDevice { mode } => ask_for_device(mode),
    }
}

/// Asks when the mode, of which the kernel takes the low 16 bits, is that of a device.
fn ask_for_device(mode: u32) -> Vec<Instruction> {
    vec![
        op(LOAD, ARG0_LOW + ARG_SIZE * mode),
        branch(JUMP_ANY_BIT, DEVICE_BIT, 0, 1),
        branch(JUMP_ANY_BIT, OTHER_KIND_BITS, 0, 1),
        op(RETURN, RET_ALLOW),
        op(RETURN, RET_USER_NOTIF),
    ]
}

/// Allows when the first argument, all 64 bits of it, is in one of the inclusive ranges.
fn within(values: &[(u32, u32)]) -> Vec<Instruction> {
    let mut code = vec![
        op(LOAD, ARG0_HIGH),
        branch(JUMP_EQUAL, 0, 1, 0),
        op(RETURN, RET_ERRNO | 1),
        op(LOAD, ARG0_LOW),
    ];
    for &(first, last) in values {
        if first == last {
            code.push(branch(JUMP_EQUAL, first, 0, 1));
        } else {
            code.push(branch(JUMP_GREATER_OR_EQUAL, first, 0, 2));
            code.push(branch(JUMP_GREATER_OR_EQUAL, last + 1, 1, 0));
        }
        code.push(op(RETURN, RET_ALLOW));
    }
    code.push(op(RETURN, RET_ERRNO | 1));
    code
}

fn op(code: u16, k: u32) -> Instruction {
    branch(code, k, 0, 0)
}

fn branch(code: u16, k: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction {
        code,
        jump_true,
        jump_false,
        k,
    }
}

fn distance(n_instructions: usize) -> u32 {
    u32::try_from(n_instructions).expect("a filter has at most 4096 instructions")
}
