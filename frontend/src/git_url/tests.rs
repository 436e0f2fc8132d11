use super::*;

/// Returns what a URL means, on one line; `-` if it is no Git URL.
fn shown(text: &str) -> String {
    let url = match git_url(text) {
        Ok(None) => return "-".to_owned(),
        Ok(Some(url)) => url,
        Err(error) => return format!("! {error}"),
    };
    let mut out = url.remote;
    let texts = [
        ("ref", url.reference),
        ("dir", url.subdir),
        ("sum", url.checksum),
        ("keep", url.keep_git_dir.map(|on| on.to_string())),
        ("sub", url.submodules.map(|on| on.to_string())),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            out = format!("{out} {name}={text}");
        }
    }
    let flags = [
        (url.times == GitTimes::Commit, " commit-times"),
        (url.fetch_by_commit, " by-commit"),
        (url.is_shorthand, " short"),
    ];
    out.extend(flags.iter().filter(|(on, _)| *on).map(|(_, name)| *name));
    out
}

fn check(table: &[(&str, &str)]) {
    for (text, expected) in table {
        assert_eq!(shown(text), *expected, "{text}");
    }
}

#[test]
fn forms() {
    check(&[
        ("https://e.com/", "-"),
        ("https://e.com/foo", "-"),
        ("https://e.com/foo.git", "https://e.com/foo.git"),
        ("http://e.com:8080/a/b.git", "http://e.com:8080/a/b.git"),
        ("https://e.com/foo.git/", "-"),
        ("https://e.com/foo.git.bar", "-"),
        ("https://e.com/foo%2Egit", "https://e.com/foo%2Egit"),
        ("HTTPS://e.com/foo.git", "https://e.com/foo.git"),
        ("https://u:p@e.com/foo.git", "https://u:p@e.com/foo.git"),
        ("https://[::1]:80/foo.git", "https://[::1]:80/foo.git"),
        ("https://e.com:x/foo.git", "-"),
        ("https://e com/foo.git", "-"),
        ("https://e.com/%zz.git", "-"),
        ("git://e.com/foo", "git://e.com/foo"),
        ("ssh://git@e.com:22/foo", "ssh://git@e.com:22/foo"),
        ("ssh://e.com/foo.git#x", "ssh://e.com/foo.git ref=x"),
        (
            "git@github.com:moby/buildkit",
            "git@github.com:moby/buildkit",
        ),
        (
            "git@bitbucket.org:a-b/c_d.git",
            "git@bitbucket.org:a-b/c_d.git",
        ),
        ("other_user@host:path", "other_user@host:path"),
        ("us.er@host:path", "-"),
        ("user@ho_st:path", "-"),
        ("user@host", "-"),
        ("@host:path", "-"),
        ("dir/user@host:path", "-"),
        (
            "github.com/moby/buildkit",
            "https://github.com/moby/buildkit short",
        ),
        (
            "github.com/moby/buildkit#master:d",
            "https://github.com/moby/buildkit ref=master dir=d short",
        ),
        ("www.github.com/moby/buildkit", "-"),
        ("custom.xyz/moby/buildkit.git", "-"),
        ("https://github.com/moby/buildkit", "-"),
        ("./.git", "-"),
        ("../x@y:z", "-"),
        (".git", "-"),
        ("", "-"),
        ("ftp://e.com/foo.git", "-"),
        ("file:///x/foo.git", "-"),
        ("ext::sh -c x.git", "-"),
        ("docker-image://x.git", "-"),
    ]);
}

