//! Mount options: what each text means, and what is wrong with it.

use super::*;

fn options(text: &str) -> MountOptions {
    read(text).unwrap_or_else(|error| panic!("{text}: {}", error.message))
}

#[test]
fn every_key_and_alias_is_read() {
    let text = "type=cache,id=i,source=/s,target=/t,sharing=locked,mode=700,uid=1,gid=2,ro";
    let expected = MountOptions {
        kind: MountType::Cache,
        id: "i".to_owned(),
        source: "/s".to_owned(),
        target: "/t".to_owned(),
        sharing: Some(Sharing::Locked),
        mode: Some(0o700),
        uid: Some(1),
        gid: Some(2),
        read_only: true,
        ..MountOptions::default()
    };
    assert_eq!(options(text), expected);
    for alias in ["target", "dst", "destination", "TARGET"] {
        assert_eq!(options(&format!("{alias}=/x")).target, "/x");
    }
    assert_eq!(options("src=/x").source, "/x");
    assert_eq!(options("from=img").from, "img");
    assert_eq!(options("type=tmpfs,size=1k").size, Some(1024));
    assert_eq!(options("type=secret,id=x,env=E").env.as_deref(), Some("E"));
}

#[test]
fn binds_are_read_only_and_others_are_not_unless_told() {
    for (text, expected) in [
        ("target=/x", true),
        ("target=/x,rw", false),
        ("target=/x,readwrite=true", false),
        ("target=/x,rw=0", true),
        ("target=/x,ro=false", false),
        ("target=/x,rw,ro", true),
        ("type=cache", false),
        ("type=tmpfs", false),
        ("type=cache,ro", true),
        ("type=tmpfs,readonly=t", true),
        ("type=secret,id=x", true),
    ] {
        assert_eq!(options(text).read_only, expected, "{text}");
    }
}

#[test]
fn the_last_of_a_key_counts() {
    let found = options("type=bind,type=CACHE,target=/a,dst=/b");
    assert_eq!(
        (found.kind, found.target.as_str()),
        (MountType::Cache, "/b")
    );
}

#[test]
fn faults_name_their_place() {
    for (text, message, place) in [
        ("foo=x", "unexpected key `foo` in `foo=x`", "foo=x"),
        ("a,type=bind", "invalid field `a`", "a"),
        ("type=bind,,rw", "invalid field ``", ""),
        ("type=bnd", "unsupported mount type `bnd`", "bnd"),
        ("type=cache,sharing=x", "unsupported sharing value `x`", "x"),
        ("ro=maybe", "invalid value for `ro`: `maybe`", "maybe"),
        ("type=cache,mode=9", "invalid value for `mode`: `9`", "9"),
        ("type=ssh,uid=-1", "invalid value for `uid`: `-1`", "-1"),
        ("type=tmpfs,size=x", "invalid value for `size`: `x`", "x"),
        (
            "size=1,type=tmpfs",
            "unexpected key `size` for mount type `bind`",
            "size=1",
        ),
        (
            "required,type=secret,id=x",
            "unexpected key `required`",
            "required",
        ),
        (
            "type=cache,required=true",
            "unexpected key `required`",
            "required=true",
        ),
        ("uid=1", "`uid` is not allowed", "uid=1"),
        (
            "type=tmpfs,mode=1",
            "`mode` is not allowed",
            "type=tmpfs,mode=1",
        ),
        (
            "type=secret",
            "one of `id`, `source`, `target`",
            "type=secret",
        ),
        (
            "type=secret,id=a,src=b",
            "both `source` and `id`",
            "type=secret,id=a,src=b",
        ),
        (
            "type=secret,id=a,from=b",
            "`from`",
            "type=secret,id=a,from=b",
        ),
        (
            "type=secret,id=a,sharing=locked",
            "`sharing`",
            "type=secret,id=a,sharing=locked",
        ),
        ("sharing=locked", "invalid cache sharing", "sharing=locked"),
        ("from=$x", "doesn't support variable expansion", "$x"),
        ("", "failed to parse csv mounts: EOF", ""),
        ("a\"b", "failed to parse csv mounts", "a\"b"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.message.contains(message), "{text}: {}", error.message);
        assert_eq!(&text[error.span.unwrap().range()], place, "{text}");
    }
}

#[test]
fn slips_are_recognised() {
    for (text, help) in [
        ("trget=/x", "did you mean `target`?"),
        ("readonl", "did you mean `readonly`?"),
        ("type=cach", "did you mean `cache`?"),
        ("type=cache,sharing=lokced", "did you mean `locked`?"),
        (
            "type=nothing",
            "known are `bind`, `cache`, `tmpfs`, `secret`, `ssh`",
        ),
    ] {
        assert_eq!(
            read(text).unwrap_err().help.as_deref(),
            Some(help),
            "{text}"
        );
    }
}

#[test]
fn a_variable_in_from_is_found_when_the_file_is_parsed() {
    let parse = |text: &str| {
        let span = Span::new(0, text.len());
        let text = text.to_owned();
        MountFlag::parse(&Word { text, span })
    };
    assert!(parse("from=a$b").is_err());
    assert_eq!(parse("from=a,from=b$").unwrap().from.unwrap().text, "b$");
    assert_eq!(parse("from=").unwrap().from, None);
    assert!(parse("foo=x,target=$T").is_ok());
}

proptest::proptest! {
    #[test]
    fn no_text_is_too_odd(text in ".*") {
        let _either = read(&text);
    }

    #[test]
    fn no_options_are_too_odd(
        parts in proptest::collection::vec("(type|size|mode|ro|from|\"|=|,|\\$|1|k|é|cache|\\PC){0,4}", 0..6)
    ) {
        let _either = read(&parts.join(","));
    }
}
