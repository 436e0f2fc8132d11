//! `--check` and `--call`: texts, JSON, exit status; and findings of builds.

use serde_json::Value;

use crate::support::{Context, Kiln, Outcome};

fn stdout(outcome: &Outcome) -> String {
    String::from_utf8(outcome.stdout.clone()).unwrap()
}

#[test]
fn a_check_shows_what_it_finds_as_docker_does() {
    let (kiln, context) = (Kiln::new(), Context::new(""));
    context.write("Dockerfile", "FROM scratch as a\nENV b c\nCOPY $NOPE/x /\n");
    let outcome = kiln.build(&context).arg("--check").fails(1);
    let path = context.path().join("Dockerfile");
    let path = path.display();
    let rule = "-".repeat(20);
    let expected = format!(
        "Check complete, 3 warnings have been found!\n\
         \nWARNING: FromAsCasing - https://docs.docker.com/go/dockerfile/rule/from-as-casing/\n\
         'as' and 'FROM' keywords' casing do not match\n{path}:1\n{rule}\n   1 | >>> FROM scratch as a\n   \
         2 |     ENV b c\n   3 |     COPY $NOPE/x /\n{rule}\n\
         \nWARNING: LegacyKeyValueFormat - https://docs.docker.com/go/dockerfile/rule/legacy-key-value-format/\n\
         \"ENV key=value\" should be used instead of legacy \"ENV key value\" format\n{path}:2\n{rule}\n   \
         1 |     FROM scratch as a\n   2 | >>> ENV b c\n   3 |     COPY $NOPE/x /\n   4 |     \n{rule}\n\
         \nWARNING: UndefinedVar - https://docs.docker.com/go/dockerfile/rule/undefined-var/\n\
         Usage of undefined variable '$NOPE'\n{path}:3\n{rule}\n   1 |     FROM scratch as a\n   \
         2 |     ENV b c\n   3 | >>> COPY $NOPE/x /\n   4 |     \n{rule}\n"
    );
    assert_eq!(stdout(&outcome), expected);
    assert!(!outcome.stderr.contains("error"), "{}", outcome.stderr);
}

#[test]
fn a_check_without_findings_succeeds() {
    let (kiln, context) = (Kiln::new(), Context::new(""));
    context.write("Dockerfile", "FROM scratch\nCOPY missing /\n");
    let outcome = kiln.build(&context).arg("--check").ok();
    assert_eq!(stdout(&outcome), "Check complete, no warnings found.\n");
}

#[test]
fn the_exit_status_can_be_ignored() {
    let (kiln, context) = (Kiln::new(), Context::new(""));
    context.write("Dockerfile", "FROM scratch as a\n");
    kiln.build(&context)
        .arg("--call=check,ignorestatus=true")
        .ok();
    kiln.build(&context).arg("--call=lint").fails(1);
}

#[test]
fn own_rules_do_not_change_the_exit_status() {
    let (kiln, context) = (Kiln::new(), Context::new(""));
    context.write("Dockerfile", "FROM scratch\nCOPY . /\n");
    context.write(".env", "TOKEN=1");
    let outcome = kiln.build(&context).arg("--check").ok();
    let text = stdout(&outcome);
    assert!(
        text.contains("WARNING: SecretFileCopied\n`.env` will be"),
        "{text}"
    );
    context.write(".dockerignore", ".env");
    let outcome = kiln.build(&context).arg("--check").ok();
    assert_eq!(stdout(&outcome), "Check complete, no warnings found.\n");
}

#[test]
fn a_check_looks_at_all_stages_and_a_target_at_its_own() {
    let (kiln, context) = (Kiln::new(), Context::new(""));
    context.write(
        "Dockerfile",
        "FROM scratch AS one\nENV a b\nFROM scratch AS two\nENV c d\n",
    );
    let lines = |args: &[&str]| {
        let outcome = kiln
            .build(&context)
            .arg("--call=check,format=json")
            .args(args)
            .fails(1);
        let report: Value = serde_json::from_slice(&outcome.stdout).unwrap();
        let warnings = report["warnings"].as_array().unwrap().iter();
        let line = |w: &Value| {
            w["location"]["ranges"][0]["start"]["line"]
                .as_u64()
                .unwrap()
        };
        warnings.map(line).collect::<Vec<_>>()
    };
    assert_eq!(lines(&[]), [2, 4]);
    assert_eq!(lines(&["--target=one"]), [2]);
}

#[test]
fn ignored_sources_are_found() {
    let (kiln, context) = (Kiln::new(), Context::new(""));
    context.write("Dockerfile", "FROM scratch\nCOPY ./out/x /\n");
    context.write(".dockerignore", "out");
    let outcome = kiln.build(&context).arg("--check").fails(1);
    let expected = "Attempting to Copy file \"out/x\" that is excluded by .dockerignore\n";
    assert!(stdout(&outcome).contains(expected), "{}", stdout(&outcome));
}

