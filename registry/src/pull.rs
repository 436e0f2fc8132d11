//! Blobs: fetch and look up.
//!
//! A blob goes from the connection into the caller's sink, piece by piece and once, while it is
//! hashed. After a broken connection it goes on where it stopped; a registry that cannot do that
//! sends it again and what is known is skipped. Stores nothing.

use std::future::Future;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use kiln_graph::{Descriptor, Digest, Hasher};
use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use crate::client::Client;
use crate::error::{Operation, RegistryError};
use crate::exchange::{Call, Pieces};
use crate::host::Host;
use crate::manifest::{header_length, is_absent};
use crate::reference::Reference;
use crate::retry::{Backoff, Trouble};
use crate::scope::Scope;
use crate::sources::blamed_on;
use crate::token::Need;

/// An attempt that got this far counts as progress, not as a failure.
const PROGRESS: u64 = 1 << 20;

/// Takes the bytes of a blob.
pub trait BlobSink: Send {
    /// Takes the next bytes. Every byte comes once, in order; none can be trusted before
    /// [`Client::blob`] returned `Ok`.
    fn write(&mut self, chunk: Bytes) -> impl Future<Output = io::Result<()>> + Send;

    /// Called once, when all bytes have come and are right.
    fn finish(&mut self) -> impl Future<Output = io::Result<()>> + Send;
}

impl<W: AsyncWrite + Unpin + Send> BlobSink for W {
    async fn write(&mut self, chunk: Bytes) -> io::Result<()> {
        self.write_all(&chunk).await
    }

    async fn finish(&mut self) -> io::Result<()> {
        self.flush().await
    }
}

/// How far a blob has come.
struct Transfer<'a> {
    operation: Arc<Operation>,
    path: String,
    size: u64,
    done: u64,
    hasher: Hasher,
    progress: &'a (dyn Fn(u64) + Send + Sync),
}

impl Client {
    /// Streams a blob into `sink`, and checks its size and digest before it returns `Ok`. Where
    /// [`RegistryError::is_of_mirror`] it is worth another attempt, with an empty sink.
    /// `progress` is told how many bytes have come.
    pub async fn blob(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
        sink: &mut impl BlobSink,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), RegistryError> {
        let mut sources = self.sources(repository)?;
        let (mut there, mut host) = sources.next();
        let mut transfer = Transfer {
            operation: blob_operation("pull blob", repository, descriptor, &host),
            path: blob_path(&there, descriptor),
            size: descriptor.size,
            done: 0,
            hasher: Hasher::new(descriptor.digest.algorithm()),
            progress,
        };
        let mut mirrors = Vec::new();
        loop {
            let before = transfer.done;
            let pulled = self.blob_from(&host, &there, &mut transfer, sink).await;
            if host.role.is_mirror && transfer.done > before {
                mirrors.push(host);
            }
            let Err(error) = pulled else {
                break;
            };
            // What has come stays; the next one goes on where this one stopped.
            sources.go_on(error)?;
            (there, host) = sources.next();
            transfer.operation = blob_operation("pull blob", repository, descriptor, &host);
            transfer.path = blob_path(&there, descriptor);
        }
        let finished = transfer.finish(descriptor.digest, sink).await;
        finished.map_err(|error| blamed_on(&mirrors, error))
    }

    /// Streams what is missing of a blob from one host.
    async fn blob_from(
        &self,
        host: &Host,
        repository: &Reference,
        transfer: &mut Transfer<'_>,
        sink: &mut impl BlobSink,
    ) -> Result<(), RegistryError> {
        let scopes = [Scope::pull(repository.repository())];
        let mut backoff = Backoff::at(self.config(), host);
        loop {
            let before = transfer.done;
            match self.blob_attempt(host, &scopes, transfer, sink).await {
                Ok(()) => return Ok(()),
                Err(trouble) => {
                    if transfer.done - before >= PROGRESS {
                        backoff.reset();
                    }
                    backoff.pause(trouble).await?;
                }
            }
        }
    }

    async fn blob_attempt(
        &self,
        host: &Host,
        scopes: &[Scope],
        transfer: &mut Transfer<'_>,
        sink: &mut impl BlobSink,
    ) -> Result<(), Trouble> {
        let operation = transfer.operation.clone();
        let need = Need {
            operation: &operation,
            host,
            scopes,
        };
        let url = host
            .url(&transfer.path, self.config().connect_timeout)
            .await?;
        let mut call = Call::new(need, Method::GET, url);
        call.headers
            .insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if transfer.done > 0 {
            let range = format!("bytes={}-", transfer.done);
            let range = HeaderValue::from_str(&range).expect("digits are a header value");
            call.headers.insert(RANGE, range);
        }
        let answer = self.attempt(&call).await?;
        let mut skip = transfer.check_head(&answer.response)?;
        let mut pieces = Pieces::new(answer.response);
        while let Some(mut chunk) = pieces.next(&operation, self.config()).await? {
            let n_known = skip.min(length(&chunk));
            skip -= n_known;
            chunk = chunk.split_off(usize::try_from(n_known).expect("not above a length"));
            transfer.take(chunk, sink).await?;
        }
        transfer.check_end()
    }

