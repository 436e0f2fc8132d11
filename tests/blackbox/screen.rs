//! What kiln writes while it builds: to people and to programs.

use serde_json::Value;

use crate::support::{Build, Context, Lab, Outcome, text};

const DOCKERFILE: &str = "ARG BASE
FROM $BASE
RUN echo to stdout; echo to stderr >&2; printf 'no end'
RUN for n in $(seq 20000); do echo \"line $n of a step that writes much\"; done
";

fn with_progress(lab: &Lab, context: &Context, kind: &str) -> Outcome {
    let mut command = lab.build(context).into_command();
    let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let args = args.iter().map(|arg| match arg.to_str() {
        Some("--progress=plain") => format!("--progress={kind}").into(),
        _ => arg.clone(),
    });
    let mut again = lab.kiln.command();
    // What comes before `build` belongs to how kiln is started.
    again.args(args.skip_while(|arg| arg != "build"));
    std::mem::swap(&mut command, &mut again);
    let output = command.output().unwrap();
    Outcome {
        status: output.status,
        stdout: output.stdout,
        stderr: text(&output.stderr),
    }
}

#[test]
fn plain_shows_every_line_of_a_step() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let outcome = lab.build(&Context::new(DOCKERFILE)).ok();
    outcome.says(&[
        "to stdout\n",
        "to stderr\n",
        "no end\n",
        "[2/3] RUN echo to stdout",
        "DONE ",
    ]);
    let n_lines = outcome
        .stderr
        .matches("of a step that writes much\n")
        .count();
    assert_eq!(n_lines, 20000);
    assert!(outcome.stdout.is_empty(), "{}", text(&outcome.stdout));
}

#[test]
fn rawjson_is_one_object_a_line() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new(DOCKERFILE);
    let outcome = with_progress(&lab, &context, "rawjson").succeeded();
    let objects: Vec<Value> = outcome
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let vertices = objects
        .iter()
        .filter_map(|o| o["vertexes"].as_array())
        .flatten();
    let ended: Vec<_> = vertices
        .filter(|vertex| vertex["completed"].is_string())
        .collect();
    let names: Vec<_> = ended
        .iter()
        .filter_map(|vertex| vertex["name"].as_str())
        .collect();
    assert!(
        names.iter().any(|name| name.starts_with("[2/3] RUN echo")),
        "{names:?}"
    );
    assert!(objects.iter().any(|object| object["logs"].is_array()));
    let again = with_progress(&lab, &context, "rawjson").succeeded();
    assert!(
        again.stderr.contains(r#""cached":true"#),
        "{}",
        again.stderr
    );
}

#[test]
fn without_a_terminal_auto_is_plain() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let outcome = with_progress(&lab, &Context::new(DOCKERFILE), "auto").succeeded();
    outcome.says(&["[2/3] RUN echo to stdout"]);
    assert!(!outcome.stderr.contains('\u{1b}'), "{}", outcome.stderr);
}

#[test]
fn quiet_prints_the_id_and_nothing_else() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new("ARG BASE\nFROM $BASE\nRUN echo a > /a\n");
    let build: Build = lab.build(&context).args(["-q", "-t", "quiet:1"]);
    let outcome = build.ok();
    assert_eq!(outcome.stderr, "");
    let id = text(&outcome.stdout);
    assert!(
        id.starts_with("sha256:") && id.ends_with('\n') && id.len() == 72,
        "{id:?}"
    );
    assert_eq!(lab.kiln.inspect("quiet:1")["id"], id.trim());
}

#[test]
fn quiet_still_tells_of_failures() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new("ARG BASE\nFROM $BASE\nRUN echo why; exit 9\n");
    lab.build(&context)
        .arg("-q")
        .fails(3)
        .says(&["Dockerfile:3", "why", "exit code: 9"]);
}

#[test]
fn help_and_version_are_there() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let help = text(&lab.kiln.run(["build", "--help"]).succeeded().stdout);
    for flag in [
        "--tag",
        "--file",
        "--build-arg",
        "--target",
        "--output",
        "--push",
        "--no-cache",
    ] {
        assert!(help.contains(flag), "no {flag} in {help}");
    }
    let version = text(&lab.kiln.run(["--version"]).succeeded().stdout);
    assert!(version.starts_with("kiln "), "{version}");
}

/// The whole output of a step is kept in the store, whatever was shown.
#[test]
fn output_of_steps_is_kept_whole() {
    let Some(lab) = Lab::require() else {
        return;
    };
    lab.build(&Context::new(DOCKERFILE)).ok();
    let logs = std::fs::read_dir(lab.kiln.root().join("logs")).unwrap();
    let logs: Vec<_> = logs
        .map(|log| std::fs::read_to_string(log.unwrap().path()).unwrap())
        .collect();
    assert!(
        logs.iter()
            .any(|log| log.contains("to stdout\n") && log.contains("to stderr\n"))
    );
    assert!(logs.iter().any(|log| log.lines().count() == 20000));
}
