//! `fixtures/builds`: Dockerfiles with the image that must come out, here and from buildah.
//!
//! A folder holds a `Dockerfile`, its context, and `image.txt`: config, history, and the paths that
//! differ from the base. `UPDATE=1` writes `image.txt` anew. Then buildah builds the same file: its
//! config and its files must be the same; its history has texts of its own. `args.txt` has options
//! of the command line, one a line; `no-peer.txt` says why buildah is not asked.

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
    arg_scopes "arg-scopes",
    arg_of_the_command_line "arg-of-the-command-line",
    arg_goes_to_child_stages "arg-goes-to-child-stages",
    arg_several_on_a_line "arg-several-on-a-line",
    env_modifiers "env-modifiers",
    env_patterns "env-patterns",
    env_one_line_sees_what_was_before "env-one-line-sees-what-was-before",
    env_old_form "env-old-form",
    env_quotes "env-quotes",
    env_replaces_inherited "env-replaces-inherited",
    label_expansion "label-expansion",
    label_old_form "label-old-form",
    expose_forms "expose-forms",
    expose_ranges "expose-ranges",
    volume_forms "volume-forms",
    stopsignal_number "stopsignal-number",
    healthcheck_options "healthcheck-options",
    healthcheck_exec_form "healthcheck-exec-form",
    healthcheck_none "healthcheck-none",
    shell_of_later_instructions "shell-of-later-instructions",
    entrypoint_resets_inherited_cmd "entrypoint-resets-inherited-cmd",
    entrypoint_keeps_own_cmd "entrypoint-keeps-own-cmd",
    cmd_forms "cmd-forms",
    cmd_looks_like_json "cmd-looks-like-json",
    user_and_group "user-and-group",
    user_of_a_name "user-of-a-name",
    workdir_is_joined "workdir-is-joined",
    workdir_exists "workdir-exists",
    copy_wildcards "copy-wildcards",
    copy_folder_contents "copy-folder-contents",
    copy_trailing_slashes "copy-trailing-slashes",
    copy_above_the_root "copy-above-the-root",
    copy_names_with_blanks "copy-names-with-blanks",
    copy_merges_folders "copy-merges-folders",
    copy_through_links "copy-through-links",
    copy_of_links "copy-of-links",
    copy_owners_and_modes "copy-owners-and-modes",
    copy_from_a_stage "copy-from-a-stage",
    copy_json_form "copy-json-form",
    copy_heredocs "copy-heredocs",
    run_heredocs "run-heredocs",
    run_exec_form "run-exec-form",
    run_kinds_of_files "run-kinds-of-files",
    run_replaces_kinds "run-replaces-kinds",
    run_changes_modes "run-changes-modes",
    run_networks "run-networks",
    stage_chain "stage-chain",
    stage_target "stage-target",
    stage_of_scratch "stage-of-scratch",
    ignore_file "ignore-file",
    ignore_file_of_the_dockerfile "ignore-file-of-the-dockerfile",
    escape_directive "escape-directive",
    comments_and_continuations "comments-and-continuations",
    instructions_in_any_case "instructions-in-any-case",
    bom_and_crlf "bom-and-crlf",
    add_archives "add-archives",
    add_files_and_folders "add-files-and-folders",
    add_links_and_excludes "add-links-and-excludes",
    onbuild_triggers "onbuild-triggers",
    run_security "run-security",
    directives "directives",
}

/// Copies a fixture to a folder in which modes do not depend on the checkout.
fn context_of(name: &str) -> Context {
    let context = Context::new("");
    let from = fixture(name).join(".");
    run(command("cp").arg("-R").arg(from).arg(context.path()));
    for file in ["image.txt", "args.txt", "no-peer.txt"] {
        fs::remove_file(context.join(file)).ok();
    }
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
    let mut args = options_of(name);
    let build = lab.build(&context).args(&args);
    let image = lab.image_of(build.args(["-t", "x:image"]));
    let tree = files(image.dir());
    assert_golden(name, &shown(&image, &tree.difference(&base_of(&image))));
    if fixture(name).join("no-peer.txt").exists() {
        return;
    }

    let dir = tempfile::tempdir().unwrap();
    args.push(format!("--build-arg=BASE={}", lab.busybox()));
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

fn fixture(name: &str) -> PathBuf {
    repository().join("fixtures/builds").join(name)
}

fn options_of(name: &str) -> Vec<String> {
    let text = fs::read_to_string(fixture(name).join("args.txt")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
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
    let path = fixture(name).join("image.txt");
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

/// The base has one layer; RUN, COPY, WORKDIR and RUN add four, though that of WORKDIR is empty.
#[test]
fn web_service_has_five_layers_and_nine_rows_of_history() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let image = lab.image(&context_of("web-service"));
    assert_eq!((image.n_layers(), image.history().len()), (5, 9));
}
