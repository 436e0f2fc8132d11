//! Recorded events as frames, read by a terminal that keeps what it is told.

use std::time::Duration;

use super::*;

fn at(ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(ms)
}

fn size(columns: usize, rows: usize) -> TerminalSize {
    TerminalSize { columns, rows }
}

const WIDE: TerminalSize = TerminalSize {
    columns: 40,
    rows: 24,
};

fn added(tty: &mut Tty, task: u64, name: &str) {
    tty.event(&Event::Added {
        task: TaskId(task),
        name: name.to_owned(),
        digest: None,
        at: at(0),
    });
}

fn started(tty: &mut Tty, task: u64, ms: u64) {
    tty.event(&Event::Started {
        task: TaskId(task),
        at: at(ms),
    });
}

fn finished(tty: &mut Tty, task: u64, ms: u64) {
    tty.event(&Event::Finished {
        task: TaskId(task),
        at: at(ms),
    });
}

fn log(tty: &mut Tty, task: u64, data: &str) {
    tty.event(&Event::Log {
        task: TaskId(task),
        stream: Stream::Stdout,
        data: data.as_bytes().to_vec(),
        at: at(0),
    });
}

fn transfer(tty: &mut Tty, task: u64, ms: u64) {
    tty.event(&Event::Transfer {
        task: TaskId(task),
        id: format!("sha256:{}", "ab".repeat(32)),
        direction: Direction::Compress,
        done: 12_300_000,
        total: Some(40_100_000),
        at: at(ms),
    });
}

/// A terminal that knows the codes that frames are made of, and no others.
#[derive(Default)]
struct Screen {
    rows: Vec<String>,
    row: usize,
    /// In characters; the tests that look at screens have none that are wide.
    column: usize,
}

impl Screen {
    fn show(&mut self, frame: &str) {
        let mut rest = frame;
        while let Some(character) = rest.chars().next() {
            if let Some(code) = rest.strip_prefix("\x1b[") {
                let end = code.find(|c: char| c.is_ascii_alphabetic()).unwrap();
                self.obey(&code[..=end]);
                rest = &code[end + 1..];
                continue;
            }
            rest = &rest[character.len_utf8()..];
            match character {
                '\r' => self.column = 0,
                '\n' => (self.row, self.column) = (self.row + 1, 0),
                character => self.put(character),
            }
        }
    }

    fn obey(&mut self, code: &str) {
        match code {
            "?25l" | "?25h" => {}
            "2K" => self.row_mut().clear(),
            "K" => {
                let column = self.column;
                let kept = self.row_mut().chars().take(column).collect();
                *self.row_mut() = kept;
            }
            "J" => self.rows.truncate(self.row),
            up if up.ends_with('A') => self.row -= up[..up.len() - 1].parse::<usize>().unwrap(),
            other => panic!("unknown code {other}"),
        }
    }

    fn put(&mut self, character: char) {
        let column = self.column;
        let row = self.row_mut();
        let rest: String = row.chars().skip(column + 1).collect();
        *row = row.chars().take(column).collect();
        row.push(character);
        row.push_str(&rest);
        self.column += 1;
    }

    fn row_mut(&mut self) -> &mut String {
        while self.rows.len() <= self.row {
            self.rows.push(String::new());
        }
        &mut self.rows[self.row]
    }

    #[track_caller]
    fn assert(&self, expected: &[&str]) {
        assert_eq!(self.rows, expected);
    }
}

#[test]
fn a_build_is_redrawn_in_place() {
    let mut tty = Tty::new(false);
    let mut screen = Screen::default();
    assert_eq!(tty.frame(at(0), WIDE), "", "nothing is known yet");
    for (task, name) in ["[1/3] FROM debian", "[2/3] COPY . .", "[3/3] RUN make"]
        .iter()
        .enumerate()
    {
        added(&mut tty, task as u64, name);
    }
    tty.event(&Event::Cached {
        task: TaskId(0),
        at: at(100),
    });
    started(&mut tty, 1, 100);
    transfer(&mut tty, 1, 200);
    screen.show(&tty.frame(at(1300), WIDE));
    screen.assert(&[
        "[+] Building 1.3s (1/3)",
        " => CACHED [1/3] FROM debian        0.0s",
        " => [2/3] COPY . .                  1.2s",
        " => => compressi… 12.30MB / 40.10MB 1.1s",
    ]);

    finished(&mut tty, 1, 1400);
    started(&mut tty, 2, 1400);
    log(&mut tty, 2, "cc a.c\ncc b.c\nlinking");
    screen.show(&tty.frame(at(2400), WIDE));
    screen.assert(&[
        "[+] Building 2.4s (2/3)",
        " => CACHED [1/3] FROM debian        0.0s",
        " => [2/3] COPY . .                  1.3s",
        " => [3/3] RUN make                  1.0s",
        " => => # cc a.c",
        " => => # cc b.c",
        " => => # linking",
    ]);

    finished(&mut tty, 2, 2500);
    screen.show(&tty.last_frame(at(2600), WIDE));
    screen.assert(&[
        "[+] Building 2.6s (3/3) FINISHED",
        " => CACHED [1/3] FROM debian        0.0s",
        " => [2/3] COPY . .                  1.3s",
        " => [3/3] RUN make                  1.1s",
    ]);
}

