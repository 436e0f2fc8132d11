//! Tests.

use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::PathBuf;
use std::sync::Arc;

use kiln_cache::{FileList, Store};
use kiln_graph::Digest;

use super::*;

const CONTENT: &[u8] = b"from the image";

struct Fixture {
    dir: tempfile::TempDir,
    layer: Layer,
    _store: Store,
}

fn file(path: &str) -> Entry {
    let kind = Kind::File {
        size: CONTENT.len() as u64,
        digest: Digest::blake3(CONTENT),
    };
    Entry::root_owned(path.as_bytes(), kind, 0o640)
}

fn link(path: &str, target: &str) -> Entry {
    let target = target.as_bytes().to_vec();
    Entry::root_owned(path.as_bytes(), Kind::Symlink { target }, 0o777)
}

fn hardlink(path: &str, target: &str) -> Entry {
    let target = target.as_bytes().to_vec();
    Entry::root_owned(path.as_bytes(), Kind::Hardlink { target }, 0o640)
}

/// A layer with these entries, and files of one content.
fn fixture(entries: &[Entry]) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let staging = store.stage_layer().unwrap();
    for entry in entries {
        let path = staging.fs_dir().join(str::from_utf8(&entry.path).unwrap());
        match entry.kind {
            Kind::File { .. } => {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, CONTENT).unwrap();
            }
            Kind::Dir { .. } => fs::create_dir_all(path).unwrap(),
            _ => {}
        }
    }
    let list = Arc::new(FileList::new(entries.to_vec()));
    let layer = staging.commit(&list.content_id(), &list).unwrap();
    Fixture {
        dir,
        layer,
        _store: store,
    }
}

impl Fixture {
    fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    fn export(&self) -> Result<(), ExportError> {
        let entries = self.layer.list.entries();
        let entries: Vec<_> = entries
            .iter()
            .map(|entry| (entry.clone(), &self.layer))
            .collect();
        export_dir(&entries, &self.out())
    }

    /// Everything beside the store.
    fn leftovers(&self) -> Vec<String> {
        let names = fs::read_dir(self.dir.path()).unwrap();
        let names = names.map(|e| e.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "store").collect()
    }
}

#[test]
fn a_tree_is_written_with_links_modes_and_times() {
    let time = Mtime {
        seconds: 1_000_000_000,
        nanoseconds: 7,
    };
    let mut entries = vec![
        Entry::root_owned(b"ro", Kind::Dir { opaque: false }, 0o555),
        file("ro/f"),
        hardlink("ro/g", "ro/f"),
        link("abs", "/etc/passwd"),
        link("up", "../../../.."),
        Entry::root_owned(b"p", Kind::Fifo, 0o600),
        file("no/parent/f"),
    ];
    entries.iter_mut().for_each(|entry| entry.mtime = time);
    entries.push(Entry::dir(b""));
    let fixture = fixture(&entries);
    fixture.export().unwrap();
    let out = fixture.out();
    assert_eq!(fs::read(out.join("ro/f")).unwrap(), CONTENT);
    assert_eq!(fs::read(out.join("no/parent/f")).unwrap(), CONTENT);
    let of = |name: &str| fs::symlink_metadata(out.join(name)).unwrap();
    assert_eq!(of("ro/f").ino(), of("ro/g").ino());
    assert_eq!(
        (of("ro").mode() & 0o7777, of("ro/f").mode() & 0o7777),
        (0o555, 0o640)
    );
    for name in ["ro", "ro/f", "abs", "p"] {
        assert_eq!(
            (of(name).mtime(), of(name).mtime_nsec()),
            (1_000_000_000, 7),
            "{name}"
        );
    }
    assert_eq!(
        fs::read_link(out.join("up")).unwrap(),
        Path::new("../../../..")
    );
    assert_eq!(fixture.leftovers(), ["out"]);
}

