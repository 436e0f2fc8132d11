//! Tests of copy plans.

use std::sync::Arc;

use kiln_cache::FileList;
use kiln_graph::{Digest, Mode};

use super::*;
use crate::users::Ids;

/// `d/` is a directory, `a>b` a link, `a=b` a hard link, else a file with its path as content.
fn entry(text: &str) -> Entry {
    if let Some(path) = text.strip_suffix('/') {
        return Entry {
            mode: 0o700,
            ..Entry::dir(path.as_bytes())
        };
    }
    if let Some((path, target)) = text.split_once('>') {
        let kind = Kind::Symlink {
            target: target.as_bytes().to_vec(),
        };
        return Entry::root_owned(path.as_bytes(), kind, 0o777);
    }
    if let Some((path, target)) = text.split_once('=') {
        let kind = Kind::Hardlink {
            target: target.as_bytes().to_vec(),
        };
        return Entry::root_owned(path.as_bytes(), kind, 0o644);
    }
    let kind = Kind::File {
        size: text.len() as u64,
        digest: Digest::blake3(text),
    };
    Entry::root_owned(text.as_bytes(), kind, 0o644)
}

fn tree(text: &str) -> Tree {
    let entries = text.split_whitespace().map(entry).collect();
    Tree::new(vec![Arc::new(FileList::new(entries))])
}

fn everything() -> kiln_graph::Copy {
    kiln_graph::Copy {
        sources: vec![],
        destination: "/".to_owned(),
        owner: None,
        mode: None,
        link: false,
        parents: false,
        exclude: vec![],
    }
}

fn copy_with(
    image: &str,
    context: &str,
    (from, to): (&str, &str),
    overrides: Overrides,
) -> Result<Vec<Planned>, CopyError> {
    let (image, context) = (tree(image), tree(context));
    let mut plan = Plan::new(&image, overrides, Mtime::default());
    let query = Query::new(&everything(), from)?;
    for selected in query.select(&context)? {
        plan.copy((0, &context, &query), &selected, to)?;
    }
    Ok(plan.finish())
}

