//! Tests.

use std::io::Cursor;

use kiln_cache::{Mtime, TarEntry, TarKind, TarReader};
use kiln_graph::Digest;
use proptest::prelude::{Just, Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};

use super::*;

fn file(path: &str, content: &[u8]) -> Entry {
    let kind = Kind::File {
        size: content.len() as u64,
        digest: Digest::blake3(content),
    };
    Entry::root_owned(path.as_bytes(), kind, 0o644)
}

/// Writes a layer whose files all have the same content.
fn write(entries: Vec<Entry>, content: &[u8]) -> Result<Vec<u8>, ExportError> {
    let mut writer = LayerTarWriter::new(Vec::new());
    for entry in FileList::new(entries).entries() {
        match entry.kind {
            Kind::File { .. } => writer.file(entry, &mut &content[..])?,
            _ => writer.entry(entry)?,
        }
    }
    writer.finish()
}

fn read(bytes: &[u8]) -> Vec<(TarEntry, Vec<u8>)> {
    let mut reader = TarReader::new(bytes);
    let mut out = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let mut content = Vec::new();
        reader.read_to_end(&mut content).unwrap();
        out.push((entry, content));
    }
    out
}

fn names(bytes: &[u8]) -> Vec<String> {
    let name = |(entry, _): (TarEntry, _)| String::from_utf8(entry.path).unwrap();
    read(bytes).into_iter().map(name).collect()
}

#[test]
fn directories_end_with_a_slash_and_deletions_are_files() {
    let opaque = Entry::root_owned(b"b", Kind::Dir { opaque: true }, 0o755);
    let entries = vec![
        Entry::dir(b""),
        Entry::dir(b"a"),
        Entry::whiteout(b"a/gone"),
        opaque,
        file("b/new", b""),
        Entry::whiteout(b"top"),
    ];
    let bytes = write(entries, b"").unwrap();
    let expected = [
        "./",
        "a/",
        "a/.wh.gone",
        "b/",
        "b/.wh..wh..opq",
        "b/new",
        ".wh.top",
    ];
    assert_eq!(names(&bytes), expected);
    let all = read(&bytes);
    assert!(all[2].0.kind == TarKind::File && all[2].0.mode == 0 && all[2].0.size == 0);
    assert_eq!(bytes.len() % 512, 0);
}

#[test]
fn plain_entries_take_one_header_block() {
    let bytes = write(
        vec![file(
            &format!("{}/{}", "p".repeat(150), "n".repeat(99)),
            b"x",
        )],
        b"x",
    );
    // A header, a block of content, and the end mark.
    assert_eq!(bytes.unwrap().len(), 4 * 512);
}

#[test]
fn names_that_mean_deletions_are_refused() {
    let error = write(vec![file("d/.wh.x", b"")], b"")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("`/d/.wh.x`") && error.contains("deletions"),
        "{error}"
    );
    assert!(write(vec![Entry::whiteout(b"")], b"").is_err());
}

#[test]
fn a_file_of_another_length_is_an_error() {
    for content in [&b"shor"[..], b"longer"] {
        let error = write(vec![file("f", b"right")], content).unwrap_err();
        assert!(
            matches!(&error, ExportError::Changed { path } if path == "/f"),
            "{error}"
        );
    }
    let mut open = |_: &Entry| Err(io::ErrorKind::NotFound.into());
    let list = FileList::new(vec![file("gone", b"x")]);
    let error = write_layer_tar(&list, &mut open, &mut Vec::new()).unwrap_err();
    assert!(matches!(error, ExportError::Changed { .. }));
}

#[test]
fn a_file_of_more_than_8_gib_has_its_size_in_a_pax_header() {
    let size = 9 << 30;
    let header = Header {
        size,
        ..Header::file(b"big", 0o644, 0)
    };
    let blocks = header_blocks(&header).unwrap();
    let mut reader = TarReader::new(&blocks[..]);
    assert_eq!(reader.next_entry().unwrap().unwrap().size, size);
}

#[test]
fn times_are_whole_seconds() {
    for (seconds, nanoseconds) in [(1, 500_000_000), (-2, 750_000_000), (1 << 40, 0)] {
        let mut entry = file("f", b"");
        entry.mtime = Mtime {
            seconds,
            nanoseconds,
        };
        let (back, _) = read(&write(vec![entry], b"").unwrap()).remove(0);
        assert_eq!(
            back.mtime,
            Mtime {
                seconds,
                nanoseconds: 0
            }
        );
    }
}

