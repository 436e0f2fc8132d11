//! Recorded events as plain text.

use super::*;

fn at(ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(ms)
}

fn added(task: u64, name: &str) -> Event {
    Event::Added {
        task: TaskId(task),
        name: name.to_owned(),
        digest: None,
        at: at(0),
    }
}

fn started(task: u64, ms: u64) -> Event {
    Event::Started {
        task: TaskId(task),
        at: at(ms),
    }
}

fn cached(task: u64, ms: u64) -> Event {
    Event::Cached {
        task: TaskId(task),
        at: at(ms),
    }
}

fn finished(task: u64, ms: u64) -> Event {
    Event::Finished {
        task: TaskId(task),
        at: at(ms),
    }
}

fn canceled(task: u64, ms: u64) -> Event {
    Event::Canceled {
        task: TaskId(task),
        at: at(ms),
    }
}

fn log(task: u64, ms: u64, data: &str) -> Event {
    Event::Log {
        task: TaskId(task),
        stream: Stream::Stdout,
        data: data.as_bytes().to_vec(),
        at: at(ms),
    }
}

fn transfer(ms: u64, done: u64, total: u64) -> Event {
    Event::Transfer {
        task: TaskId(0),
        id: "sha256:abc".to_owned(),
        direction: Direction::Pull,
        done,
        total: Some(total),
        at: at(ms),
    }
}

fn render(events: impl IntoIterator<Item = Event>) -> String {
    let mut plain = Plain::default();
    let mut out: String = events.into_iter().map(|e| plain.event(&e)).collect();
    out.push_str(&plain.finish());
    out
}

#[test]
fn a_build_reads_like_buildkit() {
    let out = render([
        added(0, "[1/3] FROM debian"),
        added(1, "[2/3] COPY . ."),
        added(2, "[3/3] RUN make"),
        cached(0, 0),
        cached(1, 10),
        started(2, 1000),
        log(2, 1123, "cc a.c\ncc b"),
        log(2, 13_456, ".c\n"),
        log(2, 130_000, "last"),
        finished(2, 131_260),
    ]);
    let expected = "\
#1 [1/3] FROM debian
#1 CACHED

#2 [2/3] COPY . .
#2 CACHED

#3 [3/3] RUN make
#3 0.123 cc a.c
#3 12.46 cc b.c
#3 129.0 last
#3 DONE 130.3s
";
    assert_eq!(out, expected);
}

#[test]
fn failures_and_cancels_are_told() {
    let out = render([
        added(0, "RUN a"),
        added(1, "RUN b"),
        added(2, "RUN never begun"),
        started(0, 0),
        started(1, 0),
        log(1, 100, "b works\n"),
        Event::Failed {
            task: TaskId(0),
            message: "process \"a\" failed\nexit code: 1".to_owned(),
            at: at(200),
        },
        canceled(1, 300),
        canceled(2, 300),
    ]);
    let expected = "\
#1 RUN a
#1 ERROR: process \"a\" failed
#1 exit code: 1

#2 RUN b
#2 0.100 b works
#2 CANCELED
";
    assert_eq!(out, expected);
}

#[test]
fn output_of_others_waits_for_the_block() {
    let out = render([
        added(0, "RUN a"),
        added(1, "RUN b"),
        started(0, 0),
        log(0, 100, "a1\n"),
        started(1, 200),
        log(1, 300, "b1\n"),
        log(0, 400, "a2\n"),
        finished(0, 500),
        log(1, 600, "b2\n"),
        finished(1, 700),
    ]);
    let expected = "\
#1 RUN a
#1 0.100 a1
#1 0.400 a2
#1 DONE 0.5s

#2 RUN b
#2 0.100 b1
#2 0.400 b2
#2 DONE 0.5s
";
    assert_eq!(out, expected);
}

