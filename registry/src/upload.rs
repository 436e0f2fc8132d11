//! One upload: a single request whose body is read from a source while it is sent.
//!
//! Watches the stream: tells how far it is, and gives up when nothing moves. Never holds more of
//! the blob than one piece.

use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use futures_util::stream::unfold;
use kiln_graph::Descriptor;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use reqwest::{Body, Method, Request, Response, StatusCode, Url};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::{MissedTickBehavior, interval};

use crate::address;
use crate::challenge::Challenge;
use crate::client::Client;
use crate::error::RegistryError;
use crate::exchange::{permit, read_body};
use crate::manifest::header_digest;
use crate::push::BlobSource;
use crate::retry::Trouble;
use crate::token::Need;

const PIECE: usize = 256 << 10;
const TICK: Duration = Duration::from_millis(100);
/// Registries move the blob to its place before they answer.
const COMMIT_FACTOR: u32 = 5;
const MAX_ERROR_BODY: usize = 64 << 10;

/// A blob on its way to a repository.
pub(crate) struct Upload<'a> {
    pub(crate) need: Need<'a>,
    pub(crate) repository: &'a str,
    /// Where the blob will be.
    pub(crate) path: &'a str,
    pub(crate) descriptor: &'a Descriptor,
    pub(crate) progress: &'a (dyn Fn(u64) + Send + Sync),
}

/// What the stream and its watcher share.
#[derive(Default)]
struct Watch {
    n_sent: AtomicU64,
    failure: Mutex<Option<SourceFailure>>,
}

/// Why a source could not be read to its end.
enum SourceFailure {
    Read(io::Error),
    Size(u64),
}

impl Client {
    /// Sends the blob to an upload's location. A request that is refused because a token ended is
    /// worth one more.
    pub(crate) async fn send_blob(
        &self,
        upload: &Upload<'_>,
        source: &impl BlobSource,
        mut location: Url,
        n_refused: &mut u32,
    ) -> Result<(), Trouble> {
        let Upload {
            need, descriptor, ..
        } = upload;
        let _permit = permit(need.host).await;
        let reader = source.open().await;
        let reader = reader.map_err(|source| RegistryError::local(need.operation, source))?;
        location
            .query_pairs_mut()
            .append_pair("digest", &descriptor.digest.to_string());
        let watch = Arc::new(Watch::default());
        let body = Body::wrap_stream(pieces(reader, descriptor.size, watch.clone()));
        let mut request = Request::new(Method::PUT, location);
        let headers = request.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        );
        headers.insert(CONTENT_LENGTH, HeaderValue::from(descriptor.size));
        *request.body_mut() = Some(body);
        let base = need.host.url("", self.config().connect_timeout).await?;
        let (http, authorization) = if address::is_same_origin(&base, request.url()) {
            (need.host.http.clone(), self.authorization(*need).await?)
        } else {
            let host = self.host(&address::authority(request.url()))?;
            (host.http.clone(), None)
        };
        if let Some(header) = &authorization {
            request.headers_mut().insert(AUTHORIZATION, header.clone());
        }
        let response = self.watch(upload, http.execute(request), &watch).await?;
        if response.status() == StatusCode::UNAUTHORIZED && *n_refused == 0 {
            *n_refused += 1;
            return self.refresh(*need, &response, authorization.as_ref()).await;
        }
        self.check_upload(upload, response).await
    }

    /// Fetches a new token, so that the next attempt has it.
    async fn refresh(
        &self,
        need: Need<'_>,
        response: &Response,
        refused: Option<&HeaderValue>,
    ) -> Result<(), Trouble> {
        let denied = RegistryError::status(need.operation, response.status(), b"");
        let Some(challenge) = Challenge::pick(response.headers()) else {
            return Err(denied.into());
        };
        if self.answer(need, &challenge, refused).await?.is_none() {
            return Err(denied.into());
        }
        need.host.auth.learn(challenge);
        Err(Trouble::passing(denied))
    }

    /// Waits for the answer, and meanwhile reports progress and looks for a standstill.
    async fn watch(
        &self,
        upload: &Upload<'_>,
        sending: impl Future<Output = reqwest::Result<Response>>,
        watch: &Watch,
    ) -> Result<Response, Trouble> {
        let operation = upload.need.operation;
        let mut sending = pin!(sending);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut n_seen, mut moved) = (0, Instant::now());
        loop {
            tokio::select! {
                result = &mut sending => {
                    (upload.progress)(watch.n_sent.load(Ordering::Relaxed));
                    let failure = watch.failure.lock().expect("no holder of this lock panics").take();
                    return match (result, failure) {
                        (_, Some(failure)) => Err(upload.failed(failure).into()),
                        (Ok(response), None) => Ok(response),
                        (Err(error), None) => Err(Trouble::transport(operation, error)),
                    };
                }
                _ = ticks.tick() => {
                    let n_sent = watch.n_sent.load(Ordering::Relaxed);
                    if n_sent != n_seen {
                        (n_seen, moved) = (n_sent, Instant::now());
                        (upload.progress)(n_sent);
                    }
                    let limit = self.patience(n_sent == upload.descriptor.size);
                    if moved.elapsed() > limit {
                        return Err(Trouble::silence(operation, limit));
                    }
                }
            }
        }
    }

    fn patience(&self, is_sent: bool) -> Duration {
        let config = self.config();
        if is_sent {
            return config.idle_timeout * COMMIT_FACTOR;
        }
        config.connect_timeout + config.idle_timeout
    }

    async fn check_upload(&self, upload: &Upload<'_>, response: Response) -> Result<(), Trouble> {
        let operation = upload.need.operation;
        let (status, headers) = (response.status(), response.headers().clone());
        if !status.is_success() {
            let body = read_body(response, MAX_ERROR_BODY, operation, self.config()).await;
            let body = body.unwrap_or_default();
            return Err(Trouble::status(operation, status, &headers, &body));
        }
        let expected = upload.descriptor.digest;
        match header_digest(&headers) {
            Some(actual) if actual != expected => Err(RegistryError::WrongDigest {
                operation: operation.clone(),
                expected,
                actual,
            }
            .into()),
            _ => Ok(()),
        }
    }
}

