//! The local store: names of images, and what `inspect` and `images` say of them.

use serde_json::Value;

use crate::support::{Context, Lab, text};

const DOCKERFILE: &str = "ARG BASE
FROM $BASE
LABEL team=kiln
COPY hello.txt /srv/hello.txt
RUN echo made > /made
CMD [\"/bin/sh\"]
";

fn build(lab: &Lab, names: &[&str]) {
    let context = Context::new(DOCKERFILE).with("hello.txt", "hello\n");
    let tags = names.iter().flat_map(|name| ["-t", name]);
    lab.build(&context).args(tags).ok();
}

#[test]
fn inspect_shows_config_history_and_layers() {
    let Some(lab) = Lab::require() else {
        return;
    };
    build(&lab, &["app:1"]);
    let image = lab.kiln.inspect("app:1");
    assert_eq!(image["config"]["Labels"]["team"], "kiln");
    assert_eq!(image["config"]["Cmd"][0], "/bin/sh");
    assert_eq!(image["layers"].as_array().unwrap().len(), 3);
    let history = image["history"].as_array().unwrap();
    let made_by: Vec<_> = history
        .iter()
        .map(|row| row["created_by"].as_str().unwrap())
        .collect();
    let expected = [
        "rootfs of busybox",
        "LABEL team=kiln",
        "COPY hello.txt /srv/hello.txt # buildkit",
        "RUN /bin/sh -c echo made > /made # buildkit",
        "CMD [\"/bin/sh\"]",
    ];
    assert_eq!(made_by, expected);
}

#[test]
fn inspect_lists_files() {
    let Some(lab) = Lab::require() else {
        return;
    };
    build(&lab, &["app:1"]);
    let files = text(
        &lab.kiln
            .run(["inspect", "--files", "app:1"])
            .succeeded()
            .stdout,
    );
    for line in [
        "/srv/hello.txt",
        "/made",
        "/bin/busybox",
        "/bin/sh -> busybox",
    ] {
        assert!(
            files.lines().any(|l| l.ends_with(line)),
            "no {line} in {files}"
        );
    }
}

#[test]
fn several_names_stand_for_one_image() {
    let Some(lab) = Lab::require() else {
        return;
    };
    build(&lab, &["app:1", "app", "registry.example/team/app:v1"]);
    let ids = ["app:1", "app:latest", "registry.example/team/app:v1"]
        .map(|name| lab.kiln.inspect(name)["digest"].clone());
    assert!(ids[0] == ids[1] && ids[1] == ids[2], "{ids:?}");
    let listed = text(&lab.kiln.run(["images"]).succeeded().stdout);
    assert_eq!(
        listed.matches(ids[0].as_str().unwrap()).count(),
        3,
        "{listed}"
    );
    let output = lab.kiln.run(["images", "--json"]).succeeded();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = json.as_array().unwrap().iter();
    let is_ours = |row: &&Value| row["descriptor"]["digest"] == ids[0];
    assert_eq!(rows.filter(is_ours).count(), 3, "{json:#}");
}

#[test]
fn name_moves_to_the_newest_image() {
    let Some(lab) = Lab::require() else {
        return;
    };
    build(&lab, &["app:1"]);
    let old = lab.kiln.inspect("app:1")["id"].clone();
    lab.build(&Context::new("ARG BASE\nFROM $BASE\nRUN echo new > /new\n"))
        .tag("app:1")
        .ok();
    assert_ne!(lab.kiln.inspect("app:1")["id"], old);
}

#[test]
fn unknown_name_is_an_error() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let outcome = lab.kiln.run(["inspect", "no-such-image"]);
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
    outcome.says(&["no-such-image"]);
}

#[test]
fn root_flag_goes_before_the_environment() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let root = lab.kiln.out("another");
    let context = Context::new("ARG BASE\nFROM $BASE\nRUN true\n");
    lab.build(&context)
        .arg("--root")
        .arg(&root)
        .tag("here:1")
        .ok();
    assert!(root.join("version").is_file());
    assert!(!lab.kiln.root().exists());
}
