//! Tables of what is an image reference and what is not.

use super::*;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn good_references() {
    let digest = format!("sha256:{HEX}");
    let at = |text: &str| format!("{text}@{digest}");
    let long = "a".repeat(128);
    for (text, full, familiar) in [
        ("debian", "docker.io/library/debian:latest", "debian:latest"),
        ("debian:12", "docker.io/library/debian:12", "debian:12"),
        ("a/b", "docker.io/a/b:latest", "a/b:latest"),
        ("a/b/c:x", "docker.io/a/b/c:x", "a/b/c:x"),
        (
            "library/debian",
            "docker.io/library/debian:latest",
            "debian:latest",
        ),
        (
            "docker.io/debian",
            "docker.io/library/debian:latest",
            "debian:latest",
        ),
        ("docker.io/a/b", "docker.io/a/b:latest", "a/b:latest"),
        (
            "index.docker.io/a",
            "docker.io/library/a:latest",
            "a:latest",
        ),
        ("index.docker.io/a/b", "docker.io/a/b:latest", "a/b:latest"),
        (
            "docker.io/library/a/b",
            "docker.io/library/a/b:latest",
            "library/a/b:latest",
        ),
        ("ghcr.io/a", "ghcr.io/a:latest", "ghcr.io/a:latest"),
        ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
        (
            "localhost:5000/x:1",
            "localhost:5000/x:1",
            "localhost:5000/x:1",
        ),
        (
            "127.0.0.1:5000/x/y",
            "127.0.0.1:5000/x/y:latest",
            "127.0.0.1:5000/x/y:latest",
        ),
        ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
        (
            "[2001:db8::1]/x",
            "[2001:db8::1]/x:latest",
            "[2001:db8::1]/x:latest",
        ),
        ("host:1/x", "host:1/x:latest", "host:1/x:latest"),
        ("EXAMPLE/foo", "EXAMPLE/foo:latest", "EXAMPLE/foo:latest"),
        ("Host.io/foo", "Host.io/foo:latest", "Host.io/foo:latest"),
        (
            "a-b--c/d__e.f_g",
            "docker.io/a-b--c/d__e.f_g:latest",
            "a-b--c/d__e.f_g:latest",
        ),
        (
            "x:V1.0_rc-1",
            "docker.io/library/x:V1.0_rc-1",
            "x:V1.0_rc-1",
        ),
        ("x:_", "docker.io/library/x:_", "x:_"),
        (
            "localhost",
            "docker.io/library/localhost:latest",
            "localhost:latest",
        ),
        ("host:80", "docker.io/library/host:80", "host:80"),
        (
            &format!("x:{long}"),
            &format!("docker.io/library/x:{long}"),
            &format!("x:{long}"),
        ),
        (
            &at("debian"),
            &at("docker.io/library/debian"),
            &at("debian"),
        ),
        (
            &at("debian:12"),
            &at("docker.io/library/debian:12"),
            &at("debian:12"),
        ),
        (&at("h.io:1/a:b"), &at("h.io:1/a:b"), &at("h.io:1/a:b")),
        (
            &HEX[1..],
            &format!("docker.io/library/{}:latest", &HEX[1..]),
            &format!("{}:latest", &HEX[1..]),
        ),
        (
            &format!("a/{HEX}"),
            &format!("docker.io/a/{HEX}:latest"),
            &format!("a/{HEX}:latest"),
        ),
    ] {
        let reference: Reference = text.parse().unwrap();
        assert_eq!(reference.to_string(), full, "{text}");
        assert_eq!(reference.familiar(), familiar, "{text}");
        assert_eq!(full.parse().as_ref(), Ok(&reference), "{full}");
        assert_eq!(familiar.parse().as_ref(), Ok(&reference), "{familiar}");
    }
}

#[test]
fn bad_references_say_why() {
    let long = format!("x:{}", "a".repeat(129));
    let deep = "a/".repeat(128) + "b";
    for (text, why) in [
        ("", "empty"),
        (HEX, "image id"),
        ("debian:7:3", "`7:3` is not a tag"),
        ("debian:", "`` is not a tag"),
        ("debian:-1", "is not a tag"),
        ("debian:.x", "is not a tag"),
        ("debian:a b", "is not a tag"),
        (&long, "is not a tag"),
        (&deep, "longer than 255"),
        ("Debian", "lower case"),
        ("ghcr.io/A/b", "lower case"),
        ("a//b", "empty part"),
        ("a/b/", "empty part"),
        ("ghcr.io/", "names no repository"),
        (":tag", "names no repository"),
        ("-a", "`-a` is not part"),
        ("a-", "`a-` is not part"),
        ("a___b", "is not part"),
        ("a..b", "is not part"),
        ("a/../b", "`..` is not part"),
        ("a b", "is not part"),
        ("é", "is not part"),
        ("a@sha256:12", "is not `sha256:` and 64"),
        ("a@sha512:12", "sha256 is"),
        ("a@", "sha256 is"),
        ("host:port/x", "`host:port` is not a host"),
        ("host:0/x", "is not a host"),
        ("host:70000/x", "is not a host"),
        ("-h.io/x", "is not a host"),
        ("h..io/x", "is not a host"),
        ("[::1/x", "is not a host"),
        ("[zz]:1/x", "is not a host"),
        ("https://ghcr.io/x", "is not a host"),
        ("user@host.io/x", "sha256 is"),
    ] {
        let error = text.parse::<Reference>().unwrap_err();
        assert!(error.reason.contains(why), "{text}: {error}");
    }
}

#[test]
fn digest_and_tag_can_be_changed() {
    let reference: Reference = "debian:12".parse().unwrap();
    let digest = Digest::sha256("");
    let pinned = reference.with_digest(digest);
    assert_eq!(
        pinned.to_string(),
        format!("docker.io/library/debian:12@{digest}")
    );
    assert_eq!(pinned.with_tag("13").unwrap().familiar(), "debian:13");
    assert!(pinned.with_tag("a/b").is_err());
}
