//! Devices that a step could not have: files that stand for them become what they stand for.
//!
//! The kernel makes no devices in a user namespace. In a step, `mknod` therefore makes a socket of
//! which the runtime knows what it stands for, or a regular file with the attribute
//! `user.kiln.device`, whose value is `c` or `b`, a space, and the numbers in decimal with a colon
//! between: `c 1:3`. Both are devices in the file list, and once the step is over also in its
//! directory. What was written to the file is lost, as in a device.
//!
//! A step that sets the attribute itself has made a device, no more: see `runtime` for why steps
//! can open none. Anything but a value in exactly this form is no device, and neither is `c 0:0`,
//! which would be overlay's mark of deletion.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;

use crate::dir_writer::{Content, DirWriter};
use crate::filelist::{Entry, Kind, Mtime, split_path};

/// Attributes that mean something to kiln and belong to no image.
pub(crate) const OWN: &[u8] = b"user.kiln.";
/// Says which device a file stands for; the runtime has the same name.
pub(crate) const ATTRIBUTE: &[u8] = b"user.kiln.device";

/// A socket in an upper directory that stands for a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placeholder {
    /// Number of its inode.
    pub inode: u64,
    /// When it was made: an inode can serve again.
    pub born: Mtime,
    /// The device.
    pub kind: Kind,
}

/// Bits of the numbers, as the kernel's `dev_t` has them.
const MAJOR_BITS: u32 = 12;
const MINOR_BITS: u32 = 20;

/// Returns the device that a value of the attribute stands for.
pub(crate) fn parse(value: &[u8]) -> Option<Kind> {
    let (kind, numbers) = std::str::from_utf8(value).ok()?.split_once(' ')?;
    let (major, minor) = numbers.split_once(':')?;
    let (major, minor) = (number(major, MAJOR_BITS)?, number(minor, MINOR_BITS)?);
    let kind = match kind {
        "c" => Kind::CharDevice { major, minor },
        "b" => Kind::BlockDevice { major, minor },
        _ => return None,
    };
    is_device(&kind).then_some(kind)
}

/// Returns true for every device that a step may have.
pub(crate) fn is_device(kind: &Kind) -> bool {
    match *kind {
        Kind::CharDevice { major, minor } => (major, minor) != (0, 0),
        Kind::BlockDevice { .. } => true,
        _ => false,
    }
}

/// Reads a number that is written in the one way that there is.
fn number(digits: &str, n_bits: u32) -> Option<u32> {
    let number: u32 = digits.parse().ok()?;
    (number >> n_bits == 0 && number.to_string() == digits).then_some(number)
}

