//! Every flag of the language, with every option it has, is part of some build.
//!
//! A scan of texts: the Dockerfiles in `fixtures/builds`, and those that the tests here write.

use std::fs;

use crate::support::repository;

/// Instructions with their flags, and the values that a flag may have where they are few.
const FLAGS: &[(&str, &[&str])] = &[
    ("FROM", &["--platform="]),
    (
        "ADD",
        &[
            "--chown=",
            "--chmod=",
            "--link",
            "--keep-git-dir",
            "--checksum=sha256:",
            "--unpack",
            "--unpack=false",
            "--exclude=",
            "https://",
            "http://",
            ".git",
        ],
    ),
    (
        "COPY",
        &[
            "--from=",
            "--from=0",
            "--chown=",
            "--chmod=",
            "--chmod=0",
            "--chmod=u",
            "--link",
            "--parents",
            "--exclude=",
            "/./",
            "<<",
            "<<-",
            "<<\\\"",
        ],
    ),
    (
        "RUN",
        &[
            "--network=none",
            "--network=host",
            "--network=default",
            "--security=insecure",
            "--security=sandbox",
            "<<",
            "[\\\"",
        ],
    ),
    (
        "HEALTHCHECK",
        &[
            "--interval=",
            "--timeout=",
            "--start-period=",
            "--start-interval=",
            "--retries=",
            "NONE",
            "CMD [",
        ],
    ),
    (
        "ONBUILD",
        &["RUN", "COPY", "ADD", "ENV", "COPY --from=", "RUN --mount="],
    ),
    ("EXPOSE", &["/udp", "-", "/sctp"]),
    ("#", &["syntax=", "escape=", "check=skip=", "check=error="]),
];

/// Types of mounts with the options that each has.
const MOUNTS: &[(&str, &[&str])] = &[
    (
        "bind",
        &[
            "target=",
            "dst=",
            "destination=",
            "source=",
            "src=",
            "from=",
            "readonly",
            "ro",
            "readwrite",
            "rw",
        ],
    ),
    (
        "cache",
        &[
            "id=",
            "target=",
            "ro",
            "sharing=shared",
            "sharing=private",
            "sharing=locked",
            "from=",
            "source=",
            "mode=",
            "uid=",
            "gid=",
        ],
    ),
    ("tmpfs", &["target=", "size="]),
    (
        "secret",
        &[
            "id=", "source=", "target=", "env=", "required", "mode=", "uid=", "gid=",
        ],
    ),
    (
        "ssh",
        &["id=", "target=", "required", "mode=", "uid=", "gid="],
    ),
];

/// Returns everything that a build may be made of, and the goldens of none.
fn texts() -> String {
    let builds = fs::read_dir(repository().join("fixtures/builds")).unwrap();
    let dockerfiles = builds.map(|entry| entry.unwrap().path().join("Dockerfile"));
    let tests = fs::read_dir(repository().join("tests/blackbox")).unwrap();
    let tests = tests.map(|entry| entry.unwrap().path());
    let own = repository().join("tests/blackbox/every_option.rs");
    let files = dockerfiles.chain(tests.filter(|path| path.is_file() && *path != own));
    // Texts in Rust have `\n` where a Dockerfile has a line break.
    let texts = files.map(|path| fs::read_to_string(path).unwrap().replace("\\n", "\n"));
    texts.collect::<Vec<_>>().join("\n")
}

fn has_flag(texts: &str, instruction: &str, flag: &str) -> bool {
    let plain = flag.replace('\\', "");
    texts.lines().any(|line| {
        let at = line.find(&format!("{instruction} "));
        at.is_some_and(|at| line[at..].contains(flag) || line[at..].contains(&plain))
    })
}

/// Returns the mounts, each as its fields: flags, and what tests put behind `--mount=` later.
fn mounts(texts: &str) -> Vec<Vec<&str>> {
    let words = texts.split(|c: char| c.is_whitespace() || c == '"');
    let mounts = words.filter_map(|word| match word.strip_prefix("--mount=") {
        None => Some(word).filter(|word| word.starts_with("type=")),
        mount => mount,
    });
    mounts.map(|mount| mount.split(',').collect()).collect()
}

fn has_option(mounts: &[Vec<&str>], kind: &str, option: &str) -> bool {
    let kind = format!("type={kind}");
    mounts.iter().any(|fields| {
        let has_type = fields.iter().any(|field| field.starts_with("type="));
        let is_kind = fields.contains(&kind.as_str()) || !has_type && kind == "type=bind";
        let is_option = |field: &&str| match option.strip_suffix('=') {
            Some(_) => field.starts_with(option),
            None => *field == option || field.starts_with(&format!("{option}=")),
        };
        is_kind && fields.iter().any(is_option)
    })
}

#[test]
fn every_flag_is_built_somewhere() {
    let texts = texts();
    let missing: Vec<String> = FLAGS
        .iter()
        .flat_map(|(instruction, flags)| flags.iter().map(move |flag| (instruction, flag)))
        .filter(|(instruction, flag)| !has_flag(&texts, instruction, flag))
        .map(|(instruction, flag)| format!("{instruction} {flag}"))
        .collect();
    assert!(missing.is_empty(), "no build has {missing:#?}");
}

#[test]
fn every_option_of_mounts_is_built_somewhere() {
    let texts = texts();
    let mounts = mounts(&texts);
    let missing: Vec<String> = MOUNTS
        .iter()
        .flat_map(|(kind, options)| options.iter().map(move |option| (kind, option)))
        .filter(|(kind, option)| !has_option(&mounts, kind, option))
        .map(|(kind, option)| format!("type={kind},{option}"))
        .collect();
    assert!(missing.is_empty(), "no build has {missing:#?}");
}
