//! `COPY` and `ADD` with all their options, stages on folders, and `--squash`.

use crate::support::{Context, Lab, Tree, command, run};

/// Exit code of a mistake in what was given.
const USER: i32 = 1;

/// The paths of a tree without its root, in order.
fn paths(tree: &Tree) -> String {
    let paths = tree.paths().filter(|path| *path != "/");
    paths.collect::<Vec<_>>().join(" ")
}

fn files() -> Context {
    Context::new("")
        .with("a/b/c/f.txt", "f")
        .with("a/b/g.md", "g")
        .with("a/h.txt", "h")
        .with("d/j.md", "j")
        .with("top.txt", "top")
        .with(".dockerignore", "Dockerfile\n.dockerignore\n")
}

fn with_dockerfile(dockerfile: &str) -> Context {
    files().with("Dockerfile", dockerfile)
}

#[test]
fn linked_copies_do_not_look_at_what_is_below() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = with_dockerfile(
        "ARG BASE\nFROM $BASE\nRUN mkdir -m 700 /there && ln -s /there /link\n\
         COPY --link top.txt /link/x\nCOPY --link --chown=5:6 top.txt /there/deep/x\n\
         COPY --link=false top.txt /there/y\n",
    );
    let tree = lab.tree(&context);
    for (path, start) in [
        ("/link", "0755 0:0 dir"),
        ("/link/x", "0644 0:0 file"),
        ("/there", "0755 5:6 dir"),
        ("/there/deep", "0755 5:6 dir"),
        ("/there/y", "0644 0:0 file"),
    ] {
        assert!(
            tree.get(path).starts_with(start),
            "{path} {}",
            tree.get(path)
        );
    }
}

#[test]
fn linked_copies_stay_cached_on_another_base() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let linked = "COPY --link top.txt /x/y";
    let plain = "COPY a /a";
    let context = with_dockerfile(&format!(
        "ARG BASE\nFROM $BASE\nRUN echo one > /1\n{linked}\n{plain}\n"
    ));
    lab.build(&context)
        .ok()
        .ran(&["RUN echo one > /1", linked, plain]);
    context.edit("echo one", "echo two");
    let again = lab.build(&context).ok();
    again.ran(&["RUN echo two > /1", plain]).cached(&[linked]);
    let tree = lab.tree(&context);
    assert!(tree.get("/x/y").contains("file") && tree.get("/1").contains("file"));
}

#[test]
fn parents_keep_the_path_after_the_pivot() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = with_dockerfile(
        "FROM scratch\nCOPY --parents a/b/c/f.txt d/ /1/\nCOPY --parents a/./b/*.md /2/\n\
         COPY --parents **/*.txt /3/\nCOPY --parents --exclude=a/b a /4/\n",
    );
    let tree = lab.tree(&context);
    assert_eq!(
        paths(&tree),
        "/1 /1/a /1/a/b /1/a/b/c /1/a/b/c/f.txt /1/d /1/d/j.md \
         /2 /2/b /2/b/g.md \
         /3 /3/a /3/a/b /3/a/b/c /3/a/b/c/f.txt /3/a/h.txt /3/top.txt \
         /4 /4/a /4/a/h.txt"
    );
    let context = with_dockerfile("FROM scratch\nCOPY --parents a/./nope /\n");
    let outcome = lab.build(&context).fails(USER);
    outcome.says(&["Dockerfile:2", "/a/nope", "not found"]);
}

#[test]
fn excluded_files_are_neither_copied_nor_part_of_the_key() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let copy = "COPY --exclude=**/*.txt --exclude=!a/h.txt . /all/";
    let context = with_dockerfile(&format!("FROM scratch\n{copy}\n"));
    let tree = lab.tree(&context);
    let expected = "/all /all/a /all/a/b /all/a/b/c /all/a/b/g.md /all/a/h.txt /all/d /all/d/j.md";
    assert_eq!(paths(&tree), expected);
    context.write("top.txt", "changed");
    lab.build(&context).ok().ran(&[]).cached(&[copy]);
    context.write("a/h.txt", "changed");
    lab.build(&context).ok().ran(&[copy]);
}

#[test]
fn modes_in_words_change_what_is_there() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = with_dockerfile(
        "FROM scratch\nCOPY --chmod=u=rwX,go=rX . /r/\nCOPY --chmod=a-w,u+s top.txt /n/w\n",
    );
    context.chmod("a/b", 0o700);
    context.chmod("top.txt", 0o600);
    context.chmod("d/j.md", 0o711);
    let tree = lab.tree(&context);
    for (path, start) in [
        ("/r", "0755 "),
        ("/r/a/b", "0755 "),
        ("/r/top.txt", "0644 "),
        ("/r/d/j.md", "0755 "),
        ("/n", "0755 "),
        ("/n/w", "4400 "),
    ] {
        assert!(
            tree.get(path).starts_with(start),
            "{path} {}",
            tree.get(path)
        );
    }
    let context = with_dockerfile("FROM scratch\nCOPY --chmod=u+q top.txt /\n");
    let outcome = lab.build(&context).fails(USER);
    outcome.says(&["Dockerfile:2", "u+q", "chmod"]);
}

