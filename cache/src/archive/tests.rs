//! Tests of the tar reader.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use proptest::prelude::{ProptestConfig, any, prop, prop_assert, proptest};

use super::*;
use crate::filelist::Mtime;

/// Runs a program that makes archives; tells whether it is here.
fn run(program: &str, args: &[&str], dir: &Path, stdin: &str) -> bool {
    #[expect(
        clippy::disallowed_methods,
        reason = "other programs' archives are the test"
    )]
    let mut command = Command::new(program);
    command.args(args).current_dir(dir).stdin(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        return false;
    };
    child
        .stdin
        .take()
        .unwrap()
        .write_all(stdin.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success(), "{program} {args:?}");
    true
}

/// Makes an archive with GNU tar or Python; a missing program fails only where `CI` is set.
fn require_archive(program: &str, args: &[&str], dir: &Path, stdin: &str) -> Option<Vec<u8>> {
    if run(program, args, dir, stdin) {
        return Some(fs::read(dir.join("out.tar")).unwrap());
    }
    #[expect(clippy::disallowed_methods, reason = "a test may ask where it runs")]
    let in_ci = std::env::var_os("CI").is_some();
    assert!(!in_ci, "{program} is not installed");
    println!("skipped: {program} is not installed");
    None
}

/// One header block with a right checksum.
fn header(name: &[u8], flag: u8, size: u64, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    block[..name.len()].copy_from_slice(name);
    block[100..108].copy_from_slice(b"0000644\0");
    block[108..116].copy_from_slice(b"0000000\0");
    block[116..124].copy_from_slice(b"0000000\0");
    block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[136..148].copy_from_slice(b"00000000000\0");
    block[156] = flag;
    block[257..265].copy_from_slice(b"ustar\x0000");
    change(&mut block);
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// A header and its content, padded.
fn member(name: &[u8], flag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = header(name, flag, content.len() as u64, |_| ());
    out.extend_from_slice(content);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
    out
}

fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let body: Vec<u8> = records
        .iter()
        .flat_map(|(key, value)| record(key, value))
        .collect();
    member(b"pax", b'x', &body)
}

fn read_all(bytes: &[u8]) -> Result<Vec<(TarEntry, Vec<u8>)>, String> {
    let mut reader = TarReader::new(bytes);
    let mut out = Vec::new();
    while let Some(entry) = reader.next_entry().map_err(|error| error.to_string())? {
        let mut content = Vec::new();
        reader
            .read_to_end(&mut content)
            .map_err(|error| error.to_string())?;
        assert_eq!(content.len() as u64, entry.size);
        out.push((entry, content));
    }
    Ok(out)
}

