//! The 26 traps of the Dockerfile language: where a builder that only reads the manual goes wrong.
//!
//! Each test builds, and looks at the image that comes out. The first thirteen; the others are in
//! `traps_more`.

use std::fs;

use crate::support::{Context, Image, Lab, Tree, output, run, text};

/// Exit codes: a mistake in what was given, and a step that failed.
const USER: i32 = 1;
const STEP_FAILED: i32 = 3;

fn context(dockerfile: &str, files: &[(&str, &str)]) -> Context {
    let context = Context::new(&format!("ARG BASE\nFROM $BASE\n{dockerfile}"));
    for (path, content) in files {
        context.write(path, content);
    }
    context
}

/// Builds on busybox and returns the files of the image.
pub(crate) fn tree(lab: &Lab, dockerfile: &str, files: &[(&str, &str)]) -> Tree {
    lab.tree(&context(dockerfile, files))
}

/// Builds on busybox and returns the image.
pub(crate) fn image(lab: &Lab, dockerfile: &str, files: &[(&str, &str)]) -> Image {
    lab.image(&context(dockerfile, files))
}

fn paths_below<'a>(tree: &'a Tree, dir: &'a str) -> Vec<&'a str> {
    let below = tree.paths().filter_map(|path| path.strip_prefix(dir));
    below.filter_map(|path| path.strip_prefix('/')).collect()
}

#[test]
fn trap_01_unreachable_stages_are_not_even_resolved() {
    let Some(lab) = Lab::require() else { return };
    let nowhere = lab.registry.name("nowhere:1");
    let dockerfile = format!(
        "ARG BASE\nFROM {nowhere} AS unused\nCOPY ${{X:?not set}} /\nRUN false\nFROM $BASE\nRUN true\n"
    );
    lab.build(&Context::new(&dockerfile))
        .ok()
        .ran(&["RUN true"]);
    // Each way to need a stage makes it reachable.
    for need in [
        "COPY --from=unused /x /",
        "RUN --mount=from=unused,target=/x true",
        "FROM unused",
    ] {
        let needing = dockerfile.replace("RUN true", need);
        let outcome = lab.build(&Context::new(&needing)).fails(USER);
        outcome.says(&["Dockerfile:2", "nowhere:1"]).ran(&[]);
    }
    for mistake in [
        "COPPY a b",
        "COPY --frm=a b c",
        "CMD [1]",
        "RUN --mount=from=$X,target=/x true",
    ] {
        let wrong = dockerfile.replace("RUN false", mistake);
        let outcome = lab.build(&Context::new(&wrong)).fails(USER);
        outcome.says(&["Dockerfile:4"]).ran(&[]);
    }
    let wrong = dockerfile.replace(&format!("FROM {nowhere}"), "FROM --platform=a/b/c/d x");
    lab.build(&Context::new(&wrong))
        .fails(USER)
        .says(&["Dockerfile:2"]);
}

#[test]
fn trap_02_wildcards_match_whole_paths_and_may_match_nothing() {
    let Some(lab) = Lab::require() else { return };
    let files = [
        ("a.txt", "a"),
        ("d/b.txt", "b"),
        ("d/e/c.txt", "c"),
        ("e/d/x", "x"),
        ("e/d/y", "y is longer"),
    ];
    let tree = tree(
        &lab,
        "COPY *.txt /top/\nCOPY */*.txt /one/\nCOPY d* /matched/\nCOPY *.md /none/\nCOPY d/[a-b].t?t /class/\n\
         COPY e/*/? /last\nCOPY e/d/y /y\n",
        &files,
    );
    assert_eq!(paths_below(&tree, "/top"), ["a.txt"]);
    assert_eq!(paths_below(&tree, "/one"), ["b.txt"]);
    assert_eq!(paths_below(&tree, "/matched"), ["b.txt", "e", "e/c.txt"]);
    assert_eq!(paths_below(&tree, "/class"), ["b.txt"]);
    assert_eq!(tree.get("/none"), "0755 0:0 dir");
    assert_eq!(paths_below(&tree, "/none"), [""; 0]);
    let (of_y, of_last) = (tree.get("/y"), tree.get("/last"));
    assert_eq!(of_last, of_y, "the last one in the order of names wins");
    let missing = context("COPY x.md /\n", &files);
    lab.build(&missing)
        .fails(USER)
        .says(&["Dockerfile:3", "/x.md", "not found"]);
}