#[test]
fn an_end_interrupts_a_block() {
    let out = render([
        added(0, "RUN a"),
        added(1, "RUN b"),
        started(0, 0),
        started(1, 0),
        finished(1, 100),
        log(0, 200, "a1\n"),
        finished(0, 300),
    ]);
    let expected = "\
#1 RUN a
#1 ...

#2 RUN b
#2 DONE 0.1s

#1 RUN a
#1 0.200 a1
#1 DONE 0.3s
";
    assert_eq!(out, expected);
}

#[test]
fn waiting_has_an_end() {
    let mut plain = Plain::default();
    for event in [added(0, "RUN a"), added(1, "RUN b"), started(0, 0)] {
        plain.event(&event);
    }
    plain.event(&started(1, 100));
    assert_eq!(plain.event(&log(1, 200, "b1\n")), "");
    assert_eq!(plain.tick(at(2099)), "");
    let expected = "#1 ...\n\n#2 RUN b\n#2 0.100 b1\n";
    assert_eq!(plain.tick(at(2100)), expected);
    let much = "x".repeat(MAX_WAITING_BYTES);
    assert_eq!(plain.event(&log(0, 2200, &much)), "");
    let shown = plain.event(&log(0, 2200, "\n"));
    assert!(shown.starts_with("#2 ...\n\n#1 RUN a\n#1 2.200 xxx"));
}

#[test]
fn every_line_appears() {
    let text: String = (0..5000).map(|at| format!("line {at}\n")).collect();
    let events = text.as_bytes().chunks(7).map(|chunk| {
        let text = std::str::from_utf8(chunk).unwrap();
        log(0, 0, text)
    });
    let begin = [added(0, "RUN seq"), started(0, 0)];
    let out = render(begin.into_iter().chain(events));
    let lines: Vec<_> = out.lines().skip(1).collect();
    let expected: Vec<_> = text
        .lines()
        .map(|line| format!("#1 0.000 {line}"))
        .collect();
    assert_eq!(lines, expected);
}

#[test]
fn lines_are_harmless_and_overwritten_ones_stay() {
    let out = render([
        added(0, "RUN \u{1b}[31mx"),
        log(0, 0, "\u{1b}[2J10%\r20%\r\n\n#9 DONE\u{7}\ta\n"),
    ]);
    let expected = "\
#1 RUN x
#1 0.000 10%
#1 0.000 20%
#1 0.000 
#1 0.000 #9 DONE\ta
";
    assert_eq!(out, expected);
}

#[test]
fn unfinished_lines_come_out_at_the_end() {
    let mut error = log(0, 0, "warn");
    if let Event::Log { stream, .. } = &mut error {
        *stream = Stream::Stderr;
    }
    let out = render([added(0, "RUN x"), log(0, 0, "half"), error]);
    assert_eq!(out, "#1 RUN x\n#1 0.000 half\n#1 0.000 warn\n");
}

#[test]
fn transfers_are_told_now_and_then() {
    let out = render([
        added(0, "FROM debian"),
        transfer(0, 1_050_000, 29_130_000),
        transfer(100, 2_000_000, 29_130_000),
        transfer(5000, 9_000_000, 29_130_000),
        transfer(5200, 29_130_000, 29_130_000),
        transfer(5300, 29_130_000, 29_130_000),
        finished(0, 5400),
    ]);
    let expected = "\
#1 FROM debian
#1 sha256:abc 1.05MB / 29.13MB
#1 sha256:abc 9.00MB / 29.13MB
#1 sha256:abc 29.13MB / 29.13MB 5.2s done
#1 DONE
";
    assert_eq!(out, expected);
}

#[test]
fn statuses_and_warnings_have_lines() {
    let status = || Event::Status {
        task: TaskId(0),
        text: "waiting for another build".to_owned(),
        at: at(0),
    };
    let warning = Event::Warning {
        text: "cache unreachable\ngoing on without".to_owned(),
    };
    let out = render([added(0, "RUN x"), status(), status(), warning, cached(0, 0)]);
    let expected = "\
#1 RUN x
#1 waiting for another build
#1 ...

WARNING: cache unreachable
going on without

#1 RUN x
#1 CACHED
";
    assert_eq!(out, expected);
}
