//! Which files a COPY selects, and the digest of what they look like where they land.
//!
//! Rules, as BuildKit has them: a literal path must exist and its links are followed; a wildcard
//! matches whole relative paths in order, is not looked for inside what matched, and may match
//! nothing; what matched is followed if it is a link. Links inside a copied directory stay links.

use std::collections::HashMap;

use kiln_cache::{Entry, Kind, Node, Tree, Wildcard, components, join_path, split_path};
use kiln_graph::{Copy, CopySource, Encoder, Mode, PartKind};

use crate::error::CopyError;
use crate::filter::Query;

/// One path that a source stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selected {
    /// The path by which it was found: gives the name at the destination.
    pub(crate) path: Vec<u8>,
    /// Where it really is.
    pub(crate) real: Vec<u8>,
}

impl Selected {
    /// Returns the last component of the name it was found by.
    pub(crate) fn base_name(&self) -> &[u8] {
        split_path(&self.path).1
    }
}

/// Returns what `path` selects. What is named must exist: a literal path, the folder that a
/// wildcard is looked for in, and what a link found by a wildcard points at.
pub(crate) fn select(tree: &Tree, path: &str) -> Result<Vec<Selected>, CopyError> {
    let found = find(tree, path)?;
    for selected in &found {
        if !exists(tree, &selected.real) {
            let path = format!("/{}", String::from_utf8_lossy(&selected.path));
            return Err(CopyError::NotFound { path, hint: None });
        }
    }
    Ok(found)
}

fn exists(tree: &Tree, path: &[u8]) -> bool {
    path.is_empty() || tree.get(path).is_some()
}

/// As [`select`], but links may point at what is not there (yet).
pub(crate) fn find(tree: &Tree, path: &str) -> Result<Vec<Selected>, CopyError> {
    let parts: Vec<&[u8]> = normalized(path);
    let literal = parts
        .iter()
        .position(|part| is_wildcard(part))
        .unwrap_or(parts.len());
    let prefix = parts[..literal].join(&b'/');
    let root = tree.resolve(&prefix)?;
    if literal == parts.len() {
        return Ok(vec![Selected {
            path: prefix,
            real: root,
        }]);
    }
    if !exists(tree, &root) {
        let path = format!("/{}", String::from_utf8_lossy(&prefix));
        return Err(CopyError::NotFound { path, hint: None });
    }
    let pattern = Wildcard::parse(&parts[literal..].join(&b'/'))?;
    let mut found: Vec<Selected> = Vec::new();
    // The last directory that matched: nothing is looked for inside it.
    let mut matched: Option<Vec<u8>> = None;
    for node in tree.below(&root) {
        let path = &node.entry.path;
        if matched.as_ref().is_some_and(|dir| is_below(path, dir)) {
            continue;
        }
        let relative = if root.is_empty() {
            path
        } else {
            &path[root.len() + 1..]
        };
        if pattern.matches(relative) {
            if node.entry.is_dir() {
                matched = Some(path.clone());
            }
            let real = tree.resolve(path)?;
            found.push(Selected {
                path: join_path(&prefix, relative),
                real,
            });
        }
    }
    Ok(found)
}

/// Returns where a path without wildcards really is.
pub(crate) fn locate(tree: &Tree, path: &str) -> Result<Vec<u8>, CopyError> {
    let real = tree.resolve(&normalized(path).join(&b'/'))?;
    if !exists(tree, &real) {
        let path = format!("/{}", path.trim_start_matches('/'));
        return Err(CopyError::NotFound { path, hint: None });
    }
    Ok(real)
}

/// Splits a path into components, `..` taken back, never above the root.
fn normalized(path: &str) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    for part in components(path.as_bytes()) {
        if part == b".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    parts
}