#[test]
fn trap_03_a_trailing_slash_makes_a_folder() {
    let Some(lab) = Lab::require() else { return };
    let tree = tree(
        &lab,
        "RUN mkdir /there\nCOPY f /file\nCOPY f /there\nCOPY f /slash/\nCOPY f /dot/.\nCOPY dir /c\nCOPY dir/ /c-slash\nCOPY dir/. /c-dot/\n",
        &[("f", "f"), ("dir/x", "x")],
    );
    for path in ["/file", "/there/f", "/slash/f", "/dot/f"] {
        assert!(tree.get(path).contains(" file "), "{path}");
    }
    for dir in ["/c", "/c-slash", "/c-dot"] {
        assert_eq!(paths_below(&tree, dir), ["x"], "the contents of a folder");
    }
}

#[test]
fn trap_04_copying_onto_folders_merges() {
    let Some(lab) = Lab::require() else { return };
    let base = "RUN mkdir -p /d/sub /over/f && chmod 700 /d /d/sub && chown 5:6 /d /d/sub && echo old > /d/old && echo x > /plain\n";
    let files = [("src/new", "new"), ("src/sub/n", "n"), ("f", "f")];
    let built = tree(&lab, &format!("{base}COPY src /d\n"), &files);
    assert!(
        built.get("/d").starts_with("0700 5:6 "),
        "the target keeps its mode and owner"
    );
    assert!(
        built.get("/d/sub").starts_with("0755 0:0 "),
        "nested folders take that of the source"
    );
    assert_eq!(paths_below(&built, "/d"), ["new", "old", "sub", "sub/n"]);
    for wrong in ["COPY src /plain", "COPY f /over/"] {
        let outcome = lab
            .build(&context(&format!("{base}{wrong}\n"), &files))
            .fails(USER);
        outcome.says(&["Dockerfile:4"]);
    }
}

#[test]
fn trap_05_links_are_followed_at_the_source_and_inside_the_root() {
    let Some(lab) = Lab::require() else { return };
    let context = context(
        "RUN mkdir /real && ln -s /real /abs && ln -s ../../../real /up\n\
         COPY link /followed\nCOPY linked /contents\nCOPY linked/x /through\nCOPY linked/* /globbed/\nCOPY dir /tree\n\
         COPY f /abs/one\nCOPY f /up/two\n",
        &[("f", "f"), ("dir/x", "x")],
    );
    for (target, name) in [("f", "link"), ("dir", "linked"), ("../f", "dir/inner")] {
        std::os::unix::fs::symlink(target, context.join(name)).unwrap();
    }
    let tree = lab.tree(&context);
    for path in [
        "/followed",
        "/contents/x",
        "/through",
        "/globbed/x",
        "/real/one",
        "/real/two",
    ] {
        assert!(tree.get(path).contains(" file "), "{path}");
    }
    assert!(tree.get("/tree/inner").ends_with("link ../f"));
    assert!(tree.get("/abs").ends_with("link /real"));
}

#[test]
fn trap_06_hard_links_and_special_files_are_copied() {
    let Some(lab) = Lab::require() else { return };
    let context = Context::new(
        "ARG BASE\nFROM $BASE AS maker\nRUN mkdir /m && echo x > /m/a && ln /m/a /m/b && mkfifo /m/fifo\n\
         FROM scratch\nCOPY --from=maker /m /out\n",
    );
    let archive = lab.kiln.out("links.tar");
    lab.build(&context)
        .arg("-o")
        .arg(output("tar", &archive))
        .ok();
    let listing = run(crate::support::command("tar").arg("-tvf").arg(&archive));
    let listing = text(&listing.stdout);
    assert!(listing.contains("out/b link to out/a"), "{listing}");
    assert!(
        listing
            .lines()
            .any(|line| line.starts_with('p') && line.ends_with("out/fifo"))
    );
}

#[test]
fn trap_07_paths_never_leave_the_context_or_the_root() {
    let Some(lab) = Lab::require() else { return };
    let tree = tree(
        &lab,
        "WORKDIR /a\nCOPY ../../f ../../../../over\nCOPY dir/../../f ./\n",
        &[("f", "f"), ("dir/x", "x")],
    );
    assert!(tree.get("/over").contains(" file 1 ") && tree.get("/a/f").contains(" file 1 "));
    let outside = context("COPY ../../../../etc/hostname /\n", &[]);
    lab.build(&outside).fails(USER).says(&["not found"]);
}

#[test]
fn trap_08_keys_of_copies_hold_modes_but_no_times_and_no_names() {
    let Some(lab) = Lab::require() else { return };
    const COPY: &str = "COPY f /one";
    let context = context("COPY f /one\n", &[("f", "f")]);
    lab.build(&context).ok().ran(&[COPY]);
    let file = fs::File::options()
        .write(true)
        .open(context.join("f"))
        .unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    lab.build(&context).ok().cached(&[COPY]);
    context.chmod("f", 0o600);
    lab.build(&context).ok().ran(&[COPY]);
    context.chmod("f", 0o644);
    lab.build(&context).ok().cached(&[COPY]);
    context.write("elsewhere/f", "f");
    context.edit(COPY, "COPY elsewhere/f /one");
    lab.build(&context).ok().cached(&["COPY elsewhere/f /one"]);
    // Names inside of a folder count.
    context.edit("COPY elsewhere/f /one", "COPY elsewhere /all");
    lab.build(&context).ok().ran(&["COPY elsewhere /all"]);
    fs::rename(context.join("elsewhere/f"), context.join("elsewhere/g")).unwrap();
    lab.build(&context).ok().ran(&["COPY elsewhere /all"]);
}

