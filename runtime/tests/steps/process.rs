//! The process: how it starts, what it writes, how it ends and is ended.

use std::error::Error as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use kiln_runtime::{Cancel, Exit, InlineFile, RunError, Sandbox};

use crate::Case;
use crate::support::{Bench, Lab, chmod, command, run, run_with};

pub(crate) const CASES: &[Case] = &[
    ("exit_codes_and_signals_are_told_apart", exit, false),
    ("output_is_passed_on_complete_and_by_stream", output, false),
    ("output_can_be_opened_by_name", output_by_name, false),
    ("the_program_is_pid_1_of_a_new_session", pid_1, false),
    ("nothing_outlives_the_program", background, false),
    ("only_three_descriptors_are_open", descriptors, false),
    ("signals_have_their_default_action", signals, false),
    (
        "the_environment_is_the_given_one_and_home",
        environment,
        false,
    ),
    ("a_missing_program_is_a_named_error", missing_program, false),
    (
        "a_script_without_interpreter_is_not_run_by_a_shell",
        no_interpreter,
        false,
    ),
    (
        "a_program_of_another_architecture_is_told",
        foreign_program,
        false,
    ),
    ("inline_files_are_shown_and_not_kept", inline_files, false),
    ("cancel_kills_at_once", cancel, false),
    (
        "a_killed_engine_takes_its_steps_along",
        killed_engine,
        false,
    ),
    ("a_killed_init_takes_its_step_along", killed_init, false),
    ("steps_run_side_by_side", side_by_side, false),
];

fn exit(lab: &Lab) {
    let bench = lab.bench();
    let exit = |script| lab.run(&bench.step(script)).unwrap().outcome.exit;
    assert_eq!(exit("exit 0"), Exit::Code(0));
    assert_eq!(exit("exit 42"), Exit::Code(42));
    // Its own signals do not reach pid 1, so a child that dies of one stands in for it.
    assert_eq!(exit("sh -c 'kill -9 $$'; exit $?"), Exit::Code(137));
}

fn output(lab: &Lab) {
    let bench = lab.bench();
    let ran = lab
        .run(&bench.step("seq 200000; echo done >&2; printf last"))
        .unwrap();
    assert_eq!(ran.stdout.lines().count(), 200_001);
    assert!(ran.stdout.ends_with("200000\nlast"));
    assert_eq!(ran.stderr, "done\n");
    assert!(ran.outcome.cpu_time > Duration::ZERO && ran.outcome.max_rss > 0);
}

fn output_by_name(lab: &Lab) {
    assert_eq!(
        lab.sh("echo a > /dev/stdout; echo b >> /proc/self/fd/1"),
        "a\nb\n"
    );
}

fn pid_1(lab: &Lab) {
    let out = lab.sh("echo $$; awk '{print $5, $6}' /proc/self/stat; tty 2>&1 || true");
    assert_eq!(out, "1\n1 1\nnot a tty\n");
}

fn background(lab: &Lab) {
    let started = Instant::now();
    assert_eq!(lab.sh("sleep 1000 & echo $!"), "2\n");
    assert!(started.elapsed() < Duration::from_secs(20));
}

fn descriptors(lab: &Lab) {
    // The fourth one is the folder that ls reads.
    assert_eq!(lab.sh("exec ls /proc/self/fd"), "0\n1\n2\n3\n");
    let out = lab.sh("readlink /proc/self/fd/0; ls /proc/1/fd/ | head -3");
    assert!(out.starts_with("/dev/null\n0\n1\n2\n"), "{out}");
}

fn signals(lab: &Lab) {
    let out = lab.sh("exec grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status");
    assert!(
        out.lines().all(|line| line.ends_with("0000000000000000")),
        "{out}"
    );
}

