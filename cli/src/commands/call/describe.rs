//! `--call=subrequests.describe`: the requests that there are.

use serde_json::{Value, json};

use crate::commands::call::go_json;
use crate::commands::call::table::{row, table};

/// Name, description, and whether there is a target to choose; in BuildKit's order.
const REQUESTS: [(&str, &str, bool); 3] = [
    (
        "outline",
        "List all parameters current build target supports",
        true,
    ),
    ("targets", "List all targets current build supports", false),
    (
        "subrequests.describe",
        "List available subrequest types",
        false,
    ),
];

const VERSION: &str = "1.0.0";

pub(super) fn text(as_json: bool) -> String {
    if as_json {
        let requests: Vec<Value> = REQUESTS.iter().map(described).collect();
        return go_json::text(&requests);
    }
    let mut rows = vec![row(&["NAME", "VERSION", "DESCRIPTION"])];
    let requests = REQUESTS.iter();
    rows.extend(requests.map(|(name, description, _)| row(&[name, VERSION, description])));
    table(&rows, 1)
}

fn described((name, description, has_target): &(&str, &str, bool)) -> Value {
    let options = match (*name, has_target) {
        (_, true) => json!([{"name": "target", "description": "Target build stage"}]),
        ("targets", _) => json!([]),
        _ => Value::Null,
    };
    let metadata =
        ["result.json", "result.txt"].map(|name| json!({"name": name, "description": ""}));
    json!({
        "name": format!("frontend.{name}"),
        "version": VERSION,
        "type": "rpc",
        "description": description,
        "opts": options,
        "inputs": null,
        "metadata": metadata,
        "refs": null,
    })
}
