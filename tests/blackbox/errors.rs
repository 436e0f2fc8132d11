//! What goes wrong is told with the place, the reason, and an exit code that says whose fault.

use std::fs;

use crate::support::{
    Context, Image, Lab, command, free_port, long_sleep, make_base, noise, processes_with, run,
};

/// Exit code of a mistake in what was given.
const USER: i32 = 1;
/// Exit code of a mistake in how kiln was called.
const USAGE: i32 = 2;
/// Exit code of a step that failed.
const STEP: i32 = 3;
/// Exit code of a push that failed.
const PUSH: i32 = 4;

#[test]
fn unknown_instruction_names_its_line() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new("ARG BASE\nFROM $BASE\n\nRUM echo hello\n");
    let outcome = lab.build(&context).fails(USER);
    outcome.says(&["Dockerfile:4", "RUM", "RUN", "error"]);
}

#[test]
fn missing_source_names_its_line() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new("ARG BASE\nFROM $BASE\nCOPY here.txt missing.txt /dir/\n");
    context.write("here.txt", "");
    lab.build(&context)
        .fails(USER)
        .says(&["Dockerfile:3", "missing.txt", "not found"]);
}

#[test]
fn missing_source_in_a_stage_names_its_line() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new(
        "ARG BASE\nFROM $BASE AS a\nRUN true\nFROM scratch\nCOPY --from=a /no/file /\n",
    );
    lab.build(&context)
        .fails(USER)
        .says(&["Dockerfile:5", "/no/file", "not found"]);
}

#[test]
fn ignored_source_says_that_it_is_ignored() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new("ARG BASE\nFROM $BASE\nCOPY secret.txt /\n");
    context.write("secret.txt", "");
    context.write(".dockerignore", "secret*\n");
    lab.build(&context).fails(USER).says(&[
        "secret.txt",
        "not found",
        "excludes it",
        ".dockerignore",
    ]);
}

#[test]
fn missing_base_names_its_line() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new("ARG BASE\nFROM $BASE\nRUN true\n");
    let name = lab.registry.name("no-such-image:7");
    let outcome = lab.kiln.build(&context).base(&name).fails(USER);
    outcome.says(&["Dockerfile:2", &name, "error"]);
}

#[test]
fn registry_that_is_down_is_named() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new("ARG BASE\nFROM $BASE\nRUN true\n");
    let host = format!("127.0.0.1:{}", free_port());
    let outcome = lab
        .kiln
        .build(&context)
        .base(&format!("{host}/busybox"))
        .fails(USER);
    outcome.says(&["Dockerfile:2", &host]);
}

#[test]
fn known_base_is_used_when_its_registry_is_down() {
    let Some(mut lab) = Lab::require() else {
        return;
    };
    let context = Context::new("ARG BASE\nFROM $BASE\nRUN echo one > /one\n");
    lab.build(&context).ok();
    lab.registry.stop();
    context.edit("one > /one", "two > /two");
    lab.build(&context).ok().ran(&["RUN echo two > /two"]);
}

#[test]
fn push_to_a_registry_that_is_down_is_an_error() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new("ARG BASE\nFROM $BASE\nRUN touch /x\n");
    let host = format!("127.0.0.1:{}", free_port());
    let build = lab
        .build(&context)
        .args(["--push", "-t", &format!("{host}/a:1")]);
    let outcome = build.fails(PUSH);
    outcome.says(&[&host, &format!("`kiln push {host}/a:1`")]);
    assert_eq!(outcome.stderr.matches("is tried again").count(), 1);
}

/// Changes a byte of the base's layer in the registry.
fn damage_base(lab: &Lab, change: impl Fn(&mut Vec<u8>)) {
    let base = Image::open(&make_base("busybox"));
    let file = lab.registry.blob_file(&base.layer_digest(0));
    let mut bytes = fs::read(&file).unwrap();
    change(&mut bytes);
    fs::write(file, bytes).unwrap();
}

#[test]
fn wrong_bytes_from_a_registry_are_never_used() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let middle = |bytes: &mut Vec<u8>| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    };
    damage_base(&lab, middle);
    let context = Context::new("ARG BASE\nFROM $BASE\nRUN echo ran > /ran\n");
    let outcome = lab.build(&context).fails(USER);
    outcome.says(&["sha256:"]).ran(&[]);
    // Nothing of it was kept: when the registry is well again, so is the build.
    damage_base(&lab, middle);
    lab.build(&context).ok().ran(&["RUN echo ran > /ran"]);
}

#[test]
fn truncated_blob_is_never_used() {
    let Some(lab) = Lab::require() else {
        return;
    };
    damage_base(&lab, |bytes| bytes.truncate(bytes.len() - 100));
    let context = Context::new("ARG BASE\nFROM $BASE\nRUN true\n");
    lab.build(&context).fails(USER).says(&["sha256:"]).ran(&[]);
}

