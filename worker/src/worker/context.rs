//! What of its contexts a graph can select, read once.

use std::sync::Arc;

use kiln_cache::{Context, FileList, Store, Tree, Wildcard};
use kiln_graph::{Copy, CopySource, Graph, Op};

use crate::apply::{Source, SourceBytes};
use crate::error::WorkerError;
use crate::filter::root_of;
use crate::mounts;
use crate::select::{Selected, find};

/// How often a context is read again because a wildcard found a link to something else.
const MAX_CONTEXT_ROUNDS: usize = 8;

/// Returns the sources of a copy that are paths: number of the source tree, and the path.
pub(super) fn paths_of(op: &Copy) -> impl Iterator<Item = (usize, &str)> {
    op.sources.iter().filter_map(|source| match source {
        CopySource::Path { input, path, .. } => Some((input - 1, path.as_str())),
        CopySource::Inline(_) => None,
    })
}

/// Returns all paths that copies and mounts in the graph select in a context.
pub(super) fn selected_paths(graph: &Graph, context: &str) -> Vec<Vec<u8>> {
    let mut paths = Vec::new();
    for (_, vertex) in graph.vertices() {
        for (input, id) in vertex.inputs.iter().enumerate() {
            let op = id.map(|id| &graph.vertex(id).op);
            if matches!(op, Some(Op::Local(local)) if local.name == context) {
                let found = paths_in(&vertex.op, input);
                paths.extend(found.into_iter().map(|path| path.as_bytes().to_vec()));
            }
        }
    }
    paths.sort();
    paths.dedup();
    paths
}

/// Returns the paths that an op selects in one of its inputs.
pub(super) fn paths_in(op: &Op, input: usize) -> Vec<&str> {
    match op {
        Op::Copy(op) => paths_of(op)
            .filter_map(|(number, path)| (number + 1 == input).then_some(path))
            .collect(),
        Op::Exec(op) => mounts::paths_of(op, input).collect(),
        _ => Vec::new(),
    }
}

/// Reads what of a context can be selected, links that wildcards find included.
pub(super) fn load_context(
    store: &Store,
    context: Arc<Context>,
    mut paths: Vec<Vec<u8>>,
) -> Result<Source, WorkerError> {
    for round in 0.. {
        let list: Arc<FileList> =
            Arc::new(context.load(store, &paths).map_err(WorkerError::Context)?);
        let tree = Tree::new(vec![list]);
        let mut missing = Vec::new();
        for path in paths.iter().filter(|path| Wildcard::is_needed(path)) {
            // What cannot be selected is said where it is copied.
            let Ok(found) = find(&tree, root_of(&String::from_utf8_lossy(path))) else {
                continue;
            };
            let dangling = |s: &Selected| !s.real.is_empty() && tree.get(&s.real).is_none();
            missing.extend(found.into_iter().filter(dangling).map(|s| s.real));
        }
        missing.retain(|path| !paths.contains(path));
        if missing.is_empty() || round == MAX_CONTEXT_ROUNDS {
            return Ok(Source {
                tree,
                bytes: SourceBytes::Context(context),
            });
        }
        paths.append(&mut missing);
    }
    unreachable!("the loop ends by its own count")
}
