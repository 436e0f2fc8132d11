//! The system call filter of a step: the profile that container engines install by default.
//!
//! Owns the profile as data ([`table`], [`special`]) and its compilation to a BPF program. The
//! program first branches on the architecture, then finds the call by binary search over ranges
//! of numbers. Loading it is the business of [`crate::identity`].
//!
//! What is not allowed fails with `EPERM`; a number above every one that the profile knows fails
//! with `ENOSYS`, so that a C library falls back from a call newer than this profile; a foreign
//! architecture kills the process. Where [`crate::devices`] makes devices, the calls that would make
//! one are put to it.

mod bpf;
mod table;
#[cfg(test)]
mod tests;

use crate::seccomp::bpf::{Program, Range};
use crate::seccomp::table::{CALLS, Column, NONE};

pub(crate) use crate::seccomp::bpf::Instruction;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the system call table lacks this architecture");

/// Marks an x32 call within the x86_64 architecture.
const X32_BIT: u32 = 0x4000_0000;
/// Numbers from here on are private calls of 32-bit ARM, outside of the common numbering.
const ARM_PRIVATE: u32 = 0x000f_0000;
/// Flags of clone(2) that create a namespace.
const CLONE_NAMESPACES: u32 = 0x7e02_0000;
/// Values of personality(2): Linux, Linux 32, each also without randomisation of addresses
/// (`UNAME26` aside), and the query.
const PERSONALITIES: &[(u32, u32)] = &[
    (0, 0),
    (8, 8),
    (0x2_0000, 0x2_0000),
    (0x2_0008, 0x2_0008),
    (u32::MAX, u32::MAX),
];
/// Address families a step may open. Left out are those with a record of kernel bugs and no use
/// in a build (among them `AF_ALG`) and `AF_VSOCK`, which would reach the host of a machine.
const SOCKET_FAMILIES: &[(u32, u32)] = &[
    (0, 11),
    (13, 18),
    (21, 22),
    (24, 24),
    (26, 33),
    (35, 36),
    (39, 39),
    (41, 45),
];

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// It runs.
    Allow,
    /// It fails with this error number.
    Errno(u16),
    /// The process is killed.
    Kill,
    /// It runs when the first argument shares no bit with the mask, else it fails with `EPERM`.
    AllowUnlessMasked(u32),
    /// It runs when the first argument is in one of these inclusive ranges, else `EPERM`.
    AllowWithin(&'static [(u32, u32)]),
    /// It is put to the filter's listener when its mode, the argument of this number, is that of a
    /// device, and runs when not.
    AskForDevice { mode: u32 },
}

/// A call that makes a file which may be a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeCall {
    /// Arguments: path, mode, device.
    Mknod,
    /// Arguments: directory, path, mode, device.
    Mknodat,
}

const EPERM: Action = Action::Errno(1);
const ENOSYS: Action = Action::Errno(38);

/// One architecture as the kernel names it to a filter.
#[derive(Debug)]
struct Arch {
    audit: u32,
    columns: &'static [Column],
}

const X86: &[Arch] = &[
    Arch {
        audit: 0xc000_003e,
        columns: &[Column::X86_64, Column::X32],
    },
    Arch {
        audit: 0x4000_0003,
        columns: &[Column::I386],
    },
];
const ARM: &[Arch] = &[
    Arch {
        audit: 0xc000_00b7,
        columns: &[Column::Aarch64],
    },
    Arch {
        audit: 0x4000_0028,
        columns: &[Column::Arm],
    },
];

/// Returns the filter for the architecture this program was built for, and for the ones whose
/// programs its kernel also runs. One that asks for devices needs a listener.
pub(crate) fn filter(asks_for_devices: bool) -> Vec<Instruction> {
    compile(archs(), asks_for_devices)
}

/// Returns which call of an architecture this is, if it is one that makes nodes.
pub(crate) fn node_call(audit: u32, number: u32) -> Option<NodeCall> {
    let arch = archs().iter().find(|arch| arch.audit == audit)?;
    arch.columns.iter().find_map(|&column| {
        let own = number.checked_sub(base(column))?;
        let (name, _) = CALLS.iter().find(|(name, numbers)| {
            numbers[column as usize] == own && matches!(*name, "mknod" | "mknodat")
        })?;
        Some(match *name {
            "mknod" => NodeCall::Mknod,
            _ => NodeCall::Mknodat,
        })
    })
}

fn archs() -> &'static [Arch] {
    if cfg!(target_arch = "aarch64") {
        ARM
    } else {
        X86
    }
}

fn compile(archs: &[Arch], asks_for_devices: bool) -> Vec<Instruction> {
    let mut program = Program::default();
    for arch in archs {
        program.arch(arch.audit, &ranges(arch, asks_for_devices));
    }
    program.finish(Action::Kill)
}

/// Returns the action of every number of an architecture as contiguous ranges that begin at 0.
fn ranges(arch: &Arch, asks_for_devices: bool) -> Vec<Range> {
    let action = |name: &str| match special(name) {
        Action::AskForDevice { .. } if !asks_for_devices => Action::Allow,
        action => action,
    };
    let mut ranges = Vec::new();
    for &column in arch.columns {
        push_column(&mut ranges, column, action);
    }
    ranges
}

/// Returns what is added to the numbers of a column.
fn base(column: Column) -> u32 {
    if column == Column::X32 { X32_BIT } else { 0 }
}

fn push_column(ranges: &mut Vec<Range>, column: Column, action_of: impl Fn(&str) -> Action) {
    let base = base(column);
    let mut calls: Vec<(u32, Action)> = CALLS
        .iter()
        .filter(|(_, numbers)| numbers[column as usize] != NONE)
        .map(|(name, numbers)| (numbers[column as usize], action_of(name)))
        .collect();
    calls.sort_unstable_by_key(|&(number, _)| number);
    let last_common = calls
        .iter()
        .map(|&(number, _)| number)
        .filter(|&number| number < ARM_PRIVATE)
        .max()
        .unwrap_or(0);
    let unknown = |number: u32| if number > last_common { ENOSYS } else { EPERM };
    let mut next = 0;
    for (number, action) in calls {
        if number > next {
            push(ranges, base + next, unknown(next));
        }
        if number > last_common && next <= last_common {
            push(ranges, base + last_common + 1, ENOSYS);
        }
        push(ranges, base + number, action);
        next = number + 1;
    }
    push(ranges, base + next, ENOSYS);
}

/// Starts a range, unless the one before has the same action.
fn push(ranges: &mut Vec<Range>, start: u32, action: Action) {
    if ranges.last().is_none_or(|last| last.action != action) {
        ranges.push(Range { start, action });
    }
}

/// Returns what the profile says about a call of the table.
fn special(name: &str) -> Action {
    match name {
        "clone" => Action::AllowUnlessMasked(CLONE_NAMESPACES),
        // Its flags are in memory, where a filter cannot see them; C libraries fall back to clone.
        "clone3" => ENOSYS,
        "personality" => Action::AllowWithin(PERSONALITIES),
        "socket" => Action::AllowWithin(SOCKET_FAMILIES),
        "mknod" => Action::AskForDevice { mode: 1 },
        "mknodat" => Action::AskForDevice { mode: 2 },
        _ => Action::Allow,
    }
}