/// A backslash makes the next character ordinary, and is no wildcard by itself.
pub(crate) fn is_wildcard(part: &[u8]) -> bool {
    let mut bytes = part.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

pub(crate) fn is_below(path: &[u8], dir: &[u8]) -> bool {
    dir.is_empty() && !path.is_empty()
        || path
            .strip_prefix(dir)
            .is_some_and(|rest| rest.starts_with(b"/"))
}

/// Returns the op as far as it decides: of what a literal path leads through, nothing lands unless
/// parents are kept.
pub(crate) fn keyed_op(op: &Copy) -> Copy {
    let mut op = op.clone();
    for source in op.sources.iter_mut().filter(|_| !op.parents) {
        if let CopySource::Path { path, .. } = source
            && !is_wildcard(path.as_bytes())
            && let Some((_, name)) = path.rsplit_once('/')
            && !matches!(name, "" | "." | "..")
        {
            *path = name.to_owned();
        }
    }
    op
}

/// Writes what `op` can see of a selection: names, kinds, contents, and owners and modes as far
/// as the op does not replace them. The metadata of a selected directory itself never lands.
pub(crate) fn encode_selection(
    encoder: &mut Encoder,
    (tree, query): (&Tree, &Query),
    selection: &[Selected],
    op: &Copy,
) {
    let counts = Counts {
        new_mode: op.mode.as_ref(),
        owner: op.owner.is_none(),
    };
    let sources = || "sources".to_owned();
    encoder.part(PartKind::Shape, sources);
    encoder.number(selection.len() as u64);
    for selected in selection {
        // Names of one file are numbered in order of appearance.
        let mut groups: HashMap<(usize, Vec<u8>), u64> = HashMap::new();
        encoder.part(PartKind::Instruction, sources);
        encoder.bytes(selected.base_name());
        let items = query.items(tree, selected);
        encoder.part(PartKind::Shape, || "files".to_owned());
        encoder.number(items.len() as u64);
        match tree.get(&selected.real) {
            Some(node) if !node.entry.is_dir() => {
                encoder.flag(false);
                file_part(encoder, &selected.path, b"");
                encode_node(encoder, tree, node, counts, &mut groups);
            }
            _ => {
                encoder.flag(true);
            }
        }
        for item in items {
            file_part(encoder, &selected.path, item.relative);
            encoder.field("path").bytes(item.relative);
            encoder.flag(item.is_on_the_way);
            if item.is_on_the_way {
                encoder.field("mode");
                // A directory that exists takes the bits that the source has.
                encoder.number(item.node.entry.mode.into());
            }
            encode_node(encoder, tree, item.node, counts, &mut groups);
        }
    }
}

/// What of a file's metadata counts.
#[derive(Debug, Clone, Copy)]
struct Counts<'a> {
    /// The bits that replace those of the file.
    new_mode: Option<&'a Mode>,
    owner: bool,
}

/// Writes everything that can be seen at and below a path, times excepted.
pub(crate) fn encode_all(encoder: &mut Encoder, tree: &Tree, real: &[u8]) {
    let counts = Counts {
        new_mode: None,
        owner: true,
    };
    let mut groups: HashMap<(usize, Vec<u8>), u64> = HashMap::new();
    let top = tree.get(real);
    encoder.part(PartKind::Shape, || "files".to_owned());
    encoder.flag(top.is_some());
    let below = tree.below(real);
    encoder.number(below.len() as u64);
    for node in top.into_iter().chain(below) {
        file_part(encoder, &node.entry.path, b"");
        encoder.field("path");
        encoder.bytes(&node.entry.path[real.len()..]);
        encode_node(encoder, tree, node, counts, &mut groups);
    }
}

fn encode_node(
    encoder: &mut Encoder,
    tree: &Tree,
    node: Node<'_>,
    counts: Counts<'_>,
    groups: &mut HashMap<(usize, Vec<u8>), u64>,
) {
    let file = tree.file_of(node);
    let entry: &Entry = file.entry;
    let kind = match &entry.kind {
        // A directory that hides lower layers looks like any other.
        Kind::Dir { .. } => &Kind::Dir { opaque: false },
        kind => kind,
    };
    encoder.field(match kind {
        Kind::File { .. } => "content",
        Kind::Symlink { .. } | Kind::Hardlink { .. } => "target",
        _ => "kind",
    });
    encoder.value(kind);
    if matches!(entry.kind, Kind::File { .. }) {
        let next = groups.len() as u64;
        let name = (file.layer, entry.path.clone());
        let first = *groups.entry(name).or_insert(next);
        // The number of a file that has one name only would change with its neighbours.
        encoder.field("hard link").flag(first != next);
        if first != next {
            encoder.number(first);
        }
    }
    let mode = match counts.new_mode {
        Some(mode) if !matches!(entry.kind, Kind::Symlink { .. }) => {
            mode.apply(entry.mode, entry.is_dir())
        }
        _ => entry.mode,
    };
    encoder.field("mode").number(mode.into());
    if counts.owner {
        encoder.field("owner");
        encoder.number(entry.uid.into()).number(entry.gid.into());
    }
    encoder.field("extended attributes");
    encoder.number(entry.xattrs.len() as u64);
    for (name, value) in &entry.xattrs {
        encoder.bytes(name).bytes(value);
    }
}

