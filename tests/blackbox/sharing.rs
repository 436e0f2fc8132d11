//! Shared caches: what one store made, another one does not make again; and a cache that is broken
//! costs time and nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::scope;

use serde_json::Value;

use crate::support::{
    Build, Context, Image, Kiln, Lab, Outcome, S3, command, free_port, output, pull_with_skopeo,
    run, text,
};

const PROJECT: &str = "ARG BASE\nFROM $BASE AS tools\n\
    RUN echo tool > /tool && ln /tool /hard && ln -s tool /soft && mkdir -m 700 /d\n\
    FROM tools AS build\nCOPY src /src\n\
    RUN cat /src/* /tool > /out && chmod 4755 /out\n\
    FROM $BASE\nCOPY --from=build /out /app/out\nRUN rm -rf /home && echo done > /done\nWORKDIR /app\n";
const STEPS: [&str; 6] = [
    "RUN echo tool > /tool && ln /tool /hard && ln -s tool /soft && mkdir -m 700 /d",
    "COPY src /src",
    "RUN cat /src/* /tool > /out && chmod 4755 /out",
    "COPY --from=build /out /app/out",
    "RUN rm -rf /home && echo done > /done",
    "WORKDIR /app",
];

fn project() -> Context {
    Context::new(PROJECT)
        .with("src/a", "a\n")
        .with("src/b", "b\n")
}

/// A build by another store, on the same registry.
fn build<'a>(lab: &Lab, kiln: &Kiln, context: &'a Context) -> Build<'a> {
    let build = kiln.build(context).base(&lab.busybox());
    build.env("SOURCE_DATE_EPOCH", "1")
}

fn spec(place: &str, options: &str) -> String {
    format!("{place}{options}")
}

/// Builds the project with a new store and exports everything.
fn export(lab: &Lab, to: &str) -> Kiln {
    let kiln = Kiln::new();
    let context = project();
    let build = build(lab, &kiln, &context)
        .arg("--iidfile")
        .arg(kiln.out("id"));
    let build = build.args(["--cache-to", &spec(to, ",mode=max")]);
    build.ok().ran(&STEPS);
    kiln
}

/// The digest of the image that was built.
fn id(kiln: &Kiln) -> String {
    fs::read_to_string(kiln.out("id")).unwrap()
}

/// Builds the project with an empty store.
fn import(lab: &Lab, from: &str) -> (Outcome, Kiln) {
    let kiln = Kiln::new();
    let context = project();
    let build = build(lab, &kiln, &context).args(["--cache-from", from]);
    let build = build.arg("--iidfile").arg(kiln.out("id"));
    let archive = output("oci", &kiln.out("image.tar"));
    (build.arg("-o").arg(archive).ok(), kiln)
}

fn folder(dir: &Path) -> [String; 2] {
    let dir = dir.display();
    [
        format!("type=local,dest={dir}"),
        format!("type=local,src={dir}"),
    ]
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(dir.join("segments")).unwrap();
    let mut paths: Vec<PathBuf> = found.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn layers_in(kiln: &Kiln) -> usize {
    fs::read_dir(kiln.root().join("layers")).unwrap().count()
}

#[test]
fn a_cold_store_runs_nothing_that_a_cache_has() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let registry = format!("type=registry,ref={}", lab.registry.name("team/app:cache"));
    let [to, from] = folder(dir.path());
    for (to, from) in [(&registry, &registry), (&to, &from)] {
        let exported = export(&lab, to);
        let (outcome, kiln) = import(&lab, from);
        outcome.ran(&[]).cached(&STEPS);
        assert_eq!(id(&kiln), id(&exported));
        // The image is made of blobs; nobody looks at a file.
        assert_eq!(layers_in(&kiln), 0);
    }
}

/// What runs on top of an imported layer sees it as it was.
#[test]
fn imported_layers_are_those_that_were_exported() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let [to, from] = folder(dir.path());
    export(&lab, &to);
    let context = project().with("src/a", "changed\n");
    let kiln = Kiln::new();
    let build_with = build(&lab, &kiln, &context).args(["--cache-from", &from]);
    let (outcome, tree) = kiln.tree_of(build_with);
    outcome.ran(&STEPS[1..]);
    let alone = Kiln::new();
    assert_eq!(tree, alone.tree_of(build(&lab, &alone, &context)).1);
}