fn environment(lab: &Lab) {
    let bench = lab.bench();
    let mut step = bench.step("");
    step.args = vec!["env".to_owned()];
    step.env.push(("A".to_owned(), "b=c d".to_owned()));
    let env = lab.run(&step).unwrap().stdout;
    assert_eq!(env, "PATH=/usr/bin:/bin\nA=b=c d\nHOME=/root\n");
    step.env.push(("HOME".to_owned(), "/given".to_owned()));
    assert!(lab.run(&step).unwrap().stdout.ends_with("\nHOME=/given\n"));
    step.env.push(("A".to_owned(), "later".to_owned()));
    step.env.push(("HOME".to_owned(), String::new()));
    let env = lab.run(&step).unwrap().stdout;
    assert_eq!(env, "PATH=/usr/bin:/bin\nA=later\nHOME=/root\n");
}

fn missing_program(lab: &Lab) {
    let bench = lab.bench();
    let mut step = bench.step("");
    for (program, code) in [
        ("/no/such", 127),
        ("nosuch", 127),
        ("/etc/passwd", 126),
        ("/etc", 126),
    ] {
        step.args = vec![program.to_owned()];
        let error = lab.run(&step).unwrap_err();
        assert_eq!(error.to_string(), format!("exec `{program}`"));
        assert_eq!(error.exit_code(), Some(code), "{error:?}");
    }
}

fn no_interpreter(lab: &Lab) {
    let bench = lab.bench();
    bench.sh(lab, "echo 'echo hello' > /script; chmod 755 /script");
    let mut step = bench.step("");
    step.args = vec!["/script".to_owned()];
    let error = lab.run(&step).unwrap_err();
    assert!(matches!(error, RunError::Exec { .. }), "{error:?}");
}

/// A program for a machine that no kernel runs.
fn foreign_program(lab: &Lab) {
    let bench = lab.bench_with(|layer| {
        let mut program = fs::read("/bin/busybox").unwrap();
        program[18..20].copy_from_slice(&[0xff, 0xff]);
        fs::write(layer.join("foreign"), program).unwrap();
        chmod(&layer.join("foreign"), 0o755);
    });
    let mut step = bench.step("");
    step.args = vec!["/foreign".to_owned()];
    let error = lab.run(&step).unwrap_err();
    assert_eq!(error.exit_code(), Some(126));
    assert_eq!(error.to_string(), "exec `/foreign`");
    let reason = error.source().unwrap().to_string();
    for part in [
        "Exec format error (os error 8)",
        "another architecture",
        "`qemu-user-static`",
        "`binfmt_misc`",
    ] {
        assert!(reason.contains(part), "{reason}");
    }
}

fn inline_files(lab: &Lab) {
    let bench = lab.bench();
    let script = "cat /dev/pipes/EOF /opt/deep/note; ! echo x > /dev/pipes/EOF; \
                  ! echo x > /opt/deep/note; exec /dev/pipes/EOF";
    let mut step = bench.step(script);
    step.files = [("/dev/pipes/EOF", 0o755), ("/opt/deep/note", 0o644)]
        .map(|(path, mode)| InlineFile {
            path: path.to_owned(),
            mode,
            content: b"#!/bin/sh\necho run\n".to_vec(),
        })
        .to_vec();
    let ran = lab.run(&step).unwrap();
    assert_eq!(
        ran.stdout, "#!/bin/sh\necho run\n#!/bin/sh\necho run\nrun\n",
        "{}",
        ran.stderr
    );
    assert!(bench.changed().is_empty(), "{:?}", bench.changed());
}

fn cancel(lab: &Lab) {
    let bench = lab.bench();
    let cancel = Cancel::new().unwrap();
    let step = bench.step("trap '' TERM INT; echo up; sleep 1000 & sleep 1000");
    let mut cancelled_at = None;
    let result = lab.sandbox.run(&step, &cancel.clone(), &mut |_, _| {
        cancel.cancel();
        cancelled_at.get_or_insert_with(Instant::now);
    });
    assert!(matches!(result, Err(RunError::Cancelled)), "{result:?}");
    assert!(cancelled_at.unwrap().elapsed() < Duration::from_secs(5));
    let later = run_with(&lab.sandbox, &step, &cancel);
    assert!(matches!(later, Err(RunError::Cancelled)), "{later:?}");
}