/// Shows a plan as `path:mode` with `<source` for files and `=target` for hard links.
fn show(planned: &[Planned]) -> String {
    let one = |planned: &Planned| {
        let mut out = format!("{}:{:o}", text(&planned.entry.path), planned.entry.mode);
        match (&planned.entry.kind, &planned.bytes) {
            (Kind::Hardlink { target }, _) => out.extend(["=", &text(target)]),
            (_, Bytes::Source { path, .. }) => out.extend(["<", &text(path)]),
            _ => {}
        }
        out
    };
    planned.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn copy(image: &str, context: &str, from: &str, to: &str) -> String {
    match copy_with(image, context, (from, to), Overrides::default()) {
        Ok(planned) => show(&planned),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_file_lands_by_the_slash_and_by_what_is_there() {
    assert_eq!(copy("", "f", "f", "/a"), "a:644<f");
    assert_eq!(copy("", "f", "f", "/a/"), "a:755 a/f:644<f");
    assert_eq!(copy("a/", "f", "f", "/a"), "a:700 a/f:644<f");
    assert_eq!(copy("a/ a/b", "f", "f", "/a/b"), "a:700 a/b:644<f");
    assert_eq!(copy("", "f", "f", "/a/b/c"), "a:755 a/b:755 a/b/c:644<f");
    assert_eq!(copy("", "f", "f", "/a/."), "a:755 a/f:644<f");
}

#[test]
fn a_directory_lands_by_its_content() {
    assert_eq!(
        copy("", "d/ d/x d/s/ d/s/y", "d", "/t"),
        "t:755 t/s:700 t/s/y:644<d/s/y t/x:644<d/x"
    );
    assert_eq!(copy("t/", "d/ d/x", "d", "/t"), "t:700 t/x:644<d/x");
    assert_eq!(copy("", "d/ d/x", "/", "/"), "d:700 d/x:644<d/x");
    assert_eq!(copy("t/", "d/", "d", "/t"), "");
}

#[test]
fn nested_directories_take_the_new_metadata_and_clashes_are_refused() {
    let overrides = Overrides {
        owner: None,
        mode: Some(Mode::Bits(0o711)),
    };
    let planned = copy_with("t/ t/s/", "d/ d/s/", ("d", "/t"), overrides).unwrap();
    assert_eq!(show(&planned), "t:700 t/s:711");
    assert!(
        copy("t/ t/s", "d/ d/s/ d/s/x", "d", "/t").contains("cannot copy to non-directory: `/t/s`")
    );
    assert!(copy("t/ t/s>q q/", "d/ d/s/", "d", "/t").contains("cannot copy to non-directory"));
    assert!(copy("t/ t/f/", "d/ d/f", "d", "/t").contains("cannot replace directory `/t/f`"));
    assert!(copy("t", "d/ d/f", "d", "/t").contains("non-directory"));
    assert!(copy("t", "f", "f", "/t/").contains("non-directory"));
}

#[test]
fn what_is_there_already_is_no_change() {
    assert_eq!(copy("t/ t/s/", "d/ d/s/", "d", "/t"), "");
    assert_eq!(copy("f", "f", "f", "/"), "");
    assert_eq!(copy("d/ d/x", "d/ d/x", "d/x", "/d/"), "");
    assert_eq!(
        copy("d/ d/x", "d/ d/x d/y", "d", "/d/"),
        "d:700 d/y:644<d/y"
    );
    // A further name of a file stays one.
    assert_eq!(copy("a/ a/x a/y=a/x", "a/ a/x", "a/x", "/a/"), "");
    assert_eq!(copy("f>g g", "f", "f", "/g"), "g:644<f");
}

#[test]
fn destination_links_are_followed_inside_the_image() {
    assert_eq!(
        copy("l>real real/", "f", "f", "/l/"),
        "real:700 real/f:644<f"
    );
    assert_eq!(copy("l>../../etc", "f", "f", "/l/f"), "etc:755 etc/f:644<f");
    assert_eq!(copy("l>target", "f", "f", "/l"), "target:644<f");
    assert_eq!(copy("t/ t/f>/other", "f", "f", "/t/"), "t:700 t/f:644<f");
}

#[test]
fn names_of_one_file_stay_together_within_a_copy() {
    assert_eq!(
        copy("", "d/ d/a d/b=d/a", "d", "/t"),
        "t:755 t/a:644<d/a t/b:644=t/a"
    );
    assert_eq!(copy("", "d/ d/a d/b=d/a", "d/b", "/t"), "t:644<d/a");
}

#[test]
fn names_selected_one_by_one_are_files_of_their_own() {
    let (image, context) = (tree(""), tree("a b=a"));
    let mut plan = Plan::new(&image, Overrides::default(), Mtime::default());
    for path in ["a", "b"] {
        let query = Query::new(&everything(), path).unwrap();
        for selected in query.select(&context).unwrap() {
            plan.copy((0, &context, &query), &selected, "/").unwrap();
        }
    }
    assert_eq!(show(&plan.finish()), "a:644<a b:644<a");
}

#[test]
fn overrides_hold_for_all_but_the_mode_of_links() {
    let overrides = Overrides {
        owner: Some(Ids { uid: 3, gid: 4 }),
        mode: Some(Mode::Bits(0o640)),
    };
    let planned = copy_with("", "d/ d/x d/l>x", ("d", "/t"), overrides).unwrap();
    assert_eq!(show(&planned), "t:640 t/l:777 t/x:640<d/x");
    assert!(planned.iter().all(|p| (p.entry.uid, p.entry.gid) == (3, 4)));
}

#[test]
fn names_that_would_delete_are_refused() {
    assert!(copy("", ".wh.x", ".wh.x", "/").contains("would delete"));
}

#[test]
fn an_archive_replaces_a_link_by_its_directory() {
    let image = tree("t/ t/l>other other/");
    let mut plan = Plan::new(&image, Overrides::default(), Mtime::default());
    plan.put_unpacked(entry("t/l/"), Bytes::None).unwrap();
    plan.put_unpacked(entry("t/l/x"), Bytes::None).unwrap();
    assert_eq!(show(&plan.finish()), "t:700 t/l:700 t/l/x:644");
}

#[test]
fn an_archive_takes_the_owner_but_not_the_mode_and_its_last_link_decides() {
    let image = tree("");
    let overrides = Overrides {
        owner: Some(Ids { uid: 1, gid: 2 }),
        mode: Some(Mode::Bits(0o700)),
    };
    let mut plan = Plan::new(&image, overrides, Mtime::default());
    plan.make_archive_dir("/z").unwrap();
    plan.put_unpacked(entry("z/implied/f"), Bytes::None)
        .unwrap();
    let link = Entry {
        mode: 0o600,
        ..entry("z/g")
    };
    assert!(plan.put_link(b"z/implied/f", link.clone()).unwrap());
    assert!(!plan.put_link(b"z/none", link).unwrap());
    let planned = plan.finish();
    assert_eq!(
        show(&planned),
        "z:755 z/g:600 z/implied:755 z/implied/f:600=z/g"
    );
    let owners: Vec<_> = planned.iter().map(|p| (p.entry.uid, p.entry.gid)).collect();
    assert_eq!(owners, [(1, 2), (1, 2), (0, 0), (1, 2)]);
}
