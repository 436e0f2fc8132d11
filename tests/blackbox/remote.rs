//! `ADD` of files and repositories from elsewhere.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::support::{
    Asked, Context, Flow, Kiln, Proxy, TlsWeb, Web, assert_store_is_clean, command, require_tools,
    run, text,
};

/// Builds a folder's context into a folder.
pub(crate) fn build(kiln: &Kiln, context: &Context, args: &[&str]) -> PathBuf {
    let dest = fresh(kiln);
    let output = format!("type=local,dest={}", dest.display());
    kiln.build(context).args(["-o", &output]).args(args).ok();
    dest
}

pub(crate) fn fresh(kiln: &Kiln) -> PathBuf {
    let dest = kiln.out("result");
    fs::remove_dir_all(&dest).ok();
    dest
}

pub(crate) fn read(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap()
}

pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn statuses(requests: &[Asked]) -> Vec<u16> {
    requests.iter().map(|asked| asked.status).collect()
}

#[test]
fn a_file_is_downloaded_once_and_asked_about() {
    let (web, kiln) = (Web::start(), Kiln::new());
    web.write("dir/file", "one");
    let url = web.url("dir/file");
    let context = Context::new(&format!("FROM scratch\nADD {url} /\nADD {url} /as/\n"));
    let dest = build(&kiln, &context, &[]);
    assert_eq!(read(&dest, "file") + &read(&dest, "as/file"), "oneone");
    let meta = fs::metadata(dest.join("file")).unwrap();
    let modified = meta
        .modified()
        .unwrap()
        .duration_since(std::time::UNIX_EPOCH);
    assert_eq!(modified.unwrap().as_secs(), 1_614_834_367);
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&meta) & 0o7777, 0o600);
    assert_eq!(statuses(&web.take_requests()), [200]);
    build(&kiln, &context, &[]);
    assert_eq!(statuses(&web.take_requests()), [304]);
    web.write("dir/file", "two");
    let dest = build(&kiln, &context, &[]);
    assert_eq!(read(&dest, "file"), "two");
    assert_eq!(statuses(&web.take_requests()), [200]);
}

#[test]
fn a_file_with_a_checksum_is_not_asked_about_again() {
    let (web, kiln) = (Web::start(), Kiln::new());
    web.write("file", "hello\n");
    let sum = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
    let url = web.url("file");
    let context = Context::new(&format!(
        "FROM scratch\nADD --checksum=sha256:{sum} {url} /\n"
    ));
    build(&kiln, &context, &[]);
    build(&kiln, &context, &[]);
    assert_eq!(web.take_requests().len(), 1);
    web.write("file", "another");
    let other = Kiln::new();
    let outcome = other.build(&context).fails(1);
    outcome.says(&["digest mismatch", sum, "Dockerfile:2"]);
    assert_store_is_clean(&other.root(), web.host());
}

#[test]
fn files_come_from_servers_whose_certificate_is_trusted() {
    if !require_tools(&["openssl"]) {
        return;
    }
    let (web, kiln) = (TlsWeb::start(), Kiln::new());
    web.write("file", "over TLS\n");
    let host = web.host();
    let context = Context::new(&format!("FROM scratch\nADD https://{host}/file /\n"));
    let outcome = kiln.build(&context).fails(1);
    outcome.says(&["certificate", "Dockerfile:2"]);
    let authority = format!("--ca-file={}", web.authority().display());
    let dest = build(&kiln, &context, &[&authority]);
    assert_eq!(read(&dest, "file"), "over TLS\n");
}

#[test]
fn passwords_stay_with_their_host_and_out_of_messages() {
    let (web, other, kiln) = (Web::start(), Web::start(), Kiln::new());
    other.write("file", "there");
    let url = format!(
        "http://user:s3cret@{}/redirect/{}",
        web.host(),
        other.url("file")
    );
    let context = Context::new("FROM scratch\nARG U\nADD $U /f\n");
    let arg = format!("--build-arg=U={url}");
    let dest = build(&kiln, &context, &[&arg]);
    assert_eq!(read(&dest, "f"), "there");
    let sent = |web: &Web| web.take_requests()[0].headers.get("authorization").cloned();
    assert_eq!(sent(&web).as_deref(), Some("Basic dXNlcjpzM2NyZXQ="));
    assert_eq!(sent(&other), None);
    let arg = format!("U=http://user:s3cret@{}/gone", web.host());
    let outcome = kiln.build(&context).args(["--build-arg", &arg]).fails(1);
    outcome.says(&["404", "http://user:xxxxx@"]);
    assert!(!outcome.stderr.contains("s3cret"), "{}", outcome.stderr);
}