#[test]
fn archives_of_all_compressions_are_unpacked_or_not() {
    let Some(lab) = Lab::require() else {
        return;
    };
    for (program, flag) in [
        ("gzip", "-z"),
        ("bzip2", "-j"),
        ("xz", "-J"),
        ("zstd", "--zstd"),
    ] {
        let found = command("sh")
            .args(["-c", &format!("command -v {program}")])
            .output();
        if !found.is_ok_and(|found| found.status.success()) {
            eprintln!("skipped: there is no {program}");
            continue;
        }
        let context = with_dockerfile(
            "FROM scratch\nADD files.bin /un/\nADD --unpack=true files.bin /true\n\
             ADD --unpack=false files.bin /no/\nCOPY files.bin /copied\n",
        );
        let mut tar = command("tar");
        tar.current_dir(context.path())
            .args([flag, "-cf", "files.bin", "d"]);
        run(&mut tar);
        assert_eq!(
            paths(&lab.tree(&context)),
            "/copied /no /no/files.bin /true /true/d /true/d/j.md /un /un/d /un/d/j.md",
            "{program}"
        );
    }
}

#[test]
fn a_stage_can_stand_on_a_folder() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = with_dockerfile("FROM folder\nCOPY top.txt /f\nENV A=1\n");
    let folder = Context::new("")
        .with("etc/x", "x")
        .with(".dockerignore", "Dockerfile\n.dock*");
    let named = format!("folder={}", folder.path().display());
    let image = lab.image_of(lab.build(&context).arg("--build-context").arg(named));
    assert_eq!(image.n_layers(), 2);
    assert_eq!(image.layer(0), ["etc/", "etc/x"]);
    assert_eq!(
        image.history(),
        [
            "COPY top.txt /f # buildkit",
            "ENV A=1",
            "[1/2] COPY top.txt /f"
        ]
    );
}

#[test]
fn a_missing_source_says_what_may_have_been_meant() {
    let Some(lab) = Lab::require() else {
        return;
    };
    for (source, hint) in [
        ("topp.txt", "did you mean `top.txt`?"),
        ("f.txt", "did you mean `a/b/c/f.txt`?"),
        ("d/other", "`d` holds only `j.md`"),
        ("../elsewhere", "climbs out of the build context"),
        (
            "nothing-like-it",
            "the build context holds `a/`, `d/` and `top.txt`",
        ),
    ] {
        let context = with_dockerfile(&format!("FROM scratch\nCOPY {source} /\n"));
        let outcome = lab.build(&context).fails(USER);
        outcome.says(&["Dockerfile:2", "not found", hint]);
    }
    let context = with_dockerfile("FROM scratch\nCOPY a/h.txt /\n");
    context.write(".dockerignore", "# kept small\n*\n!d\n");
    let outcome = lab.build(&context).fails(USER);
    outcome.says(&[
        "not found",
        "line 2 of `",
        ".dockerignore` excludes it: `*`",
    ]);
    let context = with_dockerfile(
        "FROM scratch AS s\nCOPY a /opt/a\nFROM scratch\nCOPY --from=s /opt/b/h.txt /\n",
    );
    let outcome = lab.build(&context).fails(USER);
    outcome.says(&["Dockerfile:4", "did you mean `opt/a/h.txt`?"]);
}

#[test]
fn squashing_leaves_one_layer_and_no_bytes_of_what_is_gone() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = with_dockerfile(
        "ARG BASE\nFROM $BASE\nCOPY top.txt /secret\nRUN rm /secret /etc/group && echo 1 > /x && ln /x /y\n\
         LABEL l=1\nRUN rm -rf /home && mkdir -m 750 /home\nCOPY a /home/\n",
    );
    let plain = lab.tree(&context);
    let squashed = lab.image_of(lab.build(&context).arg("--squash"));
    assert_eq!(squashed.n_layers(), 2);
    let layer = squashed.layer(1);
    assert!(
        layer.iter().any(|path| path == "etc/.wh.group"),
        "{layer:?}"
    );
    assert!(
        !layer.iter().any(|path| path.contains("secret")),
        "{layer:?}"
    );
    let history = squashed.history();
    assert_eq!(history.last().map(String::as_str), Some("squash"));
    let dest = lab.kiln.out("squashed");
    lab.build(&context)
        .arg("--squash")
        .arg("-o")
        .arg(&dest)
        .ok();
    assert_eq!(Tree::read(&dest).difference(&plain), "");
}
