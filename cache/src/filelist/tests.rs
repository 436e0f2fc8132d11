//! Tests of file lists.

use kiln_graph::Algorithm;
use proptest::prelude::*;

use super::*;

fn file(path: &str, content: &str) -> Entry {
    let kind = Kind::File {
        size: content.len() as u64,
        digest: Digest::blake3(content),
    };
    Entry::root_owned(path.as_bytes(), kind, 0o644)
}

#[test]
fn a_directory_comes_right_before_what_it_holds() {
    let list = FileList::new(vec![file("a.b", ""), file("a/b", ""), Entry::dir(b"a")]);
    let paths: Vec<&[u8]> = list.entries().iter().map(|e| e.path.as_slice()).collect();
    assert_eq!(paths, [&b"a"[..], b"a/b", b"a.b"]);
    assert!(list.get(b"a/b").is_some() && list.get(b"a/c").is_none());
}

#[test]
fn the_last_of_equal_paths_stays() {
    let list = FileList::new(vec![file("a", "1"), file("a", "2")]);
    assert_eq!(list.entries(), [file("a", "2")]);
}

#[test]
fn content_id_ignores_times_and_nothing_else() {
    let one = file("a", "1");
    let id = |entry: &Entry| FileList::new(vec![entry.clone()]).content_id();
    let mut other = one.clone();
    other.mtime = Mtime {
        seconds: 5,
        nanoseconds: 6,
    };
    assert_eq!(id(&one), id(&other));
    for change in [
        (|e: &mut Entry| e.mode = 0o600) as fn(&mut Entry),
        |e| e.uid = 1,
        |e| e.gid = 1,
        |e| e.path = b"b".to_vec(),
        |e| e.kind = Kind::Fifo,
        |e| e.xattrs = vec![(b"user.a".to_vec(), b"1".to_vec())],
    ] {
        let mut other = one.clone();
        change(&mut other);
        assert_ne!(id(&one), id(&other), "{other:?}");
    }
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let kind = prop_oneof![
        (any::<u64>(), any::<[u8; 32]>()).prop_map(|(size, hash)| Kind::File {
            size,
            digest: Digest::new(Algorithm::Blake3, hash)
        }),
        any::<bool>().prop_map(|opaque| Kind::Dir { opaque }),
        any::<Vec<u8>>().prop_map(|target| Kind::Symlink { target }),
        any::<Vec<u8>>().prop_map(|target| Kind::Hardlink { target }),
        any::<(u32, u32)>().prop_map(|(major, minor)| Kind::CharDevice { major, minor }),
        any::<(u32, u32)>().prop_map(|(major, minor)| Kind::BlockDevice { major, minor }),
        Just(Kind::Fifo),
        Just(Kind::Whiteout),
    ];
    let numbers = any::<(u32, u32, u32, i64, u32)>();
    let xattrs = proptest::collection::vec(any::<(Vec<u8>, Vec<u8>)>(), 0..3);
    let entry = (any::<Vec<u8>>(), kind, numbers, xattrs).prop_map(|(path, kind, n, xattrs)| {
        let mtime = Mtime {
            seconds: n.3,
            nanoseconds: n.4,
        };
        Entry {
            path,
            kind,
            mode: n.0,
            uid: n.1,
            gid: n.2,
            mtime,
            xattrs,
        }
    });
    proptest::collection::vec(entry, 0..12)
}

proptest! {
    #[test]
    fn bytes_round_trip(entries in entries()) {
        let list = FileList::new(entries);
        prop_assert_eq!(FileList::from_bytes(&list.to_bytes()), Ok(list));
    }

    #[test]
    fn damage_never_panics(entries in entries(), at in any::<usize>(), flip in 1u8..) {
        let list = FileList::new(entries);
        let mut bytes = list.to_bytes();
        let at = at % bytes.len();
        bytes[at] ^= flip;
        let _read = FileList::from_bytes(&bytes);
        prop_assert!(FileList::from_bytes(&bytes[..at]).is_err());
    }

    #[test]
    fn order_of_entries_does_not_matter(entries in entries()) {
        let list = FileList::new(entries);
        let reversed: Vec<Entry> = list.entries().iter().rev().cloned().collect();
        prop_assert_eq!(FileList::new(reversed).content_id(), list.content_id());
    }
}