#[test]
fn trap_09_owners_by_name_depend_on_the_base() {
    let Some(lab) = Lab::require() else { return };
    let context = context(
        "ARG ID\nRUN echo someone:x:$ID:$ID::/:/bin/sh >> /etc/passwd\nCOPY --chown=someone f /f\n",
        &[("f", "f")],
    );
    for id in ["501", "502"] {
        let archive = lab.kiln.out(id);
        let build = lab.build(&context).arg(format!("--build-arg=ID={id}"));
        build.arg("-o").arg(output("tar", &archive)).ok();
        let listing = run(crate::support::command("tar")
            .args(["--numeric-owner", "-tvf"])
            .arg(&archive));
        let listing = text(&listing.stdout);
        let line = listing
            .lines()
            .find(|line| line.ends_with(" f") || line.ends_with(" ./f"));
        assert!(
            line.is_some_and(|line| line.contains(&format!(" {id}/{id} "))),
            "{listing}"
        );
    }
}

#[test]
fn trap_10_arguments_are_part_of_a_steps_key_but_proxies_are_not() {
    let Some(lab) = Lab::require() else { return };
    const RUN: &str = "RUN echo x > /x";
    let context = context("ARG UNUSED\nRUN echo x > /x\n", &[]);
    let build = |args: &[&str]| lab.build(&context).args(args).ok();
    build(&["--build-arg=UNUSED=1"]).ran(&[RUN]);
    build(&["--build-arg=UNUSED=2"]).ran(&[RUN]);
    build(&["--build-arg=UNUSED=1"]).cached(&[RUN]);
    build(&[
        "--build-arg=UNUSED=1",
        "--build-arg=HTTP_PROXY=http://proxy.invalid",
    ])
    .cached(&[RUN]);
}

#[test]
fn trap_11_bind_mounts_count_with_what_they_show() {
    let Some(lab) = Lab::require() else { return };
    const RUN: &str = "RUN --mount=target=/in,source=dir,rw cat /in/f > /out; echo more >> /in/f";
    let context = context(&format!("{RUN}\n"), &[("dir/f", "f"), ("other", "o")]);
    lab.build(&context).ok().ran(&[RUN]);
    context.write("other", "changed");
    lab.build(&context).ok().cached(&[RUN]);
    assert_eq!(context.read("dir/f"), "f", "what is written is thrown away");
    context.write("dir/f", "changed");
    lab.build(&context).ok().ran(&[RUN]);
}

#[test]
fn trap_12_no_cache_writes_the_cache_and_keeps_cache_mounts() {
    let Some(lab) = Lab::require() else { return };
    const ONE: &str = "RUN --mount=type=cache,target=/c echo x >> /c/n; wc -l < /c/n > /n";
    const TWO: &str = "RUN echo two > /two";
    let context = Context::new(&format!(
        "ARG BASE\nFROM $BASE AS first\n{ONE}\nFROM first AS second\n{TWO}\n"
    ));
    lab.build(&context).ok().ran(&[ONE, TWO]);
    let dest = lab.kiln.out("files");
    lab.build(&context)
        .arg("--no-cache")
        .arg("-o")
        .arg(&dest)
        .ok()
        .ran(&[ONE, TWO]);
    assert_eq!(fs::read_to_string(dest.join("n")).unwrap().trim(), "2");
    lab.build(&context).ok().cached(&[ONE, TWO]);
    let build = lab.build(&context).arg("--no-cache-filter=second");
    build.ok().ran(&[TWO]).cached(&[ONE]);
}

#[test]
fn trap_13_deleted_files_become_whiteouts() {
    let Some(lab) = Lab::require() else { return };
    let image = image(
        &lab,
        "RUN mkdir /d && touch /d/a /d/b\nRUN rm /d/a /etc/group\n",
        &[],
    );
    assert_eq!(image.layer(2), ["d/", "d/.wh.a", "etc/", "etc/.wh.group"]);
    let linked = "RUN mkdir /d && touch /d/a\nRUN rm /d/a\nCOPY --link f /d/a\n";
    let linked = self::image(&lab, linked, &[("f", "f")]);
    assert_eq!(linked.layer(3), ["d/", "d/a"], "it deletes nothing below");
    let failing = context("RUN rm /nothing\n", &[]);
    lab.build(&failing).fails(STEP_FAILED);
}
