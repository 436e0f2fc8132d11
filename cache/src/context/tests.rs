//! Tests of reading contexts.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use super::*;

struct Fixture {
    dir: tempfile::TempDir,
    store: Store,
    _root: tempfile::TempDir,
}

fn fixture(files: &[&str]) -> Fixture {
    let (dir, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for file in files {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, file).unwrap();
        let old = UNIX_EPOCH + Duration::from_secs(1_600_000_000);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(old)
            .unwrap();
    }
    Fixture {
        dir,
        store: Store::open(root.path()).unwrap(),
        _root: root,
    }
}

impl Fixture {
    fn load(&self, ignore: &str, paths: &[&str]) -> FileList {
        let ignore = IgnoreList::parse(ignore.as_bytes()).unwrap();
        let context = Context::open(self.dir.path(), ignore).unwrap();
        let paths: Vec<Vec<u8>> = paths.iter().map(|p| p.as_bytes().to_vec()).collect();
        context.load(&self.store, &paths).unwrap()
    }

    fn names(&self, ignore: &str, paths: &[&str]) -> String {
        let list = self.load(ignore, paths);
        let names = list
            .entries()
            .iter()
            .map(|e| String::from_utf8_lossy(&e.path).into_owned());
        names.collect::<Vec<_>>().join(" ")
    }
}

#[test]
fn only_what_can_be_selected_is_looked_at() {
    let fixture = fixture(&["a/x", "a/y", "b/z", "c"]);
    assert_eq!(fixture.names("", &["/a/x"]), "a a/x");
    assert_eq!(fixture.names("", &["/a/*", "c"]), "a a/x a/y c");
    assert_eq!(fixture.names("", &["/"]), "a a/x a/y b b/z c");
    assert_eq!(fixture.names("", &["missing/x"]), "");
}

#[test]
fn ignored_files_are_left_out_and_exceptions_bring_their_folders_back() {
    let fixture = fixture(&["a/x", "a/y", "b/z", "c"]);
    assert_eq!(fixture.names("a", &["/"]), "b b/z c");
    assert_eq!(fixture.names("*\n!a/x", &["/"]), "a a/x");
    assert_eq!(fixture.names("*\n!a/x", &["/a/y", "/a/x"]), "a a/x");
}

#[test]
fn links_on_the_way_are_followed_inside_the_folder() {
    let fixture = fixture(&["real/x", "c"]);
    std::os::unix::fs::symlink("/real", fixture.dir.path().join("l")).unwrap();
    std::os::unix::fs::symlink("../../../etc", fixture.dir.path().join("out")).unwrap();
    assert_eq!(fixture.names("", &["l/x"]), "l real real/x");
    assert_eq!(fixture.names("", &["out/passwd"]), "out");
}

#[test]
fn files_belong_to_root_and_keep_their_mode() {
    let fixture = fixture(&["x"]);
    let path = fixture.dir.path().join("x");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let list = fixture.load("", &["x"]);
    let entry = list.get(b"x").unwrap();
    assert_eq!((entry.uid, entry.gid, entry.mode), (0, 0, 0o640));
    assert_eq!(
        entry.kind,
        Kind::File {
            size: 1,
            digest: Digest::blake3("x")
        }
    );
}

#[test]
fn an_unchanged_file_is_not_read_again_and_a_changed_one_is() {
    let fixture = fixture(&["x"]);
    std::thread::sleep(Duration::from_millis(60)); // The file must be older than the racy window.
    let first = fixture.load("", &["x"]);
    let table = StatTable::path(
        fixture.store.root(),
        &fixture.dir.path().canonicalize().unwrap(),
    );
    assert!(table.exists());
    // A table that lies shows whether it is asked.
    let mut bytes = fs::read(&table).unwrap();
    let end = bytes.len() - 32;
    bytes[end - 1] ^= 1;
    let sum = Digest::blake3(&bytes[..end]);
    bytes[end..].copy_from_slice(sum.as_bytes());
    fs::write(&table, bytes).unwrap();
    assert_ne!(fixture.load("", &["x"]), first);
    fs::write(fixture.dir.path().join("x"), "y").unwrap();
    let kind = fixture.load("", &["x"]).get(b"x").map(|e| e.kind.clone());
    assert_eq!(
        kind,
        Some(Kind::File {
            size: 1,
            digest: Digest::blake3("y")
        })
    );
}

#[test]
fn names_of_one_file_are_links_to_the_first_one_selected() {
    let fixture = fixture(&["a/f"]);
    fs::hard_link(
        fixture.dir.path().join("a/f"),
        fixture.dir.path().join("a/h"),
    )
    .unwrap();
    let kind = |list: &FileList, path: &[u8]| list.get(path).map(|e| e.kind.clone());
    let file = Kind::File {
        size: 3,
        digest: Digest::blake3("a/f"),
    };
    let both = fixture.load("", &["/"]);
    assert_eq!(kind(&both, b"a/f"), Some(file.clone()));
    assert_eq!(
        kind(&both, b"a/h"),
        Some(Kind::Hardlink {
            target: b"a/f".to_vec()
        })
    );
    assert_eq!(kind(&fixture.load("a/f", &["/"]), b"a/h"), Some(file));
}

#[test]
fn a_socket_is_an_empty_file() {
    let fixture = fixture(&["a"]);
    let _socket = std::os::unix::net::UnixListener::bind(fixture.dir.path().join("s")).unwrap();
    let list = fixture.load("", &["/"]);
    let empty = Kind::File {
        size: 0,
        digest: Digest::blake3(""),
    };
    assert_eq!(list.get(b"s").map(|entry| &entry.kind), Some(&empty));
}

#[test]
fn a_glimpse_is_bounded_and_sees_what_is_near_first() {
    let fixture = fixture(&["a/b/c", "z", "no/x", "ign/keep", "ign/drop"]);
    let ignore = IgnoreList::parse(b"no\nign\n!ign/keep").unwrap();
    let context = Context::open(fixture.dir.path(), ignore).unwrap();
    let shown = |limit| {
        let paths = context.glimpse(limit).into_iter();
        let paths = paths.map(|(path, _)| String::from_utf8_lossy(&path).into_owned());
        paths.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(shown(100), "a z a/b ign/keep a/b/c");
    assert_eq!(shown(2), "a z");
    assert!(context.holds(b"no/x") && !context.holds(b"no/y"));
}
