//! Contexts besides folders.

use std::fs;
use std::path::PathBuf;

use crate::remote::{build, fresh, names, read};
use crate::support::{
    Context, Kiln, Outcome, Web, assert_store_is_clean, command, require_tools, run, text,
};

/// Builds a context of another kind into a folder.
fn build_from(kiln: &Kiln, args: &[&str]) -> (PathBuf, Outcome) {
    let dest = fresh(kiln);
    let output = format!("type=local,dest={}", dest.display());
    let fixed = ["build", "--progress=plain", "-o", &output];
    let outcome = kiln.run(fixed.iter().chain(args));
    (dest, outcome)
}

/// Returns a tar archive of a small context whose ignore file and owners would matter.
fn archive(kiln: &Kiln, option: &str) -> PathBuf {
    let dir = kiln.out("archived");
    fs::create_dir_all(dir.join("sub")).unwrap();
    fs::write(dir.join("Dockerfile"), "FROM scratch\nCOPY . /\n").unwrap();
    fs::write(dir.join("sub/Dockerfile"), "FROM scratch\nCOPY sub /\n").unwrap();
    fs::write(dir.join(".dockerignore"), "f\n").unwrap();
    fs::write(dir.join("f"), "file\n").unwrap();
    let path = kiln.out("context.tar");
    let mut tar = command("tar");
    tar.arg("-C").arg(&dir).args([option, "-cf"]).arg(&path);
    run(tar.args(["--owner=5", "--group=6", "."]));
    path
}

#[test]
fn archives_are_contexts() {
    let (web, kiln) = (Web::start(), Kiln::new());
    for option in ["--format=gnu", "--gzip", "--zstd"] {
        let archive = archive(&kiln, option);
        web.write("context", fs::read(&archive).unwrap());
        let (dest, outcome) = build_from(&kiln, &[&web.url("context")]);
        outcome.succeeded();
        // What is fetched is not filtered.
        assert_eq!(
            names(&dest),
            [".dockerignore", "Dockerfile", "f", "sub"],
            "{option}"
        );
        let (dest, outcome) = build_from(&kiln, &["-f", "sub/Dockerfile", &web.url("context")]);
        outcome.succeeded();
        assert_eq!(names(&dest), ["Dockerfile"]);
        let output = format!("type=tar,dest={}", kiln.out("out.tar").display());
        let mut from_input = kiln.command();
        from_input.args(["build", "-o", &output, "-"]);
        run(from_input.stdin(fs::File::open(&archive).unwrap()));
        let listed = run(command("tar")
            .args(["--numeric-owner", "-tvf"])
            .arg(kiln.out("out.tar")));
        let listed = text(&listed.stdout);
        assert!(
            listed
                .lines()
                .any(|line| line.contains(" 5/6 ") && line.ends_with(" f")),
            "{listed}"
        );
    }
    assert_store_is_clean(&kiln.root(), web.host());
}

#[test]
fn a_dockerfile_may_be_all_there_is() {
    let (web, kiln) = (Web::start(), Kiln::new());
    let with_input = |args: &[&str], input: &str| {
        let path = kiln.out("input");
        fs::write(&path, input).unwrap();
        let mut command = kiln.command();
        command
            .args(["build", "-o"])
            .arg(format!("type=local,dest={}", fresh(&kiln).display()));
        command.args(args).stdin(fs::File::open(&path).unwrap());
        command.output().unwrap()
    };
    let output = with_input(&["-"], "FROM scratch\nCOPY <<E /f\nx\nE\nCOPY . /c/\n");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(names(&kiln.out("result")), ["c", "f"]);
    web.write("df", "FROM scratch\nCOPY context /copied\n");
    let (dest, outcome) = build_from(&kiln, &[&web.url("df")]);
    outcome.succeeded();
    assert_eq!(names(&dest), ["copied"]);
    for (args, input, told) in [
        (&["-"][..], "", "empty"),
        (&["-f", "x", "-"], "FROM scratch\n", "--file names another"),
        (
            &["-f", "-", "-"],
            "FROM scratch\n",
            "both the build context and the Dockerfile",
        ),
        (&["-"], "\u{1f}\u{8b}\u{8}", "cannot be built"),
    ] {
        let output = with_input(args, input);
        assert!(!output.status.success());
        assert!(
            text(&output.stderr).contains(told),
            "{}",
            text(&output.stderr)
        );
    }
}

#[test]
fn repositories_are_contexts() {
    if !require_tools(&["git"]) {
        return;
    }
    let (web, kiln) = (Web::start(), Kiln::new());
    web.repository(
        "r.git",
        "mkdir app; echo i > app/inner; echo app > .dockerignore; echo x > f
         printf 'FROM scratch\\nCOPY . /\\n' > dockerfile; cp dockerfile app/Containerfile
         git add -A; git commit -qm x",
    );
    let url = web.url("smart/r.git");
    let (dest, outcome) = build_from(&kiln, &[&url]);
    outcome.succeeded();
    assert_eq!(names(&dest), [".dockerignore", "app", "dockerfile", "f"]);
    let (dest, outcome) = build_from(&kiln, &[&format!("{url}#main:app")]);
    outcome.succeeded();
    assert_eq!(names(&dest), ["Containerfile", "inner"]);
    let local = kiln.out("Local");
    fs::write(&local, "FROM scratch\nCOPY .git/HEAD f /\n").unwrap();
    let keep = "--build-arg=BUILDKIT_CONTEXT_KEEP_GIT_DIR=1";
    let (dest, outcome) = build_from(&kiln, &[keep, "-f", local.to_str().unwrap(), &url]);
    outcome.succeeded();
    assert_eq!(read(&dest, "HEAD").trim(), web.commit("r.git", "main"));
    let context = Context::new("FROM scratch\nCOPY --from=n inner /\nCOPY --from=w context /\n");
    let named = format!("--build-context=n={url}?subdir=app");
    let file = format!("--build-context=w={}", web.url("git/r.git/HEAD"));
    let dest = build(
        &kiln,
        &context,
        &[&named, &file, "--build-context=unused=git@h:never"],
    );
    assert_eq!(names(&dest), ["context", "inner"]);
}

#[test]
fn layouts_are_images_and_are_verified() {
    let kiln = Kiln::new();
    let layout = kiln.out("layout");
    let base = Context::new("FROM scratch\nENV A=1\nCOPY f /base\n").with("f", "base");
    let output = format!("type=oci,tar=false,dest={}", layout.display());
    kiln.build(&base).args(["-t", "x:v7", "-o", &output]).ok();
    let context = Context::new("FROM b\nCOPY Dockerfile /\n");
    let other = Kiln::new();
    let named = |tag: &str| format!("--build-context=b=oci-layout://{}{tag}", layout.display());
    for tag in ["", ":v7"] {
        let dest = build(&other, &context, &[&named(tag)]);
        assert_eq!(names(&dest), ["Dockerfile", "base"]);
    }
    let digest = format!("@sha256:{}", "0".repeat(64));
    other
        .build(&context)
        .arg(named(&digest))
        .fails(1)
        .says(&["there is no `blobs/"]);
    let blobs = layout.join("blobs/sha256");
    for name in names(&blobs) {
        let path = blobs.join(name);
        let mut bytes = fs::read(&path).unwrap();
        if bytes.starts_with(b"{") {
            continue;
        }
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
    }
    let fresh = Kiln::new();
    fresh
        .build(&context)
        .args([&named("")])
        .args(["-o", "type=tar,dest=/dev/null"])
        .fails(1)
        .says(&["damaged"]);
}