#[test]
fn failing_step_shows_where_why_and_what_it_wrote() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new(
        "ARG BASE\nFROM $BASE\nRUN true\nRUN for n in 1 2 3; do echo out $n; done; \\\n    echo problem >&2; exit 42\nRUN touch /x\n",
    );
    let outcome = lab.build(&context).fails(STEP);
    outcome.says(&[
        "Dockerfile:4",
        "   4 | >>> RUN for",
        "   5 | >>> ",
        "   3 |     RUN true",
    ]);
    outcome.says(&["exit code: 42", " > [", "out 3\n", "problem\n"]);
    assert!(
        !outcome.stderr.contains("RUN touch /x\n#"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn failing_step_keeps_what_was_done_before_it() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new("ARG BASE\nFROM $BASE\nRUN echo first > /first\nRUN false\n");
    lab.build(&context).fails(STEP);
    context.edit("RUN false", "RUN true");
    lab.build(&context)
        .ok()
        .ran(&["RUN true"])
        .cached(&["RUN echo first > /first"]);
}

#[test]
fn killed_and_missing_programs_fail_their_step() {
    let Some(lab) = Lab::require() else {
        return;
    };
    for (command, reason) in [
        ("sh -c 'kill -9 $$'; exit $?", "137"),
        ("no-such-program", "127"),
        ("/etc/passwd", "126"),
    ] {
        let context = Context::new(&format!("ARG BASE\nFROM $BASE\nRUN {command}\n"));
        lab.build(&context)
            .fails(STEP)
            .says(&["Dockerfile:3", reason]);
    }
    let context = Context::new("ARG BASE\nFROM $BASE\nRUN [\"no-such-program\"]\n");
    lab.build(&context)
        .fails(STEP)
        .says(&["Dockerfile:3", "no-such-program", "127"]);
}

#[test]
fn unknown_user_is_an_error_of_the_step() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new("ARG BASE\nFROM $BASE\nUSER nobody-knows\nRUN true\n");
    lab.build(&context)
        .fails(STEP)
        .says(&["Dockerfile:4", "nobody-knows"]);
}

#[test]
fn one_failure_stops_the_others() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let sleep = long_sleep();
    let context = Context::new(&format!(
        "ARG BASE\nFROM $BASE AS slow\nRUN {sleep}\nFROM $BASE AS bad\nRUN exit 5\n\
         FROM scratch\nCOPY --from=slow /bin /a\nCOPY --from=bad /bin /b\n",
    ));
    lab.build(&context).fails(STEP).says(&["exit code: 5"]);
    assert!(processes_with(&sleep).is_empty());
}

#[test]
fn missing_context_and_dockerfile_are_told() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let outcome = lab.kiln.run(["build", "/no/such/folder"]);
    assert_eq!(outcome.status.code(), Some(USER), "{}", outcome.stderr);
    outcome.says(&["/no/such/folder"]);
    let context = Context::new("");
    fs::remove_file(context.join("Dockerfile")).unwrap();
    lab.build(&context).fails(USER).says(&["Dockerfile"]);
}

#[test]
fn empty_dockerfile_is_an_error() {
    let Some(lab) = Lab::require() else {
        return;
    };
    for text in ["", "# nothing\n", "ARG A=1\n"] {
        let context = Context::new(text);
        lab.kiln.build(&context).fails(USER).says(&["Dockerfile"]);
    }
}

#[test]
fn wrong_calls_have_their_own_exit_code() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new("FROM scratch\nCOPY Dockerfile /\n");
    for args in [
        &["--no-such-flag"][..],
        &["-t", "Upper:1"],
        &["--network=moon"],
        &["-o", "type=nothing"],
        &["--jobs=0"],
        &["--platform=linux/a/b/c/d"],
    ] {
        let outcome = lab.kiln.build(&context).args(args).fails(USAGE);
        outcome.says(&["error"]);
    }
}

#[test]
fn unknown_target_names_the_stages_there_are() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new("FROM scratch AS release\nCOPY Dockerfile /\n");
    let outcome = lab.kiln.build(&context).arg("--target=releese").fails(USER);
    outcome.says(&["releese"]);
}

#[test]
fn truncated_archive_is_an_error() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new("FROM scratch\nADD broken.tar.gz /\n");
    context.write("noise", noise(100_000));
    let mut tar = command("tar");
    run(tar
        .current_dir(context.path())
        .args(["-czf", "broken.tar.gz", "noise"]));
    let whole = fs::read(context.join("broken.tar.gz")).unwrap();
    context.write("broken.tar.gz", &whole[..50_000]);
    let outcome = lab.kiln.build(&context).fails(USER);
    outcome.says(&["Dockerfile:2", "broken.tar.gz"]);
}