/// Puts nodes in the place of what stands for them, under all their names; `entries` are
/// those of the whole directory. Times of directories stay as they are.
pub(crate) fn make_nodes(
    dir: &Path,
    entries: &[Entry],
    placeholders: &HashSet<Vec<u8>>,
) -> io::Result<()> {
    if placeholders.is_empty() {
        return Ok(());
    }
    let dirs = entries.iter().filter(|entry| entry.is_dir());
    let dirs: HashMap<&[u8], &Entry> = dirs.map(|entry| (&*entry.path, entry)).collect();
    let mut writer = DirWriter::new(dir)?;
    for entry in entries {
        let is_link = match &entry.kind {
            Kind::Hardlink { target } if placeholders.contains(target) => true,
            _ if placeholders.contains(&entry.path) => false,
            _ => continue,
        };
        if let Some(parent) = dirs.get(split_path(&entry.path).0) {
            writer.put(parent, Content::None)?;
        }
        writer.remove(&entry.path)?;
        match writer.put(entry, Content::None) {
            // Only root makes nodes: without, the list alone has them, as for layers of images.
            Err(error) if is_link && error.kind() == io::ErrorKind::NotFound => {}
            other => drop(other?),
        }
    }
    writer.finish()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use rustix::fs::{XattrFlags, makedev, setxattr};

    use super::*;
    use crate::scan::{scan_step, scan_upper};
    use crate::tree::Tree;

    fn char_device(major: u32, minor: u32) -> Kind {
        Kind::CharDevice { major, minor }
    }

    #[test]
    fn a_value_is_a_device_in_one_form_only() {
        assert_eq!(parse(b"c 1:3"), Some(char_device(1, 3)));
        assert_eq!(parse(b"c 4095:1048575"), Some(char_device(4095, 1_048_575)));
        let block = Kind::BlockDevice { major: 0, minor: 0 };
        assert_eq!(parse(b"b 0:0"), Some(block));
        for value in [
            "",
            "c",
            "c ",
            "c 1",
            "c 1:",
            "c :3",
            "c 0:0",
            "d 1:3",
            "C 1:3",
            "c 1:3\n",
            "c 1:3\0",
            " c 1:3",
            "c  1:3",
            "c 01:3",
            "c 1:03",
            "c +1:3",
            "c 1:-3",
            "c 4096:0",
            "c 0:1048576",
            "c 1:3:5",
            "c 4294967296:1",
            "c 0x1:3",
            "b 1:3 x",
            "cb 1:3",
        ] {
            assert_eq!(parse(value.as_bytes()), None, "{value:?}");
        }
    }

    /// Makes a file that stands for a device; returns false where files keep no attributes.
    fn stand_in(path: &Path, value: &str) -> bool {
        fs::write(path, "").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        setxattr(
            path,
            "user.kiln.device",
            value.as_bytes(),
            XattrFlags::empty(),
        )
        .is_ok()
    }

    #[test]
    fn files_become_the_devices_they_stand_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path("d/sub")).unwrap();
        if !stand_in(&path("d/null"), "c 1:3") {
            return;
        }
        stand_in(&path("d/disk"), "b 7:300");
        fs::hard_link(path("d/null"), path("d/sub/same")).unwrap();
        setxattr(path("d/null"), "user.other", b"x", XattrFlags::empty()).unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1000);
        fs::File::open(path("d"))
            .unwrap()
            .set_modified(time)
            .unwrap();

        let list = scan_upper(dir.path(), &Tree::default()).unwrap();
        let entry = list.get(b"d/null").unwrap();
        assert_eq!(entry.kind, char_device(1, 3));
        assert_eq!((entry.mode, entry.mtime.seconds), (0o640, 0));
        assert!(entry.xattrs.is_empty(), "devices have no such attributes");
        let link = Kind::Hardlink {
            target: b"d/null".to_vec(),
        };
        assert_eq!(list.get(b"d/sub/same").unwrap().kind, link);
        assert_eq!(list.get(b"d").unwrap().mtime.seconds, 1000);

        assert_eq!(path("d").metadata().unwrap().mtime(), 1000);
        let Ok(node) = path("d/null").symlink_metadata() else {
            return; // Not root: the list alone has them.
        };
        assert_eq!((node.mode(), node.rdev()), (0o020_640, makedev(1, 3)));
        assert_eq!((node.mtime(), node.nlink()), (0, 2));
        let disk = path("d/disk").symlink_metadata().unwrap();
        assert_eq!((disk.mode(), disk.rdev()), (0o060_640, makedev(7, 300)));
        let again = scan_upper(dir.path(), &Tree::default()).unwrap();
        assert_eq!(again.get(b"d/null"), list.get(b"d/null"));
    }

    #[test]
    fn sockets_become_the_devices_they_stand_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let placeholder = |name: &str, kind: Kind| {
            let _listener = std::os::unix::net::UnixListener::bind(path(name)).unwrap();
            let stat = crate::walk::stat_at(
                rustix::fs::CWD,
                &std::ffi::CString::new(path(name).to_str().unwrap()).unwrap(),
            );
            let stat = stat.unwrap();
            Placeholder {
                inode: stat.stx_ino,
                born: crate::walk::born(&stat),
                kind,
            }
        };
        let disk = Kind::BlockDevice { major: 8, minor: 1 };
        let known = placeholder("disk", disk.clone());
        let mut reused = placeholder("reused", disk.clone());
        reused.born.seconds += 1;
        let whiteout = placeholder("whiteout", char_device(0, 0));
        placeholder("unknown", disk.clone());
        fs::hard_link(path("disk"), path("same")).unwrap();
        fs::set_permissions(path("disk"), fs::Permissions::from_mode(0o600)).unwrap();
        let list = scan_step(dir.path(), &Tree::default(), &[known, reused, whiteout]).unwrap();
        let entries = list.entries().iter().filter(|entry| !entry.is_dir());
        let names: Vec<&[u8]> = entries.map(|entry| &*entry.path).collect();
        assert_eq!(
            names,
            [&b"disk"[..], b"same"],
            "other sockets are in no image"
        );
        let entry = list.get(b"disk").unwrap();
        assert_eq!((&entry.kind, entry.mode), (&disk, 0o600));
        let link = Kind::Hardlink {
            target: b"disk".to_vec(),
        };
        assert_eq!(list.get(b"same").unwrap().kind, link);
        if let Ok(node) = path("same").symlink_metadata() {
            assert_eq!((node.mode(), node.rdev()), (0o060_600, makedev(8, 1)));
            assert_eq!(node.nlink(), 2);
        }
    }

    #[test]
    fn a_forged_mark_makes_no_mark_of_deletion() {
        let dir = tempfile::tempdir().unwrap();
        if !stand_in(&dir.path().join("f"), "c 0:0") {
            return;
        }
        fs::create_dir(dir.path().join("d")).unwrap();
        setxattr(
            dir.path().join("d"),
            "user.kiln.device",
            b"c 1:3",
            XattrFlags::empty(),
        )
        .unwrap();
        let list = scan_upper(dir.path(), &Tree::default()).unwrap();
        let file = list.get(b"f").unwrap();
        assert!(matches!(file.kind, Kind::File { size: 0, .. }), "{file:?}");
        assert!(list.get(b"d").unwrap().is_dir());
        assert!(list.entries().iter().all(|entry| entry.xattrs.is_empty()));
        assert!(dir.path().join("f").symlink_metadata().unwrap().is_file());
    }
}
