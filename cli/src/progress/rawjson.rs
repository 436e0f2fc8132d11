//! Progress for programs: one JSON object per line, in the shape of BuildKit's `SolveStatus`.
//!
//! An object has one of the lists `vertexes`, `statuses`, `logs` and `warnings`. A vertex is sent
//! again whenever something of it changes. Bytes are base64, times are RFC 3339, streams are 1 and
//! 2, and a vertex that was stopped has an error that ends in `context canceled`.

use std::collections::HashMap;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use kiln_graph::Digest;
use kiln_solver::{Direction, Event, Stream, TaskId};
use serde::Serialize;

use crate::progress::Lines;

/// What a program reads for a vertex that was stopped.
const CANCELED: &str = "context canceled";
/// Level of a warning, as BuildKit counts them.
const WARNING_LEVEL: u8 = 1;

/// Renders events as JSON lines.
#[derive(Debug, Default)]
pub(crate) struct RawJson {
    vertices: HashMap<TaskId, Vertex>,
    transfers: HashMap<(TaskId, Direction, String), Timestamp>,
}

#[derive(Debug, Serialize)]
struct Vertex {
    digest: Digest,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<Timestamp>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cached: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Default, Serialize)]
struct SolveStatus<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    vertexes: &'a [&'a Vertex],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    statuses: &'a [VertexStatus],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    logs: &'a [VertexLog],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    warnings: &'a [VertexWarning],
}

#[derive(Debug, Serialize)]
struct VertexStatus {
    id: String,
    vertex: Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    current: u64,
    timestamp: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
struct VertexLog {
    vertex: Digest,
    stream: u8,
    data: String,
    timestamp: Timestamp,
}

#[derive(Debug, Serialize)]
struct VertexWarning {
    level: u8,
    short: String,
}

impl Lines for RawJson {
    fn event(&mut self, event: &Event) -> String {
        match event {
            Event::Added {
                task, name, digest, ..
            } => self.added(*task, name, *digest),
            Event::Started { task, at } => self.change(*task, |vertex| {
                vertex.started = Some(time(*at));
            }),
            Event::Cached { task, at } => self.end(*task, *at, true, None),
            Event::Finished { task, at } => self.end(*task, *at, false, None),
            Event::Failed { task, message, at } => self.end(*task, *at, false, Some(message)),
            Event::Canceled { task, at } => self.end(*task, *at, false, Some(CANCELED)),
            Event::Status { task, text, at } => self.status(*task, text, *at),
            Event::Transfer { .. } => self.transfer(event),
            Event::Log {
                task,
                stream,
                data,
                at,
            } => self.log(*task, *stream, data, *at),
            Event::Warning { text } => line(&SolveStatus {
                warnings: &[VertexWarning {
                    level: WARNING_LEVEL,
                    short: STANDARD.encode(text),
                }],
                ..SolveStatus::default()
            }),
        }
    }
}

impl RawJson {
    fn added(&mut self, task: TaskId, name: &str, digest: Option<Digest>) -> String {
        let vertex = Vertex {
            // Programs tell vertices apart by digest; a task without one gets one of its own.
            digest: digest.unwrap_or_else(|| Digest::sha256(format!("task {} {name}", task.0))),
            name: name.to_owned(),
            started: None,
            completed: None,
            cached: false,
            error: None,
        };
        self.vertices.insert(task, vertex);
        self.change(task, |_| {})
    }

    fn change(&mut self, task: TaskId, change: impl FnOnce(&mut Vertex)) -> String {
        let Some(vertex) = self.vertices.get_mut(&task) else {
            return String::new();
        };
        change(vertex);
        line(&SolveStatus {
            vertexes: &[vertex],
            ..SolveStatus::default()
        })
    }

    fn end(&mut self, task: TaskId, at: SystemTime, cached: bool, error: Option<&str>) -> String {
        self.change(task, |vertex| {
            vertex.started.get_or_insert(time(at));
            vertex.completed = Some(time(at));
            vertex.cached = cached;
            vertex.error = error.map(str::to_owned);
        })
    }

    fn status(&self, task: TaskId, text: &str, at: SystemTime) -> String {
        let Some(vertex) = self.vertices.get(&task) else {
            return String::new();
        };
        let status = VertexStatus {
            id: text.to_owned(),
            vertex: vertex.digest,
            total: None,
            current: 0,
            timestamp: time(at),
            started: Some(time(at)),
            completed: None,
        };
        line(&SolveStatus {
            statuses: &[status],
            ..SolveStatus::default()
        })
    }

    fn transfer(&mut self, event: &Event) -> String {
        let Event::Transfer {
            task,
            id,
            direction,
            done,
            total,
            at,
        } = event
        else {
            return String::new();
        };
        let Some(vertex) = self.vertices.get(task) else {
            return String::new();
        };
        let timestamp = time(*at);
        let which = (*task, *direction, id.clone());
        let started = *self.transfers.entry(which).or_insert(timestamp);
        let status = VertexStatus {
            id: super::transfer_name(*direction, id),
            vertex: vertex.digest,
            total: *total,
            current: *done,
            timestamp,
            started: Some(started),
            completed: (*total == Some(*done)).then_some(timestamp),
        };
        line(&SolveStatus {
            statuses: &[status],
            ..SolveStatus::default()
        })
    }