#[test]
fn fragments() {
    check(&[
        (
            "https://e.com/f.git#deadbeef",
            "https://e.com/f.git ref=deadbeef",
        ),
        (
            "https://e.com/f.git#release/1.2",
            "https://e.com/f.git ref=release/1.2",
        ),
        (
            "https://e.com/f.git#baz/qux:quux/quuz",
            "https://e.com/f.git ref=baz/qux dir=quux/quuz",
        ),
        ("https://e.com/f.git#:dir", "https://e.com/f.git dir=dir"),
        ("https://e.com/f.git#main:", "https://e.com/f.git ref=main"),
        ("https://e.com/f.git#", "https://e.com/f.git"),
        (
            "https://e.com/f.git#main:/a/../b/./c/",
            "https://e.com/f.git ref=main dir=b/c",
        ),
        (
            "https://e.com/f.git#main:../../..",
            "https://e.com/f.git ref=main",
        ),
        (
            "https://e.com/f.git#main:..x",
            "https://e.com/f.git ref=main dir=..x",
        ),
        (
            "https://e.com/f.git#a%20b",
            "! reference `a b` is not valid",
        ),
        (
            "https://e.com/f.git#main:a%20b",
            "https://e.com/f.git ref=main dir=a b",
        ),
        ("http://e.com/f.git:#branch", "-"),
        ("git@e.com:f.git#v1:d", "git@e.com:f.git ref=v1 dir=d"),
        ("git@e.com:f#a:b:c", "git@e.com:f ref=a dir=b:c"),
    ]);
}

#[test]
fn queries() {
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let pinned = format!("https://e.com/f.git?checksum={commit}");
    let by_commit = format!("https://e.com/f.git?ref=a&commit={commit}&fetch-by-commit");
    check(&[
        (
            "https://e.com/f.git?ref=v1&subdir=/s",
            "https://e.com/f.git ref=v1 dir=s",
        ),
        (
            "https://e.com/f.git?subdir=/s#v1",
            "https://e.com/f.git ref=v1 dir=s",
        ),
        (
            "https://e.com/f.git?tag=v1",
            "https://e.com/f.git ref=refs/tags/v1",
        ),
        (
            "https://e.com/f.git?tag=refs/tags/v1",
            "https://e.com/f.git ref=refs/tags/v1",
        ),
        (
            "github.com/m/b?tag=v1",
            "https://github.com/m/b ref=refs/tags/v1 short",
        ),
        (
            "https://e.com/f.git?branch=v1",
            "https://e.com/f.git ref=refs/heads/v1",
        ),
        (
            "https://e.com/f.git?branch=b&ref=refs/heads/b",
            "https://e.com/f.git ref=refs/heads/b",
        ),
        (
            "git@e.com:f.git?subdir=/s#v1",
            "git@e.com:f.git ref=v1 dir=s",
        ),
        (
            "https://e.com/f.git?ref=v1#v1",
            "https://e.com/f.git ref=v1",
        ),
        (
            "https://e.com/f.git?ref=main&checksum=abc",
            "https://e.com/f.git ref=main sum=abc",
        ),
        (
            "https://e.com/f.git?commit=abc",
            "https://e.com/f.git sum=abc",
        ),
        (
            &pinned,
            &format!("https://e.com/f.git ref={commit} sum={commit}"),
        ),
        (
            &by_commit,
            &format!("https://e.com/f.git ref=a sum={commit} by-commit"),
        ),
        (
            "https://e.com/f.git?keep-git-dir",
            "https://e.com/f.git keep=true",
        ),
        (
            "https://e.com/f.git?keep-git-dir=0",
            "https://e.com/f.git keep=false",
        ),
        (
            "https://e.com/f.git?submodules=False",
            "https://e.com/f.git sub=false",
        ),
        (
            "https://e.com/f.git?submodules=",
            "https://e.com/f.git sub=true",
        ),
        (
            "https://e.com/f.git?mtime=commit",
            "https://e.com/f.git commit-times",
        ),
        ("https://e.com/f.git?mtime=checkout", "https://e.com/f.git"),
        (
            "https://e.com/f.git?ref=a%2Fb",
            "https://e.com/f.git ref=a/b",
        ),
        ("https://e.com/f.git?", "https://e.com/f.git"),
        ("https://e.com/f.git?&&", "https://e.com/f.git"),
        ("https://e.com/f.git?subdir=/", "https://e.com/f.git"),
    ]);
}

