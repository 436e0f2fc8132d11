//! Extended attributes of a name in a directory, links not followed.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::devices;

/// Attributes by which overlay marks its own files; they belong to no image.
const OVERLAY: &[u8] = b"user.overlay.";

/// Marks a directory that hides what lower layers have inside.
pub(crate) const OPAQUE: &[u8] = b"user.overlay.opaque";

/// Names and values, sorted by name.
pub(crate) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// There is no `getxattrat` before Linux 6.13: the name is reached through the descriptor.
fn path_of(dir: impl AsFd, name: &CStr) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    path
}

/// What the attributes of a name say.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Those that belong to an image.
    pub(crate) of_image: Xattrs,
    /// Overlay marked it opaque.
    pub(crate) is_opaque: bool,
    /// Which device it stands for: see [`crate::devices`].
    pub(crate) device: Option<Vec<u8>>,
}

/// Reads the attributes of a name.
pub(crate) fn read(dir: impl AsFd, name: &CStr) -> io::Result<Found> {
    let path = path_of(dir, name);
    let mut names = vec![0; 1024];
    let n = loop {
        match rustix::fs::llistxattr(&path, &mut names[..]) {
            Ok(n) => break n,
            Err(Errno::RANGE) => names.resize(names.len() * 4, 0),
            Err(Errno::OPNOTSUPP) => return Ok(Found::default()),
            Err(error) => return Err(error.into()),
        }
    };
    let mut found = Found::default();
    for name in names[..n]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
    {
        if name == OPAQUE {
            found.is_opaque = value(&path, name)?.is_some_and(|value| value == b"y");
        } else if name == devices::ATTRIBUTE {
            found.device = value(&path, name)?;
        } else if is_of_image(name)
            && let Some(value) = value(&path, name)?
        {
            found.of_image.push((name.to_vec(), value));
        }
    }
    found.of_image.sort_unstable();
    Ok(found)
}

/// Returns true for attributes that belong to an image: what the machine decides (labels, ACLs of
/// the host) or overlay and kiln use is left out.
pub fn is_of_image(name: &[u8]) -> bool {
    let is_used = name.starts_with(OVERLAY) || name.starts_with(devices::OWN);
    name.starts_with(b"user.") && !is_used || name == b"security.capability"
}

/// Returns one attribute.
pub(crate) fn read_one(dir: impl AsFd, name: &CStr, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
    value(&path_of(dir, name), key)
}

fn value(path: &[u8], name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let name = CString::new(name)?;
    let mut buffer = vec![0; 256];
    loop {
        match rustix::fs::lgetxattr(path, &name, &mut buffer[..]) {
            Ok(n) => {
                buffer.truncate(n);
                return Ok(Some(buffer));
            }
            Err(Errno::RANGE) => buffer.resize(buffer.len() * 16, 0),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sets one attribute.
pub(crate) fn write(dir: impl AsFd, name: &CStr, key: &[u8], value: &[u8]) -> io::Result<()> {
    let key = CString::new(key)?;
    Ok(rustix::fs::lsetxattr(
        path_of(dir, name),
        &key,
        value,
        XattrFlags::empty(),
    )?)
}
