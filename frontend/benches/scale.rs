//! Time and memory that the frontend takes for large Dockerfiles, at two sizes each.
//!
//! `cargo bench -p kiln-frontend` prints a line a case: the time for the smaller and the larger
//! file, how many times as long the larger one took (it is eight times as large), and the peak of
//! memory. It fails if a case grows faster than its input by more than a factor of three.
//! `-- NAME` runs the cases whose name holds it.

#![expect(clippy::print_stdout, reason = "figures are what it is for")]

use std::fs;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

use kiln_frontend::{Images, Options, ResolvedImage, compile, parse, render, requirements};
use kiln_graph::{Algorithm, Hasher, ImageConfig, Platform};

/// How many times as large the larger file is.
const FACTOR: usize = 8;

/// How many times as long it may take.
const ALLOWED: f64 = 3.0 * FACTOR as f64;

/// Times below this say nothing.
const TOO_SHORT: Duration = Duration::from_millis(20);

/// How often each file is built.
const RUNS: usize = 3;

struct Case {
    name: &'static str,
    /// Size of the larger file.
    size: usize,
    text: fn(usize) -> String,
}

const CASES: &[Case] = &[
    case("runs", 100_000, |n| {
        "FROM a\n".to_owned() + &"RUN echo hello\n".repeat(n)
    }),
    case("envs", 100_000, |n| {
        numbered("FROM a\n", n, |at| format!("ENV V{at}=x\n"))
    }),
    case("envs-again", 100_000, |n| {
        "FROM a\n".to_owned() + &"ENV V=$V.\nENV V=x\n".repeat(n / 2)
    }),
    case("args", 100_000, |n| {
        numbered("FROM a\n", n, |at| format!("ARG V{at}=x\n"))
    }),
    case("labels", 100_000, |n| {
        numbered("FROM a\nLABEL", n, |at| format!(" l{at}=x"))
    }),
    case("copies", 100_000, |n| {
        numbered("FROM a\n", n, |at| format!("COPY f{at} /d/\n"))
    }),
    case("stages", 10_000, |n| {
        numbered("", n, |at| format!("FROM a AS s{at}\nRUN x\n"))
    }),
    case("stage-chain", 10_000, |n| {
        numbered("FROM a AS s0\n", n, |at| {
            format!("FROM s{at} AS s{}\nRUN x{at}\n", at + 1)
        })
    }),
    case("stage-variables", 10_000, |n| {
        numbered("FROM a AS s0\n", n, |at| {
            format!("FROM s{at} AS s{}\nENV A{at}=1\n", at + 1)
        })
    }),
    case("stage-copies", 10_000, |n| {
        let copies = numbered("FROM a\n", n, |at| format!("COPY --from=s{at} /x /\n"));
        numbered("", n, |at| format!("FROM a AS s{at}\nRUN x{at}\n")) + &copies
    }),
    case("triggers", 10_000, |n| {
        let triggers = numbered("FROM a AS p\n", n, |at| format!("ONBUILD RUN x{at}\n"));
        triggers + "FROM p\n"
    }),
    case("long-run", 1 << 20, |n| {
        format!("FROM a\nRUN {}\n", "x ".repeat(n / 2))
    }),
    case("long-label", 1 << 20, |n| {
        format!("FROM a\nLABEL a=\"{}\"\n", "$x\\\" '".repeat(n / 6))
    }),
    case("long-json", 1 << 20, |n| {
        format!("FROM a\nCMD [\"a\"{}]\n", ", \"b\"".repeat(n / 5))
    }),
    case("long-copy", 1 << 20, |n| {
        format!("FROM a\nCOPY {}/d/\n", "file ".repeat(n / 5))
    }),
    case("continuations", 100_000, |n| {
        format!("FROM a\nRUN x{}\n", " \\\n# c\n && y".repeat(n))
    }),
    case("flags", 100_000, |n| {
        format!("FROM a\nCOPY {}a b\n", "--exclude=x ".repeat(n))
    }),
    case("heredoc-run", 50 << 20, |n| {
        format!("FROM a\nRUN <<E\n{}E\n", "echo hello\n".repeat(n / 11))
    }),
    case("heredoc-copy", 50 << 20, |n| {
        format!(
            "FROM a\nCOPY <<E /f\n{}E\n",
            "hello $x \\$y\n".repeat(n / 13)
        )
    }),
    case("heredocs", 10_000, |n| {
        let names = numbered("FROM a\nRUN cat", n, |at| format!(" <<E{at}"));
        names + "\n" + &numbered("", n, |at| format!("x\nE{at}\n"))
    }),
    case("mistakes", 10_000, |n| {
        "FROM a\n".to_owned() + &"RUUN x\n".repeat(n)
    }),
    case("patterns", 1 << 16, |n| {
        format!("FROM a\nENV V={}\nLABEL l=${{V//a*b/c}}\n", "a".repeat(n))
    }),
];