#[test]
fn only_the_last_lines_of_output_show() {
    let mut tty = Tty::new(false);
    added(&mut tty, 0, "RUN seq");
    started(&mut tty, 0, 0);
    log(&mut tty, 0, "1\n2\n3\n\n4\n5\n6\n7\n10%\r20%");
    let mut screen = Screen::default();
    screen.show(&tty.frame(at(0), WIDE));
    let tail: Vec<_> = screen.rows[2..].iter().map(|row| &row[9..]).collect();
    assert_eq!(tail, ["3", "4", "5", "6", "7", "20%"]);
}

#[test]
fn a_frame_is_never_higher_than_the_terminal() {
    for rows in 0..30 {
        let mut tty = Tty::new(false);
        for task in 0..10 {
            added(&mut tty, task, &format!("step {task}"));
            started(&mut tty, task, 0);
        }
        for task in [0, 1, 2, 3, 4, 5, 6] {
            finished(&mut tty, task, 0);
        }
        log(&mut tty, 8, "a\nb\nc\nd\ne\nf\n");
        let frame = tty.frame(at(0), size(40, rows));
        let n_lines = frame.matches('\n').count();
        assert!(n_lines < rows.max(2), "{n_lines} lines in {rows} rows");
    }
}

#[test]
fn finished_tasks_give_way_first() {
    let mut tty = Tty::new(false);
    for task in 0..6 {
        added(&mut tty, task, &format!("step {task}"));
        started(&mut tty, task, 0);
    }
    for task in [1, 2, 4] {
        finished(&mut tty, task, 0);
    }
    log(&mut tty, 5, "a\nb\nc\n");
    let mut screen = Screen::default();
    screen.show(&tty.frame(at(0), size(20, 10)));
    screen.assert(&[
        "[+] Building 0.0s (…",
        " => step 0      0.0s",
        " => step 2      0.0s",
        " => step 3      0.0s",
        " => step 4      0.0s",
        " => step 5      0.0s",
        " => => # a",
        " => => # b",
        " => => # c",
    ]);
    screen.show(&tty.last_frame(at(0), size(20, 3)));
    assert_eq!(screen.rows.len(), 7, "the last frame hides nothing");
}

#[test]
fn lines_fit_the_terminal() {
    for columns in 1..100 {
        let mut tty = Tty::new(false);
        added(&mut tty, 0, &"日本語 ".repeat(30));
        started(&mut tty, 0, 0);
        log(&mut tty, 0, &"wide 🔥\t".repeat(30));
        transfer(&mut tty, 0, 0);
        let mut screen = Screen::default();
        screen.show(&tty.frame(at(0), size(columns, 24)));
        for row in &screen.rows {
            assert!(width(row) <= columns, "{row:?} in {columns} columns");
        }
    }
}

#[test]
fn a_narrower_terminal_is_cleared_of_the_wider_frame() {
    let mut tty = Tty::new(false);
    added(&mut tty, 0, "RUN x");
    started(&mut tty, 0, 0);
    tty.frame(at(0), WIDE);
    // The task's line has 40 columns, the header 23.
    let frame = tty.frame(at(0), size(20, 24));
    assert!(frame.starts_with("\x1b[?25l\r\x1b[4A"), "{frame:?}");
}

#[test]
fn colour_is_a_choice() {
    let mut tty = Tty::new(true);
    added(&mut tty, 0, "RUN x");
    tty.event(&Event::Failed {
        task: TaskId(0),
        message: String::new(),
        at: at(0),
    });
    assert!(tty.frame(at(0), WIDE).contains("\x1b[31m => ERROR RUN x"));
    tty.color = false;
    assert!(tty.frame(at(0), WIDE).contains(" => ERROR RUN x"));
    assert!(!tty.frame(at(0), WIDE).contains("\x1b[31m"));
}

#[test]
fn steps_cannot_command_the_terminal() {
    let mut tty = Tty::new(false);
    added(&mut tty, 0, "RUN \u{1b}[2Jx\n");
    started(&mut tty, 0, 0);
    log(&mut tty, 0, "\u{1b}]52;c;eA==\u{7}\u{1b}[5A\u{202e}ok\n");
    let mut screen = Screen::default();
    screen.show(&tty.frame(at(0), WIDE));
    assert_eq!(
        screen.rows[1].trim_end(),
        " => RUN x                           0.0s"
    );
    assert_eq!(screen.rows[2], " => => # ok");
}

#[test]
fn warnings_stay_above_the_frame() {
    let mut tty = Tty::new(false);
    added(&mut tty, 0, "RUN x");
    started(&mut tty, 0, 0);
    let mut screen = Screen::default();
    screen.show(&tty.frame(at(0), WIDE));
    let text = "no cache".to_owned();
    tty.event(&Event::Warning { text });
    screen.show(&tty.frame(at(0), WIDE));
    screen.show(&tty.frame(at(100), WIDE));
    screen.assert(&[
        "WARNING: no cache",
        "[+] Building 0.1s (0/1)",
        " => RUN x                           0.1s",
    ]);
}

#[test]
fn what_never_began_does_not_show() {
    let mut tty = Tty::new(false);
    added(&mut tty, 0, "RUN x");
    tty.event(&Event::Canceled {
        task: TaskId(0),
        at: at(0),
    });
    let mut screen = Screen::default();
    screen.show(&tty.last_frame(at(0), WIDE));
    screen.assert(&["[+] Building 0.0s (1/1) FINISHED"]);
}
