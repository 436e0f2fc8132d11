//! The whole path, seen with other people's eyes: Debian, apt-get, gcc, push, pull, unpack, run.

use crate::support::{
    Context, Image, Lab, Tree, buildah, pull_with_skopeo, repository, require_root, require_tools,
    run_bundle, text, unpack,
};

const TOOLS: &[&str] = &["umoci", "runc", "buildah", "mmdebstrap"];

/// Returns the folder of a fixture.
fn fixture(name: &str) -> std::path::PathBuf {
    repository().join("fixtures/builds").join(name)
}

/// Returns a context with the same files, which an ordinary user can read.
fn context_of(name: &str) -> Context {
    let context = Context::new("");
    for file in ["Dockerfile", "hello.c"] {
        context.write(file, std::fs::read(fixture(name).join(file)).unwrap());
    }
    context
}

fn base_arg(lab: &Lab) -> String {
    let name = lab.registry.name("debian:bookworm");
    format!("--build-context=debian:bookworm=docker-image://{name}")
}

/// Builds with gcc in Debian, pushes, pulls with skopeo, unpacks with umoci, runs with runc.
fn compile_and_push(lab: &Lab, context: &Context) -> (Image, Tree) {
    lab.registry.add_base("debian", "bookworm");
    let name = lab.registry.name("hello:1");
    let build = lab
        .kiln
        .build(context)
        .arg(base_arg(lab))
        .arg("--network=host");
    build.args(["--push", "-t", &name]).ok();
    let dir = tempfile::tempdir().unwrap();
    let image = pull_with_skopeo(&name, dir.path());
    let bundle = unpack(image.dir(), "image", dir.path());
    let tree = Tree::read(&bundle.join("rootfs"));
    let output = run_bundle(&bundle, &format!("kiln-test-{}", std::process::id()));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "hello from a container\n");
    (image, tree)
}

/// Compares with what buildah makes of the same file, apart from times and ids.
fn assert_is_what_buildah_makes(lab: &Lab) {
    let context = context_of("debian-gcc");
    let (image, tree) = compile_and_push(lab, &context);
    let dir = tempfile::tempdir().unwrap();
    let peer = buildah(dir.path(), context.path(), &[base_arg(lab)]);
    let bundle = unpack(peer.dir(), "image", dir.path());
    assert_eq!(tree.difference(&Tree::read(&bundle.join("rootfs"))), "");
    assert_eq!(image.config["config"], peer.config["config"]);
    assert_eq!(image.config["architecture"], peer.config["architecture"]);
    assert_eq!(image.config["os"], peer.config["os"]);
}

#[test]
fn debian_gcc_scratch_of_root() {
    if !require_root() || !require_tools(TOOLS) {
        return;
    }
    let Some(lab) = Lab::require() else {
        return;
    };
    assert_is_what_buildah_makes(&lab);
}

#[test]
fn debian_gcc_scratch_of_an_ordinary_user() {
    if !require_tools(TOOLS) {
        return;
    }
    let Some(lab) = Lab::of_ordinary_user() else {
        return;
    };
    assert_is_what_buildah_makes(&lab);
}
