//! Agents that sign for SSH, as RUN steps see them.

use std::fs;

use crate::support::{
    Build, Context, Lab, SshAgent, add_programs, assert_store_is_clean, make_key, output,
    require_tools,
};

const TOOLS: &[&str] = &["ssh-agent", "ssh-add", "ssh-keygen", "ldd"];

/// A context whose step has `ssh-add` and `ssh-keygen`, runs `script`, and leaves `/out`.
fn context(mount: &str, script: &str) -> Context {
    let dockerfile = format!(
        "ARG BASE\nFROM $BASE AS run\nCOPY root /\n\
         RUN --mount={mount} <<'EOF'\n{{\n{script}\n}} > /out\nEOF\n\
         FROM scratch\nCOPY --from=run /out /\n"
    );
    let context = Context::new(&dockerfile);
    add_programs(&context, &["ssh-add", "ssh-keygen"]);
    context
}

fn seen(lab: &Lab, build: Build<'_>) -> String {
    let dest = lab.kiln.out("seen");
    build.arg("-o").arg(output("local", &dest)).ok();
    fs::read_to_string(dest.join("out")).unwrap()
}

/// Signs with the first key of the agent, and checks the signature.
const SIGN: &str = "ssh-add -L | head -n 1 > /tmp/key.pub
echo data > /tmp/data
ssh-keygen -q -Y sign -f /tmp/key.pub -n file /tmp/data > /dev/null 2>&1 &&
ssh-keygen -q -Y check-novalidate -n file -s /tmp/data.sig < /tmp/data > /dev/null &&
echo signed";

#[test]
fn a_step_signs_with_the_agent_of_the_user() {
    let Some(lab) = Lab::require().filter(|_| require_tools(TOOLS)) else {
        return;
    };
    let agent = SshAgent::start();
    let key = lab.kiln.out("key");
    make_key(&key, &["-t", "ed25519"]);
    agent.ssh_add(&[&key]);
    let before = agent.ssh_add(&["-L"]);
    assert!(before.starts_with("ssh-ed25519 "), "{before}");
    let script = format!(
        "{SIGN}
echo $SSH_AUTH_SOCK; stat -c '%a %u:%g %F' $SSH_AUTH_SOCK
ssh-keygen -q -t ed25519 -N '' -f /tmp/new
if ssh-add /tmp/new 2> /dev/null || ssh-add -D 2> /dev/null || ssh-add -d /tmp/key.pub 2> /dev/null
then echo changed; fi
ssh-add -L"
    );
    let context = context("type=ssh,required", &script);
    let build = || lab.build(&context).args(["--ssh", "default"]);
    let build = build().env("SSH_AUTH_SOCK", agent.socket());
    let expected = format!("signed\n/run/buildkit/ssh_agent.0\n600 0:0 socket\n{before}");
    assert_eq!(seen(&lab, build), expected);
    assert_eq!(agent.ssh_add(&["-L"]), before);
    assert_store_is_clean(&lab.kiln.root(), "ssh_agent");
    // What is in the cache needs no agent.
    lab.build(&context).ok().ran(&[]);
}

#[test]
fn a_step_signs_with_keys_of_files() {
    let Some(lab) = Lab::require().filter(|_| require_tools(TOOLS)) else {
        return;
    };
    let context = context("type=ssh", &format!("{SIGN}; ssh-add -L | wc -l"));
    let kinds: &[&[&str]] = &[
        &["-t", "ed25519"],
        &["-t", "ecdsa"],
        &["-t", "ecdsa", "-m", "PKCS8"],
        &["-t", "ecdsa", "-m", "PEM"],
        &["-t", "ecdsa", "-b", "384"],
        &["-t", "ecdsa", "-b", "384", "-m", "PEM"],
        &["-t", "rsa", "-b", "2048"],
        &["-t", "rsa", "-b", "3072", "-m", "PKCS8"],
        &["-t", "rsa", "-b", "2048", "-m", "PEM"],
    ];
    for (number, kind) in kinds.iter().enumerate() {
        let (key, other) = (lab.kiln.out(&format!("key{number}")), lab.kiln.out("key0"));
        make_key(&key, kind);
        let spec = format!("default={},{}", key.display(), other.display());
        let build = lab.build(&context).args(["--no-cache", "--ssh", &spec]);
        assert_eq!(seen(&lab, build), "signed\n2\n", "{kind:?}");
        let public = fs::read_to_string(key.with_extension("pub")).unwrap();
        assert!(!public.is_empty());
    }
}

