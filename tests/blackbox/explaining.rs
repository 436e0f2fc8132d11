//! Why a step ran: what `build --explain` and `kiln why` name is what changed, all of it, and
//! nothing else.

use serde_json::Value;

use crate::support::{Build, Context, Kiln, Lab, Outcome, text};

const DOCKERFILE: &str = "ARG BASE
FROM $BASE
ENV MODE=one
ARG VERSION=1
ARG TOKEN=hush1
COPY --chmod=640 conf /conf
COPY data /data
RUN echo made $VERSION > /made
";

const CONF: &str = "COPY --chmod=640 conf /conf";
const DATA: &str = "COPY data /data";
const RUN: &str = "RUN echo made";

fn context() -> Context {
    Context::new(DOCKERFILE)
        .with("conf", "c\n")
        .with("data/a", "a\n")
        .with("data/b", "b\n")
        .with("data/c", "c\n")
}

/// Builds, and returns what is told of all steps.
fn explain(build: Build<'_>) -> Value {
    let outcome = build.arg("--explain=json").ok();
    serde_json::from_slice(&outcome.stdout).unwrap()
}

/// Returns what is told of the step whose name contains this.
fn step<'a>(report: &'a Value, name: &str) -> &'a Value {
    let steps = report["steps"].as_array().unwrap();
    let found = steps.iter().find(|step| name_of(step).contains(name));
    found.unwrap_or_else(|| panic!("no {name} in {report:#}"))
}

fn name_of(step: &Value) -> &str {
    step["name"].as_str().unwrap()
}

/// Returns the differences that are told of a step, in words.
fn changes(report: &Value, name: &str) -> Vec<String> {
    let step = step(report, name);
    assert_eq!(step["reason"], "changed", "{step:#}");
    let told = step["differences"].as_array().unwrap();
    assert_eq!(step["n_differences"], told.len(), "{step:#}");
    let in_words = |one: &Value| {
        let fields = ["kind", "name", "change", "field"];
        let words = fields.map(|field| one[field].as_str().unwrap_or_default());
        words.join(" ").trim_end().to_owned()
    };
    let mut changes: Vec<_> = told.iter().map(in_words).collect();
    changes.sort_unstable();
    changes
}

fn assert_reasons(report: &Value, reason: &str, names: &[&str]) {
    for name in names {
        assert_eq!(step(report, name)["reason"], reason, "{report:#}");
    }
}

fn why(kiln: &Kiln, args: &[&str]) -> String {
    let args = [&["why"], args].concat();
    text(&kiln.run(args).succeeded().stdout)
}

/// A lab in which the context was built, and what was told of that.
fn built() -> Option<(Lab, Context, Value)> {
    let (lab, context) = (Lab::require()?, context());
    let report = explain(lab.build(&context));
    Some((lab, context, report))
}

#[test]
fn new_and_cached_steps() {
    let Some((lab, context, first)) = built() else {
        return;
    };
    assert_reasons(&first, "new", &[CONF, DATA, RUN]);
    let again = explain(lab.build(&context));
    assert_reasons(&again, "cached", &[CONF, DATA, RUN]);
    for name in [CONF, DATA, RUN] {
        let told = step(&again, name);
        assert_eq!(told["key"], step(&first, name)["key"]);
        let from = told["from"].as_str().unwrap();
        assert!(from.contains(context.path().to_str().unwrap()), "{told}");
        assert!(told["since"].as_i64().unwrap() > 1_700_000_000, "{told}");
    }
}

#[test]
fn changed_files_are_named() {
    let Some((lab, context, _)) = built() else {
        return;
    };
    context.write("data/a", "A\n");
    context.chmod("data/b", 0o755);
    context.write("data/new", "");
    std::fs::remove_file(context.join("data/c")).unwrap();
    let report = explain(lab.build(&context));
    let expected = [
        "file data/a changed content",
        "file data/b changed mode",
        "file data/c removed",
        "file data/new added",
    ];
    assert_eq!(changes(&report, DATA), expected);
    assert_reasons(&report, "cached", &[CONF]);
    let below = changes(&report, RUN);
    assert!(below.len() == 1 && below[0].contains(DATA), "{below:?}");
}

