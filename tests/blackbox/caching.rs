//! Which steps run again after a change, and what an unchanged build reads.

use std::fs::{self, File, FileTimes};
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::support::{Context, Lab, command, require_tools, run, text};

const DOCKERFILE: &str = "ARG BASE
FROM $BASE AS tool
COPY tool.txt /tool.txt
RUN grep -c . /tool.txt > /n_lines
FROM $BASE
ENV MODE=one
COPY --from=tool /n_lines /n_lines
RUN env | grep ^MODE > /mode
COPY data /data
RUN ls -l /data > /dev/null; echo listed > /listed
";

const COPY_TOOL: &str = "COPY tool.txt /tool.txt";
const RUN_TOOL: &str = "RUN grep -c . /tool.txt > /n_lines";
const COPY_FROM: &str = "COPY --from=tool /n_lines /n_lines";
const RUN_MODE: &str = "RUN env | grep ^MODE > /mode";
const COPY_DATA: &str = "COPY data /data";
const RUN_LIST: &str = "RUN ls -l /data > /dev/null; echo listed > /listed";
const ALL: &[&str] = &[
    COPY_TOOL, RUN_TOOL, COPY_FROM, RUN_MODE, COPY_DATA, RUN_LIST,
];

fn context() -> Context {
    Context::new(DOCKERFILE)
        .with("tool.txt", "first\nsecond\n")
        .with("data/a.txt", "a\n")
        .with("data/sub/b.txt", "b\n")
        .with("unused.txt", "not copied\n")
}

/// Returns a lab in which the context was built once.
fn built() -> Option<(Lab, Context)> {
    let (lab, context) = (Lab::require()?, context());
    lab.build(&context).ok().ran(ALL).cached(&[]);
    Some((lab, context))
}

#[test]
fn unchanged_build_runs_nothing() {
    let Some((lab, context)) = built() else {
        return;
    };
    lab.build(&context).ok().ran(&[]).cached(ALL);
}

#[test]
fn edited_file_runs_what_can_see_it() {
    let Some((lab, context)) = built() else {
        return;
    };
    context.write("data/sub/b.txt", "B\n");
    lab.build(&context).ok().ran(&[COPY_DATA, RUN_LIST]);
    context.write("unused.txt", "still not copied\n");
    context.write("another.txt", "not copied either\n");
    lab.build(&context).ok().ran(&[]);
}

#[test]
fn file_that_becomes_as_before_is_found_again() {
    let Some((lab, context)) = built() else {
        return;
    };
    context.write("data/a.txt", "changed\n");
    lab.build(&context).ok().ran(&[COPY_DATA, RUN_LIST]);
    context.write("data/a.txt", "a\n");
    lab.build(&context).ok().ran(&[]);
}

#[test]
fn same_size_in_the_same_second_is_a_change() {
    let Some((lab, context)) = built() else {
        return;
    };
    for content in ["1\n", "2\n", "3\n", "4\n"] {
        context.write("data/a.txt", content);
        lab.build(&context).ok().ran(&[COPY_DATA, RUN_LIST]);
    }
}

#[test]
fn new_and_removed_files_are_changes() {
    let Some((lab, context)) = built() else {
        return;
    };
    context.write("data/new.txt", "");
    lab.build(&context).ok().ran(&[COPY_DATA, RUN_LIST]);
    fs::remove_file(context.join("data/sub/b.txt")).unwrap();
    lab.build(&context).ok().ran(&[COPY_DATA, RUN_LIST]);
}

#[test]
fn changed_env_runs_what_stands_below() {
    let Some((lab, context)) = built() else {
        return;
    };
    context.edit("MODE=one", "MODE=two");
    lab.build(&context)
        .ok()
        .ran(&[RUN_MODE, COPY_DATA, RUN_LIST])
        .cached(&[COPY_TOOL, RUN_TOOL, COPY_FROM]);
}

#[test]
fn touched_file_runs_nothing() {
    let Some((lab, context)) = built() else {
        return;
    };
    let times = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(99));
    let file = File::options().write(true).open(context.join("data/a.txt"));
    file.unwrap().set_times(times).unwrap();
    lab.build(&context).ok().ran(&[]).cached(ALL);
}

#[test]
fn replaced_by_the_same_bytes_runs_nothing() {
    let Some((lab, context)) = built() else {
        return;
    };
    context.write("data/a.new", "a\n");
    fs::rename(context.join("data/a.new"), context.join("data/a.txt")).unwrap();
    lab.build(&context).ok().ran(&[]).cached(ALL);
}

#[test]
fn changed_mode_is_a_change() {
    let Some((lab, context)) = built() else {
        return;
    };
    context.chmod("data/a.txt", 0o755);
    lab.build(&context).ok().ran(&[COPY_DATA, RUN_LIST]);
}

