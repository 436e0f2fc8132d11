//! `--call=targets`: the stages of a Dockerfile.

use kiln_frontend::StageOutline;
use serde::Serialize;
use serde_json::Value;

use crate::commands::call::go_json::{self, bytes, location};
use crate::commands::call::table::{row, table};

pub(super) fn text(stages: &[StageOutline]) -> String {
    let mut rows = vec![row(&["TARGET", "DESCRIPTION"])];
    for (at, stage) in stages.iter().enumerate() {
        let name = stage.name.clone().unwrap_or_default();
        let is_default = at + 1 == stages.len();
        let shown = match (name.as_str(), is_default) {
            (_, false) => name,
            ("", true) => "(default)".to_owned(),
            (name, true) => format!("{name} (default)"),
        };
        if shown.is_empty() {
            continue;
        }
        let description = stage.description.as_deref().unwrap_or_default();
        rows.push(row(&[&shown, description]));
    }
    table(&rows, 1)
}

pub(super) fn json(stages: &[StageOutline], source: &str) -> String {
    let n_stages = stages.len();
    let target = |(at, stage)| Target::of(stage, at + 1 == n_stages);
    let targets: Vec<Target<'_>> = stages.iter().enumerate().map(target).collect();
    go_json::text(&Document {
        targets,
        sources: [bytes(source)],
    })
}

#[derive(Serialize)]
struct Document<'a> {
    targets: Vec<Target<'a>>,
    sources: [String; 1],
}

/// What is empty is left out.
#[derive(Serialize)]
struct Target<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    default: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    base: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    platform: &'a str,
    location: Value,
}

impl<'a> Target<'a> {
    fn of(stage: &'a StageOutline, default: bool) -> Self {
        Self {
            name: stage.name.as_deref().unwrap_or_default(),
            default,
            description: stage.description.as_deref().unwrap_or_default(),
            base: &stage.base,
            platform: stage.platform.as_deref().unwrap_or_default(),
            location: location(stage.lines),
        }
    }
}
