//! `kiln push`, and builds whose push fails.

use std::fs;

use serde_json::json;

use crate::support::{
    Context, Image, Lab, Outcome, Proxy, Registry, command, pull_with_skopeo, run, text,
};

const DOCKERFILE: &str = "ARG BASE\nFROM $BASE\nCOPY Dockerfile /made\nLABEL a=b\n";

fn pulled(name: &str) -> Image {
    let dir = tempfile::tempdir().unwrap();
    pull_with_skopeo(name, dir.path())
}

fn n_uploads(requests: &[String]) -> usize {
    let is_upload = |line: &&String| line.starts_with("PUT ") && line.contains("/blobs/uploads/");
    requests.iter().filter(is_upload).count()
}

fn stdout(outcome: &Outcome) -> String {
    text(&outcome.stdout)
}

#[test]
fn push_sends_what_a_build_kept_and_fetches_the_rest() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let other = Registry::start();
    let proxy = Proxy::before(other.host());
    let name = format!("{}/app:1", proxy.host());
    let context = Context::new(DOCKERFILE);
    // Of the base the store has no layer, and of what was built no blob.
    lab.build(&context).tag(&name).ok();
    let id = lab.kiln.inspect(&name)["id"].clone();
    let outcome = lab.kiln.run(["push", &name]).succeeded();
    outcome.says(&["pushing", &name]);
    let image = pulled(&other.name("app:1"));
    assert_eq!(image.n_layers(), 2);
    let inspected = lab.kiln.inspect(&name);
    assert_eq!(inspected["id"], id);
    let digest = inspected["digest"].as_str().unwrap();
    assert!(stdout(&outcome).starts_with(&format!("{name}: digest: {digest} size: ")));
    proxy.take_requests();
    let again = lab.kiln.run(["push", "-q", &name]).succeeded();
    assert_eq!(
        (stdout(&again), again.stderr),
        (format!("{name}\n"), String::new())
    );
    assert_eq!(n_uploads(&proxy.take_requests()), 0);
    // An image on top of it knows where the layers of its base's base are.
    other.forget();
    let above = Context::new("ARG BASE\nFROM $BASE\nLABEL c=d\n");
    let pushed = other.name("above:1");
    let build = lab.kiln.build(&above).base(&name);
    build.args(["--push", "-t", &pushed]).ok();
    assert_eq!(pulled(&pushed).n_layers(), 2);
}

#[test]
fn all_platforms_and_all_tags_go() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let proxy = Proxy::before(lab.registry.host());
    let tag = |tag: &str| format!("{}/app:{tag}", proxy.host());
    let context = Context::new("FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /$TARGETARCH\n");
    let build = lab.kiln.build(&context).tag(&tag("1"));
    build.arg("--platform=linux/amd64,linux/arm64").ok();
    lab.kiln.build(&context).tag(&tag("2")).ok();
    let outcome = lab.kiln.run(["push", "-a", &tag("")[..tag("").len() - 1]]);
    let outcome = outcome.succeeded();
    assert!(stdout(&outcome).contains(&tag("1")) && stdout(&outcome).contains(&tag("2")));
    let requests = proxy.take_requests();
    let n_manifests = requests
        .iter()
        .filter(|r| r.starts_with("PUT /v2/app/manifests/"));
    assert_eq!(n_manifests.count(), 4, "{requests:#?}");
    let mut skopeo = command("skopeo");
    skopeo.args(["inspect", "--raw", "--tls-verify=false"]);
    let raw = run(skopeo.arg(format!("docker://{}", lab.registry.name("app:1"))));
    let index: serde_json::Value = serde_json::from_slice(&raw.stdout).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    assert_eq!(pulled(&lab.registry.name("app:1")).n_layers(), 1);
}

#[test]
fn what_was_built_is_safe_when_the_push_fails() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let registry = Registry::with_password();
    let (name, archive) = (registry.name("app:1"), lab.kiln.out("image.tar"));
    let context = Context::new(DOCKERFILE);
    let build = lab.build(&context).args(["--push", "-t", &name]);
    let build = build.arg("-o").arg(crate::support::output("oci", &archive));
    let outcome = build.fails(4);
    let hint = format!("`kiln push {name}`");
    outcome.says(&[
        "access denied",
        "401",
        &hint,
        "tried again when the image is built",
    ]);
    assert!(archive.is_file());
    let outcome = lab.kiln.run(["push", &name]);
    assert_eq!(outcome.status.code(), Some(4), "{}", outcome.stderr);
    outcome.says(&["access denied"]);
    let dir = lab.kiln.home().join(".docker");
    fs::create_dir(&dir).unwrap();
    let config = json!({ "auths": { registry.host(): { "auth": "a2lsbjpzZWNyZXQ=" } } });
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let digest = lab.kiln.inspect(&name)["digest"].clone();
    let outcome = lab.kiln.run(["push", &name]).succeeded();
    assert!(stdout(&outcome).contains(digest.as_str().unwrap()));
    assert_eq!(Image::open_archive(&archive).digest(), digest);
    let outcome = lab.build(&context).args(["--push", "-t", &name]).ok();
    outcome.ran(&[]);
}

#[test]
fn several_names_of_a_registry_need_one_upload() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let proxy = Proxy::before(lab.registry.host());
    let names = ["a/app:1", "b/app:1", "b/app:2"].map(|name| format!("{}/{name}", proxy.host()));
    let context = Context::new("FROM scratch\nCOPY Dockerfile /\n");
    let mut build = lab.kiln.build(&context).arg("--push");
    for name in &names {
        build = build.tag(name);
    }
    build.ok();
    // A layer and a config.
    assert_eq!(n_uploads(&proxy.take_requests()), 2);
    for name in ["a/app:1", "b/app:1", "b/app:2"] {
        assert_eq!(pulled(&lab.registry.name(name)).n_layers(), 1);
    }
}

#[test]
fn mistakes_about_pushes_are_told() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let digest = format!("a.io/x@sha256:{}", "0".repeat(64));
    for (args, code, message) in [
        (
            &["push", "a.io/unknown:1"][..],
            1,
            "no image `a.io/unknown:1`",
        ),
        (
            &["push", "-a", "a.io/unknown"],
            1,
            "no image of `a.io/unknown`",
        ),
        (&["push", "-a", "a.io/x:1"], 2, "--all-tags"),
        (&["push", &digest], 2, "needs a tag"),
        (&["push"], 2, "NAME"),
    ] {
        let outcome = lab.kiln.run(args);
        assert_eq!(outcome.status.code(), Some(code), "{}", outcome.stderr);
        outcome.says(&[message]);
    }
}