#[test]
fn an_image_that_is_pushed_takes_its_layers_from_the_cache() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let cache = format!("type=registry,ref={}", lab.registry.name("team/app:cache"));
    export(&lab, &cache);
    let (kiln, context) = (Kiln::new(), project());
    let name = lab.registry.name("team/app:1");
    let build = build(&lab, &kiln, &context).args(["--cache-from", &cache]);
    build.args(["--push", "-t", &name]).ok().ran(&[]);
    let blobs = fs::read_dir(kiln.root().join("blobs/sha256"))
        .unwrap()
        .count();
    // Config and manifest of the base and of the image, but no layer: they are in the registry.
    assert_eq!(blobs, 4);
    let pulled = tempfile::tempdir().unwrap();
    let pulled = pull_with_skopeo(&name, pulled.path());
    assert_eq!(pulled.n_layers(), 4);
}

#[test]
fn the_smaller_mode_has_what_is_in_the_image() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let [to, from] = folder(dir.path());
    let (kiln, context) = (Kiln::new(), project());
    build(&lab, &kiln, &context).args(["--cache-to", &to]).ok();
    let (outcome, _) = import(&lab, &from);
    outcome.ran(&STEPS[..3]).cached(&STEPS[3..]);
}

/// Twenty jobs write at the same time; a segment a job would be too many to read for long.
#[test]
fn jobs_that_export_at_the_same_time_lose_nothing() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let registry = format!("type=registry,ref={}", lab.registry.name("team/app:cache"));
    let dir = tempfile::tempdir().unwrap();
    let [to, from] = folder(dir.path());
    for (to, from) in [(&registry, &registry), (&to, &from)] {
        let contexts: Vec<Context> = (0..20).map(job).collect();
        scope(|scope| {
            for context in &contexts {
                let (lab, to) = (&lab, &to);
                scope.spawn(move || {
                    let kiln = Kiln::new();
                    build(lab, &kiln, context).args(["--cache-to", to]).ok();
                });
            }
        });
        // One more, which finds many segments, and leaves few.
        let kiln = Kiln::new();
        let last = job(99);
        build(&lab, &kiln, &last).args(["--cache-to", to]).ok();
        for context in contexts.iter().chain([&last]) {
            let kiln = Kiln::new();
            let build = build(&lab, &kiln, context).args(["--cache-from", from]);
            build.ok().ran(&[]);
        }
    }
    assert!(segments(dir.path()).len() < 12);
}

fn job(number: usize) -> Context {
    Context::new(&format!("ARG BASE\nFROM $BASE\nRUN echo {number} > /n\n"))
}

#[test]
fn what_is_known_is_not_sent_again() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let [to, _] = folder(dir.path());
    let kiln = export(&lab, &to);
    let before = segments(dir.path());
    let context = project();
    let again = build(&lab, &kiln, &context).arg("--cache-to");
    again
        .arg(spec(&to, ",mode=max"))
        .ok()
        .says(&["0 steps added, 6 were there"]);
    assert_eq!(segments(dir.path()), before);
    let other = project().with("src/a", "other\n");
    let more = build(&lab, &kiln, &other).arg("--cache-to");
    more.arg(spec(&to, ",mode=max"))
        .ok()
        .says(&["5 steps added, 1 were there"]);
    assert_eq!(segments(dir.path()).len(), before.len() + 1);
}

#[test]
fn what_expires_is_gone() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let [to, from] = folder(dir.path());
    let kiln = export(&lab, &to);
    let context = project();
    let again = build(&lab, &kiln, &context).arg("--cache-to");
    again
        .arg(spec(&to, ",max-size=1"))
        .ok()
        .says(&["6 steps expired"]);
    assert_eq!(segments(dir.path()).len(), 1);
    import(&lab, &from).0.ran(&STEPS);
}

#[test]
fn a_build_that_fails_leaves_what_it_did() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let [to, from] = folder(dir.path());
    let good = "ARG BASE\nFROM $BASE\nRUN echo slow > /slow\n";
    let bad = Context::new(&format!("{good}RUN exit 3\n"));
    let kiln = Kiln::new();
    build(&lab, &kiln, &bad).args(["--cache-to", &to]).fails(3);
    let mended = Context::new(&format!("{good}RUN exit 0\n"));
    let kiln = Kiln::new();
    let build = build(&lab, &kiln, &mended).args(["--cache-from", &from]);
    build.ok().ran(&["RUN exit 0"]);
}

