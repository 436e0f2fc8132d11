//! Secrets of RUN steps: who sees them, and where they never are.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::support::{Context, Lab, Outcome, assert_store_is_clean, output, text};

const SECRET: &str = "correct-horse-battery";

/// Builds a `FROM $BASE` with these lines; what the steps left in `/out` is returned.
fn see(lab: &Lab, lines: &str, args: &[&str]) -> String {
    let dockerfile =
        format!("ARG BASE\nFROM $BASE AS run\n{lines}\nFROM scratch\nCOPY --from=run /out /\n");
    let context = Context::new(&dockerfile);
    let dest = lab.kiln.out("seen");
    let build = lab.build(&context).args(args).env("TOKEN", SECRET);
    build.arg("-o").arg(output("local", &dest)).ok();
    fs::read_to_string(dest.join("out")).unwrap()
}

fn from_variable() -> [&'static str; 2] {
    ["--secret", "id=token,env=TOKEN"]
}

/// Runs a build that has the secret `token` and returns how it ended.
fn build(lab: &Lab, context: &Context, args: &[&str]) -> Outcome {
    let build = lab.build(context).args(from_variable()).args(args);
    build.env("TOKEN", SECRET).run()
}

#[test]
fn a_secret_is_a_file_that_only_root_reads() {
    let Some(lab) = Lab::require() else {
        return;
    };
    seen_by_root_only(&lab);
}

#[test]
fn secrets_of_an_ordinary_user_are_the_same() {
    let Some(lab) = Lab::of_ordinary_user() else {
        return;
    };
    seen_by_root_only(&lab);
    options_are_obeyed(&lab);
}

fn seen_by_root_only(lab: &Lab) {
    let lines = "RUN --mount=type=secret,id=token <<EOF
set -e
cd /run/secrets
{ stat -c '%a %u:%g %F' token; sha256sum < token; wc -c < token; } > /out
if echo x > token; then exit 1; fi
rm -f token 2> /dev/null && exit 1
mount | grep ' /run/secrets/token ' | grep -c tmpfs >> /out
EOF
USER www
RUN --mount=type=secret,id=token cat /run/secrets/token || echo denied >> /tmp/denied
USER root
RUN cat /tmp/denied >> /out; ls /run >> /out 2> /dev/null || true";
    let seen = see(lab, lines, &from_variable());
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[0], "400 0:0 regular file");
    assert_eq!(lines[2..], ["21", "1", "denied"], "no /run is left");
}

#[test]
fn options_of_secrets_are_obeyed() {
    let Some(lab) = Lab::require() else {
        return;
    };
    options_are_obeyed(&lab);
}

fn options_are_obeyed(lab: &Lab) {
    let stat = "stat -c '%a %u:%g'";
    for (mount, script, expected) in [
        (
            "type=secret,id=token,mode=0440,uid=1000,gid=50",
            format!("{stat} /run/secrets/token"),
            "440 1000:50",
        ),
        (
            "type=secret,id=token,mode=04777",
            format!("{stat} /run/secrets/token"),
            "777 0:0",
        ),
        (
            "type=secret,id=token,target=/a/b",
            "wc -c < /a/b; ls /run 2> /dev/null || true".to_owned(),
            "21",
        ),
        (
            "type=secret,id=token,dst=rel",
            "wc -c < /root/rel".to_owned(),
            "21",
        ),
        (
            "type=secret,id=token,destination=/a",
            "wc -c < /a".to_owned(),
            "21",
        ),
        (
            "type=secret,target=/x/token",
            "wc -c < /x/token".to_owned(),
            "21",
        ),
        (
            "type=secret,source=token",
            "wc -c < /run/secrets/token".to_owned(),
            "21",
        ),
        (
            "type=secret,src=token,required",
            "wc -c < /run/secrets/token".to_owned(),
            "21",
        ),
        (
            "type=secret,id=token,env=A",
            "echo ${#A}; ls /run 2> /dev/null || true".to_owned(),
            "21",
        ),
        (
            "type=secret,id=token,env=A,target=/a",
            "echo ${#A}; wc -c < /a".to_owned(),
            "21\n21",
        ),
        (
            "type=secret,id=token,env=PRESET",
            "echo ${#PRESET}".to_owned(),
            "21",
        ),
        (
            "type=secret,id=none",
            "ls /run/secrets 2> /dev/null || echo none".to_owned(),
            "none",
        ),
        (
            "type=secret,id=none,env=A",
            "echo \"[${A-unset}]\"".to_owned(),
            "[]",
        ),
        (
            "type=secret,id=none,env=PRESET",
            "echo \"[$PRESET]\"".to_owned(),
            "[]",
        ),
        (
            "type=secret,id=none,env=A,target=/a",
            "echo \"[${A-unset}]\"; ls /a 2> /dev/null || echo none".to_owned(),
            "[]\nnone",
        ),
        (
            "type=secret,id=empty,required=true",
            "wc -c < /run/secrets/empty".to_owned(),
            "0",
        ),
        (
            "type=secret,id=empty,env=A,required=true",
            "echo \"[$A]\"".to_owned(),
            "[]",
        ),
    ] {
        let lines =
            format!("ENV PRESET=base\nWORKDIR /root\nRUN --mount={mount} ({script}) > /out");
        let given = [
            "--secret",
            "id=token,env=TOKEN",
            "--secret",
            "id=empty,env=NOT_SET",
        ];
        assert_eq!(see(lab, &lines, &given).trim_end(), expected, "{mount}");
    }
}

