//! Tests of cache mounts on their way: what goes out comes back, and nothing else comes in.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use kiln_cache::{Entry, Kind, TarReader, list_mount};
use kiln_graph::Digest;
use tempfile::TempDir;

use super::*;
use crate::destination::Destination;
use crate::tar::{Header, TarWriter};

fn name() -> CacheName {
    CacheName {
        digest: Digest::blake3("name"),
        id: "/c".to_owned(),
    }
}

fn mount() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir_all(path("d/sub")).unwrap();
    fs::write(path("d/.wh.file"), "not a deletion").unwrap();
    fs::write(path("d/sub/run"), "run").unwrap();
    fs::set_permissions(path("d/sub/run"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::hard_link(path("d/sub/run"), path("z")).unwrap();
    symlink("../../etc/passwd", path("link")).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    for name in ["d/sub/run", "d/sub", "d"] {
        let file = fs::File::open(path(name)).unwrap();
        file.set_modified(time).unwrap();
    }
    dir
}

fn unpack(tar: &[u8]) -> Result<TempDir, String> {
    let dir = tempfile::tempdir().unwrap();
    let result = open_mount_tar(tar).and_then(|(info, mut rest)| {
        let mut unpacker = MountUnpacker::new(dir.path())?;
        unpacker.tar(&mut rest)?;
        unpacker.finish(&info)
    });
    result.map(|_| dir).map_err(|error| error.to_string())
}

fn assert_same(one: &Path, two: &Path) {
    assert_eq!(list_mount(one).unwrap(), list_mount(two).unwrap());
    assert_eq!(fs::read(two.join("z")).unwrap(), b"run");
    let inode = |name: &str| fs::metadata(two.join(name)).unwrap().ino();
    assert_eq!(inode("z"), inode("d/sub/run"));
}

fn tar_of(dir: &Path) -> Vec<u8> {
    let mut tar = Vec::new();
    export_mount_tar(&name(), dir, Destination::Stream(&mut tar)).unwrap();
    tar
}

#[test]
fn an_archive_keeps_everything() {
    let dir = mount();
    let tar = tar_of(dir.path());
    let (info, _) = open_mount_tar(&tar[..]).unwrap();
    assert_eq!(info.name, name());
    assert_same(dir.path(), unpack(&tar).unwrap().path());
    let compressed = zstd::encode_all(&tar[..], 3).unwrap();
    assert_same(dir.path(), unpack(&compressed).unwrap().path());
}

#[test]
fn an_archive_that_was_cut_is_refused() {
    let tar = tar_of(mount().path());
    // Without the end mark and the three blocks of the last entry.
    let error = unpack(&tar[..tar.len() - 1024 - 3 * 512]).unwrap_err();
    assert!(error.contains("not whole"), "{error}");
}

#[test]
fn chunks_keep_everything_and_are_always_the_same() {
    let (dir, out) = (mount(), tempfile::tempdir().unwrap());
    let write = |to: &str| -> Vec<(PathBuf, Digest)> {
        let (chunks, _) = mount_chunks(dir.path()).unwrap();
        let numbered = chunks.iter().enumerate();
        let write = |(n, chunk): (usize, &MountChunk)| {
            let path = out.path().join(format!("{to}{n}"));
            let descriptor = chunk.write(dir.path(), &path).unwrap();
            assert_eq!(descriptor.size, fs::metadata(&path).unwrap().len());
            (path, descriptor.digest)
        };
        numbered.map(write).collect()
    };
    let (first, second) = (write("a"), write("b"));
    let digests = |of: &[(PathBuf, Digest)]| of.iter().map(|(_, d)| *d).collect::<Vec<_>>();
    assert_eq!(digests(&first), digests(&second));
    let target = tempfile::tempdir().unwrap();
    let mut unpacker = MountUnpacker::new(target.path()).unwrap();
    for (path, _) in &first {
        unpacker.layer(fs::File::open(path).unwrap()).unwrap();
    }
    let (_, n_entries) = mount_chunks(dir.path()).unwrap();
    let info = MountInfo::new(&name(), n_entries);
    unpacker.finish(&info).unwrap();
    assert_same(dir.path(), target.path());
}

#[test]
fn a_folder_is_brought_up_to_date() {
    let (dir, out) = (mount(), tempfile::tempdir().unwrap());
    let sync = || export_mount_dir(&name(), dir.path(), out.path()).unwrap();
    assert_eq!((sync().n_written, sync().n_written), (4, 0));
    let copy = out.path().join("fs");
    assert_same(dir.path(), &copy);
    fs::remove_dir_all(dir.path().join("d/sub")).unwrap();
    fs::write(dir.path().join("d/sub"), "a file now").unwrap();
    fs::remove_file(dir.path().join("link")).unwrap();
    let synced = sync();
    assert_eq!((synced.n_written, synced.bytes_written), (2, 13));
    assert_eq!(list_mount(dir.path()).unwrap(), list_mount(&copy).unwrap());
    assert_eq!(open_mount_dir(out.path()).unwrap().name, name());
}

#[test]
fn changed_content_with_the_same_time_is_noticed() {
    let (dir, out) = (mount(), tempfile::tempdir().unwrap());
    let path = dir.path().join("d/sub/run");
    export_mount_dir(&name(), dir.path(), out.path()).unwrap();
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "RUN").unwrap();
    fs::File::open(&path).unwrap().set_modified(time).unwrap();
    let synced = export_mount_dir(&name(), dir.path(), out.path()).unwrap();
    assert_eq!(synced.bytes_written, 3);
    assert_eq!(fs::read(out.path().join("fs/z")).unwrap(), b"RUN");
}