#[test]
fn mistakes_are_told_beside_findings() {
    let (kiln, context) = (Kiln::new(), Context::new(""));
    context.write("Dockerfile", "FROM scratch as a\nSTOPSIGNAL none\n");
    let outcome = kiln.build(&context).arg("--check").fails(1);
    assert!(stdout(&outcome).contains("WARNING: FromAsCasing"));
    outcome.says(&["invalid signal: `none`", "Dockerfile:2:12"]);
    context.write("Dockerfile", "FROM scratch as a\nRUNN x\n");
    let outcome = kiln
        .build(&context)
        .arg("--call=check,format=json")
        .fails(1);
    let report: Value = serde_json::from_slice(&outcome.stdout).unwrap();
    assert_eq!(report["warnings"][0]["ruleName"], "FromAsCasing");
    let error = &report["buildError"];
    assert_eq!(error["location"]["ranges"][0]["start"]["line"], 2);
}

#[test]
fn outlines_list_what_a_build_can_be_given() {
    let (kiln, context) = (Kiln::new(), Context::new(""));
    context.write(
        "Dockerfile",
        "# BASE to build on\nARG BASE=scratch\nARG UNUSED\nFROM $BASE AS lib\nARG L=1\n\
         # app the program\nFROM lib AS app\n# V its version\nARG V=2 W\n\
         RUN --mount=type=secret,id=t,required --mount=type=ssh x\n",
    );
    let outcome = kiln
        .build(&context)
        .args(["--call=outline", "--build-arg=V=3"])
        .ok();
    let expected = "TARGET:      app\nDESCRIPTION: the program\n\n\
        BUILD ARG   VALUE     DESCRIPTION\nBASE        scratch   to build on\n\
        L           1         \nV           3         its version\nW                     \n\n\
        SECRET   REQUIRED\nt        true\n\nSSH       REQUIRED\ndefault   \n\n";
    assert_eq!(stdout(&outcome), expected);
    let outcome = kiln
        .build(&context)
        .args(["--call=outline,format=json", "--target=lib"])
        .ok();
    let outline: Value = serde_json::from_slice(&outcome.stdout).unwrap();
    let names = outline["args"].as_array().unwrap().iter();
    let names: Vec<_> = names.map(|arg| arg["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["BASE", "L"]);
    assert_eq!(outline["secrets"], Value::Null);
}

#[test]
fn targets_are_listed_without_asking_for_images() {
    let (kiln, context) = (Kiln::new(), Context::new(""));
    context.write(
        "Dockerfile",
        "# one the first\nFROM registry.invalid/x AS one\nFROM one\n",
    );
    let outcome = kiln.build(&context).arg("--call=targets").ok();
    let expected = "TARGET    DESCRIPTION\none       the first\n(default) \n";
    assert_eq!(stdout(&outcome), expected);
    let outcome = kiln.build(&context).arg("--call=targets,format=json").ok();
    let list: Value = serde_json::from_slice(&outcome.stdout).unwrap();
    assert_eq!(list["targets"][0]["base"], "registry.invalid/x");
    assert_eq!(list["targets"][1]["default"], true);
}

#[test]
fn calls_are_described_and_unknown_ones_refused() {
    let (kiln, context) = (Kiln::new(), Context::new(""));
    context.write("Dockerfile", "FROM scratch\n");
    let outcome = kiln.build(&context).arg("--call=subrequests.describe").ok();
    assert_eq!(stdout(&outcome).lines().count(), 4);
    kiln.build(&context)
        .arg("--call=chekc")
        .fails(2)
        .says(&["expected build, check, outline, targets"]);
}

#[test]
fn a_build_tells_of_findings_at_its_end() {
    let (kiln, context) = (Kiln::new(), Context::new(""));
    context.write("Dockerfile", "FROM scratch as a\nCOPY f /\nWORKDIR x\n");
    context.write("f", "");
    let outcome = kiln.build(&context).ok();
    outcome.says(&[
        "FromAsCasing: 'as' and 'FROM' keywords' casing do not match",
        "Dockerfile:1:1",
        "WorkdirRelativePath: Relative workdir \"x\"",
        "Dockerfile:3:9",
    ]);
    let step = outcome.stderr.find("COPY f /").unwrap();
    assert!(step < outcome.stderr.find("FromAsCasing").unwrap());
    let outcome = kiln
        .build(&context)
        .arg("--build-arg=BUILDKIT_DOCKERFILE_CHECK=skip=all")
        .ok();
    assert!(
        !outcome.stderr.contains("FromAsCasing"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn checks_that_a_file_skips_are_not_made() {
    let (kiln, context) = (Kiln::new(), Context::new(""));
    context.write(
        "Dockerfile",
        "# check=skip=FromAsCasing;error=true\nFROM scratch as a\nCOPY f /\n",
    );
    context.write("f", "");
    kiln.build(&context).ok();
    context.edit("skip=FromAsCasing", "skip=LegacyKeyValueFormat");
    let expected = "lint violation found for rules: FromAsCasing";
    kiln.build(&context).fails(1).says(&[expected]);
}

#[test]
fn violations_end_a_build_that_asks_for_it() {
    let (kiln, context) = (Kiln::new(), Context::new(""));
    context.write(
        "Dockerfile",
        "# check=error=true\nFROM scratch as a\nENV b c\nCOPY f /\n",
    );
    context.write("f", "");
    let expected = "lint violation found for rules: FromAsCasing, LegacyKeyValueFormat";
    kiln.build(&context).fails(1).says(&[expected]);
    let outcome = kiln.build(&context).arg("--check").fails(1);
    outcome.says(&[expected]);
    assert!(stdout(&outcome).starts_with("Check complete, 2 warnings"));
}
