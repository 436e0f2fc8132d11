//! A TCP proxy before a registry that can stop in the middle of a transfer.
//!
//! So a test can kill kiln when a pull or push is half done, without measuring time.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use super::{PATIENCE, wait_until};

/// Which way bytes flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// From the registry.
    Down,
    /// To the registry.
    Up,
}

/// A proxy; lives as long as the process.
#[derive(Debug)]
pub(crate) struct Proxy {
    host: String,
    gate: Arc<Gate>,
}

/// What all connections of a proxy pass.
#[derive(Debug, Default)]
struct Gate {
    /// Guards the counters below; `opened` is notified when the limit is lifted.
    state: Mutex<State>,
    opened: Condvar,
}

#[derive(Debug, Default)]
struct State {
    limit: Option<(Flow, u64)>,
    n_passed: u64,
    n_held: usize,
    requests: Vec<String>,
}

impl Proxy {
    /// Starts a proxy before `target`.
    #[expect(
        clippy::disallowed_methods,
        reason = "the proxy ends with the test's process"
    )]
    pub(crate) fn before(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (gate, target) = (Arc::<Gate>::default(), target.to_owned());
        let shared = Arc::clone(&gate);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (gate, target) = (Arc::clone(&shared), target.clone());
                std::thread::spawn(move || gate.serve(&client, &target));
            }
        });
        Self { host, gate }
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Lets only so many more bytes flow one way.
    pub(crate) fn hold_after(&self, flow: Flow, n_bytes: u64) {
        let mut state = self.gate.state.lock().unwrap();
        (state.limit, state.n_passed) = (Some((flow, n_bytes)), 0);
    }

    /// Waits until bytes are held back.
    pub(crate) fn wait_until_held(&self) {
        wait_until("a transfer that is held", || {
            self.gate.state.lock().unwrap().n_held > 0
        });
    }

    /// Lets everything flow again.
    pub(crate) fn release(&self) {
        self.gate.state.lock().unwrap().limit = None;
        self.gate.opened.notify_all();
    }

    /// Returns the request lines since the last call.
    pub(crate) fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.gate.state.lock().unwrap().requests)
    }
}

impl Gate {
    fn serve(&self, client: &TcpStream, target: &str) {
        let Ok(server) = TcpStream::connect(target) else {
            return;
        };
        std::thread::scope(|scope| {
            scope.spawn(|| self.pump(client, &server, Flow::Up));
            scope.spawn(|| self.pump(&server, client, Flow::Down));
        });
    }

    /// Copies until either side ends; then ends both.
    fn pump(&self, from: &TcpStream, to: &TcpStream, flow: Flow) {
        self.copy(from, to, flow).ok();
        from.shutdown(Shutdown::Both).ok();
        to.shutdown(Shutdown::Both).ok();
    }

    fn copy(&self, mut from: &TcpStream, mut to: &TcpStream, flow: Flow) -> io::Result<()> {
        let mut buffer = [0; 8192];
        loop {
            let n = from.read(&mut buffer)?;
            if n == 0 {
                return Ok(());
            }
            if flow == Flow::Up {
                self.note_request(&buffer[..n]);
            }
            self.pass(flow, n as u64);
            to.write_all(&buffer[..n])?;
        }
    }

    fn note_request(&self, bytes: &[u8]) {
        let is_request = [&b"GET /"[..], b"HEAD /", b"PUT /", b"POST /", b"PATCH /"]
            .iter()
            .any(|start| bytes.starts_with(start));
        if is_request {
            let line = bytes
                .split(|&byte| byte == b'\r')
                .next()
                .unwrap_or_default();
            let line = String::from_utf8_lossy(line).replace(" HTTP/1.1", "");
            self.state.lock().unwrap().requests.push(line);
        }
    }

    /// Returns when `n` more bytes may pass.
    fn pass(&self, flow: Flow, n: u64) {
        let mut state = self.state.lock().unwrap();
        let is_over = |state: &mut State| match state.limit {
            Some((held, limit)) if held == flow => state.n_passed + n > limit,
            _ => false,
        };
        if is_over(&mut state) {
            state.n_held += 1;
            let wait = self.opened.wait_timeout_while(state, 2 * PATIENCE, is_over);
            state = wait.unwrap().0;
            state.n_held -= 1;
        }
        state.n_passed += n;
    }
}
