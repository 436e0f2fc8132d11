//! kiln's side of a running step: starts its init, passes its output on, and ends it.

use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::cancel::Cancel;
use crate::error::RunError;
use crate::plan::{self, Failure, Plan, Report, Stub};
use crate::reexec;
use crate::step::{Device, Exit, Outcome, Stream};

const BUFFER: usize = 64 << 10;

/// A step that is over.
#[derive(Debug)]
pub(crate) struct Ended {
    pub result: Result<Outcome, RunError>,
    /// Mount points to remove, however the step ended.
    pub stubs: Vec<Stub>,
}

type Sink<'a> = dyn FnMut(Stream, &[u8]) + 'a;

/// Runs a plan to its end.
pub(crate) fn run(program: &OwnedFd, plan: &Plan, cancel: &Cancel, sink: &mut Sink<'_>) -> Ended {
    let started = Instant::now();
    let mut running = match Running::start(program) {
        Ok(running) => running,
        Err(source) => {
            let result = Err(RunError::supervise("start the step's init")(source));
            let stubs = Vec::new();
            return Ended { result, stubs };
        }
    };
    let followed = plan::send_plan(&running.control, plan)
        .and_then(|()| running.follow(cancel, sink))
        .and_then(|()| running.reap());
    let result = match followed {
        // What init said is more telling than that it hung up.
        Err(source) if running.failure.is_none() => {
            Err(RunError::supervise("follow the step")(source))
        }
        _ => running.result(plan, started.elapsed()),
    };
    Ended {
        result,
        stubs: std::mem::take(&mut running.stubs),
    }
}

#[derive(Debug)]
struct Running {
    init: Child,
    control: UnixStream,
    /// Output not at its end yet.
    outputs: Vec<(Stream, OwnedFd)>,
    is_cancelled: bool,
    is_over: bool,
    stubs: Vec<Stub>,
    failure: Option<Failure>,
    ended: Option<(Exit, Duration, u64, Vec<Device>)>,
}

impl Running {
    fn start(program: &OwnedFd) -> io::Result<Self> {
        let (control, theirs) = UnixStream::pair()?;
        let (stdout, their_stdout) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, their_stderr) = pipe_with(PipeFlags::CLOEXEC)?;
        let init = reexec::start_init(program, theirs.into(), their_stdout, their_stderr)?;
        Ok(Self {
            init,
            control,
            outputs: vec![(Stream::Stdout, stdout), (Stream::Stderr, stderr)],
            is_cancelled: false,
            is_over: false,
            stubs: Vec::new(),
            failure: None,
            ended: None,
        })
    }

    /// Passes output and reports on until the container is gone.
    fn follow(&mut self, cancel: &Cancel, sink: &mut Sink<'_>) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER];
        while !self.is_over {
            let ready = self.wait(cancel)?;
            for index in (0..self.outputs.len()).rev() {
                if ready.outputs[index] {
                    self.pass_on(index, &mut buffer, sink)?;
                }
            }
            if ready.cancel {
                self.is_cancelled = true;
                // Stage 1 kills the container when it sees the end of our side.
                self.control.shutdown(Shutdown::Write)?;
            }
            if ready.control {
                self.hear()?;
            }
        }
        self.drain(&mut buffer, sink)
    }

    fn wait(&self, cancel: &Cancel) -> io::Result<Ready> {
        let event = cancel.event();
        let mut watched = vec![PollFd::new(&self.control, PollFlags::IN)];
        for (_, pipe) in &self.outputs {
            watched.push(PollFd::new(pipe, PollFlags::IN));
        }
        if !self.is_cancelled {
            watched.push(PollFd::new(&event, PollFlags::IN));
        }
        match poll(&mut watched, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut is_ready = watched.iter().map(|fd| !fd.revents().is_empty());
        Ok(Ready {
            control: is_ready.next().unwrap_or(false),
            outputs: is_ready.by_ref().take(self.outputs.len()).collect(),
            cancel: is_ready.next().unwrap_or(false),
        })
    }

    /// Passes on what one pipe holds; forgets the pipe at its end.
    fn pass_on(&mut self, index: usize, buffer: &mut [u8], sink: &mut Sink<'_>) -> io::Result<()> {
        let (stream, pipe) = &self.outputs[index];
        match rustix::io::read(pipe, &mut *buffer) {
            Ok(0) => {
                self.outputs.remove(index);
            }
            Ok(length) => sink(*stream, &buffer[..length]),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn hear(&mut self) -> io::Result<()> {
        match plan::receive(&self.control)? {
            None => self.is_over = true,
            Some(Report::Ready { stubs }) => self.stubs = stubs,
            Some(Report::Failed { failure, stubs }) => {
                // A failure of stage 1 comes after one of the container, and is its consequence.
                self.failure.get_or_insert(failure);
                if !stubs.is_empty() {
                    self.stubs = stubs;
                }
            }
            Some(Report::Ended {
                code,
                signal,
                cpu_us,
                max_rss,
                devices,
            }) => {
                let exit = match (code, signal) {
                    (_, Some(signal)) => Exit::Signal(signal),
                    (code, None) => Exit::Code(code.unwrap_or(0)),
                };
                self.ended = Some((exit, Duration::from_micros(cpu_us), max_rss, devices));
                self.is_over = true;
            }
        }
        Ok(())
    }

    /// Passes on what is left in the pipes. All processes of the step are gone, so all of it is
    /// there; a writer that remains got the pipe from a step over a socket and is not waited for.
    fn drain(&mut self, buffer: &mut [u8], sink: &mut Sink<'_>) -> io::Result<()> {
        for (stream, pipe) in self.outputs.drain(..) {
            fcntl_setfl(&pipe, fcntl_getfl(&pipe)? | OFlags::NONBLOCK)?;
            loop {
                match rustix::io::read(&pipe, &mut *buffer) {
                    Ok(0) | Err(Errno::AGAIN) => break,
                    Ok(length) => sink(stream, &buffer[..length]),
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    fn reap(&mut self) -> io::Result<()> {
        self.init.wait().map(|_| ())
    }

    fn result(&mut self, plan: &Plan, elapsed: Duration) -> Result<Outcome, RunError> {
        if self.is_cancelled {
            return Err(RunError::Cancelled);
        }
        if let Some(failure) = self.failure.take() {
            return Err(failure.into_error(&plan.args, &plan.user));
        }
        let (exit, cpu_time, max_rss, devices) = self.ended.take().ok_or_else(|| {
            let source = io::Error::from(io::ErrorKind::UnexpectedEof);
            RunError::supervise("learn how the step ended")(source)
        })?;
        Ok(Outcome {
            exit,
            elapsed,
            cpu_time,
            max_rss,
            devices,
        })
    }
}

impl Drop for Running {
    /// After an error or a panic of the sink, the init must not stay: closing our side of the
    /// socket makes it kill the container and end.
    fn drop(&mut self) {
        let _closed = self.control.shutdown(Shutdown::Both);
        // Its exit code says nothing that is not known.
        let _status = self.init.wait();
    }
}

/// What poll(2) found.
#[derive(Debug)]
struct Ready {
    control: bool,
    outputs: Vec<bool>,
    cancel: bool,
}
