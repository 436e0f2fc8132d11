//! A graph as text: JSON for programs, DOT for `dot -Tsvg`.

use std::fmt::Write as _;

use serde::Serialize;

use crate::graph::{Graph, Input, Vertex, VertexId};
use crate::op::Op;

#[derive(Serialize)]
struct Document<'a> {
    target: Input,
    vertices: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    id: VertexId,
    #[serde(flatten)]
    vertex: &'a Vertex,
}

impl Graph {
    /// Returns what `target` needs as a JSON document: `target`, and `vertices` with `id`, `op`,
    /// the op's fields, `inputs` (ids, `null` for an empty root), `digest` and `meta`.
    pub fn to_json(&self, target: Input) -> String {
        let reachable = self.reachable(target.as_slice());
        let rows = reachable.into_iter().map(|id| Row {
            id,
            vertex: self.vertex(id),
        });
        let document = Document {
            target,
            vertices: rows.collect(),
        };
        serde_json::to_string_pretty(&document).expect("a graph holds only plain data")
    }

    /// Returns what `target` needs in the DOT language; the target has a double border.
    pub fn to_dot(&self, target: Input) -> String {
        let mut out = "digraph kiln {\n  rankdir=BT;\n  node [shape=box];\n".to_owned();
        for id in self.reachable(target.as_slice()) {
            let vertex = self.vertex(id);
            let border = if Some(id) == target {
                ", peripheries=2"
            } else {
                ""
            };
            let label = quoted(&label_of(vertex));
            writeln!(out, "  v{} [label={label}{border}];", id.0).expect("writing to a String");
            for (at, input) in vertex.inputs.iter().enumerate() {
                if let Some(input) = input {
                    let line = format!("  v{} -> v{} [label=\"{at}\"];", id.0, input.0);
                    writeln!(out, "{line}").expect("writing to a String");
                }
            }
        }
        out.push_str("}\n");
        out
    }
}

fn label_of(vertex: &Vertex) -> String {
    if !vertex.meta.name.is_empty() {
        return vertex.meta.name.clone();
    }
    match &vertex.op {
        Op::Image(op) => format!("image {}", op.reference),
        Op::Local(op) => format!("local {}", op.name),
        Op::Exec(op) => format!("exec {}", op.args.join(" ")),
        Op::Copy(op) => format!("copy to {}", op.destination),
        Op::Http(op) => format!("http {}", op.url),
        Op::Git(op) => format!("git {}", op.remote),
        Op::MakeDir(op) => format!("make directory {}", op.path),
    }
}

fn quoted(text: &str) -> String {
    format!(
        "\"{}\"",
        text.replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\l")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Meta;
    use crate::op::MakeDir;

    #[test]
    fn both_forms_name_the_target_and_escape_labels() {
        let mut graph = Graph::new();
        let op = MakeDir {
            path: "/a".to_owned(),
            mode: 0o755,
            user: String::new(),
        };
        let meta = Meta {
            name: "say \"x\"".to_owned(),
            ..Meta::default()
        };
        let id = graph.add(Op::MakeDir(op), vec![None], meta);
        let dot = graph.to_dot(Some(id));
        assert!(
            dot.contains(r#"v0 [label="say \"x\"", peripheries=2];"#),
            "{dot}"
        );
        let json: serde_json::Value = serde_json::from_str(&graph.to_json(Some(id))).unwrap();
        assert_eq!(json["target"], 0);
        assert_eq!(json["vertices"][0]["op"], "make-dir");
        assert_eq!(json["vertices"][0]["inputs"], serde_json::json!([null]));
    }
}
