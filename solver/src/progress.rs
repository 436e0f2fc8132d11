//! Progress as data: events, and the handles that send them.
//!
//! Nothing is drawn here. Events go through a bounded channel: a renderer that is slow slows the
//! build down instead of filling memory; one that is gone is no error. Sending may block the
//! thread, so whoever holds the receiver reads it on a thread of its own.
//!
//! Order of a task's events: `Added`, then at most one `Started`, then exactly one of `Cached`,
//! `Finished`, `Failed`, `Canceled`, or none if the task was never begun. `Status`, `Log` and
//! `Transfer` come anywhere after `Added`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::SystemTime;

use kiln_graph::Digest;

/// Events in the channel before a sender waits.
const CAPACITY: usize = 512;
/// Bytes of output in one event; with [`CAPACITY`] it bounds the memory of the channel.
const MAX_LOG_BYTES: usize = 16 * 1024;

/// Something that happened to a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A task will come, or turn out not to be needed.
    Added {
        /// The task.
        task: TaskId,
        /// Name for people.
        name: String,
        /// Digest of the vertex, for tasks that evaluate one.
        digest: Option<Digest>,
        /// When.
        at: SystemTime,
    },
    /// Work on a task begins.
    Started {
        /// The task.
        task: TaskId,
        /// When.
        at: SystemTime,
    },
    /// A task has its result without work.
    Cached {
        /// The task.
        task: TaskId,
        /// When.
        at: SystemTime,
    },
    /// What a task is doing or waiting for, in a few words.
    Status {
        /// The task.
        task: TaskId,
        /// A few words without a full stop.
        text: String,
        /// When.
        at: SystemTime,
    },
    /// A step wrote something.
    Log {
        /// The task.
        task: TaskId,
        /// Where it wrote.
        stream: Stream,
        /// The bytes as they came: not cut at lines, not sanitised.
        data: Vec<u8>,
        /// When.
        at: SystemTime,
    },
    /// Bytes moved.
    Transfer {
        /// The task.
        task: TaskId,
        /// What moves, unique within the task and direction: the digest of a blob.
        id: String,
        /// Where to.
        direction: Direction,
        /// Bytes moved so far.
        done: u64,
        /// All bytes, if known; the transfer is complete when `done` reaches it.
        total: Option<u64>,
        /// When.
        at: SystemTime,
    },
    /// A task has its result.
    Finished {
        /// The task.
        task: TaskId,
        /// When.
        at: SystemTime,
    },
    /// A task has failed.
    Failed {
        /// The task.
        task: TaskId,
        /// Why.
        message: String,
        /// When.
        at: SystemTime,
    },
    /// A task was stopped before its end.
    Canceled {
        /// The task.
        task: TaskId,
        /// When.
        at: SystemTime,
    },
    /// Something that a user should know although the build goes on.
    Warning {
        /// What and why.
        text: String,
    },
}

/// Names a task among those of one reporter and its clones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(pub u64);

/// An output stream of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What is done with bytes that move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From a registry.
    Pull,
    /// To a registry.
    Push,
    /// From a blob into an unpacked layer.
    Extract,
    /// From a layer into a blob.
    Compress,
    /// To a file, a folder or another engine.
    Export,
}

/// Sends events; clones send to the same receiver.
#[derive(Debug, Clone)]
pub struct Reporter {
    sender: Option<SyncSender<Event>>,
    next_task: Arc<AtomicU64>,
}

/// A task whose events are reported; clones are the same task.
#[derive(Debug, Clone)]
pub struct Task(Arc<TaskState>);

#[derive(Debug)]
struct TaskState {
    id: TaskId,
    reporter: Reporter,
    started: AtomicBool,
    ended: AtomicBool,
}

impl Reporter {
    /// Returns a reporter and where its events arrive; the channel closes with the last clone and
    /// the last task.
    pub fn new() -> (Self, Receiver<Event>) {
        let (sender, receiver) = sync_channel(CAPACITY);
        (Self::with(Some(sender)), receiver)
    }

    /// Returns a reporter whose events go nowhere.
    pub fn silent() -> Self {
        Self::with(None)
    }

    fn with(sender: Option<SyncSender<Event>>) -> Self {
        Self {
            sender,
            next_task: Arc::new(AtomicU64::new(0)),
        }
    }

    /// Adds a task.
    pub fn task(&self, name: impl Into<String>, digest: Option<Digest>) -> Task {
        let id = TaskId(self.next_task.fetch_add(1, Ordering::Relaxed));
        self.send(|at| Event::Added {
            task: id,
            name: name.into(),
            digest,
            at,
        });
        Task(Arc::new(TaskState {
            id,
            reporter: self.clone(),
            started: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        }))
    }

