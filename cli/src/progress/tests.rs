//! The loop that feeds a renderer.

use kiln_solver::{Reporter, Stream};

use super::*;

const SIZE: TerminalSize = TerminalSize {
    columns: 80,
    rows: 24,
};

fn shown(mode: Mode, act: impl FnOnce(&Reporter) + Send) -> String {
    let (reporter, receiver) = Reporter::new();
    let mut out = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| drive(receiver, mode, &mut out, || SIZE).unwrap());
        act(&reporter);
        drop(reporter);
    });
    String::from_utf8(out).unwrap()
}

fn build(reporter: &Reporter) {
    let task = reporter.task("RUN make", None);
    task.started();
    task.log(Stream::Stdout, b"working\n");
    task.finished();
}

#[test]
fn each_mode_shows_a_build_to_its_end() {
    let plain = shown(Mode::Plain, build);
    assert!(plain.starts_with("#1 RUN make\n#1 0.0"), "{plain}");
    assert!(plain.ends_with("\n#1 DONE 0.0s\n"), "{plain}");

    let json = shown(Mode::RawJson, build);
    assert_eq!(json.lines().count(), 4, "{json}");
    for line in json.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }

    let tty = shown(Mode::Tty { color: true }, build);
    assert!(tty.contains("(1/1) FINISHED"), "{tty}");
}

#[test]
fn no_events_show_nothing() {
    for mode in [Mode::Plain, Mode::RawJson, Mode::Tty { color: true }] {
        assert_eq!(shown(mode, |_| {}), "");
    }
}

#[test]
fn more_events_than_the_channel_holds_arrive() {
    let plain = shown(Mode::Plain, |reporter| {
        for at in 0..5000 {
            reporter.task(format!("step {at}"), None).cached();
        }
    });
    assert_eq!(plain.matches(" CACHED\n").count(), 5000);
}

struct Broken(io::ErrorKind);

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_is_gone_is_no_error_and_stops_nobody() {
    for (kind, is_ok) in [
        (io::ErrorKind::BrokenPipe, true),
        (io::ErrorKind::StorageFull, false),
    ] {
        let (reporter, receiver) = Reporter::new();
        std::thread::scope(|scope| {
            let driver = scope.spawn(|| drive(receiver, Mode::Plain, Broken(kind), || SIZE));
            for _ in 0..5000 {
                reporter.task("RUN make", None).cached();
            }
            assert_eq!(driver.join().unwrap().is_ok(), is_ok);
        });
    }
}
