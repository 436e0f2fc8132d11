//! The Dockerfile language: what is built, and that the rest is refused, never ignored.

use std::fs;

use crate::support::{Context, Lab, Tree};

/// Exit code of a mistake in what was given.
const USER: i32 = 1;

fn build(lab: &Lab, context: &Context) -> Tree {
    lab.tree(context)
}

#[test]
fn copy_takes_files_folders_and_wildcards() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new(
        "FROM scratch\nCOPY a.txt /as-file\nCOPY dir /as-dir\nCOPY *.txt d?r/x /many/\nCOPY . /all\n",
    )
    .with("a.txt", "a")
    .with("b.txt", "b")
    .with("dir/x", "x")
    .with("dir/sub/y", "y")
    .with(".dockerignore", "Dockerfile\n.dockerignore\nb.*\n!b.txt\ndir/sub\n");
    let tree = build(&lab, &context);
    let paths: Vec<_> = tree.paths().collect();
    let expected = [
        "/",
        "/all",
        "/all/a.txt",
        "/all/b.txt",
        "/all/dir",
        "/all/dir/x",
        "/as-dir",
        "/as-dir/x",
        "/as-file",
        "/many",
        "/many/a.txt",
        "/many/b.txt",
        "/many/x",
    ];
    assert_eq!(paths, expected);
}

#[test]
fn copy_sets_owner_and_mode() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new(
        "ARG BASE\nFROM $BASE\nCOPY --chown=www:staff a /named\nCOPY --chown=5:6 --chmod=640 a /numbers\n\
         COPY --chown=7 a /one\nCOPY a /plain\n",
    )
    .with("a", "a");
    context.chmod("a", 0o755);
    let tree = build(&lab, &context);
    for (path, start) in [
        ("/named", "0755 1000:50 file"),
        ("/numbers", "0640 5:6 file"),
        ("/one", "0755 7:7 file"),
        ("/plain", "0755 0:0 file"),
    ] {
        assert!(
            tree.get(path).starts_with(start),
            "{path} {}",
            tree.get(path)
        );
    }
}

#[test]
fn copy_from_a_number_an_image_and_a_named_context() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new(
        "ARG BASE\nFROM $BASE\nRUN echo made > /made\nFROM scratch\nCOPY --from=0 /made /\n\
         COPY --from=tools /bin/busybox /\nCOPY --from=other file /\n",
    );
    let other = Context::new("").with("file", "in the other folder");
    let out = lab.kiln.out("out");
    let build = lab.build(&context).arg("--build-context");
    let build = build.arg(format!("tools=docker-image://{}", lab.busybox()));
    let build = build
        .arg("--build-context")
        .arg(format!("other={}", other.path().display()));
    build.arg("-o").arg(&out).ok();
    let mut names: Vec<_> = fs::read_dir(&out)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["busybox", "file", "made"]);
}

#[test]
fn add_unpacks_local_archives() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new("FROM scratch\nADD files.tar.gz /unpacked/\nADD plain /plain\n")
        .with("src/f", "f")
        .with("plain", "plain");
    let mut tar = crate::support::command("tar");
    tar.current_dir(context.path())
        .args(["-czf", "files.tar.gz", "--owner=3", "--group=4", "src"]);
    crate::support::run(&mut tar);
    let tree = build(&lab, &context);
    assert!(
        tree.get("/unpacked/src/f").contains(" 3:4 file"),
        "{}",
        tree.get("/unpacked/src/f")
    );
    assert!(tree.get("/plain").contains("file 5"));
}

/// Equal layers are one folder, which an overlay takes only once.
#[test]
fn steps_run_on_layers_that_occur_twice() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new(
        "ARG BASE\nFROM $BASE\nCOPY a d/b /dir/\nRUN rm -r /dir && mkdir /dir && touch /dir/new\n\
         COPY a d/b /dir/\nRUN ls /dir > /seen\n",
    );
    let dest = lab.kiln.out("files");
    let context = context.with("a", "a").with("d/b", "b");
    lab.build(&context).arg("-o").arg(&dest).ok();
    assert_eq!(
        fs::read_to_string(dest.join("seen")).unwrap(),
        "a\nb\nnew\n"
    );
}

#[test]
fn add_unpacks_an_archive_that_is_selected_twice() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new("FROM scratch\nADD one.tar two.tar *.tar /out/\n").with("f", "f");
    for (name, owner) in [("one.tar", "--owner=1"), ("two.tar", "--owner=2")] {
        let mut tar = crate::support::command("tar");
        tar.current_dir(context.path())
            .args(["-cf", name, owner, "--group=3", "f"]);
        crate::support::run(&mut tar);
    }
    let tree = build(&lab, &context);
    assert!(
        tree.get("/out/f").contains(" 2:3 file"),
        "{}",
        tree.get("/out/f")
    );
}

