//! The graph: vertices in topological order, equal ones once.
//!
//! Invariants: an input always has a smaller [`VertexId`] than the vertex that uses it, so there
//! are no cycles; no two vertices have the same digest; a digest covers everything below it.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::encode::{Encode as _, Encoder};
use crate::op::Op;

/// The place of a vertex in its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VertexId(pub usize);

/// An input of a vertex: another vertex's result, or an empty root (`FROM scratch`).
pub type Input = Option<VertexId>;

/// An op with its inputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Vertex {
    /// What is done.
    #[serde(flatten)]
    pub op: Op,
    /// What it is done on.
    pub inputs: Vec<Input>,
    /// Digest of op and inputs.
    pub digest: Digest,
    /// What people see; never part of the digest.
    pub meta: Meta,
}

/// What people see of a vertex.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Name in progress output: `[build 2/5] RUN make`.
    pub name: String,
    /// Where it stands in the Dockerfile.
    pub lines: Option<SourceLines>,
    /// Name of the stage, or its number.
    pub stage: String,
    /// The cache is not asked, only written (`--no-cache`).
    pub ignore_cache: bool,
}

/// First and last line of an instruction, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceLines {
    /// First line.
    pub first: usize,
    /// Last line.
    pub last: usize,
}

/// A DAG of vertices.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    vertices: Vec<Vertex>,
    by_digest: HashMap<Digest, VertexId>,
}

impl Graph {
    /// Returns a graph without vertices.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a vertex, or returns the one that is equal to it.
    ///
    /// `meta` of the first of equal vertices stays. Panics if an input is not in this graph yet:
    /// that keeps the order topological.
    pub fn add(&mut self, op: Op, inputs: Vec<Input>, meta: Meta) -> VertexId {
        let digest = self.digest_of(&op, &inputs);
        if let Some(&id) = self.by_digest.get(&digest) {
            return id;
        }
        let id = VertexId(self.vertices.len());
        self.vertices.push(Vertex {
            op,
            inputs,
            digest,
            meta,
        });
        self.by_digest.insert(digest, id);
        id
    }

    /// Returns a vertex.
    pub fn vertex(&self, id: VertexId) -> &Vertex {
        &self.vertices[id.0]
    }

    /// Returns all vertices in topological order.
    pub fn vertices(&self) -> impl Iterator<Item = (VertexId, &Vertex)> {
        self.vertices
            .iter()
            .enumerate()
            .map(|(at, vertex)| (VertexId(at), vertex))
    }

    /// Returns the number of vertices.
    pub fn len(&self) -> usize {
        self.vertices.len()
    }

    /// Returns true if there is no vertex.
    pub fn is_empty(&self) -> bool {
        self.vertices.is_empty()
    }

    /// Returns what `targets` need, themselves included, in topological order.
    pub fn reachable(&self, targets: &[VertexId]) -> Vec<VertexId> {
        let mut needed = vec![false; self.vertices.len()];
        for target in targets {
            needed[target.0] = true;
        }
        for at in (0..self.vertices.len())
            .rev()
            .filter(|&at| needed[at])
            .collect::<Vec<_>>()
        {
            self.mark_inputs(at, &mut needed);
        }
        (0..needed.len())
            .filter(|&at| needed[at])
            .map(VertexId)
            .collect()
    }

    fn mark_inputs(&self, at: usize, needed: &mut [bool]) {
        let mut pending = vec![at];
        while let Some(at) = pending.pop() {
            for input in self.vertices[at].inputs.iter().flatten() {
                if !std::mem::replace(&mut needed[input.0], true) {
                    pending.push(input.0);
                }
            }
        }
    }

    fn digest_of(&self, op: &Op, inputs: &[Input]) -> Digest {
        let mut encoder = Encoder::new("vertex");
        op.encode(&mut encoder);
        encoder.number(inputs.len() as u64);
        for input in inputs {
            encoder.value(&input.map(|id| self.vertices[id.0].digest));
        }
        encoder.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::MakeDir;
    use crate::source::LocalSource;

    fn local(graph: &mut Graph, name: &str) -> VertexId {
        graph.add(
            Op::Local(LocalSource {
                name: name.to_owned(),
            }),
            vec![],
            Meta::default(),
        )
    }

    fn dir(graph: &mut Graph, path: &str, input: Input) -> VertexId {
        let op = MakeDir {
            path: path.to_owned(),
            mode: 0o755,
            user: String::new(),
        };
        graph.add(Op::MakeDir(op), vec![input], Meta::default())
    }

    #[test]
    fn equal_vertices_are_one() {
        let mut graph = Graph::new();
        let (a, b) = (dir(&mut graph, "/a", None), dir(&mut graph, "/b", None));
        assert_eq!(dir(&mut graph, "/a", None), a);
        assert_ne!(dir(&mut graph, "/a", Some(b)), a);
        assert_eq!(graph.len(), 3);
    }

    #[test]
    fn reachable_leaves_out_what_is_not_needed() {
        let mut graph = Graph::new();
        let context = local(&mut graph, "context");
        let _unused = local(&mut graph, "other");
        let below = dir(&mut graph, "/a", Some(context));
        let top = dir(&mut graph, "/b", Some(below));
        assert_eq!(graph.reachable(&[top]), vec![context, below, top]);
    }

    #[test]
    fn digest_is_independent_of_meta() {
        let (mut one, mut two) = (Graph::new(), Graph::new());
        let meta = Meta {
            name: "x".to_owned(),
            ..Meta::default()
        };
        let op = || {
            Op::Local(LocalSource {
                name: "context".to_owned(),
            })
        };
        let (a, b) = (
            one.add(op(), vec![], meta),
            two.add(op(), vec![], Meta::default()),
        );
        assert_eq!(one.vertex(a).digest, two.vertex(b).digest);
    }
}