impl Upload<'_> {
    fn failed(&self, failure: SourceFailure) -> RegistryError {
        let operation = self.need.operation;
        match failure {
            SourceFailure::Read(source) => RegistryError::local(operation, source),
            SourceFailure::Size(actual) => {
                let expected = self.descriptor.size;
                let text = format!("it has {actual} bytes instead of {expected}");
                RegistryError::local(operation, io::Error::new(io::ErrorKind::InvalidData, text))
            }
        }
    }
}

/// Reads exactly `size` bytes in pieces; a source with fewer or more of them is a failure.
fn pieces<R: AsyncRead + Send + Unpin + 'static>(
    reader: R,
    size: u64,
    watch: Arc<Watch>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    unfold(Some((reader, size, watch)), |state| async {
        let (mut reader, left, watch) = state?;
        match next_piece(&mut reader, left).await {
            Ok(piece) if piece.is_empty() => None,
            Ok(piece) => {
                let n_bytes = u64::try_from(piece.len()).expect("a length fits into 64 bits");
                watch.n_sent.fetch_add(n_bytes, Ordering::Relaxed);
                Some((Ok(piece), Some((reader, left - n_bytes, watch))))
            }
            Err(failure) => {
                let n_sent = watch.n_sent.load(Ordering::Relaxed);
                let failure = match failure {
                    SourceFailure::Size(n_more) => SourceFailure::Size(n_sent + n_more),
                    read @ SourceFailure::Read(_) => read,
                };
                *watch.failure.lock().expect("no holder of this lock panics") = Some(failure);
                let error = io::Error::other("the source cannot be read");
                Some((Err(error), None))
            }
        }
    })
}

/// Returns the next bytes; none at the end. A failed size is how many more bytes came.
async fn next_piece<R: AsyncRead + Unpin>(
    reader: &mut R,
    left: u64,
) -> Result<Bytes, SourceFailure> {
    let mut piece = BytesMut::with_capacity(PIECE);
    // One byte more than is left shows a source that is too long.
    let limit = left.saturating_add(1);
    while piece.len() < PIECE {
        let n_have = u64::try_from(piece.len()).expect("a length fits into 64 bits");
        let mut part = (&mut *reader).take(limit - n_have);
        let n_read = part.read_buf(&mut piece).await;
        if n_read.map_err(SourceFailure::Read)? == 0 {
            break;
        }
    }
    let n_bytes = u64::try_from(piece.len()).expect("a length fits into 64 bits");
    if n_bytes > left || (n_bytes < left && piece.len() < PIECE) {
        return Err(SourceFailure::Size(n_bytes));
    }
    Ok(piece.freeze())
}
