//! Tests driven by `fixtures/frontend`; `UPDATE=1` rewrites the goldens.
//!
//! `parse/*`: a Dockerfile and what is read from it. `errors/*`: a Dockerfile and its diagnostics.
//! `checks/*`: a Dockerfile and what the checks find. `compile/*`: a Dockerfile, options, and the graph, config and history.

mod checks;
mod dump;
mod print;
mod property;

use std::fs;
use std::path::{Path, PathBuf};

use kiln_graph::{Algorithm, Hasher, ImageConfig, Network, Platform};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Compiled, Diagnostic, Entitlements, Images, NamedContext, NoCache, Options, ResolvedImage,
    compile, parse, render, requirements,
};

/// `options.json` of a fixture.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Given {
    build_args: Vec<(String, String)>,
    target: Option<String>,
    platform: Option<String>,
    explicit_platform: bool,
    several_platforms: bool,
    labels: Vec<(String, String)>,
    /// Name to image reference, or to `local`.
    contexts: Vec<(String, String)>,
    network: Option<Network>,
    no_cache: Option<Vec<String>>,
    allow: Vec<String>,
    /// Configs of images, where they are not busybox's.
    images: Vec<(String, Value)>,
    /// `--check`.
    check: bool,
    /// Files of the context, and paths that the ignore file names.
    context: Vec<String>,
    ignored: Vec<String>,
}

impl Given {
    fn read(dir: &Path) -> Self {
        let text = fs::read_to_string(dir.join("options.json"));
        text.map_or_else(
            |_| Self::default(),
            |text| serde_json::from_str(&text).unwrap(),
        )
    }

    fn options(&self) -> Options {
        let platform = self.platform.as_deref().unwrap_or("linux/amd64");
        let context = |(name, value): &(String, String)| match value.as_str() {
            "local" => (name.clone(), NamedContext::Local),
            reference => (name.clone(), NamedContext::Image(reference.to_owned())),
        };
        Options {
            build_args: self.build_args.clone(),
            target: self.target.clone(),
            explicit_platform: self.explicit_platform,
            several_platforms: self.several_platforms,
            build_platform: Platform::linux("amd64"),
            labels: self.labels.clone(),
            named_contexts: self.contexts.iter().map(context).collect(),
            network: self.network.unwrap_or(Network::Default),
            no_cache: match &self.no_cache {
                None => NoCache::None,
                Some(names) if names.is_empty() => NoCache::All,
                Some(names) => NoCache::Stages(names.clone()),
            },
            allowed: Entitlements {
                network_host: self.allow.iter().any(|name| name == "network.host"),
                security_insecure: self.allow.iter().any(|name| name == "security.insecure"),
            },
            ..Options::for_platform(platform.parse().unwrap())
        }
    }

    fn image(&self, reference: &str, platform: &Platform) -> ResolvedImage {
        let given = self.images.iter().find(|(name, _)| name == reference);
        let config = given.map_or_else(
            || json!({"config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]}}),
            |(_, config)| config.clone(),
        );
        let mut config: ImageConfig = serde_json::from_value(config).unwrap();
        if config.os.is_empty() {
            config.os.clone_from(&platform.os);
            config.architecture.clone_from(&platform.architecture);
        }
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(format!("{reference} {platform}").as_bytes());
        let manifest = hasher.finish();
        if given.is_none() {
            config.rootfs.diff_ids.push(manifest);
        }
        ResolvedImage {
            reference: format!("registry.test/{reference}"),
            manifest,
            config,
        }
    }
}

fn folders(kind: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fixtures/frontend")
        .join(kind);
    let mut folders: Vec<PathBuf> = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    folders.sort();
    assert!(!folders.is_empty());
    folders
}

/// Compares with a golden, or writes it; returns the difference.
fn check(golden: &Path, got: &str) -> Option<String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "goldens are rewritten on demand, in this one place"
    )]
    let update = std::env::var("UPDATE").is_ok_and(|value| value == "1");
    if update {
        fs::write(golden, got).unwrap();
        return None;
    }
    let expected = fs::read_to_string(golden).unwrap_or_default();
    (expected != got).then(|| format!("{}:\n{got}", golden.display()))
}

fn run(kind: &str, golden: &str, outcome: impl Fn(&Path, &str) -> String) {
    let different = folders(kind).into_iter().filter_map(|dir| {
        let text = fs::read_to_string(dir.join("Dockerfile")).unwrap();
        check(&dir.join(golden), &outcome(&dir, &text))
    });
    let different: Vec<String> = different.collect();
    assert!(different.is_empty(), "{}", different.join("\n"));
}