fn one(parts: &[Vec<u8>]) -> (TarEntry, Vec<u8>) {
    let mut all = read_all(&parts.concat()).unwrap();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

fn refusal(parts: &[Vec<u8>]) -> String {
    let with_next = [parts.concat(), member(b"next", b'0', b"")].concat();
    read_all(&with_next).unwrap_err()
}

#[test]
fn gnu_tar_archives_in_all_formats() {
    let dir = tempfile::tempdir().unwrap();
    let long = format!("d/{}", "n".repeat(150));
    fs::create_dir(dir.path().join("d")).unwrap();
    fs::write(dir.path().join(&long), "long name").unwrap();
    fs::write(dir.path().join("d/a"), "content").unwrap();
    fs::hard_link(dir.path().join("d/a"), dir.path().join("d/b")).unwrap();
    std::os::unix::fs::symlink("t".repeat(150), dir.path().join("d/link")).unwrap();
    for format in ["gnu", "pax", "oldgnu"] {
        let format = format!("--format={format}");
        let owner = ["--owner=3000000", "--group=3000001", "--numeric-owner"];
        let mut args = vec!["-cf", "out.tar", "--sort=name", "--mtime=@-5.5", &format];
        args.extend(owner);
        args.push("d");
        let Some(bytes) = require_archive("tar", &args, dir.path(), "") else {
            return;
        };
        let all = read_all(&bytes).unwrap();
        let paths: Vec<_> = all
            .iter()
            .map(|(e, _)| String::from_utf8_lossy(&e.path))
            .collect();
        assert_eq!(paths, ["d/", "d/a", "d/b", "d/link", &long]);
        let kinds: Vec<_> = all.iter().map(|(e, _)| e.kind).collect();
        let file = TarKind::File;
        assert_eq!(
            kinds,
            [
                TarKind::Dir,
                file,
                TarKind::Hardlink,
                TarKind::Symlink,
                file
            ]
        );
        assert_eq!(
            (&all[1].1[..], &all[4].1[..]),
            (&b"content"[..], &b"long name"[..])
        );
        assert_eq!(all[2].0.link, b"d/a");
        assert_eq!(all[3].0.link, "t".repeat(150).as_bytes());
        assert!(
            all.iter()
                .all(|(e, _)| (e.uid, e.gid) == (3_000_000, 3_000_001))
        );
        assert!(
            all.iter().all(|(e, _)| e.mtime.seconds == -6),
            "{:?}",
            all[0].0.mtime
        );
        if format == "--format=pax" {
            assert_eq!(all[0].0.mtime.nanoseconds, 500_000_000);
        }
    }
}

#[test]
fn gnu_tar_sparse_files_in_all_formats() {
    let dir = tempfile::tempdir().unwrap();
    let file = fs::File::create(dir.path().join("s")).unwrap();
    // Enough parts that the old format needs blocks beyond its header.
    for n in 0..40u64 {
        let text = format!("part {n}");
        std::os::unix::fs::FileExt::write_at(&file, text.as_bytes(), n * 1_000_000).unwrap();
    }
    file.set_len(50_000_000).unwrap();
    fs::write(dir.path().join("z"), "after").unwrap();
    let expected = fs::read(dir.path().join("s")).unwrap();
    for format in [
        "--format=gnu",
        "--sparse-version=0.0",
        "--sparse-version=0.1",
        "--sparse-version=1.0",
    ] {
        let mut args = vec!["-cSf", "out.tar", format];
        if !format.contains("gnu") {
            args.push("--format=pax");
        }
        args.extend(["s", "z"]);
        let Some(bytes) = require_archive("tar", &args, dir.path(), "") else {
            return;
        };
        assert!(bytes.len() < 2_000_000, "the file is stored sparse");
        let all = read_all(&bytes).unwrap();
        assert_eq!(all[0].0.path, b"s", "{format}");
        assert_eq!(all[0].0.size, 50_000_000);
        assert!(all[0].1 == expected, "{format}");
        assert_eq!(
            (&all[1].0.path[..], &all[1].1[..]),
            (&b"z"[..], &b"after"[..])
        );
    }
}

#[test]
fn python_archives_with_attributes_devices_and_big_numbers() {
    let script = r#"
import io, tarfile
def add(name, kind=tarfile.REGTYPE, data=b"", **more):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    for key, value in more.items():
        setattr(info, key, value)
    out.addfile(info, io.BytesIO(data))
with tarfile.open("out.tar", "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x"}) as out:
    add("f", data=b"12345", mtime=1.25, uid=4000000000, mode=0o4755,
        pax_headers={"SCHILY.xattr.user.a": "one\ntwo\x00", "SCHILY.xattr.security.b": "\n"})
    add("c", tarfile.CHRTYPE, devmajor=259, devminor=70000)
    add("b", tarfile.BLKTYPE, devmajor=8, devminor=1)
    add("p", tarfile.FIFOTYPE)
    add("x" * 90 + "/" + "y" * 90, data=b"long")
    add("new\nline" * 30)
"#;
    let dir = tempfile::tempdir().unwrap();
    let Some(bytes) = require_archive("python3", &["-"], dir.path(), script) else {
        return;
    };
    let all = read_all(&bytes).unwrap();
    let entry = |at: usize| &all[at].0;
    assert_eq!(all[0].1, b"12345");
    assert_eq!((entry(0).uid, entry(0).mode), (4_000_000_000, 0o4755));
    assert_eq!(
        entry(0).mtime,
        Mtime {
            seconds: 1,
            nanoseconds: 250_000_000
        }
    );
    let a = (b"user.a".to_vec(), b"one\ntwo\0".to_vec());
    assert_eq!(
        entry(0).xattrs,
        [(b"security.b".to_vec(), b"\n".to_vec()), a]
    );
    assert_eq!(entry(1).kind, TarKind::CharDevice);
    assert_eq!((entry(1).major, entry(1).minor), (259, 70000));
    assert_eq!(entry(2).kind, TarKind::BlockDevice);
    assert_eq!(entry(3).kind, TarKind::Fifo);
    assert_eq!(
        entry(4).path,
        format!("{}/{}", "x".repeat(90), "y".repeat(90)).as_bytes()
    );
    assert_eq!(entry(5).path, "new\nline".repeat(30).as_bytes());
}