#[test]
fn changed_variables_are_named_and_secret_ones_not_shown() {
    let Some((lab, context, _)) = built() else {
        return;
    };
    context.edit("MODE=one", "MODE=two");
    let report = explain(lab.build(&context));
    assert_eq!(changes(&report, RUN), ["variable MODE changed value"]);
    assert_reasons(&report, "cached", &[CONF, DATA]);
    let build = lab.build(&context);
    let report = explain(build.args(["--build-arg=VERSION=2", "--build-arg=TOKEN=hush2"]));
    let expected = [
        "variable TOKEN changed value",
        "variable VERSION changed value",
    ];
    let told = changes(&report, RUN);
    let told: Vec<_> = told
        .iter()
        .filter(|one| !one.starts_with("instruction"))
        .collect();
    assert_eq!(told, expected);
    let shown = why(&lab.kiln, &[]) + &report.to_string() + &why(&lab.kiln, &["--format=json"]);
    assert!(shown.contains("VERSION"), "{shown}");
    for secret in ["hush1", "hush2"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn changed_instructions_are_named() {
    let Some((lab, context, _)) = built() else {
        return;
    };
    context.edit("--chmod=640", "--chmod=600");
    let report = explain(lab.build(&context));
    let told = changes(&report, "COPY --chmod=600 conf /conf");
    // Not the mode of the file, which is as before.
    assert_eq!(told, ["flag chmod changed"]);
    context.edit("echo made $VERSION", "echo done $VERSION");
    let report = explain(lab.build(&context));
    assert_eq!(changes(&report, "RUN echo done"), ["instruction  changed"]);
    assert_reasons(&report, "cached", &["COPY --chmod=600 conf /conf", DATA]);
}

#[test]
fn another_base_image_is_named() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let name = lab.registry.name("moving:1");
    let base = Context::new("ARG BASE\nFROM $BASE\nARG MARK\nRUN echo $MARK > /mark\n");
    let push = |mark: &str| {
        let build = lab.build(&base).arg(format!("--build-arg=MARK={mark}"));
        build.args(["-t", &name, "--push"]).ok();
    };
    let context = Context::new("ARG BASE\nFROM $BASE\nRUN cp /mark /copy\n");
    push("old");
    lab.kiln.build(&context).base(&name).ok();
    push("new");
    let report = explain(lab.kiln.build(&context).base(&name).arg("--pull"));
    let told = changes(&report, "RUN cp /mark");
    assert!(told.iter().all(|one| one.starts_with("base ")), "{told:?}");
    assert!(told.iter().any(|one| one.contains(&name)), "{told:?}");
}

#[test]
fn what_was_asked_for_or_is_gone_or_old() {
    let Some((lab, context, _)) = built() else {
        return;
    };
    let all = [CONF, DATA, RUN];
    let report = explain(lab.build(&context).arg("--no-cache"));
    assert_reasons(&report, "asked", &all);
    lab.kiln.run(["prune", "-f"]).succeeded();
    assert_reasons(&explain(lab.build(&context)), "gone", &all);
    let since = step(&explain(lab.build(&context)), RUN)["since"]
        .as_i64()
        .unwrap();
    // The unit of the times that are recorded is a second.
    crate::support::wait_until("two seconds later", || {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        i64::try_from(now.as_secs()).unwrap() >= since + 2
    });
    let report = explain(lab.build(&context).arg("--cache-ttl=1s"));
    assert_reasons(&report, "expired", &all);
    let report = explain(lab.build(&context).arg("--cache-ttl=1h"));
    assert_reasons(&report, "cached", &all);
}

#[test]
fn past_builds_are_remembered() {
    let Some((lab, context, first)) = built() else {
        return;
    };
    context.write("data/a", "A\n");
    let second: Outcome = lab.build(&context).arg("--explain").ok();
    let line = "file `data/a`: content changed";
    second.says(&[line]);
    let (latest, numbered) = (why(&lab.kiln, &[]), why(&lab.kiln, &["--build=2"]));
    for told in [&latest, &numbered] {
        assert!(told.contains("build 2 of "), "{told}");
        assert!(told.contains(line), "{told}");
        assert!(told.contains("cached: made "), "{told}");
    }
    let one = why(&lab.kiln, &[DATA, "--build=1"]);
    assert!(one.contains("nothing recorded is like it"), "{one}");
    assert!(one.contains(DATA) && !one.contains(CONF), "{one}");
    let json = why(&lab.kiln, &["--build=1", "--format=json"]);
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), first);
    // A quiet build is a build, too.
    lab.build(&context)
        .args(["-q", "--explain"])
        .ok()
        .says(&["cached: made "]);
    assert!(why(&lab.kiln, &[]).contains("build 3 of "));
}

#[test]
fn unknown_steps_and_builds_are_errors() {
    let Some((lab, ..)) = built() else {
        return;
    };
    for (args, told) in [
        (["why", "no-such-step"], "has no step `no-such-step`"),
        (["why", "--build=9"], "build 9 is not remembered"),
    ] {
        let outcome = lab.kiln.run(args);
        assert_eq!(outcome.status.code(), Some(2), "{}", outcome.stderr);
        outcome.says(&[told, "hint: "]);
    }
}