#[test]
fn passwords_of_addresses_are_nowhere() {
    let (web, kiln) = (Web::start(), Kiln::new());
    web.write("file", "there");
    let host = web.host();
    let context = Context::new(&format!(
        "FROM scratch\nADD http://user:s3cret@{host}/file /f\nADD http://user:s3cret@{host}/gone /g\n"
    ));
    let mut told = Vec::new();
    let outcome = kiln.build(&context).arg("--explain").fails(1);
    told.push(outcome.stderr);
    context.write(
        "Dockerfile",
        format!("FROM scratch\nADD http://user:s3cret@{host}/file /f\n"),
    );
    let built = kiln.build(&context).tag("app:1").arg("--explain").ok();
    assert!(
        built.stderr.contains("ADD http://user:xxxxx@"),
        "{}",
        built.stderr
    );
    told.push(built.stderr);
    let raw = kiln.build(&context).arg("--progress=rawjson").ok();
    told.push(raw.stderr);
    for args in [
        &["why"][..],
        &["du", "--verbose"],
        &["inspect", "app:1"],
        &["prune", "--force", "--verbose"],
    ] {
        let outcome = kiln.run(args).succeeded();
        told.push(text(&outcome.stdout) + &outcome.stderr);
    }
    for print in ["--print=graph", "--print=graph-dot"] {
        let outcome = kiln.build(&context).arg(print).ok();
        told.push(text(&outcome.stdout));
    }
    for text in told {
        assert!(!text.contains("s3cret"), "{text}");
    }
    // Nor does the store have it, but for what is hashed.
    let mut waiting = vec![kiln.root()];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|one| one.unwrap().path()));
        } else if path.is_file() {
            let bytes = fs::read(&path).unwrap();
            let has_it = bytes.windows(6).any(|some| some == b"s3cret");
            assert!(!has_it, "{}", path.display());
        }
    }
}

#[test]
fn remote_and_local_sources_stand_together() {
    let (web, kiln) = (Web::start(), Kiln::new());
    web.write("a*b", "star");
    web.write("axb", "no");
    let url = web.url("a*b");
    let context = Context::new(&format!(
        "FROM scratch\nADD one {url} tw* <<END /d/\ndoc\nEND\n"
    ));
    let context = context.with("one", "1").with("two", "2");
    let dest = build(&kiln, &context, &[]);
    assert_eq!(names(&dest.join("d")), ["END", "a*b", "one", "two"]);
    assert_eq!(read(&dest, "d/a*b"), "star");
}

const HISTORY: &str = "echo one > f; mkdir -p sub/deep; echo d > sub/deep/d; ln -s f link
    printf '#!/bin/sh\\n' > run; chmod 755 run; git add -A; git commit -qm one; git tag -a v1 -m v1
    echo two > f; git commit -qam two; git branch other";

#[test]
fn a_repository_is_fetched_once() {
    if !require_tools(&["git"]) {
        return;
    }
    let (web, kiln) = (Web::start(), Kiln::new());
    web.repository("r.git", HISTORY);
    let url = web.url("smart/r.git");
    let context = Context::new(&format!(
        "FROM scratch\nADD {url}#v1 /v1\nADD {url} /main\n"
    ));
    let dest = build(&kiln, &context, &[]);
    assert_eq!(read(&dest, "v1/f") + &read(&dest, "main/f"), "one\ntwo\n");
    assert_eq!(names(&dest.join("v1")), ["f", "link", "run", "sub"]);
    let mode = |name: &str| {
        let meta = fs::metadata(dest.join("v1").join(name)).unwrap();
        std::os::unix::fs::MetadataExt::mode(&meta) & 0o7777
    };
    assert_eq!((mode("f"), mode("run"), mode("sub")), (0o644, 0o755, 0o755));
    web.take_requests();
    let again = kiln.build(&context).ok();
    again.says(&["unchanged"]);
    let posts = |web: &Web| {
        let requests = web.take_requests();
        requests
            .iter()
            .filter(|asked| asked.line.starts_with("POST"))
            .count()
    };
    // Each asks what is there, and no more.
    assert_eq!(posts(&web), 2);
    let commit = web.commit("r.git", "main");
    context.edit(&format!("{url}#v1"), &format!("{url}#{commit}"));
    context.edit(&format!("ADD {url} /main"), "");
    let dest = build(&kiln, &context, &[]);
    assert_eq!(read(&dest, "v1/f"), "two\n");
    assert_eq!(posts(&web), 0, "a commit that is known needs nobody");
    assert_store_is_clean(&kiln.root(), web.host());
}