#[test]
fn copy_from_a_stage_sees_only_its_files() {
    let Some((lab, context)) = built() else {
        return;
    };
    // Another file, the same number of lines: what is copied from the stage stays the same.
    context.write("tool.txt", "one\ntwo\n");
    lab.build(&context).ok().ran(&[COPY_TOOL, RUN_TOOL]);
    context.write("tool.txt", "one\ntwo\nthree\n");
    lab.build(&context).ok().ran(ALL);
}

#[test]
fn step_with_the_same_output_ends_the_rebuild() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new(
        "ARG BASE\nFROM $BASE\nRUN echo same > /out # first\nRUN cat /out > /copy\nRUN touch /end\n",
    );
    lab.build(&context).ok();
    context.edit("# first", "# second");
    lab.build(&context)
        .ok()
        .ran(&["RUN echo same > /out # second"])
        .cached(&["RUN cat /out > /copy", "RUN touch /end"]);
    context.edit("echo same > /out # second", "echo other > /out");
    let last = [
        "RUN echo other > /out",
        "RUN cat /out > /copy",
        "RUN touch /end",
    ];
    lab.build(&context).ok().ran(&last);
}

#[test]
fn no_cache_runs_all_or_a_stage() {
    let Some((lab, context)) = built() else {
        return;
    };
    lab.build(&context).arg("--no-cache").ok().ran(ALL);
    lab.build(&context)
        .arg("--no-cache-filter=tool")
        .ok()
        .ran(&[COPY_TOOL, RUN_TOOL]);
}

#[test]
fn build_argument_counts_where_it_is_declared() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new(
        "ARG BASE\nFROM $BASE\nRUN echo before > /before\nARG VALUE=1\nRUN echo $VALUE > /value\n",
    );
    lab.build(&context).ok();
    lab.build(&context)
        .arg("--build-arg=VALUE=2")
        .ok()
        .cached(&["RUN echo before > /before"]);
    lab.build(&context).arg("--build-arg=VALUE=1").ok().ran(&[]);
}

#[test]
fn moved_tag_of_the_base_is_seen_with_pull() {
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
    lab.kiln
        .build(&context)
        .base(&name)
        .arg("--pull")
        .ok()
        .ran(&["RUN cp /mark /copy"]);
}

#[test]
fn unchanged_build_reads_no_content() {
    if !require_tools(&["strace"]) {
        return;
    }
    let Some((lab, context)) = built() else {
        return;
    };
    // What changed just now is read again, as its time cannot be trusted yet.
    lab.build(&context).ok();
    let log = lab.kiln.out("strace.log");
    let mut strace = command("strace");
    strace
        .args([
            "-f",
            "-y",
            "-qq",
            "-e",
            "trace=open,openat,openat2,execve",
            "-o",
        ])
        .arg(&log);
    let build = lab.build(&context).into_command();
    strace
        .arg("--")
        .arg(build.get_program())
        .args(build.get_args());
    strace.envs(
        build
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    let output = run(&mut strace);
    assert!(text(&output.stderr).contains("CACHED"));
    let opened = opened_files(&fs::read_to_string(log).unwrap(), context.path());
    let expected = ["Dockerfile"];
    assert_eq!(opened, expected);
}

/// Returns the files of the context that were opened, by the paths of their descriptors.
fn opened_files(log: &str, context: &Path) -> Vec<String> {
    let context = fs::canonicalize(context).unwrap();
    let descriptor = |line: &str| {
        let (_, result) = line.rsplit_once(" = ")?;
        let path = result.split_once('<')?.1.rsplit_once('>')?.0.to_owned();
        let path = Path::new(&path).strip_prefix(&context).ok()?.to_owned();
        let is_file = context.join(&path).is_file();
        is_file.then(|| path.to_str().unwrap().to_owned())
    };
    assert!(log.contains("execve("), "strace saw nothing");
    let mut files: Vec<_> = log.lines().filter_map(descriptor).collect();
    files.sort_unstable();
    files.dedup();
    files
}

#[test]
fn what_all_steps_are_shown_runs_them_again() {
    let Some(lab) = Lab::require() else {
        return;
    };
    const RUN: &str = "RUN hostname; cat /etc/hosts; df /dev/shm";
    let context = Context::new(&format!("ARG BASE\nFROM $BASE\n{RUN}\n"));
    let build = |args: &[&str]| lab.build(&context).args(args).ok();
    build(&[]).ran(&[RUN]);
    for option in [
        "--add-host=peer:10.0.0.1",
        "--shm-size=1m",
        "--build-arg=BUILDKIT_SANDBOX_HOSTNAME=other",
    ] {
        build(&[option]).ran(&[RUN]);
        build(&[option]).cached(&[RUN]);
    }
    // Where a host is may differ from machine to machine.
    build(&["--add-host=peer:10.0.0.2"]).cached(&[RUN]);
}