#[test]
fn gnu_tar_lists_what_was_written() {
    let long = "é".repeat(120);
    let mut special = file("special", b"text");
    special.xattrs = vec![(b"user.a".to_vec(), b"1\n2".to_vec())];
    special.mtime = Mtime {
        seconds: 1,
        nanoseconds: 5,
    };
    let link = Kind::Symlink {
        target: vec![b't'; 120],
    };
    let entries = vec![
        file(&long, b"text"),
        special,
        Entry::root_owned(b"link", link, 0o777),
        Entry::root_owned(
            b"node",
            Kind::BlockDevice {
                major: 259,
                minor: 70000,
            },
            0o600,
        ),
    ];
    let bytes = write(entries, b"text").unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.tar"), bytes).unwrap();
    #[expect(
        clippy::disallowed_methods,
        reason = "another program's reading is the test"
    )]
    let output = std::process::Command::new("tar")
        .args(["-tvf", "a.tar", "--quoting-style=literal"])
        .current_dir(dir.path())
        .output();
    let Ok(output) = output else { return };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    assert!(text.contains(&long) && text.contains("259,70000"), "{text}");
    assert!(
        text.contains(&format!("link -> {}", "t".repeat(120))),
        "{text}"
    );
}

fn mtime() -> impl Strategy<Value = Mtime> {
    let seconds = prop_oneof![-5i64..5, any::<i32>().prop_map(i64::from), Just(1 << 40)];
    seconds.prop_map(|seconds| Mtime {
        seconds,
        nanoseconds: 0,
    })
}

fn kind(content: &'static [u8]) -> impl Strategy<Value = Kind> {
    let target = prop::collection::vec(1u8.., 1..300);
    prop_oneof![
        Just(Kind::File {
            size: content.len() as u64,
            digest: Digest::blake3(content)
        }),
        Just(Kind::Dir { opaque: false }),
        Just(Kind::Fifo),
        target.clone().prop_map(|target| Kind::Symlink { target }),
        target.prop_map(|target| Kind::Hardlink { target }),
        (0u32..4096, 0u32..1 << 20).prop_map(|(major, minor)| Kind::CharDevice { major, minor }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        path in "[a-z\u{e9}\n]{1,90}(/[a-z ]{1,90}){0,4}",
        kind in kind(b"some content"),
        mode in 0u32..0o10000,
        owner in (any::<u32>(), any::<u32>()),
        mtime in mtime(),
        xattrs in prop::collection::btree_map("[a-z.]{1,9}", any::<Vec<u8>>(), 0..3),
    ) {
        let xattrs: Vec<_> = xattrs.into_iter().map(|(k, v)| (k.into_bytes(), v)).collect();
        let (uid, gid) = owner;
        let path = path.into_bytes();
        let entry = Entry { path, kind, mode, uid, gid, mtime, xattrs };
        let bytes = write(vec![entry.clone()], b"some content").unwrap();
        let (back, content) = read(&bytes).remove(0);
        let mut path = entry.path.clone();
        path.extend(entry.is_dir().then_some(b'/'));
        prop_assert_eq!((back.path, back.mode, back.mtime), (path, entry.mode, entry.mtime));
        prop_assert_eq!((back.uid, back.gid, back.xattrs), (uid, gid, entry.xattrs));
        match entry.kind {
            Kind::File { .. } => prop_assert_eq!(&content[..], &b"some content"[..]),
            Kind::Symlink { target } | Kind::Hardlink { target } => {
                prop_assert_eq!(back.link, target);
            }
            Kind::CharDevice { major, minor } => prop_assert_eq!((back.major, back.minor), (major, minor)),
            _ => {}
        }
    }
}

#[test]
fn a_reader_that_gives_little_at_a_time_changes_nothing() {
    struct Slow(Cursor<Vec<u8>>);
    impl io::Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = buffer.len().min(3);
            self.0.read(&mut buffer[..n])
        }
    }
    let content = vec![7; 5000];
    let mut writer = LayerTarWriter::new(Vec::new());
    let mut slow = Slow(Cursor::new(content.clone()));
    writer.file(&file("f", &content), &mut slow).unwrap();
    let expected = write(vec![file("f", &content)], &content).unwrap();
    assert!(writer.finish().unwrap() == expected);
}