#[test]
fn folders_of_others_are_left_alone() {
    let (dir, out) = (mount(), tempfile::tempdir().unwrap());
    fs::create_dir(out.path().join("fs")).unwrap();
    fs::write(out.path().join("fs/mine"), "").unwrap();
    let error = export_mount_dir(&name(), dir.path(), out.path()).unwrap_err();
    assert!(error.to_string().contains("not an export"), "{error}");
    assert!(out.path().join("fs/mine").exists());
    assert!(open_mount_dir(out.path()).is_err());
}

/// `a>b` symlink, `a=b` hard link, `a/` directory, else a file.
fn hostile(members: &str) -> Vec<u8> {
    let mut tar = TarWriter::new(Vec::new(), "x");
    let info = MountInfo {
        name: name(),
        n_entries: None,
    };
    let json = info.to_json();
    let size = json.len() as u64;
    let changed = || ExportError::refused("");
    tar.header(&Header::file(b"mount.json", 0o644, size))
        .unwrap();
    tar.content(&mut &json[..], size, changed, String::new)
        .unwrap();
    for member in ["fs/"].into_iter().chain(members.split_whitespace()) {
        let (path, kind) = if let Some((path, target)) = member.split_once('>') {
            let target = target.into();
            (path, Kind::Symlink { target })
        } else if let Some((path, target)) = member.split_once('=') {
            let target = target.into();
            (path, Kind::Hardlink { target })
        } else if let Some(path) = member.strip_suffix('/') {
            (path, Kind::Dir { opaque: false })
        } else if let Some(path) = member.strip_suffix('!') {
            (path, Kind::CharDevice { major: 1, minor: 3 })
        } else {
            (member, Kind::Fifo)
        };
        let owner = rustix::process::geteuid().as_raw();
        let entry = Entry {
            uid: owner,
            gid: rustix::process::getegid().as_raw(),
            ..Entry::root_owned(path.as_bytes(), kind, 0o755)
        };
        tar.entry(&entry).unwrap();
    }
    tar.finish().unwrap()
}

#[test]
fn nothing_comes_in_that_leads_out() {
    let outside = tempfile::tempdir().unwrap();
    let out = outside.path().display();
    fs::write(outside.path().join("f"), "").unwrap();
    fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o700)).unwrap();
    for (members, why) in [
        ("fs/../x".to_owned(), "leads out"),
        ("../x".to_owned(), "leads out"),
        ("/x".to_owned(), "absolute"),
        ("x".to_owned(), "not in `fs`"),
        ("fsx/y".to_owned(), "not in `fs`"),
        (format!("fs/l>{out} fs/l/x"), "through a link"),
        (format!("fs/l>{out} fs/l/"), "two of its name"),
        (format!("fs/l>{out} fs/h=fs/l/f"), "through a link"),
        (format!("fs/h={out}/f"), "absolute"),
        ("fs/h=fs/../../f".to_owned(), "leads out"),
        ("fs/h=fs/none".to_owned(), "does not come before"),
        ("fs/a/b".to_owned(), "does not come before"),
        ("fs/a fs/a".to_owned(), "two of its name"),
        ("fs/a fs/a/b".to_owned(), "through a link or a file"),
        ("fs/null!".to_owned(), "of a type"),
    ] {
        let error = unpack(&hostile(&members)).unwrap_err();
        assert!(error.contains(why), "{members}: {error}");
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    let mode = fs::metadata(outside.path()).unwrap().mode();
    assert_eq!(mode & 0o777, 0o700);
    unpack(&hostile("./fs/a fs/b=fs/a fs/c>/etc")).unwrap();
}

#[test]
fn what_says_nothing_of_itself_is_refused() {
    let empty = TarWriter::new(Vec::new(), "x").finish().unwrap();
    assert!(unpack(&empty).unwrap_err().contains("does not begin with"));
    for (json, why) in [
        (&b"{}"[..], "malformed"),
        (
            b"{\"version\":2,\"name\":\"\",\"id\":\"\"}",
            "another version",
        ),
        (
            b"{\"version\":1,\"name\":\"../..\",\"id\":\"\"}",
            "no digest",
        ),
    ] {
        let error = MountInfo::parse(json).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    let mut tar = TarReader::new(&empty[..]);
    assert!(tar.next_entry().unwrap().is_none());
}