    fn log(&self, task: TaskId, stream: Stream, data: &[u8], at: SystemTime) -> String {
        let Some(vertex) = self.vertices.get(&task) else {
            return String::new();
        };
        let log = VertexLog {
            vertex: vertex.digest,
            stream: match stream {
                Stream::Stdout => 1,
                Stream::Stderr => 2,
            },
            data: STANDARD.encode(data),
            timestamp: time(at),
        };
        line(&SolveStatus {
            logs: &[log],
            ..SolveStatus::default()
        })
    }
}

fn line(status: &SolveStatus<'_>) -> String {
    let mut line = serde_json::to_string(status).expect("strings and numbers are always JSON");
    line.push('\n');
    line
}

/// Returns a time as JSON has it; one that no calendar can hold is the beginning of the epoch.
fn time(at: SystemTime) -> Timestamp {
    Timestamp::try_from(at).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(ms: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(ms)
    }

    fn render(events: &[Event]) -> String {
        let mut renderer = RawJson::default();
        events.iter().map(|event| renderer.event(event)).collect()
    }

    fn added(task: TaskId) -> Event {
        Event::Added {
            task,
            name: "[2/2] RUN make".to_owned(),
            digest: Some(Digest::new(kiln_graph::Algorithm::Sha256, [0x11; 32])),
            at: at(0),
        }
    }

    fn assert_lines(events: &[Event], expected: &[&str]) {
        let digest = "sha256:".to_owned() + &"11".repeat(32);
        let expected: Vec<_> = expected
            .iter()
            .map(|line| line.replace("$D", &digest))
            .collect();
        assert_eq!(render(events).lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_step_from_start_to_end() {
        let task = TaskId(7);
        let log = Event::Log {
            task,
            stream: Stream::Stderr,
            data: b"cc\n\xff".to_vec(),
            at: at(1500),
        };
        assert_lines(
            &[
                added(task),
                Event::Started { task, at: at(1000) },
                log,
                Event::Finished { task, at: at(2000) },
            ],
            &[
                r#"{"vertexes":[{"digest":"$D","name":"[2/2] RUN make"}]}"#,
                r#"{"vertexes":[{"digest":"$D","name":"[2/2] RUN make","started":"1970-01-01T00:00:01Z"}]}"#,
                r#"{"logs":[{"vertex":"$D","stream":2,"data":"Y2MK/w==","timestamp":"1970-01-01T00:00:01.5Z"}]}"#,
                r#"{"vertexes":[{"digest":"$D","name":"[2/2] RUN make","started":"1970-01-01T00:00:01Z","completed":"1970-01-01T00:00:02Z"}]}"#,
            ],
        );
    }

    #[test]
    fn ends_tell_how() {
        let ends = [
            Event::Cached {
                task: TaskId(0),
                at: at(0),
            },
            Event::Failed {
                task: TaskId(0),
                message: "exit code: 1".to_owned(),
                at: at(0),
            },
            Event::Canceled {
                task: TaskId(0),
                at: at(0),
            },
        ];
        let expected = [
            r#""cached":true"#,
            r#""error":"exit code: 1""#,
            r#""error":"context canceled""#,
        ];
        for (end, expected) in ends.into_iter().zip(expected) {
            let text = render(&[added(TaskId(0)), end]);
            let last = text.lines().last().unwrap();
            assert!(last.contains(expected), "{last}");
            assert!(last.contains(r#""started":"#) && last.contains(r#""completed":"#));
        }
    }

    #[test]
    fn transfers_keep_when_they_began() {
        let task = TaskId(0);
        let transfer = |done, ms| Event::Transfer {
            task,
            id: "sha256:ab".to_owned(),
            direction: Direction::Extract,
            done,
            total: Some(20),
            at: at(ms),
        };
        assert_lines(
            &[added(task), transfer(5, 1000), transfer(20, 2000)],
            &[
                r#"{"vertexes":[{"digest":"$D","name":"[2/2] RUN make"}]}"#,
                r#"{"statuses":[{"id":"extracting sha256:ab","vertex":"$D","total":20,"current":5,"timestamp":"1970-01-01T00:00:01Z","started":"1970-01-01T00:00:01Z"}]}"#,
                r#"{"statuses":[{"id":"extracting sha256:ab","vertex":"$D","total":20,"current":20,"timestamp":"1970-01-01T00:00:02Z","started":"1970-01-01T00:00:01Z","completed":"1970-01-01T00:00:02Z"}]}"#,
            ],
        );
    }

    #[test]
    fn tasks_without_digest_get_their_own() {
        let added = |task| Event::Added {
            task: TaskId(task),
            name: "export".to_owned(),
            digest: None,
            at: at(0),
        };
        let text = render(&[added(1), added(2)]);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].contains(r#""digest":"sha256:"#));
        assert_ne!(lines[0], lines[1]);
    }

    #[test]
    fn warnings_have_a_line() {
        let text = "old base".to_owned();
        let expected = [r#"{"warnings":[{"level":1,"short":"b2xkIGJhc2U="}]}"#];
        assert_lines(&[Event::Warning { text }], &expected);
    }
}
