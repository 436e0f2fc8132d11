//! Which vertices can be evaluated next: counts of unresolved inputs.
//!
//! Pure bookkeeping over a graph: no values, no futures. Only what the targets need is known here;
//! each vertex becomes ready once, when its last input is resolved.

use std::collections::HashMap;

use kiln_graph::{Graph, VertexId};

/// The vertices that targets need, and how much each still waits for.
#[derive(Debug)]
pub(crate) struct Frontier {
    waiting: HashMap<VertexId, Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    n_unresolved: usize,
    /// Once for every input that refers to this vertex.
    dependents: Vec<VertexId>,
}

impl Frontier {
    /// Returns the frontier before anything is resolved, and the needed vertices in graph order.
    pub(crate) fn new(graph: &Graph, targets: &[VertexId]) -> (Self, Vec<VertexId>) {
        let needed = graph.reachable(targets);
        let mut waiting: HashMap<VertexId, Waiting> = HashMap::with_capacity(needed.len());
        for &id in &needed {
            let inputs = graph.vertex(id).inputs.iter().flatten();
            let mut n_unresolved = 0;
            for input in inputs {
                n_unresolved += 1;
                waiting.entry(*input).or_default().dependents.push(id);
            }
            waiting.entry(id).or_default().n_unresolved = n_unresolved;
        }
        (Self { waiting }, needed)
    }

    /// Returns true if nothing of `vertex` is unresolved.
    pub(crate) fn is_ready(&self, vertex: VertexId) -> bool {
        self.waiting
            .get(&vertex)
            .is_some_and(|waiting| waiting.n_unresolved == 0)
    }

    /// Notes that `vertex` is resolved; returns what became ready by it, in graph order.
    pub(crate) fn resolve(&mut self, vertex: VertexId) -> Vec<VertexId> {
        let Some(resolved) = self.waiting.remove(&vertex) else {
            return Vec::new();
        };
        let mut ready = Vec::new();
        for id in resolved.dependents {
            let Some(dependent) = self.waiting.get_mut(&id) else {
                continue;
            };
            dependent.n_unresolved -= 1;
            if dependent.n_unresolved == 0 {
                ready.push(id);
            }
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use kiln_graph::{Input, MakeDir, Meta, Op};

    use super::*;

    fn dir(graph: &mut Graph, path: &str, inputs: Vec<Input>) -> VertexId {
        let op = MakeDir {
            path: path.to_owned(),
            mode: 0o755,
            user: String::new(),
        };
        graph.add(Op::MakeDir(op), inputs, Meta::default())
    }

    #[test]
    fn ready_when_the_last_input_is_resolved() {
        let mut graph = Graph::new();
        let (a, b) = (
            dir(&mut graph, "/a", vec![None]),
            dir(&mut graph, "/b", vec![]),
        );
        let both = dir(&mut graph, "/c", vec![Some(a), Some(b), Some(a)]);
        let (mut frontier, needed) = Frontier::new(&graph, &[both, both]);
        assert_eq!(needed, vec![a, b, both]);
        assert!(frontier.is_ready(a) && frontier.is_ready(b) && !frontier.is_ready(both));
        assert_eq!(frontier.resolve(a), vec![]);
        assert_eq!(frontier.resolve(b), vec![both]);
    }

    #[test]
    fn resolving_twice_changes_nothing() {
        let mut graph = Graph::new();
        let a = dir(&mut graph, "/a", vec![None]);
        let b = dir(&mut graph, "/b", vec![None]);
        let both = dir(&mut graph, "/c", vec![Some(a), Some(b)]);
        let (mut frontier, _) = Frontier::new(&graph, &[both]);
        assert_eq!(frontier.resolve(a), vec![]);
        assert_eq!(frontier.resolve(a), vec![]);
        assert!(!frontier.is_ready(both));
    }

    #[test]
    fn what_no_target_needs_is_unknown() {
        let mut graph = Graph::new();
        let a = dir(&mut graph, "/a", vec![None]);
        let unused = dir(&mut graph, "/b", vec![Some(a)]);
        let (mut frontier, needed) = Frontier::new(&graph, &[a]);
        assert_eq!(needed, vec![a]);
        assert!(!frontier.is_ready(unused));
        assert_eq!(frontier.resolve(a), vec![]);
    }
}