#[test]
fn links_in_the_destination_are_replaced_and_not_followed() {
    let fixture = fixture(&[
        Entry::dir(b"d"),
        file("d/f"),
        file("f"),
        link("l", "elsewhere"),
        file("x/y/f"),
    ]);
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("f"), "precious").unwrap();
    let out = fixture.out();
    fs::create_dir(&out).unwrap();
    fs::write(out.join("kept"), "kept").unwrap();
    symlink(outside.path(), out.join("d")).unwrap();
    symlink(outside.path().join("f"), out.join("f")).unwrap();
    symlink(outside.path().join("f"), out.join("l")).unwrap();
    for _ in 0..2 {
        // `x` has no entry of its own: a link there is an obstacle, not a way.
        symlink(outside.path(), out.join("x")).unwrap();
        assert!(fixture.export().is_err());
        fs::remove_file(out.join("x")).unwrap();
        fixture.export().unwrap();
        fs::remove_dir_all(out.join("x")).unwrap();
    }
    assert_eq!(fs::read(outside.path().join("f")).unwrap(), b"precious");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert_eq!(fs::read(out.join("d/f")).unwrap(), CONTENT);
    assert_eq!(fs::read(out.join("f")).unwrap(), CONTENT);
    assert_eq!(
        fs::read_link(out.join("l")).unwrap(),
        Path::new("elsewhere")
    );
    assert_eq!(fs::read(out.join("kept")).unwrap(), b"kept");
    assert_eq!(
        fs::read_dir(&out).unwrap().count(),
        4,
        "no temporary file is left"
    );
}

#[test]
fn links_in_the_image_are_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    let fixture = fixture(&[file("l/f")]);
    let mut entries = vec![
        (link("l", target), &fixture.layer),
        (file("l/f"), &fixture.layer),
    ];
    assert!(export_dir(&entries, &fixture.out()).is_err());
    entries[1].0 = hardlink("h", "l/f");
    fs::write(outside.path().join("f"), "precious").unwrap();
    assert!(export_dir(&entries, &fixture.out()).is_err());
    for path in ["../f", "/f", "a/../../f", "a//f", "."] {
        let entries = [(file(path), &fixture.layer)];
        assert!(export_dir(&entries, &fixture.out()).is_err(), "{path}");
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert!(
        fixture.leftovers().is_empty(),
        "a failed export leaves nothing"
    );
}

#[test]
fn a_directory_never_makes_way_for_a_file() {
    let fixture = fixture(&[file("app")]);
    fs::create_dir_all(fixture.out().join("app/data")).unwrap();
    let error = fixture.export().unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("has a directory of this name"), "{source}");
    assert!(fixture.out().join("app/data").is_dir());
    assert_eq!(fs::read_dir(fixture.out()).unwrap().count(), 1);
}

#[test]
fn a_file_that_changed_is_an_error_and_the_old_one_stays() {
    let fixture = fixture(&[file("f")]);
    fs::create_dir(fixture.out()).unwrap();
    fs::write(fixture.out().join("f"), "old").unwrap();
    fs::write(
        fixture.layer.fs_dir().join("f"),
        "longer than it was before",
    )
    .unwrap();
    assert!(matches!(fixture.export(), Err(ExportError::Changed { .. })));
    assert_eq!(fs::read(fixture.out().join("f")).unwrap(), b"old");
    assert_eq!(fs::read_dir(fixture.out()).unwrap().count(), 1);
}

#[test]
fn set_id_bits_stay_only_with_their_owner() {
    let mut entry = file("s");
    (entry.mode, entry.uid, entry.gid) = (0o6755, 12345, 12345);
    let fixture = fixture(&[entry]);
    fixture.export().unwrap();
    let found = fs::metadata(fixture.out().join("s")).unwrap();
    let is_owned = found.uid() == 12345;
    assert_eq!(found.mode() & 0o6000 != 0, is_owned);
    assert_eq!(is_owned, rustix::process::geteuid().is_root());
}
