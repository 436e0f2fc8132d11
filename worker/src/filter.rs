//! What of a selected directory is copied: `--exclude`, and the paths that `--parents` keeps.
//!
//! Both are patterns as in an ignore file, relative to the selected directory; a file that was
//! selected itself is never asked about. A directory that is not copied, but holds something that
//! is, is made on the way.

use kiln_cache::{IgnoreList, IgnoreState, Node, Tree, join_path, split_path};
use kiln_graph::Copy;

use crate::error::CopyError;
use crate::select::{Selected, is_below, is_wildcard, select};

/// Splits a source whose parents are kept: where it is looked for, and the path that is kept.
const PIVOT: &str = "/./";

/// One source path of a copy: what it selects, and what of that is copied.
#[derive(Debug)]
pub(crate) struct Query {
    root: String,
    /// A path that must be there, though patterns select it.
    required: Option<String>,
    include: Option<IgnoreList>,
    exclude: IgnoreList,
}

/// An entry of a selected directory that is copied.
#[derive(Debug)]
pub(crate) struct Item<'a> {
    pub(crate) node: Node<'a>,
    /// Path from the selected directory.
    pub(crate) relative: &'a [u8],
    /// A directory that is there only because of what it holds.
    pub(crate) is_on_the_way: bool,
}

impl Query {
    /// Returns a query for all of what is at a path.
    pub(crate) fn whole(path: &str) -> Self {
        Self {
            root: path.to_owned(),
            required: None,
            include: None,
            exclude: IgnoreList::default(),
        }
    }

    /// Reads a source as the op has it.
    pub(crate) fn new(op: &Copy, path: &str) -> Result<Self, CopyError> {
        let exclude = IgnoreList::from_patterns(op.exclude.iter().map(String::as_str))?;
        let pivoted = path.split_once(PIVOT).filter(|_| op.parents);
        let Some((root, kept)) = pivoted else {
            return Ok(Self {
                exclude,
                ..Self::whole(path)
            });
        };
        let has_wildcards = |path: &str| path.split('/').any(|part| is_wildcard(part.as_bytes()));
        let is_literal = !has_wildcards(root) && !has_wildcards(kept);
        Ok(Self {
            root: root.to_owned(),
            required: is_literal.then(|| format!("{root}/{kept}")),
            include: Some(IgnoreList::from_patterns([kept])?),
            exclude,
        })
    }

    /// Returns what the source selects in a tree.
    pub(crate) fn select(&self, tree: &Tree) -> Result<Vec<Selected>, CopyError> {
        if let Some(required) = &self.required {
            select(tree, required)?;
        }
        select(tree, &self.root)
    }

    /// Returns what of a selected directory is copied, each directory before what it holds.
    pub(crate) fn items<'a>(&self, tree: &'a Tree, selected: &Selected) -> Vec<Item<'a>> {
        let skip = match selected.real.len() {
            0 => 0,
            len => len + 1,
        };
        let nodes = tree.below(&selected.real).into_iter();
        let all = nodes.map(|node| Item {
            relative: &node.entry.path[skip..],
            node,
            is_on_the_way: false,
        });
        if self.include.is_none() && self.exclude.is_empty() {
            return all.collect();
        }
        self.chosen(all)
    }

    fn chosen<'a>(&self, all: impl Iterator<Item = Item<'a>>) -> Vec<Item<'a>> {
        let mut chosen: Vec<Item<'a>> = Vec::new();
        // Directories around the entry that were not chosen (yet), outermost first.
        let mut waiting: Vec<Item<'a>> = Vec::new();
        let mut states = vec![(Vec::new(), self.states())];
        for item in all {
            let parent = split_path(item.relative).0;
            while states
                .last()
                .is_some_and(|(path, _)| path.as_slice() != parent)
            {
                states.pop();
            }
            waiting.retain(|dir| is_below(item.relative, dir.relative));
            let above = states
                .last()
                .map_or_else(|| self.states(), |(_, s)| s.clone());
            let (is_chosen, state) = self.check(item.relative, &above);
            let is_dir = item.node.entry.is_dir();
            if is_dir {
                states.push((item.relative.to_vec(), state));
            }
            if is_chosen {
                chosen.append(&mut waiting);
                chosen.push(item);
            } else if is_dir {
                waiting.push(Item {
                    is_on_the_way: true,
                    ..item
                });
            }
        }
        chosen
    }

    fn states(&self) -> (Option<IgnoreState>, IgnoreState) {
        let include = self.include.as_ref().map(IgnoreList::root);
        (include, self.exclude.root())
    }

    fn check(
        &self,
        path: &[u8],
        above: &(Option<IgnoreState>, IgnoreState),
    ) -> (bool, (Option<IgnoreState>, IgnoreState)) {
        let (is_excluded, exclude) = self.exclude.check(path, &above.1);
        let included = self.include.as_ref().zip(above.0.as_ref());
        let (is_included, include) = match included {
            None => (true, None),
            Some((list, above)) => {
                let (is_included, state) = list.check(path, above);
                (is_included, Some(state))
            }
        };
        (is_included && !is_excluded, (include, exclude))
    }
}

