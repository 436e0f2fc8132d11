//! Tests of unpacking layers. Archives are made by hand, header by header.

use std::sync::Arc;

use super::*;

/// One member: name, type flag, link target or content.
fn member(out: &mut Vec<u8>, name: &str, flag: u8, text: &str) {
    let is_link = matches!(flag, b'1' | b'2');
    let size = if is_link || flag == b'5' {
        0
    } else {
        text.len()
    };
    let mut header = [0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..107].copy_from_slice(if flag == b'5' { b"0000750" } else { b"0000644" });
    header[108..115].copy_from_slice(b"0000003");
    header[116..123].copy_from_slice(b"0000004");
    header[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    header[136..147].copy_from_slice(b"00000000012");
    header[156] = flag;
    if is_link {
        header[157..157 + text.len()].copy_from_slice(text.as_bytes());
    }
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|&b| u32::from(b)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    out.extend_from_slice(&header);
    if size > 0 {
        out.extend_from_slice(text.as_bytes());
        out.resize(out.len().next_multiple_of(512), 0);
    }
}

/// `d/` directory, `a>b` symlink, `a=b` hard link, else a file with its name as content.
fn tar(members: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for text in members.split_whitespace() {
        if let Some((name, target)) = text.split_once('>') {
            member(&mut out, name, b'2', target);
        } else if let Some((name, target)) = text.split_once('=') {
            member(&mut out, name, b'1', target);
        } else if text.ends_with('/') {
            member(&mut out, text, b'5', "");
        } else {
            member(&mut out, text, b'0', text);
        }
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn show(list: &FileList) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let show = |entry: &Entry| {
        let path = text(&entry.path);
        match &entry.kind {
            Kind::Dir { opaque: true } => format!("{path}!/"),
            Kind::Dir { .. } => format!("{path}/{:o}", entry.mode),
            Kind::Symlink { target } => format!("{path}>{}", text(target)),
            Kind::Hardlink { target } => format!("{path}={}", text(target)),
            Kind::Whiteout => format!("-{path}"),
            _ => path,
        }
    };
    list.entries()
        .iter()
        .map(show)
        .collect::<Vec<_>>()
        .join(" ")
}

struct Layer {
    dir: tempfile::TempDir,
    unpacked: Unpacked,
}

/// Owners are not ours to give in a test that may run as anyone: only root runs these.
fn unpack_on(below: &Tree, members: &str) -> Result<Layer, UnpackError> {
    let dir = tempfile::tempdir().unwrap();
    let writer = DirWriter::new(dir.path()).unwrap();
    let unpacked = unpack_layer(tar(members).as_slice(), below, writer)?;
    Ok(Layer { dir, unpacked })
}

fn unpack(members: &str) -> String {
    match unpack_on(&Tree::default(), members) {
        Ok(layer) => show(&layer.unpacked.list),
        Err(error) => error.to_string(),
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn nothing_climbs_out() {
    if !is_root() {
        return;
    }
    assert_eq!(unpack("../../x /abs a/../../y"), "abs x y");
    assert_eq!(unpack("evil>../../.. evil/x"), "evil>../../.. x");
    assert!(unpack("l=../../etc/passwd").contains("no file of this layer"));
}

#[test]
fn links_inside_the_layer_lead_where_they_point() {
    if !is_root() {
        return;
    }
    assert_eq!(unpack("b/ a>b a/x"), "a>b b/750 b/x");
    assert_eq!(unpack("a>missing a/x"), "a>missing missing/755 missing/x");
}

#[test]
fn parents_left_out_are_as_they_are_below() {
    if !is_root() {
        return;
    }
    let lower = unpack_on(&Tree::default(), "usr/ usr/lib/ lib>usr/lib").unwrap();
    let below = Tree::new(vec![Arc::new(lower.unpacked.list)]);
    let layer = unpack_on(&below, "usr/lib/x lib/y").unwrap();
    assert_eq!(
        show(&layer.unpacked.list),
        "usr/750 usr/lib/750 usr/lib/x usr/lib/y"
    );
    assert!(layer.unpacked.used_below);
    assert!(layer.dir.path().join("usr/lib/y").exists());
    let plain = unpack_on(&below, "usr/ usr/new").unwrap();
    assert!(!plain.unpacked.used_below);
}

#[test]
fn whiteouts_and_opaque_directories() {
    if !is_root() {
        return;
    }
    assert_eq!(
        unpack("d/ d/.wh.gone d/.wh..wh..opq d/kept .wh.top"),
        "d!/ -d/gone d/kept -top"
    );
    assert_eq!(unpack("x .wh.x"), "x");
    assert!(unpack("d/ d/.wh...").contains("nothing to delete"));
    assert!(unpack(".wh.").contains("nothing to delete"));
}

#[test]
fn later_entries_replace_earlier_ones() {
    if !is_root() {
        return;
    }
    assert_eq!(unpack("a/ a/x a"), "a");
    assert_eq!(unpack("a a/"), "a/750");
    assert_eq!(unpack("a>b a b"), "a b");
    assert!(unpack("a a/x").contains("parent is not a directory"));
}

#[test]
fn the_first_name_in_order_is_the_file() {
    if !is_root() {
        return;
    }
    assert_eq!(unpack("z a=z m=a"), "a m=a z=a");
    assert_eq!(unpack("a b=a c=a a"), "a b c=b");
}
