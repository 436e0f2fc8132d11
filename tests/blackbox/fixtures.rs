//! `fixtures/builds`: Dockerfiles with the image that must come out, here and from buildah.
//!
//! A folder holds a `Dockerfile`, its context, and `image.txt`: config, history, and the paths that
//! differ from the base. `UPDATE=1` writes `image.txt` anew. Then buildah builds the same file: its
//! config and its files must be the same; its history has texts of its own.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{
    Context, Image, Lab, Tree, buildah, command, make_base, repository, require_root,
    require_tools, run, unpack,
};

macro_rules! fixtures {
    ($($test:ident $folder:literal,)*) => {
        $(#[test]
        fn $test() {
            check($folder);
        })*
    };
}

fixtures! {
    web_service "web-service",
    configuration "configuration",
    copies "copies",
    stages "stages",
    removals "removals",
}

/// Copies a fixture to a folder in which modes do not depend on the checkout.
fn context_of(name: &str) -> Context {
    let context = Context::new("");
    let from = repository().join("fixtures/builds").join(name).join(".");
    run(command("cp").arg("-R").arg(from).arg(context.path()));
    fs::remove_file(context.join("image.txt")).ok();
    run(command("chmod")
        .args(["-R", "u=rwX,go=rX"])
        .arg(context.path()));
    context
}

/// What buildah leaves behind, as it prepares its containers in the image's own folders.
const LEFT_BY_BUILDAH: &[&str] = &["/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/run"];

fn check(name: &str) {
    if !require_root() || !require_tools(&["umoci", "buildah"]) {
        return;
    }
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = context_of(name);
    let image = lab.image_of(lab.build(&context).args(["-t", "x:image"]));
    let tree = files(image.dir());
    assert_golden(name, &shown(&image, &tree.difference(&base_of(&image))));

    let dir = tempfile::tempdir().unwrap();
    let args = [format!("--build-arg=BASE={}", lab.busybox())];
    let peer = buildah(dir.path(), context.path(), &args);
    let peer_tree = files(peer.dir()).without(LEFT_BY_BUILDAH);
    assert_eq!(
        normal(&image),
        normal(&peer),
        "config: kiln's is on the left"
    );
    assert_eq!(
        tree.difference(&peer_tree),
        "",
        "files that buildah has otherwise"
    );
}

/// Unpacks the image called `image` in a layout, and reads its files.
fn files(layout: &Path) -> Tree {
    let dir = tempfile::tempdir().unwrap();
    Tree::read(&unpack(layout, "image", dir.path()).join("rootfs"))
}

/// Returns the files of busybox if the image stands on it, else none.
fn base_of(image: &Image) -> Tree {
    let layout = make_base("busybox");
    if image.layer_digest(0) != Image::open(&layout).layer_digest(0) {
        return Tree::empty();
    }
    let dir = tempfile::tempdir().unwrap();
    Tree::read(&unpack(&layout, "latest", dir.path()).join("rootfs"))
}

/// Returns the config without what depends on the builder.
fn normal(image: &Image) -> Value {
    let mut config = image.config["config"].clone();
    let Some(object) = config.as_object_mut() else {
        return config;
    };
    // Only kiln, like docker build, says that a shell form was one, and that `/` is where to be.
    object.remove("ArgsEscaped");
    if object.get("WorkingDir").is_some_and(|dir| dir == "/") {
        object.remove("WorkingDir");
    }
    config.sort_all_objects();
    config
}

fn shown(image: &Image, files: &str) -> String {
    let mut text = serde_json::to_string_pretty(&normal(image)).unwrap();
    writeln!(text, "\n\n{} layers", image.n_layers()).unwrap();
    for (entry, line) in image.config["history"]
        .as_array()
        .unwrap()
        .iter()
        .zip(image.history())
    {
        let mark = if entry["empty_layer"] == true {
            "empty"
        } else {
            "layer"
        };
        writeln!(text, "{mark} {line}").unwrap();
    }
    text + "\n" + files
}

#[expect(
    clippy::disallowed_methods,
    reason = "goldens are rewritten when the environment says so"
)]
fn assert_golden(name: &str, got: &str) {
    let path: PathBuf = repository()
        .join("fixtures/builds")
        .join(name)
        .join("image.txt");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, got).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap();
    assert!(
        got == expected,
        "{}: expected\n{expected}\ngot\n{got}",
        path.display()
    );
}

/// The base has one layer; RUN, COPY and RUN add three, though WORKDIR makes none.
#[test]
fn web_service_has_four_layers_and_nine_rows_of_history() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let image = lab.image(&context_of("web-service"));
    assert_eq!((image.n_layers(), image.history().len()), (4, 9));
}