fn build(text: &str, given: &Given) -> Result<Compiled, Vec<Diagnostic>> {
    let file = parse(text)?;
    let options = given.checks(given.options());
    let mut images = Images::new();
    loop {
        let requests = requirements(&file, &options, &images)?;
        if requests.is_empty() {
            return compile(&file, &options, &images);
        }
        for request in requests {
            let image = given.image(&request.reference, &request.platform);
            images.insert((request.reference, request.platform), image);
        }
    }
}

#[test]
fn parsed_files_match_their_goldens() {
    run("parse", "golden.txt", |_, text| match parse(text) {
        Ok(file) => dump::dump(&file, text),
        Err(diagnostics) => render(&diagnostics, "Dockerfile", text, false),
    });
}

/// Every fixture that is a Dockerfile is the same one when it is printed and read again.
#[test]
fn printed_files_are_read_as_they_were() {
    for dir in ["parse", "compile", "errors"].into_iter().flat_map(folders) {
        let text = fs::read_to_string(dir.join("Dockerfile")).unwrap();
        if let Ok(file) = parse(&text) {
            property::printed_is_the_same(&file, &text);
        }
    }
}

#[test]
fn diagnostics_match_their_goldens() {
    run("errors", "golden.txt", |dir, text| {
        let built = build(text, &Given::read(dir));
        let diagnostics = built.map_or_else(|errors| errors, |_| panic!("{}", dir.display()));
        render(&diagnostics, "Dockerfile", text, false)
    });
}

#[test]
fn compiled_files_match_their_goldens() {
    run("compile", "golden.json", |dir, text| {
        let built = build(text, &Given::read(dir));
        let compiled = built.unwrap_or_else(|errors| {
            let errors = render(&errors, "Dockerfile", text, false);
            panic!("{}: {errors}", dir.display())
        });
        serde_json::to_string_pretty(&document(&compiled, text)).unwrap() + "\n"
    });
}

fn document(compiled: &Compiled, text: &str) -> Value {
    let vertices = compiled.graph.vertices().map(|(id, vertex)| {
        let mut vertex = serde_json::to_value(vertex).unwrap();
        let fields = vertex.as_object_mut().unwrap();
        // Digests are the graph's business, and unkeyed variables are not serialised.
        fields.remove("digest");
        if let kiln_graph::Op::Exec(exec) = &compiled.graph.vertex(id).op
            && !exec.unkeyed_env.is_empty()
        {
            fields.insert("unkeyed_env".to_owned(), json!(exec.unkeyed_env));
        }
        vertex
    });
    let steps = compiled.steps.iter().map(
        |step| json!({"created_by": step.created_by, "layer": step.layer, "lines": step.lines}),
    );
    let stages = compiled.stages.iter().map(|stage| {
        let platform = stage.platform.to_string();
        json!({"name": stage.name, "base": stage.base, "platform": platform,
            "is_needed": stage.is_needed})
    });
    json!({
        "vertices": vertices.collect::<Vec<_>>(),
        "target": compiled.target,
        "base": compiled.base.as_ref().map(|(name, platform)| format!("{name} {platform}")),
        "image": compiled.image,
        "steps": steps.collect::<Vec<_>>(),
        "stages": stages.collect::<Vec<_>>(),
        "source_date_epoch": compiled.source_date_epoch,
        "hostname": compiled.hostname,
        "warnings": render(&compiled.warnings, "Dockerfile", text, false),
    })
}

/// Layers of an image are those of its base and one for each step that has one.
#[test]
fn steps_with_layers_are_the_chain_below_the_target() {
    for dir in folders("compile") {
        let text = fs::read_to_string(dir.join("Dockerfile")).unwrap();
        let compiled = build(&text, &Given::read(&dir)).unwrap();
        let mut chain = Vec::new();
        let mut at = compiled.target;
        while let Some(id) = at {
            let vertex = compiled.graph.vertex(id);
            // A folder that a stage stands on is a layer of which the history does not speak.
            if !vertex.inputs.is_empty() && !vertex.meta.name.starts_with("[context ") {
                chain.push(id);
            }
            at = vertex.inputs.first().copied().flatten();
        }
        chain.reverse();
        let layers: Vec<_> = compiled
            .steps
            .iter()
            .filter_map(|step| step.layer)
            .collect();
        assert_eq!(layers, chain, "{}", dir.display());
    }
}