#[test]
fn run_takes_shell_words_and_heredocs() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new(
        "ARG BASE\nFROM $BASE\nENV A=one\nRUN echo $A > /shell\nRUN [\"sh\", \"-c\", \"echo $0 > /words\", \"$A\"]\n\
         RUN <<END\necho $A > /here\necho second >> /here\nEND\nSHELL [\"/bin/sh\", \"-ec\"]\n\
         RUN echo a > /shell-e; \\\n  # a comment\n  echo b >> /shell-e\nCOPY <<file /written\ntext $A\nfile\n",
    );
    let dest = lab.kiln.out("files");
    lab.build(&context).arg("-o").arg(&dest).ok();
    for (name, content) in [
        ("shell", "one\n"),
        ("words", "$A\n"),
        ("here", "one\nsecond\n"),
        ("shell-e", "a\nb\n"),
        ("written", "text one\n"),
    ] {
        assert_eq!(
            fs::read_to_string(dest.join(name)).unwrap(),
            content,
            "{name}"
        );
    }
}

#[test]
fn escape_directive_changes_the_continuation() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new("# escape=`\nARG BASE\nFROM $BASE\nRUN echo `\n  'a\\b' > /f\n");
    let dest = lab.kiln.out("files");
    lab.build(&context).arg("-o").arg(&dest).ok();
    assert_eq!(fs::read_to_string(dest.join("f")).unwrap(), "a\\b\n");
}

/// What kiln does not build yet is refused with its line and a sentence. When one of these is
/// built, it moves from here to a test of what it does.
#[test]
fn what_is_not_built_yet_is_refused() {
    let Some(lab) = Lab::require() else {
        return;
    };
    for (instruction, name) in [
        ("RUN --device=vendor.com/class=x true", "--device"),
        ("RUN --security=insecure true", "--security"),
        ("RUN --network=host true", "--network"),
    ] {
        let context = Context::new(&format!("ARG BASE\nFROM $BASE\nRUN true\n{instruction}\n"));
        context.write("x", "x");
        let outcome = lab.build(&context).run();
        assert_eq!(
            outcome.status.code(),
            Some(USER),
            "{instruction}: {}",
            outcome.stderr
        );
        outcome.says(&["Dockerfile:4", name, "error"]).ran(&[]);
    }
}

/// Trap 21: triggers run right after `FROM`, also for a stage on an earlier stage, and only once.
#[test]
fn triggers_run_right_after_from_and_are_not_inherited_further() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new(
        "ARG BASE\nFROM $BASE AS tools\nRUN echo tool > /tool\n\
         FROM $BASE AS parent\nRUN echo parent >> /order\nONBUILD RUN echo trigger >> /order\n\
         ONBUILD COPY --from=tools /tool /tool\n\
         FROM parent AS child\nRUN echo child >> /order\n\
         FROM child AS grandchild\nRUN echo grandchild >> /order && \
         test \"$(cat /order | tr '\\n' ' ')\" = 'parent trigger child grandchild '\n\
         FROM scratch\nCOPY --from=grandchild /order /tool /\n",
    );
    let tree = build(&lab, &context);
    let paths: Vec<_> = tree.paths().collect();
    assert_eq!(paths, ["/", "/order", "/tool"]);
}

#[test]
fn mistakes_are_lines_of_json_on_request() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new("FROM scratch\nRUUN x\nCOPY x\n");
    let outcome = lab.build(&context).args(["--diagnostics=json"]).run();
    assert_eq!(outcome.status.code(), Some(USER), "{}", outcome.stderr);
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{}", outcome.stderr);
    assert!(
        lines[0].contains(r#""start":{"line":2,"column":1}"#),
        "{}",
        lines[0]
    );
    assert!(lines[1].contains(r#""severity":"error""#), "{}", lines[1]);
}

#[test]
fn unknown_flags_and_words_are_refused() {
    let Some(lab) = Lab::require() else {
        return;
    };
    for instruction in [
        "COPY --chwon=1 x /x",
        "RUN --netwrk=none true",
        "EXPOSE 99999",
        "STOPSIGNAL SIGNOTHING",
        "ENV",
        "COPY x",
        "WORKDIR",
        "USER",
        "FROM $BASE AS",
        "HEALTHCHECK SOMETIMES true",
    ] {
        let context = Context::new(&format!("ARG BASE\nFROM $BASE\n{instruction}\n"));
        context.write("x", "x");
        let outcome = lab.build(&context).run();
        assert_eq!(
            outcome.status.code(),
            Some(USER),
            "{instruction}: {}",
            outcome.stderr
        );
        outcome.says(&["Dockerfile:3"]);
    }
}
