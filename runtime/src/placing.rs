//! Where layers and mounts of a step are: folders of the host as places in a few mounts.
//!
//! Layers can be many, and each idmapped mount costs a descriptor that goes over a socket. So
//! there is one for each mount of the host, of the deepest folder that holds all of the step's.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use crate::error::RunError;
use crate::mount::{Mount, MountSource};
use crate::overlay::{EMPTY, SKELETON};
use crate::plan::{Layers, Place, PlannedMount, PlannedSource, Stack};
use crate::step::Step;

/// Returns the places of a step's layers, and its mounts in their order.
pub(crate) fn places(
    scratch: &Path,
    step: &Step,
    is_mapped: bool,
) -> Result<(Layers, Vec<PlannedMount>), RunError> {
    let (skeleton, empty) = (scratch.join(SKELETON), scratch.join(EMPTY));
    let mounts = in_order(&step.mounts);
    let mut folders = vec![scratch, &skeleton, &empty, &step.upper, &step.work];
    folders.extend(step.lowers.iter().map(PathBuf::as_path));
    for mount in &mounts {
        folders.extend(folders_of(&mount.source));
    }
    let mut real = Vec::with_capacity(folders.len());
    for folder in &folders {
        real.push(fs::canonicalize(folder).map_err(RunError::prepare(*folder))?);
    }
    let (bases, places) = match is_mapped {
        true => by_mount(&real)?,
        false => (vec![PathBuf::from("/")], below_root(&real)),
    };
    let table = Table(folders.into_iter().zip(places).collect());
    let layers = Layers {
        bases,
        scratch: table.place(scratch),
        root: table.stack(&skeleton, &step.lowers, &step.upper, &step.work),
    };
    let planned = mounts.into_iter().map(|mount| PlannedMount {
        target: mount.target.clone(),
        source: table.source(&mount.source, &empty),
        read_only: mount.read_only,
    });
    Ok((layers, planned.collect()))
}

/// Returns the mounts with those nearer to the root first, and of each target the last.
fn in_order(mounts: &[Mount]) -> Vec<&Mount> {
    let mut ordered: Vec<&Mount> = Vec::with_capacity(mounts.len());
    for mount in mounts.iter().rev() {
        let path = Path::new(&mount.target);
        if !ordered.iter().any(|later| Path::new(&later.target) == path) {
            ordered.push(mount);
        }
    }
    ordered.sort_by_key(|mount| Path::new(&mount.target));
    ordered
}

/// Returns the folders of the host that a mount needs.
fn folders_of(source: &MountSource) -> Vec<&Path> {
    match source {
        MountSource::Layers {
            lowers,
            upper,
            work,
            ..
        } => lowers
            .iter()
            .chain([upper, work])
            .map(PathBuf::as_path)
            .collect(),
        MountSource::Folder { folder, .. } => vec![folder],
        MountSource::Socket { path } => vec![folder_of(path)],
        MountSource::Tmpfs { .. } | MountSource::File(_) => Vec::new(),
    }
}

fn folder_of(socket: &Path) -> &Path {
    socket.parent().unwrap_or(Path::new("/"))
}

/// The place of each folder, by its name.
struct Table<'a>(HashMap<&'a Path, Place>);

impl Table<'_> {
    fn place(&self, folder: &Path) -> Place {
        self.0[folder].clone()
    }

    /// The kernel takes no folder twice. A layer that lies higher up once more hides everything
    /// of the lower one, which can therefore be left out.
    fn stack(&self, lowest: &Path, lowers: &[PathBuf], upper: &Path, work: &Path) -> Stack {
        let is_last = |at: &usize| !lowers[at + 1..].contains(&lowers[*at]);
        let kept = (0..lowers.len()).filter(is_last);
        Stack {
            lowers: std::iter::once(lowest)
                .chain(kept.map(|at| lowers[at].as_path()))
                .map(|folder| self.place(folder))
                .collect(),
            upper: self.place(upper),
            work: self.place(work),
        }
    }

    fn source(&self, source: &MountSource, empty: &Path) -> PlannedSource {
        match source {
            MountSource::Layers {
                lowers,
                upper,
                work,
                path,
            } => PlannedSource::Layers {
                stack: self.stack(empty, lowers, upper, work),
                path: path.clone(),
            },
            MountSource::Folder { folder, path } => PlannedSource::Folder {
                folder: self.place(folder),
                path: path.clone(),
            },
            MountSource::Socket { path } => PlannedSource::Folder {
                folder: self.place(folder_of(path)),
                path: path
                    .file_name()
                    .map(|name| name.to_string_lossy().into_owned())
                    .unwrap_or_default(),
            },
            MountSource::Tmpfs { size } => PlannedSource::Tmpfs { size: *size },
            MountSource::File(file) => PlannedSource::File {
                mode: file.mode,
                uid: file.uid,
                gid: file.gid,
                content: file.content.clone(),
            },
        }
    }
}