/// Begins the part that is a file, by the path that a user knows.
fn file_part(encoder: &mut Encoder, selected: &[u8], relative: &[u8]) {
    encoder.part(PartKind::File, || {
        let path = match (selected.is_empty(), relative.is_empty()) {
            (true, _) => relative.to_vec(),
            (_, true) => selected.to_vec(),
            _ => [selected, relative].join(&b'/'),
        };
        String::from_utf8_lossy(&path).into_owned()
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kiln_cache::FileList;
    use kiln_graph::Digest;

    use super::*;

    fn file(path: &str, content: &str) -> Entry {
        let kind = Kind::File {
            size: content.len() as u64,
            digest: Digest::blake3(content),
        };
        Entry::root_owned(path.as_bytes(), kind, 0o644)
    }

    fn link(path: &str, target: &str) -> Entry {
        let kind = Kind::Symlink {
            target: target.as_bytes().to_vec(),
        };
        Entry::root_owned(path.as_bytes(), kind, 0o777)
    }

    fn tree(entries: Vec<Entry>) -> Tree {
        Tree::new(vec![Arc::new(FileList::new(entries))])
    }

    fn names(tree: &Tree, path: &str) -> String {
        let show = |s: &Selected| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            format!("{}={}", text(&s.path), text(&s.real))
        };
        select(tree, path)
            .unwrap()
            .iter()
            .map(show)
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn with_dangling_link(tree: &Tree) -> Tree {
        let mut tree = tree.clone();
        tree.push(Arc::new(FileList::new(vec![link("dangling", "nowhere")])));
        tree
    }

    fn copy(path: &str, parents: bool) -> Copy {
        Copy {
            sources: vec![CopySource::Path {
                input: 1,
                path: path.to_owned(),
                unpack: false,
            }],
            destination: "/x".to_owned(),
            owner: None,
            mode: None,
            link: false,
            parents,
            exclude: Vec::new(),
        }
    }

    #[test]
    fn folders_on_the_way_to_a_source_do_not_count() {
        for (path, expected) in [
            ("/a/b/f", "f"),
            ("/f", "f"),
            ("/a/*/f", "/a/*/f"),
            ("/a/d/", "/a/d/"),
            ("/a/..", "/a/.."),
            ("/a/.", "/a/."),
        ] {
            assert_eq!(
                keyed_op(&copy(path, false)),
                copy(expected, false),
                "{path}"
            );
            assert_eq!(keyed_op(&copy(path, true)), copy(path, true), "{path}");
        }
    }

    #[test]
    fn literals_must_exist_and_wildcards_need_not() {
        let tree = tree(vec![Entry::dir(b"d"), file("d/a", ""), link("l", "d/a")]);
        assert_eq!(names(&tree, "/d/../l"), "l=d/a");
        assert_eq!(names(&tree, "/"), "=");
        assert_eq!(names(&tree, "/d/x*"), "");
        let tree = with_dangling_link(&tree);
        for missing in ["/x", "/x/*", "/dang*"] {
            let error = select(&tree, missing).unwrap_err();
            assert!(
                matches!(error, CopyError::NotFound { .. }),
                "{missing}: {error}"
            );
        }
    }

    #[test]
    fn wildcards_stop_at_what_matched() {
        let entries = vec![
            Entry::dir(b"d"),
            Entry::dir(b"d/d1"),
            file("d/d1/d2", ""),
            link("d/dl", "d1"),
            file("e", ""),
        ];
        let tree = tree(entries);
        assert_eq!(names(&tree, "/d*"), "d=d");
        assert_eq!(names(&tree, "d/d*"), "d/d1=d/d1 d/dl=d/d1");
        assert_eq!(names(&tree, "*/d?/d[0-9]"), "d/d1/d2=d/d1/d2");
    }

    #[test]
    fn the_digest_sees_what_lands_and_nothing_else() {
        let plain = Copy {
            sources: vec![],
            destination: "/".to_owned(),
            owner: None,
            mode: None,
            link: false,
            parents: false,
            exclude: vec![],
        };
        let with_mode = Copy {
            mode: Some(Mode::Bits(0o600)),
            ..plain.clone()
        };
        let digest = |entries: &[Entry], op: &Copy| {
            let tree = tree(entries.to_vec());
            let mut encoder = Encoder::new("test");
            let query = Query::new(op, "/d").unwrap();
            let selection = query.select(&tree).unwrap();
            encode_selection(&mut encoder, (&tree, &query), &selection, op);
            encoder.finish()
        };
        let base = vec![Entry::dir(b"d"), file("d/a", "1"), file("other", "1")];
        let change = |at: usize, f: fn(&mut Entry)| {
            let mut entries = base.clone();
            f(&mut entries[at]);
            entries
        };
        let same = |entries: &[Entry], op: &Copy| digest(entries, op) == digest(&base, op);
        assert!(same(&change(2, |e| e.mode = 0), &plain), "not selected");
        assert!(
            same(&change(0, |e| e.mode = 0o700), &plain),
            "the directory itself"
        );
        assert!(same(&change(1, |e| e.mtime.seconds = 9), &plain), "time");
        assert!(!same(&change(1, |e| e.mode = 0o600), &plain), "mode");
        assert!(
            same(&change(1, |e| e.mode = 0o600), &with_mode),
            "a mode that is replaced"
        );
        assert!(
            !same(&change(1, |e| e.path = b"d/b".to_vec()), &plain),
            "name"
        );
        assert!(
            !same(&change(1, |e| *e = file("d/a", "2")), &plain),
            "content"
        );
        assert!(!same(&change(1, |e| e.uid = 1), &plain), "owner");
        let without_a = Copy {
            exclude: vec!["a".to_owned()],
            ..plain.clone()
        };
        assert!(
            same(&change(1, |e| *e = file("d/a", "2")), &without_a),
            "excluded"
        );
        let readable = Copy {
            mode: Some(Mode::Change("a+r".parse().unwrap())),
            ..plain.clone()
        };
        assert!(
            same(&change(1, |e| e.mode = 0o640), &readable),
            "a bit that is set"
        );
        assert!(
            !same(&change(1, |e| e.mode = 0o744), &readable),
            "a bit that is not"
        );
    }
}