#[test]
fn mistakes() {
    check(&[
        ("https://e.com/f.git?ref=a#b", "! ref conflicts: `b` vs `a`"),
        (
            "https://e.com/f.git?ref=a&tag=b",
            "! ref conflicts: `a` vs `refs/tags/b`",
        ),
        (
            "https://e.com/f.git?branch=b#a",
            "! ref conflicts: `a` vs `refs/heads/b`",
        ),
        (
            "https://e.com/f.git?tag=a&branch=b",
            "! branch conflicts with tag",
        ),
        (
            "https://e.com/f.git?subdir=a#x:b",
            "! subdir conflicts: `b` vs `a`",
        ),
        (
            "https://e.com/f.git?checksum=a&commit=b",
            "! checksum conflicts: `a` vs `b`",
        ),
        (
            "https://e.com/f.git?invalid=123",
            "! unexpected query `invalid`",
        ),
        ("https://e.com/f.git?ref", "! query `ref` has no value"),
        ("https://e.com/f.git?mtime=", "! query `mtime` has no value"),
        (
            "https://e.com/f.git?ref=a&ref=a",
            "! query `ref` has multiple values",
        ),
        (
            "https://e.com/f.git?keep-git-dir=maybe",
            "! invalid keep-git-dir value: `maybe` (expected true or false)",
        ),
        (
            "https://e.com/f.git?mtime=now",
            "! invalid mtime value: `now` (expected checkout or commit)",
        ),
        (
            "https://e.com/f.git?checksum=xyz",
            "! invalid checksum value: `xyz` (expected a hexadecimal commit hash)",
        ),
        (
            "https://e.com/f.git?fetch-by-commit&checksum=abc",
            "! fetch-by-commit needs `checksum` with a full commit hash",
        ),
        ("github.com/m/b?x=1", "! unexpected query `x`"),
        ("git@e.com:f?x=1", "! unexpected query `x`"),
    ]);
}

#[test]
fn nothing_is_an_option_a_refspec_or_a_pattern() {
    let address = |host: &str| format!("! address of a Git repository `{host}` is not valid");
    check(&[
        ("-u@h:p", &address("h")),
        ("u@-oProxy:p", &address("-oProxy")),
        ("ssh://-oProxyCommand=x/y", &address("-oProxyCommand=x")),
        ("ssh://-oProxyCommand=x@h/y", &address("h")),
        ("https://-x/f.git", &address("-x")),
        ("git://h/a b", &address("h")),
        ("u@h:a\tb", &address("h")),
    ]);
    for name in [
        "--upload-pack=x",
        "-x",
        "+main",
        "a:b",
        "a*",
        "a?",
        "[a]",
        "a^",
        "a~1",
        "a\\b",
        "a b",
        "a..b",
        "@{1}",
        "@",
        "a/",
        "/a",
        "a//b",
        "a.lock",
        ".a",
        "a/.b",
        "a.",
        "a\nb",
        "a\u{7f}",
    ] {
        let encoded: String = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let text = shown(&format!("https://e.com/f.git?ref={encoded}"));
        assert!(text.starts_with("! reference `"), "{name}: {text}");
    }
}

#[test]
fn any_text_is_understood_or_refused() {
    let pieces = [
        "https://",
        "git@h:",
        "github.com/",
        "x.git",
        "?",
        "#",
        ":",
        "&",
        "=",
        "%",
        "%4",
        "é",
        "\0",
        "ref",
        "@",
        "[",
        "]",
        "/",
        "..",
    ];
    for a in pieces {
        for b in pieces {
            for c in pieces {
                for text in [format!("{a}{b}{c}"), format!("https://h/x.git{a}{b}{c}")] {
                    let _any = git_url(&text);
                }
            }
        }
    }
}
