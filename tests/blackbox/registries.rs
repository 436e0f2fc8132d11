//! Mirrors, other locations, and registries that are blocked.

use std::fs;

use serde_json::json;

use crate::support::{
    Context, Kiln, Lab, Outcome, Proxy, Registry, copy_to_registry, free_port, make_base,
};

const STEP: &str = "RUN test -x /bin/busybox";

fn context() -> Context {
    Context::new(&format!("ARG BASE\nFROM $BASE\n{STEP}\n"))
}

/// Writes the user's registries.conf.
fn configure(kiln: &Kiln, text: &str) {
    let dir = kiln.home().join(".config/containers");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("registries.conf"), text).unwrap();
}

fn copy_busybox(name: &str) {
    copy_to_registry(
        &make_base("busybox"),
        "latest",
        name,
        &["--preserve-digests"],
    );
}

fn n_warnings(outcome: &Outcome) -> usize {
    outcome.stderr.matches("the mirror failed").count()
}

#[test]
fn images_of_docker_hub_come_from_a_mirror_under_their_own_name() {
    let Some(lab) = Lab::require() else {
        return;
    };
    copy_busybox(&lab.registry.name("hub/library/busybox:latest"));
    let mirror = format!("--registry-mirror={}/hub", lab.registry.host());
    let context = context();
    let build = lab.kiln.build(&context).base("busybox").arg(&mirror);
    let outcome = build.args(["-t", "app"]).ok();
    outcome.ran(&[STEP]);
    let images = lab.kiln.run(["images"]).succeeded();
    let images = crate::support::text(&images.stdout);
    assert!(
        images.contains("docker.io/library/busybox:latest"),
        "{images}"
    );
    assert!(!images.contains(lab.registry.host()), "{images}");
}

#[test]
fn mirrors_of_the_configuration_are_asked_in_order() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let mirror = Registry::start();
    copy_busybox(&mirror.name("copy/busybox:latest"));
    let (asked, other) = (
        Proxy::before(mirror.host()),
        Proxy::before(lab.registry.host()),
    );
    let base = format!("{}/busybox:latest", other.host());
    let broken = format!("127.0.0.1:{}", free_port());
    configure(
        &lab.kiln,
        &format!(
            "[[registry]]\nlocation = '{}'\n[[registry.mirror]]\nlocation = '{broken}'\n\
             [[registry.mirror]]\nlocation = '{}/copy'\n",
            other.host(),
            asked.host(),
        ),
    );
    let context = context();
    let pushed = format!("{}/app:1", other.host());
    let outcome = lab.kiln.build(&context).base(&base);
    let outcome = outcome.args(["--push", "-t", &pushed]).ok();
    outcome.ran(&[STEP]);
    assert_eq!(n_warnings(&outcome), 1, "{}", outcome.stderr);
    outcome.says(&[&broken]);
    let asked = asked.take_requests();
    assert!(
        asked.iter().all(|line| line.starts_with("GET")),
        "{asked:#?}"
    );
    assert!(
        asked
            .iter()
            .any(|line| line.contains("/v2/copy/busybox/blobs/"))
    );
    let other = other.take_requests();
    assert!(
        other
            .iter()
            .all(|line| !line.contains("/busybox/manifests/")),
        "{other:#?}"
    );
    assert!(
        other
            .iter()
            .any(|line| line.starts_with("PUT /v2/app/manifests/1"))
    );
}

#[test]
fn mirrors_that_lack_or_spoil_an_image_are_passed_over() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let (context, base) = (context(), lab.busybox());
    let mirror = Registry::start();
    let option = format!(
        "--registry-mirror={}={}",
        lab.registry.host(),
        mirror.host()
    );
    let build = |kiln: &Kiln| kiln.build(&context).base(&base).arg(&option).ok();
    let outcome = build(&lab.kiln);
    outcome.ran(&[STEP]);
    assert_eq!(n_warnings(&outcome), 0, "{}", outcome.stderr);

    copy_busybox(&mirror.name("busybox:latest"));
    let image = crate::support::Image::open(&make_base("busybox"));
    let file = mirror.blob_file(&image.layer_digest(0));
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let outcome = build(&Kiln::new());
    outcome.ran(&[STEP]);
    assert_eq!(n_warnings(&outcome), 1, "{}", outcome.stderr);
    outcome.says(&[mirror.host()]);
}

#[test]
fn each_host_gets_its_own_credentials() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let mirror = Registry::with_password();
    let creds = "--dest-creds=kiln:secret";
    let there = mirror.name("busybox:latest");
    copy_to_registry(
        &make_base("busybox"),
        "latest",
        &there,
        &["--preserve-digests", creds],
    );
    configure(
        &lab.kiln,
        &format!(
            "[[registry]]\nprefix = 'r.example'\nlocation = '{}'\n\
             [[registry]]\nprefix = '*.bad.example'\nblocked = true\n",
            mirror.host()
        ),
    );
    let (context, base) = (context(), "r.example/busybox");
    let build = || lab.kiln.build(&context).base(base);
    build().fails(1).says(&["access denied", mirror.host()]);
    let dir = lab.kiln.home().join(".docker");
    fs::create_dir(&dir).unwrap();
    let config = json!({ "auths": { mirror.host(): { "auth": "a2lsbjpzZWNyZXQ=" } } });
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    build().ok().ran(&[STEP]);
    let build = lab.kiln.build(&context).base("a.bad.example/x");
    build
        .fails(1)
        .says(&["registries.conf blocks `*.bad.example`"]);
    configure(&lab.kiln, "[[registry]]\nlocation = 'no host'\n");
    let build = lab.kiln.build(&context).base(&lab.busybox());
    build.fails(1).says(&["registries.conf`", "`no host`"]);
    let build = lab.kiln.build(&context).arg("--registry-mirror=a.io=");
    build.fails(2).says(&["--registry-mirror a.io="]);
}