/// Returns the part of a source path in which wildcards are looked for, and links followed.
pub(crate) fn root_of(path: &str) -> &str {
    path.split_once(PIVOT).map_or(path, |(root, _)| root)
}

/// Returns where an item lands below `target`.
pub(crate) fn landing(target: &[u8], item: &Item<'_>) -> Vec<u8> {
    join_path(target, item.relative)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kiln_cache::{Entry, FileList, Kind};
    use kiln_graph::Digest;

    use super::*;

    fn tree(paths: &str) -> Tree {
        let entry = |path: &str| match path.strip_suffix('/') {
            Some(dir) => Entry::dir(dir.as_bytes()),
            None => {
                let kind = Kind::File {
                    size: 0,
                    digest: Digest::blake3(""),
                };
                Entry::root_owned(path.as_bytes(), kind, 0o644)
            }
        };
        let entries = paths.split_whitespace().map(entry).collect();
        Tree::new(vec![Arc::new(FileList::new(entries))])
    }

    fn op(parents: bool, exclude: &[&str]) -> Copy {
        Copy {
            sources: vec![],
            destination: "/".to_owned(),
            owner: None,
            mode: None,
            link: false,
            parents,
            exclude: exclude.iter().map(|&text| text.to_owned()).collect(),
        }
    }

    const TREE: &str = "a/ a/b/ a/b/c/ a/b/c/f.txt a/b/g.md a/b2/ a/b2/h.txt d/ d/j.md top.txt";

    /// Shows what is copied; what is made on the way in brackets.
    fn show(op: &Copy, path: &str) -> String {
        let tree = tree(TREE);
        let query = Query::new(op, path).unwrap();
        let mut out = Vec::new();
        for selected in query.select(&tree).unwrap() {
            for item in query.items(&tree, &selected) {
                let path = String::from_utf8_lossy(item.relative).into_owned();
                out.push(if item.is_on_the_way {
                    format!("({path})")
                } else {
                    path
                });
            }
        }
        out.join(" ")
    }

    #[test]
    fn what_is_excluded_stays_behind() {
        for (exclude, expected) in [
            (&["**/*.txt"][..], "a a/b a/b/c a/b/g.md a/b2 d d/j.md"),
            (&["a"], "d d/j.md top.txt"),
            (&["a", "!a/b/g.md"], "(a) (a/b) a/b/g.md d d/j.md top.txt"),
            (&["*", "!d"], "d d/j.md"),
            (&["a/*"], "a d d/j.md top.txt"),
            (&["**"], ""),
            (
                &["/a", "#d"],
                "a a/b a/b/c a/b/c/f.txt a/b/g.md a/b2 a/b2/h.txt d d/j.md top.txt",
            ),
        ] {
            assert_eq!(show(&op(false, exclude), "/"), expected, "{exclude:?}");
        }
        assert_eq!(show(&op(false, &["b"]), "/a"), "b2 b2/h.txt");
    }

    #[test]
    fn parents_are_made_on_the_way() {
        for (path, expected) in [
            ("/./a/b/c/f.txt", "(a) (a/b) (a/b/c) a/b/c/f.txt"),
            ("/a/./b/c", "(b) b/c b/c/f.txt"),
            (
                "/./**/*.txt",
                "(a) (a/b) (a/b/c) a/b/c/f.txt (a/b2) a/b2/h.txt top.txt",
            ),
            ("/./*/*.md", "(d) d/j.md"),
            ("/./nope*", ""),
            ("/*/./b", "b b/c b/c/f.txt b/g.md"),
        ] {
            assert_eq!(show(&op(true, &[]), path), expected, "{path}");
        }
        let both = op(true, &["a/b2"]);
        assert_eq!(show(&both, "/./a"), "a a/b a/b/c a/b/c/f.txt a/b/g.md");
    }

    #[test]
    fn a_literal_path_must_be_there() {
        let tree = tree(TREE);
        for path in ["/./nope", "/a/./nope", "/nope/./a", "/./top.txt/x"] {
            let query = Query::new(&op(true, &[]), path).unwrap();
            let error = query.select(&tree).unwrap_err();
            assert!(
                matches!(error, CopyError::NotFound { .. }),
                "{path}: {error}"
            );
        }
    }
}