    /// Returns true if the repository has the blob.
    pub async fn has_blob(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
    ) -> Result<bool, RegistryError> {
        let host = self.host_of(repository)?;
        let operation = blob_operation("look up blob", repository, descriptor, &host);
        let scopes = [Scope::pull(repository.repository())];
        let need = Need {
            operation: &operation,
            host: &host,
            scopes: &scopes,
        };
        self.head_blob(need, &blob_path(repository, descriptor), descriptor.size)
            .await
    }

    pub(crate) async fn head_blob(
        &self,
        need: Need<'_>,
        path: &str,
        size: u64,
    ) -> Result<bool, RegistryError> {
        let url = need.host.url(path, self.config().connect_timeout).await?;
        match self.call(&Call::new(need, Method::HEAD, url)).await {
            Ok(answer) if answer.is_redirected => Ok(true),
            Ok(answer) => match header_length(answer.response.headers()) {
                // Some registries send 0 for lack of a better answer.
                Some(actual) if actual != size && actual != 0 => Err(RegistryError::WrongSize {
                    operation: need.operation.clone(),
                    expected: size,
                    actual,
                }),
                _ => Ok(true),
            },
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Transfer<'_> {
    /// Checks the head of an answer; returns how many of its bytes are known already.
    fn check_head(&self, response: &Response) -> Result<u64, RegistryError> {
        let status = response.status();
        let unusable = |text: &str| RegistryError::unusable(&self.operation, status, text);
        let known = match status {
            StatusCode::OK => self.done,
            StatusCode::PARTIAL_CONTENT if self.done == 0 => {
                return Err(unusable("it is a part where the whole was asked for"));
            }
            StatusCode::PARTIAL_CONTENT => {
                let range = response.headers().get(CONTENT_RANGE);
                let range = range
                    .and_then(|value| value.to_str().ok())
                    .unwrap_or_default();
                if range_start(range) != Some(self.done) {
                    return Err(unusable("it is not the part that was asked for"));
                }
                0
            }
            _ => return Err(unusable("it is no content")),
        };
        let announced = header_length(response.headers());
        let expected = self.size - self.done + known;
        match announced {
            Some(actual) if actual != expected => Err(self.wrong_size(self.done - known + actual)),
            _ => Ok(known),
        }
    }

    async fn take(&mut self, chunk: Bytes, sink: &mut impl BlobSink) -> Result<(), RegistryError> {
        if chunk.is_empty() {
            return Ok(());
        }
        let done = self.done + length(&chunk);
        if done > self.size {
            return Err(self.wrong_size(done));
        }
        self.hasher.update(&chunk);
        let written = sink.write(chunk).await;
        written.map_err(|source| RegistryError::local(&self.operation, source))?;
        self.done = done;
        (self.progress)(done);
        Ok(())
    }

    /// The end of an answer without an announced length may be a broken connection.
    fn check_end(&self) -> Result<(), Trouble> {
        if self.done == self.size {
            return Ok(());
        }
        Err(Trouble::passing(self.wrong_size(self.done)))
    }

    async fn finish(self, expected: Digest, sink: &mut impl BlobSink) -> Result<(), RegistryError> {
        let actual = self.hasher.finish();
        let operation = self.operation;
        if actual != expected {
            return Err(RegistryError::WrongDigest {
                operation,
                expected,
                actual,
            });
        }
        let finished = sink.finish().await;
        finished.map_err(|source| RegistryError::local(&operation, source))
    }

    fn wrong_size(&self, actual: u64) -> RegistryError {
        RegistryError::WrongSize {
            operation: self.operation.clone(),
            expected: self.size,
            actual,
        }
    }
}

pub(crate) fn blob_path(repository: &Reference, descriptor: &Descriptor) -> String {
    format!("{}/blobs/{}", repository.repository(), descriptor.digest)
}

pub(crate) fn blob_operation(
    action: &'static str,
    repository: &Reference,
    descriptor: &Descriptor,
    host: &Host,
) -> Arc<Operation> {
    let subject = format!("{}@{}", repository.name(), descriptor.digest);
    Operation::new(action, subject, &host.name)
}

fn length(chunk: &Bytes) -> u64 {
    u64::try_from(chunk.len()).expect("a length fits into 64 bits")
}

/// Returns where the range of `bytes 5-9/10` starts.
fn range_start(text: &str) -> Option<u64> {
    let range = text.trim().strip_prefix("bytes")?.trim_start();
    let (start, _) = range.split_once('-')?;
    start.trim().parse().ok()
}