/// Damage of every kind ends in the image that is built without the cache, and in a warning.
#[test]
fn a_damaged_cache_is_a_warning() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = project();
    let alone = Kiln::new();
    let (_, expected) = alone.tree_of(build(&lab, &alone, &context));
    let dir = tempfile::tempdir().unwrap();
    let [to, from] = folder(dir.path());
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 5] = [
        ("no blob is there", |dir| {
            fs::remove_dir_all(dir.join("blobs")).unwrap();
        }),
        ("blobs are short", |dir| {
            each_blob(dir, |bytes| bytes.truncate(bytes.len() / 2));
        }),
        ("blobs have a wrong bit", |dir| {
            each_blob(dir, |bytes| bytes[9] ^= 1);
        }),
        ("the segment is garbage", |dir| {
            for path in segments(dir) {
                fs::write(path, "<html>").unwrap();
            }
        }),
        ("the segment is cut", |dir| {
            for path in segments(dir) {
                let bytes = fs::read(&path).unwrap();
                fs::write(path, &bytes[..bytes.len() - 9]).unwrap();
            }
        }),
    ];
    for (what, damage) in damages {
        export(&lab, &to);
        damage(dir.path());
        let kiln = Kiln::new();
        let build = build(&lab, &kiln, &context).args(["--cache-from", &from]);
        let (outcome, tree) = kiln.tree_of(build);
        assert_eq!(tree, expected, "{what}");
        assert!(
            outcome.stderr.contains("WARNING: "),
            "{what}: {}",
            outcome.stderr
        );
        fs::remove_dir_all(dir.path().join("segments")).unwrap();
        fs::remove_dir_all(dir.path().join("blobs")).ok();
    }
}

fn each_blob(dir: &Path, change: impl Fn(&mut Vec<u8>)) {
    for entry in fs::read_dir(dir.join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn a_cache_that_is_not_there_is_a_warning() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let (kiln, context) = (Kiln::new(), job(1));
    let nobody = format!("127.0.0.1:{}/cache", free_port());
    let build_from = build(&lab, &kiln, &context).args(["--cache-from", &nobody]);
    let outcome = build_from.ok();
    outcome.says(&["WARNING: the cache", "cannot be reached"]);
    assert_eq!(outcome.stderr.matches("WARNING: the cache").count(), 1);
    let (kiln, to) = (Kiln::new(), format!("type=registry,ref={nobody}"));
    let build_to = build(&lab, &kiln, &context).args(["--cache-to", &to]);
    build_to
        .fails(1)
        .says(&["cannot export the cache", "ignore-error=true"]);
    let to = format!("{to},ignore-error=true");
    let build_to = build(&lab, &kiln, &context).args(["--cache-to", &to]);
    build_to.ok().says(&["WARNING: the cache"]);
}

#[test]
fn a_cache_goes_on_from_place_to_place() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let registry = format!("type=registry,ref={}", lab.registry.name("team/app:cache"));
    export(&lab, &registry);
    let dir = tempfile::tempdir().unwrap();
    let [to, from] = folder(dir.path());
    let (kiln, context) = (Kiln::new(), project());
    let build = build(&lab, &kiln, &context).args(["--cache-from", &registry]);
    let build = build.arg("--cache-to").arg(spec(&to, ",mode=max"));
    build.ok().ran(&[]).says(&["6 steps added"]);
    import(&lab, &from).0.ran(&[]);
}

#[test]
fn it_can_be_said_where_a_step_came_from() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let [to, from] = folder(dir.path());
    export(&lab, &to);
    let (_, kiln) = import(&lab, &from);
    let why = kiln.run(["why", "WORKDIR"]).succeeded();
    let told = text(&why.stdout);
    assert!(
        told.contains(&format!("from the cache {}", dir.path().display())),
        "{told}"
    );
}

