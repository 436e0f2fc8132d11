//! The same without root: subordinate ids, owners, copies, pushes.

use std::fs;

use crate::support::{Context, Lab, output, pull_with_skopeo};

const DOCKERFILE: &str = "ARG BASE
FROM $BASE AS make
RUN mkdir /made; for id in 0 1 1000 65534; do touch /made/$id; chown $id:$id /made/$id; done; \\
    chmod 4750 /made/1000; mkfifo /made/fifo; ln /made/1 /made/hard; ln -s 1 /made/soft
USER www
RUN touch /tmp/mine; ! touch /etc/not-mine 2> /dev/null
USER root
RUN rm /bin/wc; rm -r /sbin; mkdir /sbin; touch /sbin/new
COPY --chown=www:staff --chmod=640 file /copied
COPY folder /folder
FROM $BASE
COPY --from=make /made /made
COPY --from=make /tmp/mine /copied /sbin/new /
COPY --from=make /folder /folder
";

fn context() -> Context {
    let context = Context::new(DOCKERFILE)
        .with("file", "file\n")
        .with("folder/a", "a\n");
    context.chmod("folder/a", 0o755);
    context
}

#[test]
fn image_is_the_same_as_that_of_root() {
    let Some(user) = Lab::of_ordinary_user() else {
        return;
    };
    let Some(root) = Lab::require() else {
        return;
    };
    let context = context();
    let (of_user, of_root) = (user.tree(&context), root.tree(&context));
    assert_eq!(of_user.difference(&of_root), "");
    assert!(
        of_user.get("/made/65534").contains(" 65534:65534 "),
        "{}",
        of_user.get("/made/65534")
    );
    assert!(of_user.get("/made/1000").starts_with("4750 1000:1000"));
    assert!(
        of_user.get("/mine").contains(" 1000:1000 "),
        "{}",
        of_user.get("/mine")
    );
    assert!(
        of_user.get("/copied").starts_with("0640 1000:50"),
        "{}",
        of_user.get("/copied")
    );
}

#[test]
fn push_works_and_nothing_needs_root() {
    let Some(lab) = Lab::of_ordinary_user() else {
        return;
    };
    let name = lab.registry.name("of/user:1");
    let context = context();
    lab.build(&context).args(["--push", "-t", &name]).ok();
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(pull_with_skopeo(&name, dir.path()).n_layers(), 4);
    lab.build(&context)
        .args(["--push", "-t", &name])
        .ok()
        .ran(&[]);
}

#[test]
fn store_is_in_the_users_home_by_default() {
    let Some(lab) = Lab::of_ordinary_user() else {
        return;
    };
    let mut command = lab.kiln.command();
    let context = Context::new("FROM scratch\nCOPY Dockerfile /\n");
    command
        .env_remove("KILN_ROOT")
        .args(["build", "-t", "a"])
        .arg(context.path());
    crate::support::run(&mut command);
    assert!(lab.kiln.home().join(".local/share/kiln/version").is_file());
}

#[test]
fn local_folder_belongs_to_the_user() {
    let Some(lab) = Lab::of_ordinary_user() else {
        return;
    };
    let dest = lab.kiln.out("files");
    lab.build(&context())
        .arg("-o")
        .arg(output("local", &dest))
        .ok();
    assert_eq!(fs::read_to_string(dest.join("copied")).unwrap(), "file\n");
}

#[test]
fn without_subordinate_ids_it_says_so() {
    let Some(lab) = Lab::of_ordinary_user() else {
        return;
    };
    lab.kiln.user().unwrap().forget_subordinate_ids();
    let context = Context::new("ARG BASE\nFROM $BASE\nRUN id -u > /id; touch /x\n");
    let outcome = lab.build(&context).run();
    // One id is enough for steps that need no other; what is missing is said either way.
    outcome.says(&["subordinate"]);
}