#[test]
fn keys_that_cannot_be_used_are_refused() {
    let Some(lab) = Lab::require().filter(|_| require_tools(TOOLS)) else {
        return;
    };
    let context = Context::new("ARG BASE\nFROM $BASE\nRUN --mount=type=ssh true\n");
    for (name, kind, why) in [
        (
            "a",
            &["-t", "ed25519", "-N", "words"][..],
            "the private key is encrypted",
        ),
        (
            "b",
            &["-t", "rsa", "-m", "PEM", "-N", "words"],
            "the private key is encrypted",
        ),
        ("c", &["-t", "rsa", "-b", "1024"], "RSA keys must have 2048"),
        ("d", &["-t", "ecdsa", "-b", "521"], "not supported"),
    ] {
        let key = lab.kiln.out(name);
        make_key(&key, kind);
        let spec = format!("--ssh=default={}", key.display());
        lab.build(&context)
            .arg(spec)
            .fails(1)
            .says(&[why, "cannot use"]);
    }
    let spec = format!("--ssh=default={}", lab.kiln.out("a.pub").display());
    lab.build(&context)
        .arg(spec)
        .fails(1)
        .says(&["it is not a private key"]);
    lab.build(&context)
        .args(["--ssh", "default"])
        .fails(2)
        .says(&["SSH_AUTH_SOCK"]);
}

#[test]
fn options_of_agents_are_obeyed() {
    let Some(lab) = Lab::require().filter(|_| require_tools(TOOLS)) else {
        return;
    };
    options_are_obeyed(&lab);
}

#[test]
fn agents_of_an_ordinary_user_are_the_same() {
    let Some(lab) = Lab::of_ordinary_user().filter(|_| require_tools(TOOLS)) else {
        return;
    };
    options_are_obeyed(&lab);
}

fn options_are_obeyed(lab: &Lab) {
    let key = lab.kiln.out("key");
    make_key(&key, &["-t", "ed25519"]);
    if let Some(user) = lab.kiln.user() {
        user.give(&key);
    }
    let (one, other) = (
        format!("one={}", key.display()),
        format!("={}", key.display()),
    );
    let stat = "stat -c '%a %u:%g %n'";
    let usual = "/run/buildkit/ssh_agent";
    for (mount, script, expected) in [
        (
            "type=ssh,mode=0666,uid=1000,gid=50",
            format!("{stat} $SSH_AUTH_SOCK"),
            format!("666 1000:50 {usual}.0"),
        ),
        (
            "type=ssh,id=one,target=/a/b",
            format!("{stat} $SSH_AUTH_SOCK; {SIGN}"),
            "600 0:0 /a/b\nsigned".to_owned(),
        ),
        (
            "type=ssh --mount=type=ssh,id=one",
            format!("{stat} {usual}.*; echo $SSH_AUTH_SOCK"),
            format!("600 0:0 {usual}.0\n600 0:0 {usual}.1\n{usual}.0"),
        ),
        (
            "type=ssh,id=none",
            "ls /run 2> /dev/null; echo $SSH_AUTH_SOCK".to_owned(),
            format!("{usual}.0"),
        ),
        (
            "type=ssh,id=none --mount=type=ssh,id=one",
            format!("ls {usual}.0 2> /dev/null; {stat} {usual}.1"),
            format!("600 0:0 {usual}.1"),
        ),
    ] {
        let context = context(mount, &script);
        let build = lab.build(&context).args(["--ssh", &one, "--ssh", &other]);
        assert_eq!(seen(lab, build).trim_end(), expected, "{mount}");
    }
    let context = context("type=ssh", "echo $SSH_AUTH_SOCK");
    context.edit("COPY root /\n", "ENV SSH_AUTH_SOCK=/mine\n");
    assert_eq!(
        seen(lab, lab.build(&context).args(["--ssh", &other])),
        "/mine\n"
    );
    let context =
        Context::new("ARG BASE\nFROM $BASE\nUSER www\nRUN --mount=type=ssh,required,id=x true\n");
    let outcome = lab.build(&context).args(["--ssh", &other]).fails(1);
    outcome.says(&[
        "Dockerfile:4",
        "SSH agent `x` is required",
        "hint: give it with --ssh x=",
    ]);
}