#[test]
fn the_extended_size_holds_for_the_entry_and_not_for_headers_in_between() {
    let long = member(b"././@LongLink", b'L', b"long name\0");
    let size = pax(&[("size", b"3")]);
    let file = [
        header(b"f", b'0', 1024, |_| ()),
        b"abc".to_vec(),
        vec![0; 509],
    ]
    .concat();
    let (entry, content) = one(&[size, long, file]);
    assert_eq!(
        (&entry.path[..], &content[..]),
        (&b"long name"[..], &b"abc"[..])
    );
}

#[test]
fn global_headers_hold_until_an_entry_says_otherwise() {
    let body = [record("mtime", b"7"), record("SCHILY.xattr.user.a", b"g")].concat();
    let global = member(b"g", b'g', &body);
    let own = pax(&[("mtime", b"9"), ("SCHILY.xattr.user.a", b"")]);
    let parts = [
        global,
        member(b"a", b'0', b""),
        own,
        member(b"b", b'0', b""),
    ];
    let all = read_all(&parts.concat()).unwrap();
    assert_eq!(
        (all[0].0.mtime.seconds, &all[0].0.xattrs[0].1[..]),
        (7, &b"g"[..])
    );
    assert_eq!(
        (all[1].0.mtime.seconds, &all[1].0.xattrs[0].1[..]),
        (9, &b""[..])
    );
}

#[test]
fn ustar_prefix_and_old_directories() {
    let prefixed = header(b"name", b'0', 0, |block| {
        block[345..348].copy_from_slice(b"a/b");
    });
    assert_eq!(one(&[prefixed]).0.path, b"a/b/name");
    let old = header(b"dir/", 0, 0, |block| block[257..265].fill(0));
    assert_eq!(one(&[old]).0.kind, TarKind::Dir);
    let link = header(b"h", b'1', 77, |block| {
        block[157..160].copy_from_slice(b"f\0x");
    });
    let (entry, _) = one(&[link]);
    assert_eq!(
        (entry.kind, &entry.link[..], entry.size),
        (TarKind::Hardlink, &b"f"[..], 0)
    );
}

