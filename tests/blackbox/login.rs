//! Logging in to registries and out of them.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Context, Kiln, Outcome, Registry, require_tools, run, text};

const CONTEXT: &str = "FROM scratch\nCOPY Dockerfile /\n";

fn registry() -> Option<(Kiln, Registry)> {
    let is_ready = require_tools(&["docker-registry"]);
    is_ready.then(|| (Kiln::new(), Registry::with_password()))
}

fn config_file(kiln: &Kiln) -> PathBuf {
    kiln.home().join(".docker/config.json")
}

fn config(kiln: &Kiln) -> Value {
    let text = fs::read_to_string(config_file(kiln)).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn write_config(kiln: &Kiln, config: &Value) {
    let file = config_file(kiln);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, config.to_string()).unwrap();
}

/// Runs kiln with a text on its standard input.
fn with_input(command: &mut Command, input: &str) -> Outcome {
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    Outcome {
        status: output.status,
        stdout: output.stdout,
        stderr: text(&output.stderr),
    }
}

fn login(kiln: &Kiln, host: &str, password: &str) -> Outcome {
    let mut command = kiln.command();
    command.args(["login", host, "-u", "kiln", "--password-stdin"]);
    with_input(&mut command, &format!("{password}\n"))
}

fn assert_hidden(outcome: &Outcome) {
    let (stdout, stderr) = (text(&outcome.stdout), &outcome.stderr);
    assert!(
        !stdout.contains("secret") && !stderr.contains("secret"),
        "{stdout}{stderr}"
    );
}

#[test]
fn login_opens_the_registry_until_logout() {
    let Some((kiln, registry)) = registry() else {
        return;
    };
    let name = registry.name("app:1");
    let context = Context::new(CONTEXT);
    write_config(
        &kiln,
        &json!({ "psFormat": "x", "auths": { "other.io": {} } }),
    );
    let outcome = login(&kiln, registry.host(), "secret").succeeded();
    assert_eq!(text(&outcome.stdout), "Login Succeeded\n");
    outcome.says(&[
        "WARNING! Your credentials are stored unencrypted in '",
        "config.json'",
    ]);
    assert_hidden(&outcome);
    let file = config(&kiln);
    assert_eq!(file["psFormat"], "x");
    assert_eq!(file["auths"][registry.host()]["auth"], "a2lsbjpzZWNyZXQ=");
    let mode = fs::metadata(config_file(&kiln))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    kiln.build(&context).args(["--push", "-t", &name]).ok();

    let again = kiln.run(["login", registry.host()]).succeeded();
    again.says(&["Authenticating with existing credentials..."]);
    let outcome = kiln.run(["logout", registry.host()]).succeeded();
    let expected = format!("Removing login credentials for {}\n", registry.host());
    assert_eq!(text(&outcome.stdout), expected);
    assert_eq!(
        config(&kiln),
        json!({ "psFormat": "x", "auths": { "other.io": {} } })
    );
    let outcome = kiln.run(["logout", registry.host()]).succeeded();
    let expected = format!("Not logged in to {}\n", registry.host());
    assert_eq!(text(&outcome.stdout), expected);
    let outcome = kiln.run(["logout"]).succeeded();
    let expected = "Not logged in to https://index.docker.io/v1/\n";
    assert_eq!(text(&outcome.stdout), expected);
}

#[test]
fn what_the_registry_does_not_take_is_not_kept() {
    let Some((kiln, registry)) = registry() else {
        return;
    };
    let outcome = login(&kiln, registry.host(), "my-secret");
    assert_eq!(outcome.status.code(), Some(1));
    outcome.says(&["cannot log in to", "access denied", "401"]);
    assert_hidden(&outcome);
    assert!(!config_file(&kiln).exists());
    for (args, message) in [
        (
            &["-u", "kiln"][..],
            "cannot perform an interactive login from a non TTY device",
        ),
        (&["--password-stdin"], "--username"),
        (&["-u", "kiln", "--password-stdin"], "the password is empty"),
        (
            &["-u", "x", "-p", "y", "--password-stdin"],
            "cannot be used with",
        ),
    ] {
        let outcome = kiln.run(["login", registry.host()].iter().chain(args));
        assert_eq!(outcome.status.code(), Some(2), "{}", outcome.stderr);
        outcome.says(&[message]);
    }
    let outcome = kiln.run(["login", registry.host(), "-u", "kiln", "-p", "secret"]);
    outcome
        .succeeded()
        .says(&["Using --password via the CLI is insecure"]);
}

