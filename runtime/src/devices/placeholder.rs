//! The placeholder itself: made in a child of stage 1 that has become the caller.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, StatxFlags, XattrFlags, fsetxattr, mknodat, openat, statx,
    unlinkat,
};

use crate::devices::Node;
use crate::devices::caller::Caller;
use crate::step::Device;

/// Says of a file which device it stands for: `c 1:3`. The cache has the same name.
const ATTRIBUTE: &CStr = c"user.kiln.device";

/// Becomes the caller, makes the placeholder, and tells who it is if it is a socket.
pub(super) fn make(
    caller: &Caller,
    node: Node,
    container: &OwnedFd,
    tell: &OwnedFd,
) -> io::Result<()> {
    caller.become_it(container, tell.as_fd())?;
    let (dir, path) = (&caller.dir, caller.path.as_slice());
    let mode = Mode::from_raw_mode(node.mode);
    let finished = if node.is_null() {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let file = openat(dir, path, flags | OFlags::CLOEXEC, mode)?;
        let value = node.to_string();
        fsetxattr(&file, ATTRIBUTE, value.as_bytes(), XattrFlags::CREATE).map_err(io::Error::from)
    } else {
        mknodat(dir, path, FileType::Socket, mode, 0)?;
        Identity::read(dir, path).and_then(|identity| identity.send(tell))
    };
    if finished.is_err() {
        unlinkat(dir, path, AtFlags::empty())?;
    }
    finished
}

/// What tells a file from all others, now and before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    inode: u64,
    seconds: i64,
    nanoseconds: u32,
}

impl Identity {
    const SIZE: usize = 20;

    /// Fails where the file system does not keep times of birth.
    fn read(dir: &OwnedFd, path: &[u8]) -> io::Result<Self> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let stat = statx(dir, path, AtFlags::SYMLINK_NOFOLLOW, wanted)?;
        let is_socket = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Socket;
        if !is_socket || !StatxFlags::from_bits_retain(stat.stx_mask).contains(wanted) {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        Ok(Self {
            inode: stat.stx_ino,
            seconds: stat.stx_btime.tv_sec,
            nanoseconds: stat.stx_btime.tv_nsec,
        })
    }

    fn send(self, to: &OwnedFd) -> io::Result<()> {
        // Less than a pipe takes at once.
        rustix::io::write(to, &self.to_bytes())?;
        Ok(())
    }

    /// Receives what a child sent that is gone; `None` if it sent nothing.
    pub(super) fn receive(from: &OwnedFd) -> Option<Self> {
        let mut bytes = [0; Self::SIZE];
        let length = rustix::io::read(from, &mut bytes).ok()?;
        (length == Self::SIZE).then(|| Self::from_bytes(bytes))
    }

    /// Returns the device that the file stands for.
    pub(super) fn of(self, node: Node) -> Device {
        Device {
            inode: self.inode,
            born: (self.seconds, self.nanoseconds),
            is_block: node.is_block,
            major: node.major,
            minor: node.minor,
        }
    }

    fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..8].copy_from_slice(&self.inode.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.seconds.to_le_bytes());
        bytes[16..].copy_from_slice(&self.nanoseconds.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        let [a, b, c, d, e, f, g, h, rest @ ..] = bytes;
        let [i, j, k, l, m, n, o, p, rest @ ..] = rest;
        Self {
            inode: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            seconds: i64::from_le_bytes([i, j, k, l, m, n, o, p]),
            nanoseconds: u32::from_le_bytes(rest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_the_way_out_of_the_child() {
        let identity = Identity {
            inode: 0x0102_0304_0506_0708,
            seconds: -5,
            nanoseconds: 999_999_999,
        };
        assert_eq!(Identity::from_bytes(identity.to_bytes()), identity);
    }
}