#[test]
fn a_required_secret_is_asked_for_by_name_and_line() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context =
        Context::new("ARG BASE\nFROM $BASE\nRUN --mount=type=secret,id=must,required true\n");
    let outcome = lab.build(&context).fails(1);
    outcome.says(&[
        "Dockerfile:3",
        "secret `must` is required",
        "hint: give it with --secret id=must",
    ]);
    // A step that need not run needs no secret.
    lab.build(&context)
        .args(["--secret", "id=must,src=/dev/null"])
        .ok();
    lab.build(&context).ok();
}

#[test]
fn what_cannot_be_a_variable_is_refused() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new("ARG BASE\nFROM $BASE\nRUN --mount=type=secret,id=a,env=A true\n");
    let secret = lab.kiln.out("secret");
    let spec = format!("--secret=id=a,src={}", secret.display());
    fs::write(&secret, b"a\0b").unwrap();
    let outcome = lab.build(&context).arg(&spec).fails(1);
    outcome.says(&["Dockerfile:3", "secret `a` cannot be the variable `A`"]);
    // Other bytes are passed on as they are.
    fs::write(&secret, b"\xff\xfe").unwrap();
    context.edit("true", "printf %s \"$A\" | od -An -tx1 | grep -q 'ff fe$'");
    lab.build(&context).arg(&spec).ok();
}

#[test]
fn a_changed_secret_runs_nothing_and_is_read_anew() {
    let Some(lab) = Lab::require() else {
        return;
    };
    const STEP: &str = "RUN --mount=type=secret,id=token cat /run/secrets/token | sha256sum > /out";
    let context = Context::new(&format!(
        "ARG BASE\nFROM $BASE AS run\n{STEP}\nFROM scratch\nCOPY --from=run /out /\n"
    ));
    let secret = lab.kiln.out("secret");
    let dest = lab.kiln.out("files");
    let build = |args: &[&str]| {
        let build = lab.build(&context).args(args);
        let build = build.args(["--secret", &format!("id=token,src={}", secret.display())]);
        let outcome = build.arg("-o").arg(output("local", &dest)).ok();
        (outcome, fs::read_to_string(dest.join("out")).unwrap())
    };
    fs::write(&secret, "first").unwrap();
    let (outcome, first) = build(&[]);
    outcome.ran(&[STEP, "COPY --from=run /out /"]);
    fs::write(&secret, "second").unwrap();
    let (outcome, again) = build(&[]);
    outcome.ran(&[]);
    assert_eq!(again, first);
    let (_, second) = build(&["--no-cache"]);
    assert_ne!(second, first);
}

#[test]
fn a_secret_is_nowhere_but_in_its_step() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let dockerfile = "ARG BASE
FROM $BASE
RUN --mount=type=secret,id=token --mount=type=secret,id=token,env=TOKEN,target=/t \\
    cat /run/secrets/token /t; echo $TOKEN >&2; test ${#TOKEN} = 21
RUN touch /last
";
    let context = Context::new(dockerfile);
    let (archive, metadata) = (lab.kiln.out("image.tar"), lab.kiln.out("metadata"));
    let spec = format!("{},compression=uncompressed", output("oci", &archive));
    let facts = format!("--metadata-file={}", metadata.display());
    let outcome = build(&lab, &context, &["-t", "a", "--load", "-o", &spec, &facts]).succeeded();
    outcome.says(&["***"]);
    let mut shown = vec![outcome.stderr];
    for args in [
        &["--progress=rawjson", "--no-cache"][..],
        &["--print=graph"],
        &["--print=graph-dot"],
    ] {
        let outcome = build(&lab, &context, args).succeeded();
        shown.push(with_decoded_logs(&outcome.stderr));
        shown.push(text(&outcome.stdout));
    }
    shown.push(lab.kiln.inspect("a").to_string());
    for text in shown {
        assert!(!text.contains(SECRET), "{text}");
    }
    for path in [&archive, &metadata, &lab.kiln.root()] {
        assert!(holders(path).is_empty(), "{:?}", holders(path));
    }
    assert!(lab.kiln.root().join("logs").read_dir().unwrap().count() > 0);
    assert_store_is_clean(&lab.kiln.root(), SECRET);
}

/// Appends what steps wrote to progress in JSON, where it is in Base64.
fn with_decoded_logs(shown: &str) -> String {
    let mut all = shown.to_owned();
    for line in shown.lines().filter(|line| line.starts_with('{')) {
        let object: Value = serde_json::from_str(line).unwrap();
        for log in object["logs"].as_array().into_iter().flatten() {
            let data = STANDARD.decode(log["data"].as_str().unwrap()).unwrap();
            all.push_str(&text(&data));
        }
    }
    all
}