/// Finds for each mount that folders lie in the deepest folder that holds them all.
fn by_mount(folders: &[PathBuf]) -> Result<(Vec<PathBuf>, Vec<Place>), RunError> {
    let mut bases: Vec<PathBuf> = Vec::new();
    let mut numbers: HashMap<u64, usize> = HashMap::new();
    let mut base_of = Vec::with_capacity(folders.len());
    for folder in folders {
        let mount = mount_id(folder).map_err(RunError::prepare(folder))?;
        match numbers.entry(mount) {
            Entry::Occupied(number) => {
                let base = &mut bases[*number.get()];
                *base = common(base, folder);
                base_of.push(*number.get());
            }
            Entry::Vacant(vacant) => {
                base_of.push(*vacant.insert(bases.len()));
                bases.push(folder.clone());
            }
        }
    }
    let place = |(folder, base): (&PathBuf, usize)| Place {
        base,
        path: relative(&bases[base], folder),
    };
    let places = folders.iter().zip(base_of).map(place).collect();
    Ok((bases, places))
}

fn below_root(folders: &[PathBuf]) -> Vec<Place> {
    let place = |folder: &PathBuf| Place {
        base: 0,
        path: relative(Path::new("/"), folder),
    };
    folders.iter().map(place).collect()
}

fn mount_id(folder: &Path) -> io::Result<u64> {
    Ok(statx(CWD, folder, AtFlags::empty(), StatxFlags::MNT_ID)?.stx_mnt_id)
}

fn common(a: &Path, b: &Path) -> PathBuf {
    let pairs = a.components().zip(b.components());
    pairs
        .take_while(|(a, b)| a == b)
        .map(|(component, _): (Component<'_>, _)| component)
        .collect()
}

fn relative(base: &Path, folder: &Path) -> PathBuf {
    folder.strip_prefix(base).unwrap_or(folder).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_come_from_the_root_down_and_each_target_once() {
        let mount = |(target, size): (&str, u64)| Mount {
            target: target.to_owned(),
            source: MountSource::Tmpfs { size: Some(size) },
            read_only: false,
        };
        let mounts = [("/b/c", 1), ("/a", 2), ("/b", 3), ("/a/", 4), ("/b-c", 5)].map(mount);
        let ordered = in_order(&mounts);
        let targets: Vec<&str> = ordered.iter().map(|mount| mount.target.as_str()).collect();
        assert_eq!(targets, ["/a/", "/b", "/b/c", "/b-c"]);
    }

    #[test]
    fn the_common_folder_is_the_deepest_one() {
        let common = |a: &str, b: &str| common(Path::new(a), Path::new(b));
        assert_eq!(common("/a/b/c", "/a/b/d/e"), Path::new("/a/b"));
        assert_eq!(common("/a/bc", "/a/b"), Path::new("/a"));
        assert_eq!(common("/a", "/b"), Path::new("/"));
        assert_eq!(common("/a", "/a"), Path::new("/a"));
    }

    #[test]
    fn folders_of_one_mount_share_a_base() {
        let folder = tempfile::tempdir().unwrap();
        let path = fs::canonicalize(folder.path()).unwrap();
        let (one, two) = (path.join("one"), path.join("two/three"));
        fs::create_dir_all(&one).unwrap();
        fs::create_dir_all(&two).unwrap();
        let (bases, places) = by_mount(&[one, two]).unwrap();
        assert_eq!(bases, [path]);
        assert_eq!(places[0].path, Path::new("one"));
        assert_eq!(places[1].path, Path::new("two/three"));
    }
}