#[test]
fn a_bucket_is_a_cache_too() {
    let (Some(lab), Some(server)) = (Lab::require(), S3::require()) else {
        return;
    };
    let bucket = format!("type=s3,bucket=team,name=app,endpoint_url={}", server.url());
    let keys = "access_key_id=S3RVER,secret_access_key=S3RVER";
    let place = format!("{bucket},{keys}");
    let exported = export(&lab, &place);
    let (outcome, kiln) = import(&lab, &place);
    outcome.ran(&[]).cached(&STEPS);
    assert_eq!(id(&kiln), id(&exported));
    // A bucket that is not there is told in the server's words.
    let nowhere = place.replace("bucket=team", "bucket=nowhere");
    let (outcome, _) = import(&lab, &nowhere);
    outcome
        .ran(&STEPS)
        .says(&["WARNING: the cache `s3://nowhere/app/`", "NoSuchBucket"]);
    assert!(!outcome.stderr.contains("S3RVER"), "{}", outcome.stderr);
    // What expires is gone from the bucket but for blobs that are new.
    let context = project();
    let again = build(&lab, &kiln, &context).arg("--cache-to");
    let again = again.arg(format!("{place},max-size=1")).ok();
    again.says(&["6 steps expired"]);
    let segments = server.dir().join("team/app/segments");
    let names = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let objects: Vec<_> = fs::read_dir(segments).unwrap().map(names).collect();
    let is_object = |name: &&std::ffi::OsString| name.to_string_lossy().ends_with("_object");
    assert_eq!(objects.iter().filter(is_object).count(), 1, "{objects:?}");
    import(&lab, &place).0.ran(&STEPS);
}

#[test]
fn an_image_can_be_the_cache() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let name = lab.registry.name("team/app:1");
    let from = format!("type=registry,ref={name}");
    for flag in [
        "--cache-to=type=inline",
        "--build-arg=BUILDKIT_INLINE_CACHE=1",
    ] {
        let (kiln, context) = (Kiln::new(), project());
        let pushed = build(&lab, &kiln, &context).args([flag, "--push", "-t", &name]);
        pushed.ok().ran(&STEPS);
        let (outcome, kiln) = import(&lab, &from);
        outcome.ran(&STEPS[..3]).cached(&STEPS[3..]);
        // Who builds upon it does not say what its layers were made of.
        let above = Context::new(&format!("FROM {name}\nRUN true\n"));
        let inspected = kiln.build(&above).tag("above").ok();
        drop(inspected);
        assert!(!kiln.inspect("above").to_string().contains("kiln.cache"));
    }
    let plain = lab.registry.name("busybox:latest");
    let (outcome, _) = import(&lab, &plain);
    outcome.says(&["WARNING: there is no cache"]).ran(&STEPS);
}

/// What a cache says is used by the builds that name it, and by no others.
#[test]
fn a_lying_cache_leaves_nothing_in_the_store() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let [to, from] = folder(dir.path());
    let good = Context::new("ARG BASE\nFROM $BASE\nRUN echo good > /prog\n");
    let evil = Context::new("ARG BASE\nFROM $BASE\nRUN echo evil > /prog\n");
    let other = tempfile::tempdir().unwrap();
    for (context, to) in [(&good, &to), (&evil, &folder(other.path())[0])] {
        let kiln = Kiln::new();
        build(&lab, &kiln, context).args(["--cache-to", to]).ok();
    }
    let [mut record, lie] = [dir.path(), other.path()].map(read_record);
    for field in ["blob", "diff_id"] {
        record["records"][0][field] = lie["records"][0][field].clone();
    }
    write_record(dir.path(), &record);
    let blob = lie["records"][0]["blob"]["digest"]
        .as_str()
        .unwrap()
        .replace("sha256:", "");
    let at = |dir: &Path| dir.join("blobs/sha256").join(&blob);
    fs::copy(at(other.path()), at(dir.path())).unwrap();
    let victim = Kiln::new();
    let first = build(&lab, &victim, &good).args(["--cache-from", &from, "-t", "victim"]);
    first.ok();
    let archive = victim.out("image.tar");
    let alone = build(&lab, &victim, &good).arg("--no-cache");
    alone.arg("-o").arg(output("oci", &archive)).ok();
    let (_, tree) = victim.tree_of(build(&lab, &victim, &good));
    let honest = Kiln::new();
    assert_eq!(tree, honest.tree_of(build(&lab, &honest, &good)).1);
    let image = Image::open_archive(&archive);
    let ids = image.diff_ids();
    assert_ne!(
        ids.last().map(String::as_str),
        record["records"][0]["diff_id"].as_str()
    );
}