/// Runs a step that never ends, in another process that can be killed.
pub(crate) fn long_step() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(2).collect();
    let [scratch, root, bench, script] = &args[..] else {
        return ExitCode::FAILURE;
    };
    let privilege = kiln_runtime::enter_user_namespace().unwrap();
    let sandbox = Sandbox::new(&PathBuf::from(scratch), &privilege).unwrap();
    let dir = tempfile::tempdir_in(bench).unwrap();
    let bench = Bench::on(dir, vec![PathBuf::from(root)]);
    let step = bench.step(script);
    let cancel = Cancel::new().unwrap();
    let result = sandbox.run(&step, &cancel, &mut |_, bytes| {
        std::io::stdout().write_all(bytes).unwrap();
    });
    println!("ended {result:?}");
    ExitCode::SUCCESS
}

fn killed_engine(lab: &Lab) {
    let dir = tempfile::tempdir().unwrap();
    let marker = format!("987{}", std::process::id());
    let script = format!("sleep {marker} & echo up; sleep {marker}");
    let mut engine = command("/proc/self/exe")
        .arg("--long-step")
        .arg(dir.path().join("scratch"))
        .args([lab.base(), dir.path()])
        .arg(script)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(engine.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "up\n");
    assert!(count_processes(&marker) >= 2);
    engine.kill().unwrap();
    engine.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while count_processes(&marker) > 0 {
        assert!(Instant::now() < deadline, "the step outlived the engine");
        std::thread::yield_now();
    }
}

fn killed_init(lab: &Lab) {
    let bench = lab.bench();
    let marker = format!("986{}", std::process::id());
    let step = bench.step(&format!("echo up; sleep {marker}"));
    let result = lab
        .sandbox
        .run(&step, &Cancel::new().unwrap(), &mut |_, _| {
            let pid = rustix::process::Pid::from_raw(init_pid()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        });
    assert!(
        matches!(result, Err(RunError::Supervise { .. })),
        "{result:?}"
    );
    let deadline = Instant::now() + Duration::from_secs(10);
    while count_processes(&marker) > 0 {
        assert!(Instant::now() < deadline, "the step outlived its init");
        std::thread::yield_now();
    }
}

/// Returns the process id of the only init that this process has started.
pub(crate) fn init_pid() -> i32 {
    let is_ours = |stat: &str| {
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        stat.contains("(kiln-init)") && fields[1] == std::process::id().to_string()
    };
    let processes = fs::read_dir("/proc").unwrap();
    let mut pids = processes.filter_map(|entry| {
        let path = entry.ok()?.path();
        let stat = fs::read_to_string(path.join("stat")).ok()?;
        is_ours(&stat).then(|| path.file_name()?.to_str()?.parse().ok())?
    });
    pids.next().unwrap()
}

fn count_processes(marker: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap();
    processes
        .filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok())
        .filter(|cmdline| String::from_utf8_lossy(cmdline).contains(marker))
        .count()
}

fn side_by_side(lab: &Lab) {
    let benches: Vec<Bench> = (0..8).map(|_| lab.bench()).collect();
    std::thread::scope(|scope| {
        let spawn = |bench| {
            scope.spawn(move || {
                for round in 0..4 {
                    let step = Bench::step(bench, &format!("echo {round}; touch /f{round}"));
                    let ran = run(&lab.sandbox, &step).unwrap();
                    assert_eq!(ran.stdout, format!("{round}\n"));
                }
            })
        };
        let handles: Vec<_> = benches.iter().map(spawn).collect();
        for handle in handles {
            handle.join().unwrap();
        }
    });
    assert!(
        benches
            .iter()
            .all(|bench| bench.changed() == ["f0", "f1", "f2", "f3"])
    );
}