/// Returns the files at and below a path that hold the secret, plain or in Base64.
fn holders(path: &Path) -> Vec<std::path::PathBuf> {
    if path.is_dir() && !path.is_symlink() {
        let entries = fs::read_dir(path).unwrap().flatten();
        return entries.flat_map(|entry| holders(&entry.path())).collect();
    }
    let bytes = fs::read(path).unwrap_or_default();
    let needles = [SECRET, "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5"].map(str::as_bytes);
    let holds = |needle: &&[u8]| bytes.windows(needle.len()).any(|window| window == *needle);
    let is_holder = needles.iter().any(holds);
    is_holder.then(|| path.to_owned()).into_iter().collect()
}

#[test]
fn output_is_masked_however_it_is_written() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new(
        "ARG BASE
FROM $BASE
RUN --mount=type=secret,id=token,env=T --mount=type=secret,id=lines set -e; \\
    printf 'one %s two\\n' $T; \\
    printf '%s' correct-horse; sleep 0.1; printf '%s\\n' -battery; \\
    printf '%s\\n' $T >&2; cat /run/secrets/lines; echo 'cor short abc'; \\
    printf 'unfinished correct-'; exit 7
",
    );
    let lines = lab.kiln.out("lines");
    fs::write(&lines, "first-line-of-it\nabc\n  second-line-of-it\n").unwrap();
    let secret = format!("--secret=id=lines,src={}", lines.display());
    for progress in ["--progress=plain", "--progress=rawjson", "--progress=quiet"] {
        let outcome = build(&lab, &context, &[&secret, progress]);
        assert_eq!(outcome.status.code(), Some(3), "{}", outcome.stderr);
        let shown = with_decoded_logs(&outcome.stderr);
        for word in [SECRET, "first-line", "second-line"] {
            assert!(!shown.contains(word), "{word} in {shown}");
        }
        let tail: Vec<&str> = shown.lines().filter(|line| line.contains("***")).collect();
        assert!(tail.contains(&"one *** two"), "{shown}");
        assert!(shown.contains("\ncor short abc\n"), "{shown}");
        assert!(shown.contains("\nunfinished correct-\n"), "{shown}");
    }
    let logs = lab.kiln.root().join("logs").read_dir().unwrap().flatten();
    let log = logs.map(|entry| fs::read_to_string(entry.path()).unwrap());
    let log = log.last().unwrap();
    assert!(log.contains("one *** two\n***\n"), "{log}");
}

/// Serves one file to whoever sends `Authorization` as it must be, and 401 to others.
#[expect(
    clippy::disallowed_methods,
    reason = "a server for as long as the test runs"
)]
fn serve_with_password(authorization: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = BufReader::new(client.unwrap());
            let lines = client.by_ref().lines().map_while(Result::ok);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let is_known = head.iter().any(|line| {
                let (name, value) = line.split_once(": ").unwrap_or_default();
                name.eq_ignore_ascii_case("authorization") && value == authorization
            });
            let answer = match is_known {
                true => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfile\n",
                false => "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
            };
            let _gone = client.get_mut().write_all(answer.as_bytes());
        }
    });
    address
}

#[test]
fn secrets_open_files_of_web_servers() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let host = serve_with_password("Bearer correct-horse-battery");
    let context = Context::new(&format!("FROM scratch\nADD http://{host}/file /file\n"));
    let dest = lab.kiln.out("files");
    let build = |args: &[String]| {
        let build = lab.kiln.build(&context).env("TOKEN", SECRET).args(args);
        build.arg("-o").arg(output("local", &dest)).run()
    };
    let outcome = build(&[]);
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
    for id in [
        format!("HTTP_AUTH_TOKEN_{host}"),
        "HTTP_AUTH_TOKEN_127.0.0.1".to_owned(),
    ] {
        let outcome = build(&["--secret".to_owned(), format!("id={id},env=TOKEN")]).succeeded();
        assert!(!outcome.stderr.contains(SECRET), "{}", outcome.stderr);
        assert_eq!(fs::read_to_string(dest.join("file")).unwrap(), "file\n");
    }
    assert!(holders(&lab.kiln.root()).is_empty());
}

#[test]
fn bad_secrets_are_refused_before_anything_runs() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new("ARG BASE\nFROM $BASE\nRUN echo it runs\n");
    let large = lab.kiln.out("large");
    fs::write(&large, vec![b'x'; (500 << 10) + 1]).unwrap();
    let large = format!("id=a,src={}", large.display());
    for (secret, code, why) in [
        ("src=x", 2, "there is no id"),
        ("id=a,type=x", 2, "no type of a secret"),
        ("id=a,required=true", 2, "`required` is not known"),
        ("id=a,src=/no/such", 1, "secret `a`: cannot read `/no/such`"),
        ("id=/no/such", 1, "cannot read"),
        (&large, 1, "larger than 500 KiB"),
    ] {
        let outcome = lab.build(&context).args(["--secret", secret]).fails(code);
        assert!(!outcome.says(&[why]).stderr.contains("it runs"));
    }
}