/// A helper that keeps its login in a file beside it.
const HELPER: &str = r#"#!/bin/sh
kept="$(dirname "$0")/kept"
case $1 in
  store) cat > "$kept" ;;
  get) cat "$kept" 2>/dev/null || { echo "credentials not found in native keychain"; exit 1; } ;;
  erase) rm "$kept" ;;
esac
"#;

#[test]
fn helpers_keep_logins_out_of_the_file() {
    let Some((kiln, registry)) = registry() else {
        return;
    };
    let dir = kiln.out("bin");
    fs::create_dir(&dir).unwrap();
    let helper = dir.join("docker-credential-box");
    fs::write(&helper, HELPER).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", dir.display());
    write_config(&kiln, &json!({ "credsStore": "box" }));
    let mut command = kiln.command();
    command.env("PATH", &path);
    command.args(["login", registry.host(), "-u", "kiln", "--password-stdin"]);
    let outcome = with_input(&mut command, "secret").succeeded();
    assert_eq!(outcome.stderr, "");
    let expected = json!({ "credsStore": "box", "auths": { registry.host(): {} } });
    assert_eq!(config(&kiln), expected);
    let kept = fs::read_to_string(dir.join("kept")).unwrap();
    assert!(kept.contains("secret"), "{kept}");
    let context = Context::new(CONTEXT);
    let name = registry.name("app:1");
    let build = kiln
        .build(&context)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"));
    build.args(["--push", "-t", &name]).ok();
    run(kiln
        .command()
        .env("PATH", &path)
        .args(["logout", registry.host()]));
    assert!(!dir.join("kept").exists());
    assert_eq!(config(&kiln), json!({ "credsStore": "box", "auths": {} }));
}

/// Reads what a program writes until a text has come.
fn read_until(child: &mut Child, seen: &mut Vec<u8>, expected: &str) {
    let mut byte = [0];
    let stdout = child.stdout.as_mut().unwrap();
    while !text(seen).contains(expected) {
        let n_read = stdout.read(&mut byte).unwrap();
        assert_eq!(n_read, 1, "no {expected:?} in {:?}", text(seen));
        seen.push(byte[0]);
    }
}

#[test]
fn a_terminal_is_asked_and_shows_no_password() {
    let Some((kiln, registry)) = registry() else {
        return;
    };
    if !require_tools(&["script"]) {
        return;
    }
    let program = kiln.command().get_program().to_str().unwrap().to_owned();
    let mut command = crate::support::command("script");
    command.env("HOME", kiln.home()).env("TERM", "dumb");
    let login = format!("{program} login {}", registry.host());
    command.args(["-qec", &login, "/dev/null"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut seen = Vec::new();
    for (question, answer) in [
        ("Username: ", "kiln\n"),
        ("Password: ", "wrong\u{15}secret\n"),
    ] {
        read_until(&mut child, &mut seen, question);
        let stdin = child.stdin.as_mut().unwrap();
        stdin.write_all(answer.as_bytes()).unwrap();
        stdin.flush().unwrap();
    }
    read_until(&mut child, &mut seen, "Login Succeeded");
    assert!(child.wait().unwrap().success());
    assert!(!text(&seen).contains("secret"), "{}", text(&seen));
    assert_eq!(
        config(&kiln)["auths"][registry.host()]["auth"],
        "a2lsbjpzZWNyZXQ="
    );
}