/// A false list of a base image is not what anything is recorded by.
#[test]
fn a_false_list_of_a_base_is_not_recorded_by() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let [to, from] = folder(dir.path());
    let copy =
        Context::new("ARG BASE\nFROM $BASE AS b\nFROM scratch\nCOPY --from=b /etc/passwd /p\n");
    let kiln = Kiln::new();
    build(&lab, &kiln, &copy).args(["--cache-to", &to]).ok();
    let mut segment = read_record(dir.path());
    segment["records"] = serde_json::json!([]);
    let blobs = dir.path().join("blobs/sha256");
    let digest = segment["lists"][0]["list"]["digest"]
        .as_str()
        .unwrap()
        .replace("sha256:", "");
    let mut list = zstd(&["-d"], &fs::read(blobs.join(digest)).unwrap());
    let path = b"etc/passwd";
    let at = list
        .windows(path.len())
        .position(|window| window == path)
        .unwrap();
    // Behind the path are kind and size, then the digest.
    list[at + path.len() + 4] ^= 1;
    let packed = zstd(&[], &list);
    fs::write(dir.path().join("list"), &packed).unwrap();
    let sum = run(command("sha256sum").arg(dir.path().join("list")));
    let sum = text(&sum.stdout)[..64].to_owned();
    fs::write(blobs.join(&sum), &packed).unwrap();
    segment["lists"][0]["list"]["digest"] = format!("sha256:{sum}").into();
    segment["lists"][0]["list"]["size"] = packed.len().into();
    write_record(dir.path(), &segment);
    let victim = Kiln::new();
    let lied_to = build(&lab, &victim, &copy).args(["--cache-from", &from]);
    lied_to.ok().says(&["has a wrong file list"]);
    // The true key is known now, and nothing else.
    build(&lab, &victim, &copy).ok().ran(&[]);
}

/// Returns what the only segment of a folder says.
fn read_record(dir: &Path) -> Value {
    let bytes = fs::read(&segments(dir)[0]).unwrap();
    serde_json::from_slice(&zstd(&["-d"], &bytes)).unwrap()
}

fn write_record(dir: &Path, segment: &Value) {
    let json = serde_json::to_vec(segment).unwrap();
    fs::write(&segments(dir)[0], zstd(&[], &json)).unwrap();
}

fn zstd(args: &[&str], input: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::write(&from, input).unwrap();
    run(command("zstd")
        .args(args)
        .arg("-q")
        .arg(&from)
        .arg("-o")
        .arg(&to));
    fs::read(to).unwrap()
}

#[test]
fn a_cache_that_lost_something_gets_it_back() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let [to, from] = folder(dir.path());
    export(&lab, &to);
    fs::remove_dir_all(dir.path().join("blobs")).unwrap();
    let (kiln, context) = (Kiln::new(), project());
    let both = build(&lab, &kiln, &context).args(["--cache-from", &from, "-t", "app"]);
    let outcome = both.args(["--cache-to", &format!("{to},mode=max")]).ok();
    outcome.says(&["WARNING: what the cache"]);
    let (outcome, _) = import(&lab, &from);
    assert!(
        !outcome.stderr.contains("WARNING: what the cache"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn caches_of_one_repository_are_kept_apart() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let tag = |tag: &str| {
        format!(
            "type=registry,ref={}",
            lab.registry.name(&format!("two:{tag}"))
        )
    };
    let (kiln, context) = (Kiln::new(), job(0));
    let first = build(&lab, &kiln, &context).args(["--cache-to", &tag("a")]);
    first.args(["--cache-to", &tag("b")]).ok();
    for number in 1..13 {
        build(&lab, &kiln, &job(number))
            .args(["--cache-to", &tag("a")])
            .ok();
    }
    for (name, number) in [("a", 12), ("a", 0), ("b", 0)] {
        let kiln = Kiln::new();
        let context = job(number);
        build(&lab, &kiln, &context)
            .args(["--cache-from", &tag(name)])
            .ok()
            .ran(&[]);
    }
    // An image that has the name stays.
    let image = format!("type=registry,ref={}", lab.busybox());
    build(&lab, &kiln, &job(99))
        .args(["--cache-to", &image])
        .ok();
    build(&lab, &Kiln::new(), &job(100)).ok();
}

#[test]
fn keys_of_buckets_are_not_shown() {
    let (kiln, context) = (Kiln::new(), job(1));
    let spec = "type=s3,bucket=b,region=r,access_key_id=AK,secret_access_key=TOP,SECRET";
    let outcome = kiln.build(&context).args(["--cache-to", spec]).fails(2);
    assert!(!outcome.stderr.contains("SECRET"), "{}", outcome.stderr);
}
