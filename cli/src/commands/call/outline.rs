//! `--call=outline`: what a build can be given.

use kiln_frontend::{Outline, OutlineArg, OutlineMount};
use serde::Serialize;
use serde_json::Value;

use crate::commands::call::go_json::{self, bytes, location};
use crate::commands::call::table::{row, table};

pub(super) fn text(outline: &Outline) -> String {
    let mut out = String::new();
    let name = outline.name.as_deref().unwrap_or_default();
    let description = outline.description.as_deref().unwrap_or_default();
    if !name.is_empty() || !description.is_empty() {
        let mut rows = Vec::new();
        if !name.is_empty() {
            rows.push(row(&["TARGET:", name]));
        }
        if !description.is_empty() {
            rows.push(row(&["DESCRIPTION:", description]));
        }
        out.push_str(&table(&rows, 1));
        out.push('\n');
    }
    let args = outline.args.iter().map(|arg| {
        let description = arg.description.as_deref().unwrap_or_default();
        row(&[&arg.name, &arg.value, description])
    });
    add(&mut out, &["BUILD ARG", "VALUE", "DESCRIPTION"], args);
    for (title, mounts) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        let mounts = mounts.iter().map(|mount| {
            let required = if mount.required { "true" } else { "" };
            row(&[&mount.name, required])
        });
        add(&mut out, &[title, "REQUIRED"], mounts);
    }
    out
}

/// Adds a table unless it is empty.
fn add(out: &mut String, titles: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let mut all = vec![row(titles)];
    all.extend(rows);
    if all.len() > 1 {
        out.push_str(&table(&all, 3));
        out.push('\n');
    }
}

/// What is empty is left out.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<Arg<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<Mount<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ssh: Vec<Mount<'a>>,
    sources: [String; 1],
}

#[derive(Serialize)]
struct Arg<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    value: &'a str,
    location: Value,
}

#[derive(Serialize)]
struct Mount<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    required: bool,
    location: Value,
}

pub(super) fn json(outline: &Outline, source: &str) -> String {
    go_json::text(&Document {
        name: outline.name.as_deref().unwrap_or_default(),
        description: outline.description.as_deref().unwrap_or_default(),
        args: outline.args.iter().map(Arg::of).collect(),
        secrets: outline.secrets.iter().map(Mount::of).collect(),
        ssh: outline.ssh.iter().map(Mount::of).collect(),
        sources: [bytes(source)],
    })
}

impl<'a> Arg<'a> {
    fn of(arg: &'a OutlineArg) -> Self {
        Self {
            name: &arg.name,
            description: arg.description.as_deref().unwrap_or_default(),
            value: &arg.value,
            location: location(arg.lines),
        }
    }
}

impl<'a> Mount<'a> {
    fn of(mount: &'a OutlineMount) -> Self {
        Self {
            name: &mount.name,
            required: mount.required,
            location: location(mount.lines),
        }
    }
}
