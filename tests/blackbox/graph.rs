//! `--print`: the graph instead of a build.

use serde_json::Value;

use crate::support::{Context, Lab, Outcome, text};

fn print(lab: &Lab, what: &str) -> Outcome {
    let context = Context::new(
        "ARG BASE\nFROM $BASE AS one\nRUN echo \"quoted\" > /a\nFROM $BASE AS unused\nRUN exit 1\n\
         FROM $BASE\nCOPY --from=one /a /b\nCOPY Dockerfile /c\n",
    );
    lab.build(&context).arg(format!("--print={what}")).ok()
}

#[test]
fn json_has_what_the_target_needs() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let outcome = print(&lab, "graph");
    let graph: Value = serde_json::from_slice(&outcome.stdout).unwrap();
    let vertices = graph["vertices"].as_array().unwrap();
    let count = |op: &str| vertices.iter().filter(|vertex| vertex["op"] == op).count();
    // The base is one vertex, though two stages begin with it.
    let counts = ["image", "local", "exec", "copy"].map(count);
    assert_eq!(counts, [1, 1, 1, 2], "{graph:#}");
    let ids: Vec<_> = vertices.iter().map(|vertex| vertex["id"].clone()).collect();
    assert!(ids.contains(&graph["target"]));
    for vertex in vertices {
        assert!(
            vertex["digest"].as_str().unwrap().starts_with("sha256:")
                || vertex["digest"].is_string()
        );
        for input in vertex["inputs"].as_array().unwrap() {
            assert!(input.is_null() || ids.contains(input), "{vertex}");
        }
    }
}

#[test]
fn dot_has_the_same_edges() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let graph: Value = serde_json::from_slice(&print(&lab, "graph").stdout).unwrap();
    let inputs = |vertex: &Value| {
        vertex["inputs"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|i| !i.is_null())
            .count()
    };
    let n_edges: usize = graph["vertices"]
        .as_array()
        .unwrap()
        .iter()
        .map(inputs)
        .sum();
    let dot = text(&print(&lab, "graph-dot").stdout);
    assert!(dot.starts_with("digraph"), "{dot}");
    assert_eq!(dot.matches(" -> ").count(), n_edges, "{dot}");
    assert!(dot.contains(r#"\"quoted\""#), "{dot}");
}

#[test]
fn equal_dockerfiles_have_equal_graphs() {
    let Some(lab) = Lab::require() else {
        return;
    };
    assert_eq!(
        text(&print(&lab, "graph").stdout),
        text(&print(&lab, "graph").stdout)
    );
}
