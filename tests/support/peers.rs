//! Other people's tools, which look at what kiln makes: skopeo, umoci, runc, crun, buildah.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::{Image, command, run};

/// Copies an image from an OCI layout to a registry as it is.
pub(crate) fn copy_to_registry(layout: &Path, tag: &str, name: &str, args: &[&str]) {
    let mut command = command("skopeo");
    command.args(["copy", "-q", "--insecure-policy", "--dest-tls-verify=false"]);
    if args.is_empty() {
        command.arg("--preserve-digests");
    }
    command.args(args);
    command.arg(format!("oci:{}:{tag}", layout.display()));
    run(command.arg(format!("docker://{name}")));
}

/// Copies an image from a registry into a new layout in `dir`.
pub(crate) fn pull_with_skopeo(name: &str, dir: &Path) -> Image {
    let layout = dir.join("pulled");
    let mut command = command("skopeo");
    command.args(["copy", "-q", "--insecure-policy", "--src-tls-verify=false"]);
    command
        .arg("--preserve-digests")
        .arg(format!("docker://{name}"));
    run(command.arg(format!("oci:{}:image", layout.display())));
    Image::open(&layout)
}

/// Unpacks the image in a layout with umoci; returns the bundle, which has the tree in `rootfs`.
pub(crate) fn unpack(layout: &Path, tag: &str, dir: &Path) -> PathBuf {
    let bundle = dir.join("bundle");
    let mut command = command("umoci");
    command.arg("unpack").arg("--image");
    command.arg(format!("{}:{tag}", layout.display()));
    run(command.arg(&bundle));
    bundle
}

/// Runs what a bundle is made for, with crun or runc, and returns what it wrote.
pub(crate) fn run_bundle(bundle: &Path, id: &str) -> Output {
    without_terminal(&bundle.join("config.json"));
    let state = bundle.parent().unwrap().join("state");
    let run_with = |program: &str| {
        let mut command = command(program);
        command.arg("--root").arg(&state).args(["run", "--bundle"]);
        command.arg(bundle).arg(id).output()
    };
    // crun wants one of the two kinds of control groups alone; runc takes machines with both.
    match run_with("crun") {
        Ok(output) if output.status.success() => output,
        _ => run_with("runc").unwrap(),
    }
}

fn without_terminal(file: &Path) {
    let mut config: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    config["process"]["terminal"] = json!(false);
    fs::write(file, config.to_string()).unwrap();
}

/// Builds with buildah, without its cache; returns the image in a new layout in `dir`.
pub(crate) fn buildah(dir: &Path, context: &Path, args: &[String]) -> Image {
    let storage = |command: &mut Command| {
        command.env("HOME", dir).env("TMPDIR", dir);
        command.arg("--storage-driver=vfs");
        command.arg("--root").arg(dir.join("root"));
        command.arg("--runroot").arg(dir.join("run"));
    };
    let mut build = command("buildah");
    storage(&mut build);
    build.args([
        "bud",
        "-q",
        "--isolation=chroot",
        "--network=host",
        "--format=oci",
    ]);
    build.args([
        "--tls-verify=false",
        "--layers=false",
        "--identity-label=false",
    ]);
    build.args(["-t", "result"]).args(args).arg(context);
    run(&mut build);
    let layout = dir.join("layout");
    let mut push = command("buildah");
    storage(&mut push);
    push.args(["push", "-q", "localhost/result"]);
    run(push.arg(format!("oci:{}:image", layout.display())));
    Image::open(&layout)
}