#[test]
fn ambiguous_archives_are_refused() {
    let long = || member(b"L", b'L', b"other\0");
    let path = || pax(&[("path", b"name")]);
    let file = || member(b"f", b'0', b"");
    let global = member(b"g", b'g', &record("path", b"p"));
    let sparse: &[(&str, &[u8])] = &[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0")];
    let overlap: &[(&str, &[u8])] = &[("GNU.sparse.size", b"9"), ("GNU.sparse.map", b"0,2,1,1")];
    let future: &[(&str, &[u8])] = &[("GNU.sparse.major", b"2"), ("GNU.sparse.minor", b"0")];
    for (parts, expected) in [
        (vec![path(), path(), file()], "two extended headers"),
        (vec![long(), long(), file()], "two long names"),
        (vec![path(), long(), file()], "two different names"),
        (vec![global, file()], "global header sets a path"),
        (vec![vec![0; BLOCK], file()], "lone block of zeros"),
        (
            vec![header(b"d", b'5', 512, |_| ())],
            "has content, but is not a file",
        ),
        (vec![pax(sparse), file()], "sparse map is malformed"),
        (
            vec![pax(overlap), member(b"f", b'0', b"abc")],
            "sparse map is malformed",
        ),
        (vec![pax(future), file()], "format is not known"),
        (
            vec![pax(overlap), member(b"f", b'5', b"")],
            "sparse, but not a file",
        ),
        (vec![pax(&[("size", b"-1")]), file()], "not one"),
    ] {
        let error = refusal(&parts);
        assert!(error.contains(expected), "{error} should say {expected}");
    }
}

#[test]
fn limits_are_told_before_memory_is_taken() {
    let huge = |flag| header(b"h", flag, 1 << 32, |_| ());
    assert!(refusal(&[huge(b'x')]).contains("1 MiB"));
    assert!(refusal(&[huge(b'L')]).contains("4096"));
    let name = vec![b'n'; MAX_NAME + 1];
    assert!(refusal(&[pax(&[("path", &name)])]).contains("4096"));
    let big: &[(&str, &[u8])] = &[
        ("GNU.sparse.size", b"99999999999999"),
        ("GNU.sparse.map", b"0,0"),
    ];
    assert!(refusal(&[pax(big), member(b"f", b'0', b"")]).contains("64 GiB"));
    let globals: Vec<Vec<u8>> = (0..3)
        .map(|n| {
            member(
                b"g",
                b'g',
                &record(&format!("SCHILY.xattr.{n}"), &vec![0; 500_000]),
            )
        })
        .collect();
    assert!(refusal(&globals).contains("more than 1 MiB"));
}

#[test]
fn errors_name_the_entry_and_where_it_is() {
    let mut broken = member(b"second", b'0', b"");
    broken[100] ^= 1;
    let parts = [member(b"first", b'0', b"x"), broken];
    let error = read_all(&parts.concat()).unwrap_err();
    assert!(error.contains("`second` at byte 1024"), "{error}");
    let cut = &member(b"file", b'0', b"content")[..515];
    let error = read_all(cut).unwrap_err();
    assert!(error.contains("in the middle of entry `file`"), "{error}");
}

#[test]
fn the_end_mark_ends_and_what_follows_stays() {
    let bytes = [member(b"a", b'0', b""), vec![0; 1024], b"rest".to_vec()].concat();
    let mut reader = TarReader::new(&bytes[..]);
    assert!(reader.next_entry().unwrap().is_some());
    assert!(reader.next_entry().unwrap().is_none());
    assert!(reader.next_entry().unwrap().is_none());
    assert_eq!(reader.into_inner(), b"rest");
    assert!(
        read_all(&member(b"a", b'0', b"")).unwrap().len() == 1,
        "no end mark is fine"
    );
}

#[test]
fn archives_are_told_from_other_files() {
    let tar = member(b"a", b'0', b"");
    let gzip = {
        let mut out = Vec::new();
        let level = flate2::Compression::fast();
        flate2::read::GzEncoder::new(&tar[..], level)
            .read_to_end(&mut out)
            .unwrap();
        out
    };
    assert!(is_archive(&tar[..]) && is_archive(&gzip[..]));
    for other in [&b"#!/bin/sh"[..], &[0; 2048], &tar[..300], &gzip[..20]] {
        assert!(!is_archive(other));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn damaged_archives_never_panic_or_grow(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in any::<prop::sample::Index>(),
        fix_checksums in any::<bool>(),
    ) {
        let sparse: &[(&str, &[u8])] = &[
            ("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"9"),
            ("GNU.sparse.name", b"s"), ("SCHILY.xattr.user.a", b"\n"), ("mtime", b"-1.5"),
        ];
        let mut bytes = [
            pax(sparse), member(b"s", b'0', &[b"1\n2\n3\n", &[0; 506][..], b"abc"].concat()),
            member(b"L", b'L', b"name\0"), member(b"f", b'0', &[7; 700]),
            header(b"o", b'S', 0, |b| b[257..265].copy_from_slice(b"ustar  \0")), vec![0; 1024],
        ].concat();
        for (at, value) in &flips {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        if fix_checksums {
            for block in bytes.chunks_mut(BLOCK).filter(|b| b.len() == BLOCK && b[257] == b'u') {
                block[148..156].fill(b' ');
                let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
                block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        bytes.truncate(cut.index(bytes.len() + 1).max(bytes.len() / 2));
        let mut reader = TarReader::new(&bytes[..]);
        let mut n_read = 0;
        while let Ok(Some(entry)) = reader.next_entry() {
            prop_assert!(entry.path.len() <= MAX_NAME && entry.link.len() <= MAX_NAME);
            let mut buffer = [0; 4096];
            while n_read < 1 << 20 {
                match reader.read(&mut buffer) {
                    Ok(0) | Err(_) => break,
                    Ok(n) => n_read += n,
                }
            }
        }
    }

    #[test]
    fn noise_is_refused(bytes in prop::collection::vec(1u8.., 512..2048)) {
        prop_assert!(read_all(&bytes).is_err());
    }
}
