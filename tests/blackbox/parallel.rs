//! What does not depend on each other runs at once.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::support::{Context, Lab, Proxy, free_port, output};

/// Each stage waits until the other listens; one after the other, they would wait for ever.
#[test]
fn stages_that_wait_for_each_other_finish() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let (first, second) = (free_port(), free_port());
    let meet = |name: &str, own: u16, other: u16| {
        format!(
            "FROM $BASE AS {name}\n\
             RUN (echo {name} | timeout 60 nc -l -p {own} > /dev/null) & \
             timeout 60 sh -c 'until nc -w 5 127.0.0.1 {other} < /dev/null > /met; do sleep 0.05; done' && wait\n"
        )
    };
    let dockerfile = format!(
        "ARG BASE\n{}{}FROM scratch\nCOPY --from=one /met /one\nCOPY --from=two /met /two\n",
        meet("one", first, second),
        meet("two", second, first)
    );
    let context = Context::new(&dockerfile);
    let dest = lab.kiln.out("files");
    lab.build(&context)
        .args(["--network=host", "-o"])
        .arg(output("local", &dest))
        .ok();
    assert_eq!(fs::read_to_string(dest.join("one")).unwrap(), "two\n");
    assert_eq!(fs::read_to_string(dest.join("two")).unwrap(), "one\n");
}

/// Builds stages that each write when they began and ended; returns those times.
fn spans(lab: &Lab, n_stages: usize, args: &[&str]) -> Vec<(f64, f64)> {
    let mut dockerfile = "ARG BASE\n".to_owned();
    let mut copies = "FROM scratch\n".to_owned();
    for n in 0..n_stages {
        let steps =
            "RUN cut -d' ' -f1 /proc/uptime > /began; sleep 1; cut -d' ' -f1 /proc/uptime > /ended";
        writeln!(dockerfile, "FROM $BASE AS s{n}\n{steps} # {n}").unwrap();
        writeln!(copies, "COPY --from=s{n} /began /ended /{n}/").unwrap();
    }
    let context = Context::new(&(dockerfile + &copies));
    let dest = lab.kiln.out("times");
    lab.build(&context)
        .args(args)
        .arg("-o")
        .arg(output("local", &dest))
        .ok();
    let time = |path: &Path| fs::read_to_string(path).unwrap().trim().parse().unwrap();
    let dirs = (0..n_stages).map(|n| dest.join(n.to_string()));
    dirs.map(|dir| (time(&dir.join("began")), time(&dir.join("ended"))))
        .collect()
}

/// Returns how many spans there are at the time when most are.
fn most_at_once(spans: &[(f64, f64)]) -> usize {
    let at = |time: f64| {
        spans
            .iter()
            .filter(move |(began, ended)| *began <= time && time < *ended)
    };
    spans
        .iter()
        .map(|(began, _)| at(*began).count())
        .max()
        .unwrap()
}

#[test]
fn independent_stages_run_at_once() {
    let Some(lab) = Lab::require() else {
        return;
    };
    assert_eq!(most_at_once(&spans(&lab, 8, &[])), 8);
}

#[test]
fn jobs_bound_what_runs_at_once() {
    let Some(lab) = Lab::require() else {
        return;
    };
    assert_eq!(most_at_once(&spans(&lab, 3, &["--jobs=1"])), 1);
}

#[test]
fn equal_steps_run_once() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new(
        "ARG BASE\nFROM $BASE AS a\nRUN cat /proc/uptime > /t; sleep 0.3\n\
         FROM $BASE AS b\nRUN cat /proc/uptime > /t; sleep 0.3\n\
         FROM scratch\nCOPY --from=a /t /a\nCOPY --from=b /t /b\n",
    );
    let dest = lab.kiln.out("files");
    lab.build(&context)
        .arg("-o")
        .arg(output("local", &dest))
        .ok();
    let read = |name: &str| fs::read_to_string(dest.join(name)).unwrap();
    assert_eq!(read("a"), read("b"));
}

#[test]
fn stages_that_nobody_needs_are_not_looked_at() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new(
        "ARG BASE\nFROM no.such.registry.invalid/base AS unused\nCOPY missing /\nRUN exit 1\n\
         FROM $BASE AS last\nRUN echo last > /last\n",
    );
    lab.build(&context).ok().ran(&["RUN echo last > /last"]);
}

/// Two processes on one store: both succeed, and a step runs once.
#[test]
fn processes_share_a_store() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new("ARG BASE\nFROM $BASE\nRUN cat /proc/uptime > /t; sleep 1\n");
    let dests = ["one", "two"].map(|name| lab.kiln.out(name));
    let builds = dests.each_ref().map(|dest| {
        let build = lab.build(&context).arg("-o").arg(output("local", dest));
        build.start()
    });
    for build in builds {
        build.wait().succeeded();
    }
    let times = dests.map(|dest| fs::read_to_string(dest.join("t")).unwrap());
    assert_eq!(times[0], times[1]);
}

/// A store that many builds share fetches what they have in common once.
#[test]
fn sibling_builds_fetch_their_base_once() {
    const N_BUILDS: usize = 50;
    let Some(lab) = Lab::require() else {
        return;
    };
    let proxy = Proxy::before(lab.registry.host());
    let base = format!("{}/busybox:latest", proxy.host());
    let context = |number| Context::new(&format!("FROM {base}\nRUN echo {number} > /n\n"));
    let contexts: Vec<Context> = (0..N_BUILDS).map(context).collect();
    let builds: Vec<_> = contexts
        .iter()
        .map(|one| lab.kiln.build(one).start())
        .collect();
    for build in builds {
        build.wait().succeeded();
    }
    let requests = proxy.take_requests();
    let index = lab.registry.path("storage");
    let layer = largest_blob(&index);
    let is_layer = |request: &&String| request.starts_with("GET") && request.contains(&layer);
    assert_eq!(requests.iter().filter(is_layer).count(), 1, "{requests:#?}");
}

/// Returns the hash of the longest blob of a registry.
fn largest_blob(storage: &Path) -> String {
    let mut found = (0, String::new());
    let blobs = storage.join("docker/registry/v2/blobs/sha256");
    for prefix in fs::read_dir(blobs).unwrap() {
        for blob in fs::read_dir(prefix.unwrap().path()).unwrap() {
            let blob = blob.unwrap();
            let size = fs::metadata(blob.path().join("data")).unwrap().len();
            found = found.max((size, blob.file_name().into_string().unwrap()));
        }
    }
    found.1
}

/// What platforms have in common is made once.
#[test]
fn platforms_share_what_is_equal() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new(
        "ARG BASE\nFROM --platform=$BUILDPLATFORM $BASE AS build\n\
         RUN echo x | tee -a /count && cat /proc/sys/kernel/random/uuid > /id\n\
         FROM scratch\nARG TARGETARCH\nCOPY --from=build /id /id\nCOPY --from=build /count /$TARGETARCH\n",
    );
    let layout = lab.kiln.out("layout");
    let spec = format!("{},tar=false", output("oci", &layout));
    let build = lab
        .build(&context)
        .args(["--platform", "linux/amd64,linux/arm64", "-o", &spec]);
    let outcome = build.ok();
    let ran = outcome.names_of_ran();
    let is_step = |name: &&String| name.starts_with("RUN");
    assert_eq!(ran.iter().filter(is_step).count(), 1, "{}", outcome.stderr);
    let index = fs::read_to_string(layout.join("index.json")).unwrap();
    assert!(index.contains("image.index"), "{index}");
}