#[test]
fn plain_file_servers_are_fetched_from() {
    if !require_tools(&["git"]) {
        return;
    }
    let (web, kiln) = (Web::start(), Kiln::new());
    web.repository("r.git", HISTORY);
    let url = web.url("git/r.git");
    let context = Context::new(&format!("FROM scratch\nADD {url}#other:sub /\n"));
    assert_eq!(read(&build(&kiln, &context, &[]), "deep/d"), "d\n");
}

#[test]
fn git_dir_is_kept_on_demand_and_holds_no_password() {
    if !require_tools(&["git"]) {
        return;
    }
    let (web, kiln) = (Web::start(), Kiln::new());
    web.repository("r.git", HISTORY);
    let host = web.host();
    let context = Context::new(&format!(
        "FROM scratch\nADD --keep-git-dir http://user:s3cret@{host}/smart/r.git#v1 /\n"
    ));
    let dest = build(&kiln, &context, &[]);
    let git = |args: &[&str]| {
        let mut git = command("git");
        git.args(["-c", "safe.directory=*", "-C"])
            .arg(&dest)
            .args(args);
        text(&run(&mut git).stdout).trim().to_owned()
    };
    assert_eq!(
        git(&["rev-parse", "HEAD"]),
        web.commit("r.git", "v1^{commit}")
    );
    assert_eq!(
        git(&["rev-parse", "refs/tags/v1"]),
        web.commit("r.git", "v1")
    );
    assert_eq!(git(&["status", "--porcelain"]), "");
    assert_eq!(
        git(&["config", "remote.origin.url"]),
        web.url("smart/r.git")
    );
    git(&["fsck"]);
    let grep = command("grep")
        .args(["-r", "s3cret"])
        .arg(&dest)
        .output()
        .unwrap();
    assert_eq!(text(&grep.stdout), "");
}

#[test]
fn configuration_and_hooks_of_the_user_are_not_used() {
    if !require_tools(&["git"]) {
        return;
    }
    let (web, kiln) = (Web::start(), Kiln::new());
    web.repository("r.git", HISTORY);
    let (home, mark) = (kiln.home(), kiln.out("mark"));
    let hook = format!("#!/bin/sh\ntouch {}\n", mark.display());
    fs::create_dir_all(home.join("hooks")).unwrap();
    for name in [
        "post-checkout",
        "reference-transaction",
        "post-index-change",
    ] {
        let path = home.join("hooks").join(name);
        fs::write(&path, &hook).unwrap();
        run(command("chmod").arg("755").arg(&path));
    }
    let host = web.host();
    let config = format!(
        "[core]\n hooksPath = {0}/hooks\n sshCommand = touch {1}\n[url \"http://127.0.0.1:1/\"]\n \
         insteadOf = http://{host}/\n[credential]\n helper = !touch {1}\n",
        home.display(),
        mark.display()
    );
    fs::write(home.join(".gitconfig"), &config).unwrap();
    let url = web.url("smart/r.git");
    let context = Context::new(&format!("FROM scratch\nADD {url} /\n"));
    let mut build = kiln.build(&context).into_command();
    build
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "core.hooksPath");
    build.env("GIT_CONFIG_VALUE_0", home.join("hooks"));
    build
        .env("GIT_DIR", "/nowhere")
        .env("GIT_EXTERNAL_DIFF", "false");
    run(&mut build);
    assert!(!mark.exists());
}