    /// Tells something that a user should know although the build goes on.
    pub fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        self.send(|_| Event::Warning { text });
    }

    fn send(&self, event: impl FnOnce(SystemTime) -> Event) {
        if let Some(sender) = &self.sender {
            // An error says that nobody listens any more, which is no reason to stop a build.
            drop(sender.send(event(SystemTime::now())));
        }
    }
}

impl Task {
    /// Returns what names the task in events.
    pub fn id(&self) -> TaskId {
        self.0.id
    }

    /// Returns the reporter of the task, for warnings and further tasks.
    pub fn reporter(&self) -> &Reporter {
        &self.0.reporter
    }

    /// Work begins; a second call says nothing.
    pub fn started(&self) {
        if !self.0.started.swap(true, Ordering::Relaxed) {
            self.send(|task, at| Event::Started { task, at });
        }
    }

    /// The result is there without work.
    pub fn cached(&self) {
        self.end(|task, at| Event::Cached { task, at });
    }

    /// Says what the task is doing or waiting for.
    pub fn status(&self, text: impl Into<String>) {
        let text = text.into();
        self.send(|task, at| Event::Status { task, text, at });
    }

    /// A step wrote `data`.
    pub fn log(&self, stream: Stream, data: &[u8]) {
        for chunk in data.chunks(MAX_LOG_BYTES) {
            self.send(|task, at| Event::Log {
                task,
                stream,
                data: chunk.to_vec(),
                at,
            });
        }
    }

    /// `done` bytes of `id` have moved, of `total` if that is known.
    pub fn transfer(&self, id: &str, direction: Direction, done: u64, total: Option<u64>) {
        self.send(|task, at| Event::Transfer {
            task,
            id: id.to_owned(),
            direction,
            done,
            total,
            at,
        });
    }

    /// The result is there.
    pub fn finished(&self) {
        self.end(|task, at| Event::Finished { task, at });
    }

    /// There will be no result.
    pub fn failed(&self, message: impl Into<String>) {
        let message = message.into();
        self.end(|task, at| Event::Failed { task, message, at });
    }

    /// The task was stopped; says nothing if it has ended already.
    pub fn canceled(&self) {
        self.end(|task, at| Event::Canceled { task, at });
    }

    fn end(&self, event: impl FnOnce(TaskId, SystemTime) -> Event) {
        if !self.0.ended.swap(true, Ordering::Relaxed) {
            self.send(event);
        }
    }

    fn send(&self, event: impl FnOnce(TaskId, SystemTime) -> Event) {
        self.0.reporter.send(|at| event(self.0.id, at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(act: impl FnOnce(&Reporter)) -> Vec<Event> {
        let (reporter, receiver) = Reporter::new();
        act(&reporter);
        drop(reporter);
        receiver.iter().collect()
    }

    #[test]
    fn tasks_have_numbers_of_their_own() {
        let events = events(|reporter| {
            reporter.task("a", None);
            reporter.clone().task("b", None);
        });
        let ids: Vec<_> = events
            .iter()
            .map(|event| match event {
                Event::Added { task, name, .. } => (task.0, name.as_str()),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(ids, vec![(0, "a"), (1, "b")]);
    }

    #[test]
    fn a_task_starts_once_and_ends_once() {
        let events = events(|reporter| {
            let task = reporter.task("a", None);
            task.started();
            task.started();
            task.finished();
            task.clone().canceled();
            task.failed("no");
        });
        assert!(matches!(
            events[..],
            [
                Event::Added { .. },
                Event::Started { .. },
                Event::Finished { .. }
            ]
        ));
    }

    #[test]
    fn long_output_is_sent_in_pieces() {
        let events = events(|reporter| {
            let task = reporter.task("a", None);
            task.log(Stream::Stderr, &vec![b'x'; MAX_LOG_BYTES + 1]);
            task.log(Stream::Stderr, b"");
        });
        let sizes: Vec<_> = events[1..]
            .iter()
            .map(|event| match event {
                Event::Log { data, stream, .. } => (data.len(), *stream),
                other => panic!("{other:?}"),
            })
            .collect();
        let expected = vec![(MAX_LOG_BYTES, Stream::Stderr), (1, Stream::Stderr)];
        assert_eq!(sizes, expected);
    }

    #[test]
    fn nobody_listening_is_no_error() {
        let (reporter, receiver) = Reporter::new();
        drop(receiver);
        for _ in 0..2 * CAPACITY {
            reporter.task("a", None).finished();
        }
        Reporter::silent().task("b", None).finished();
    }
}
