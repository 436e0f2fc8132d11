//! Sockets on which steps reach agents.

use std::fs;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown};
use std::os::unix::net;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kiln_solver::Task;
use rustix::fs::{CWD, Mode, OFlags, openat};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use crate::agents::protocol::{answer, is_allowed, receive, refusal, send};
use crate::agents::{Agent, Signer};

/// Connections to one socket at a time; who comes later waits.
const MAX_CONNECTIONS: usize = 64;

/// How long to wait when no connection can be accepted, for want of descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// Sockets in a private folder; they and all that serves them end with this.
#[derive(Debug)]
pub(crate) struct Served {
    dir: PathBuf,
    listeners: JoinSet<()>,
}

/// What a socket is for, and whose it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Socket<'a> {
    pub(crate) id: &'a str,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Served {
    /// Returns no sockets yet; `dir` is made when there is one.
    pub(crate) fn new(dir: PathBuf) -> Self {
        let listeners = JoinSet::new();
        Self { dir, listeners }
    }

    #[cfg(test)]
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Serves an agent on a new socket and returns the path of the socket.
    pub(crate) fn add(
        &mut self,
        agent: &Agent,
        socket: Socket<'_>,
        task: &Task,
    ) -> io::Result<PathBuf> {
        let name = self.listeners.len().to_string();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)?;
        let path = self.dir.join(&name);
        let listener = UnixListener::from_std(listen(&self.dir, &name)?)?;
        chown(&path, Some(socket.uid), Some(socket.gid))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(socket.mode))?;
        let complaint = Complaint {
            id: socket.id.to_owned(),
            task: task.clone(),
            is_made: Arc::default(),
        };
        self.listeners
            .spawn(accept(listener, agent.clone(), complaint));
        Ok(path)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.listeners.abort_all();
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(dir = %self.dir.display(), %error, "sockets stay");
            }
            _ => {}
        }
    }
}

/// Binds by way of a descriptor: the address of a socket has room for a hundred bytes only.
fn listen(dir: &Path, name: &str) -> io::Result<net::UnixListener> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = openat(CWD, dir, flags, Mode::empty())?;
    let short = format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
    let listener = net::UnixListener::bind(short)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Says once that an agent cannot be reached.
#[derive(Debug, Clone)]
struct Complaint {
    id: String,
    task: Task,
    is_made: Arc<AtomicBool>,
}

impl Complaint {
    fn make(&self, error: &io::Error) {
        if !self.is_made.swap(true, Ordering::Relaxed) {
            let text = format!("SSH agent `{}` cannot be reached: {error}", self.id);
            self.task.reporter().warn(text);
        }
    }
}

async fn accept(listener: UnixListener, agent: Agent, complaint: Complaint) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((client, _)) => {
                    connections.spawn(serve(client, agent.clone(), complaint.clone()));
                }
                Err(error) => {
                    tracing::debug!(%error, "no connection to an agent");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(ended) = connections.join_next() => {
                if let Ok(Err(error)) = ended {
                    tracing::debug!(%error, "connection to an agent ended");
                }
            }
        }
    }
}

/// Answers one client until it hangs up.
async fn serve(mut client: UnixStream, agent: Agent, complaint: Complaint) -> io::Result<()> {
    let mut upstream = None;
    while let Some(request) = receive(&mut client).await? {
        let answer = match &agent.0 {
            _ if !is_allowed(&request) => refusal(),
            Signer::Keys(keys) => answer(keys, &request),
            Signer::Socket(path) => match ask(path, &mut upstream, &request).await {
                Ok(answer) => answer,
                Err(error) => {
                    complaint.make(&error);
                    send(&mut client, &refusal()).await?;
                    return Err(error);
                }
            },
        };
        send(&mut client, &answer).await?;
    }
    Ok(())
}

/// Asks the agent behind a socket; a client's questions go over one connection.
async fn ask(
    path: &Path,
    upstream: &mut Option<UnixStream>,
    request: &[u8],
) -> io::Result<Vec<u8>> {
    if upstream.is_none() {
        *upstream = Some(UnixStream::connect(path).await?);
    }
    let stream = upstream.as_mut().expect("it was just connected");
    send(stream, request).await?;
    let answer = receive(stream).await?;
    answer.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
}