const fn case(name: &'static str, size: usize, text: fn(usize) -> String) -> Case {
    Case { name, size, text }
}

fn numbered(start: &str, n: usize, one: impl Fn(usize) -> String) -> String {
    let mut text = start.to_owned();
    text.extend((0..n).map(one));
    text
}

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let mut is_fine = true;
    println!(
        "{:15} {:>9} {:>9} {:>7} {:>10} {:>10}",
        "case", "1/8 ms", "ms", "times", "text KiB", "peak KiB"
    );
    for case in CASES {
        if !wanted.is_empty() && !wanted.iter().any(|name| case.name.contains(name)) {
            continue;
        }
        let (small, _) = measured(&(case.text)(case.size / FACTOR));
        let text = (case.text)(case.size);
        let (large, peak) = measured(&text);
        let times = large.as_secs_f64() / small.as_secs_f64().max(1e-6);
        let fits = large < TOO_SHORT || times < ALLOWED;
        is_fine &= fits;
        let (name, mark) = (case.name, if fits { "" } else { "  grows too fast" });
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        println!(
            "{name:15} {:9.1} {:9.1} {times:7.1} {:10} {peak:10}{mark}",
            ms(small),
            ms(large),
            text.len() / 1024
        );
    }
    ExitCode::from(u8::from(!is_fine))
}

/// Returns how long a file takes from text to graph, or to a report of its mistakes, and the peak
/// of memory in KiB. The shortest of a few runs, as others want the processor, too.
fn measured(text: &str) -> (Duration, u64) {
    reset_peak();
    let runs = (0..RUNS).map(|_| {
        let start = busy_time();
        build(text);
        busy_time().saturating_sub(start)
    });
    let shortest = runs.min().unwrap_or_default();
    (shortest, peak_kib())
}

fn build(text: &str) {
    let options = Options::for_platform(Platform::linux("amd64"));
    let file = match parse(text) {
        Ok(file) => file,
        Err(errors) => {
            black_box(render(&errors, "Dockerfile", text, false));
            return;
        }
    };
    let mut images = Images::new();
    while let Ok(requests) = requirements(&file, &options, &images)
        && !requests.is_empty()
    {
        for request in requests {
            images.insert((request.reference, request.platform), image());
        }
    }
    match compile(&file, &options, &images) {
        Ok(compiled) => drop(black_box(compiled)),
        Err(errors) => drop(black_box(render(&errors, "Dockerfile", text, false))),
    }
}

fn image() -> ResolvedImage {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(b"image");
    let manifest = hasher.finish();
    let mut config = ImageConfig::default();
    config.rootfs.diff_ids.push(manifest);
    ResolvedImage {
        reference: "registry.test/a:latest".to_owned(),
        manifest,
        config,
    }
}

/// Returns how long this thread had a processor.
fn busy_time() -> Duration {
    let times = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = times
        .split_whitespace()
        .next()
        .and_then(|time| time.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

/// Makes the kernel forget the highest memory so far, where it can.
fn reset_peak() {
    // Without it the figures are those of the largest case so far.
    let _unsupported = fs::write("/proc/self/clear_refs", "5");
}

fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}