#[test]
fn submodules_are_checked_out_and_may_not_be_local() {
    if !require_tools(&["git"]) {
        return;
    }
    let (web, kiln) = (Web::start(), Kiln::new());
    web.repository("inner.git", "echo inner > i; git add -A; git commit -qm x");
    let inner = web.url("smart/inner.git");
    let with = |url: &str| {
        let commit = web.commit("inner.git", "main");
        format!(
            "echo o > o; printf '[submodule \"m\"]\\n path = m\\n url = {url}\\n' > .gitmodules
             git add -A; git update-index --add --cacheinfo 160000,{commit},m; git commit -qm x"
        )
    };
    web.repository("outer.git", &with(&inner));
    web.repository("relative.git", &with("../inner.git"));
    let secret = kiln.out("secret");
    run(command("git").args(["init", "-q"]).arg(&secret));
    web.repository("evil.git", &with(&format!("file://{}", secret.display())));
    web.repository("option.git", &with("ext::touch /tmp/kiln-never"));
    let add = |name: &str| {
        let url = web.url(&format!("smart/{name}"));
        Context::new(&format!("FROM scratch\nADD {url} /\n"))
    };
    for name in ["outer.git", "relative.git"] {
        let dest = build(&kiln, &add(name), &[]);
        assert_eq!(read(&dest, "m/i"), "inner\n", "{name}");
        assert_eq!(names(&dest.join("m")), ["i"]);
    }
    let dest = build(&kiln, &add("outer.git?submodules=false"), &[]);
    assert!(names(&dest.join("m")).is_empty());
    for name in ["evil.git", "option.git"] {
        kiln.build(&add(name)).fails(1).says(&["submodule"]);
    }
}

#[test]
fn mistakes_about_repositories_are_told() {
    if !require_tools(&["git"]) {
        return;
    }
    let (web, kiln) = (Web::start(), Kiln::new());
    web.repository("r.git", HISTORY);
    for (rest, told) in [
        ("r.git#nothing", "does not contain ref `nothing`"),
        ("r.git#abcdef0", "give its whole hash"),
        ("r.git#main:none", "`none` of repository"),
        ("r.git#main:f", "it is not a folder"),
        ("r.git#main:link", "a link"),
        ("none.git", "not found"),
        ("r.git?ref=main&checksum=abc", "expected checksum"),
        ("r.git#--upload-pack=touch", "is not valid"),
    ] {
        let url = web.url(&format!("smart/{rest}"));
        let context = Context::new(&format!("FROM scratch\nADD {url} /\n"));
        kiln.build(&context).fails(1).says(&[told, "Dockerfile:2"]);
    }
    let context = Context::new(&format!("FROM scratch\nADD {} /\n", web.url("smart/r.git")));
    let mut build = kiln.build(&context).into_command();
    let output = build.env("PATH", "/nowhere").output().unwrap();
    assert!(text(&output.stderr).contains("needs the program `git`"));
}

#[test]
fn a_killed_fetch_is_begun_again() {
    if !require_tools(&["git"]) {
        return;
    }
    let (web, kiln) = (Web::start(), Kiln::new());
    let noise = "head -c 400000 /dev/urandom > big; git add -A; git commit -qm big";
    web.repository("r.git", noise);
    let proxy = Proxy::before(web.host());
    let url = format!("http://{}/smart/r.git", proxy.host());
    let context = Context::new(&format!("FROM scratch\nADD {url} /\n"));
    for signal in [Signal::KILL, Signal::INT] {
        proxy.hold_after(Flow::Down, 100_000);
        let running = kiln.build(&context).start();
        proxy.wait_until_held();
        running.signal(signal);
        running.wait();
        proxy.release();
    }
    let dest = build(&kiln, &context, &[]);
    assert_eq!(fs::metadata(dest.join("big")).unwrap().len(), 400_000);
    assert_store_is_clean(&kiln.root(), proxy.host());
}

#[test]
fn an_interrupted_download_leaves_nothing() {
    let (web, kiln) = (Web::start(), Kiln::new());
    web.write("big", vec![7; 1_000_000]);
    let proxy = Proxy::before(web.host());
    proxy.hold_after(Flow::Down, 100_000);
    let context = Context::new(&format!(
        "FROM scratch\nADD http://{}/big /\n",
        proxy.host()
    ));
    let running = kiln.build(&context).start();
    proxy.wait_until_held();
    running.signal(Signal::INT);
    assert_eq!(running.wait().status.code(), Some(130));
    assert_store_is_clean(&kiln.root(), proxy.host());
    proxy.release();
    assert_eq!(
        fs::metadata(build(&kiln, &context, &[]).join("big"))
            .unwrap()
            .len(),
        1_000_000
    );
}
