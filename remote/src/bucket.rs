//! A cache in a bucket of an S3-compatible server: the same names as in a folder.
//!
//! Requests are signed for a short time; secrets are in no message.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::try_unfold;
use kiln_graph::{Descriptor, Digest};
use kiln_registry::{BlobSink, BlobSource, Client, Pushed};
use reqwest::header::{CONTENT_LENGTH, LAST_MODIFIED};
use reqwest::{Body, Client as Http, RequestBuilder, Response, StatusCode, Url};
use rusty_s3::actions::ListObjectsV2;
use rusty_s3::{Bucket as Signer, Credentials, S3Action as _, UrlStyle};
use tokio::io::AsyncReadExt as _;
use tokio::time::{sleep, timeout};

use crate::checked::Checked;
use crate::error::RemoteError;
use crate::folder::GRACE;
use crate::segment::MAX_PACKED;

/// How long a signed request may be sent.
const SIGNED: Duration = Duration::from_secs(3600);
/// How long a server may be silent.
const SILENCE: Duration = Duration::from_secs(60);
const ATTEMPTS: u32 = 4;
const BACKOFF: Duration = Duration::from_millis(300);
/// Longest object that can be sent at once.
const MAX_OBJECT: u64 = 5 << 30;
/// Longest list of objects in bytes.
const MAX_ANSWER: u64 = 4 << 20;
/// How much of an error is read.
const MAX_WORDS: usize = 64 << 10;
const MAX_PAGES: usize = 1000;
const BUFFER: usize = 256 << 10;

/// Where a bucket is, and who may use it.
pub struct BucketSettings {
    /// Address of the server: `https://s3.eu-west-1.amazonaws.com`.
    pub endpoint: Url,
    /// The bucket's name is in the path, not in the host.
    pub path_style: bool,
    /// The bucket.
    pub bucket: String,
    /// The region, which is part of signatures.
    pub region: String,
    /// What names of objects begin with.
    pub prefix: String,
    /// Access key, secret key, session token; nothing for a bucket that all may use.
    pub keys: Option<(String, String, Option<String>)>,
}

impl fmt::Debug for BucketSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = (&self.bucket, &self.prefix);
        f.debug_tuple("BucketSettings").field(&name).finish()
    }
}

/// A bucket that holds a cache.
#[derive(Clone)]
pub struct Bucket {
    http: Http,
    signer: Signer,
    credentials: Option<Credentials>,
    prefix: String,
    shown: String,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bucket").field(&self.shown).finish()
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// Why an attempt failed, and whether another one may not.
struct Trouble {
    error: RemoteError,
    may_pass: bool,
}

impl From<RemoteError> for Trouble {
    fn from(error: RemoteError) -> Self {
        Self {
            error,
            may_pass: false,
        }
    }
}

impl Bucket {
    /// Returns the bucket. `client` says which certificates are trusted.
    pub fn new(client: &Client, settings: BucketSettings) -> Result<Self, RemoteError> {
        let what = format!("the bucket `{}`", settings.bucket);
        let unusable = |why: String| RemoteError::unusable(what.clone(), &why);
        let endpoint = settings.endpoint;
        let host = endpoint.host_str().unwrap_or_default();
        let host = match endpoint.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let style = match settings.path_style {
            true => UrlStyle::Path,
            false => UrlStyle::VirtualHost,
        };
        let shown = format!("s3://{}/{}", settings.bucket, settings.prefix);
        let signer = Signer::new(endpoint, style, settings.bucket, settings.region);
        let credentials = settings.keys.map(|(key, secret, token)| match token {
            Some(token) => Credentials::new_with_token(key, secret, token),
            None => Credentials::new(key, secret),
        });
        Ok(Self {
            http: client.http(&host)?,
            signer: signer.map_err(|error| unusable(error.to_string()))?,
            credentials,
            prefix: settings.prefix,
            shown,
        })
    }

    fn segment(&self, name: &str) -> String {
        format!("{}segments/{name}", self.prefix)
    }

    fn blob(&self, digest: &Digest) -> String {
        format!("{}blobs/sha256/{}", self.prefix, digest.hex())
    }

    fn keys(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }

    /// Lists objects: the last part of each name, and when it was written.
    async fn list(&self, below: &str) -> Result<Vec<(String, String)>, RemoteError> {
        let prefix = format!("{}{below}", self.prefix);
        let (mut found, mut token) = (Vec::new(), None::<String>);
        for _ in 0..MAX_PAGES {
            let mut action = self.signer.list_objects_v2(self.keys());
            action.with_prefix(prefix.as_str());
            if let Some(token) = &token {
                action.with_continuation_token(token.as_str());
            }
            let url = action.sign(SIGNED);
            let text = self.get(url, MAX_ANSWER, "list the objects").await?;
            let page = ListObjectsV2::parse_response(&in_the_usual_namespace(&text))
                .map_err(|error| RemoteError::unusable(format!("the list of `{self}`"), &error))?;
            let names = page.contents.into_iter().filter_map(|object| {
                let name = object.key.strip_prefix(&prefix)?.to_owned();
                Some((name, object.last_modified.unwrap_or_default()))
            });
            found.extend(names);
            token = page.next_continuation_token;
            if token.is_none() {
                break;
            }
        }
        Ok(found)
    }

    pub(crate) async fn segments(&self) -> Result<Vec<String>, RemoteError> {
        let found = self.list("segments/").await?;
        let mut names: Vec<String> = found.into_iter().map(|(name, _)| name).collect();
        names.sort();
        Ok(names)
    }

    pub(crate) async fn read_segment(&self, name: &str) -> Result<Vec<u8>, RemoteError> {
        let name = self.segment(name);
        let url = self.signer.get_object(self.keys(), &name).sign(SIGNED);
        self.get(url, MAX_PACKED, &format!("read `{name}`")).await
    }

    pub(crate) async fn write_segment(&self, name: &str, bytes: Bytes) -> Result<(), RemoteError> {
        let size = bytes.len() as u64;
        self.put(&self.segment(name), size, &bytes, &|_| ()).await
    }

    pub(crate) async fn remove_segment(&self, name: &str) -> Result<(), RemoteError> {
        self.remove(&self.segment(name)).await
    }

    async fn remove(&self, name: &str) -> Result<(), RemoteError> {
        let url = self.signer.delete_object(self.keys(), name).sign(SIGNED);
        let what = format!("remove `{name}`");
        let send = || async { self.answer(self.http.delete(url.clone()), &what).await };
        self.repeat(send).await.map(drop)
    }

    pub(crate) async fn read_blob(
        &self,
        blob: &Descriptor,
        sink: &mut impl BlobSink,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), RemoteError> {
        let name = self.blob(&blob.digest);
        let (what, url) = (
            format!("read `{name}`"),
            self.signer.get_object(self.keys(), &name).sign(SIGNED),
        );
        let send = || async { self.answer(self.http.get(url.clone()), &what).await };
        let mut response = self.repeat(send).await?;
        let mut checked = Checked::new(blob, sink, progress);
        while let Some(chunk) = self.chunk(&mut response, &what).await? {
            if !checked.take(chunk).await? {
                break;
            }
        }
        checked.finish(format!("`{name}` in `{self}`")).await
    }

    pub(crate) async fn push_blob(
        &self,
        blob: &Descriptor,
        source: &impl BlobSource,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Pushed, RemoteError> {
        let name = self.blob(&blob.digest);
        if self.has(&name, blob.size).await? {
            return Ok(Pushed::Existed);
        }
        if blob.size > MAX_OBJECT {
            let why = "it is longer than 5 GiB, which S3 does not take in one piece";
            return Err(RemoteError::unusable(format!("blob {}", blob.digest), &why));
        }
        self.put(&name, blob.size, source, progress).await?;
        Ok(Pushed::Uploaded)
    }

    async fn has(&self, name: &str, size: u64) -> Result<bool, RemoteError> {
        let url = self.signer.head_object(self.keys(), name).sign(SIGNED);
        let what = format!("look for `{name}`");
        let send = || async { self.answer(self.http.head(url.clone()), &what).await };
        match self.repeat(send).await {
            Ok(response) => {
                let text = |name| response.headers().get(name)?.to_str().ok();
                let length = text(CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
                let written = text(LAST_MODIFIED);
                let written = written.and_then(|time| jiff::fmt::rfc2822::parse(time).ok());
                // One that is old may be about to be removed as unused, and is written anew.
                let is_fresh = written.is_some_and(|written| {
                    let age = jiff::Timestamp::now().duration_since(written.timestamp());
                    age.unsigned_abs() < GRACE / 2
                });
                Ok(length == Some(size) && is_fresh)
            }
            Err(error) if error.is_absent() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn put(
        &self,
        name: &str,
        size: u64,
        source: &impl BlobSource,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), RemoteError> {
        let url = self.signer.put_object(self.keys(), name).sign(SIGNED);
        let what = format!("write `{name}`");
        let send = || async {
            let opened = source.open().await;
            let reader = opened.map_err(RemoteError::io("read a blob"))?;
            let chunks = try_unfold(reader, |mut reader| async {
                let mut chunk = vec![0; BUFFER];
                let n = reader.read(&mut chunk).await?;
                chunk.truncate(n);
                Ok::<_, std::io::Error>((n > 0).then_some((chunk, reader)))
            });
            let request = self.http.put(url.clone()).header(CONTENT_LENGTH, size);
            let request = request.body(Body::wrap_stream(chunks));
            // The answer comes when all has been sent, at 100 kB a second or faster.
            let patience = SILENCE + Duration::from_secs(size / 100_000);
            self.answer_within(patience, request, &what).await
        };
        self.repeat(send).await?;
        progress(size);
        Ok(())
    }

    pub(crate) async fn sweep(&self, keep: &HashSet<Digest>) -> Result<(), RemoteError> {
        let below = "blobs/sha256/";
        let limit =
            jiff::Timestamp::now() - jiff::SignedDuration::try_from(GRACE).unwrap_or_default();
        for (name, written) in self.list(below).await? {
            let digest = format!("sha256:{name}").parse();
            let is_kept = digest.is_ok_and(|digest: Digest| keep.contains(&digest));
            let written = written.parse::<jiff::Timestamp>();
            if !is_kept && written.is_ok_and(|written| written < limit) {
                self.remove(&format!("{}{below}{name}", self.prefix))
                    .await?;
            }
        }
        Ok(())
    }

    async fn get(&self, url: Url, limit: u64, what: &str) -> Result<Vec<u8>, RemoteError> {
        let read = || async {
            let mut response = self.answer(self.http.get(url.clone()), what).await?;
            let mut bytes = Vec::new();
            while let Some(chunk) = self.chunk(&mut response, what).await? {
                bytes.extend_from_slice(&chunk);
                if bytes.len() as u64 > limit {
                    let why = "the answer is too long";
                    return Err(RemoteError::unusable(format!("`{self}`"), &why).into());
                }
            }
            Ok(bytes)
        };
        self.repeat(read).await
    }

    async fn chunk(
        &self,
        response: &mut Response,
        what: &str,
    ) -> Result<Option<Bytes>, RemoteError> {
        match timeout(SILENCE, response.chunk()).await {
            Ok(chunk) => chunk.map_err(|error| self.unreachable(what, error)),
            Err(_) => Err(RemoteError::Slow(SILENCE.as_secs())),
        }
    }

    /// Sends once; an answer that says no is an error.
    async fn answer(&self, request: RequestBuilder, what: &str) -> Result<Response, Trouble> {
        self.answer_within(SILENCE, request, what).await
    }

    async fn answer_within(
        &self,
        patience: Duration,
        request: RequestBuilder,
        what: &str,
    ) -> Result<Response, Trouble> {
        let slow = |_| Trouble {
            error: RemoteError::Slow(patience.as_secs()),
            may_pass: true,
        };
        let response = timeout(patience, request.send()).await.map_err(slow)?;
        let mut response = response.map_err(|error| Trouble {
            error: self.unreachable(what, error),
            may_pass: true,
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let mut text = Vec::new();
        while text.len() < MAX_WORDS
            && let Ok(Some(chunk)) = self.chunk(&mut response, what).await
        {
            text.extend_from_slice(&chunk);
        }
        let text = format!("{status} {}", words(&String::from_utf8_lossy(&text)));
        let kind = match status {
            StatusCode::NOT_FOUND => std::io::ErrorKind::NotFound,
            _ => std::io::ErrorKind::Other,
        };
        let error = std::io::Error::new(kind, text);
        Err(Trouble {
            error: RemoteError::io(format!("{what} in `{self}`"))(error),
            may_pass: status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS,
        })
    }

    fn unreachable(&self, what: &str, error: reqwest::Error) -> RemoteError {
        // The URL is signed.
        let error = std::io::Error::other(error.without_url());
        RemoteError::io(format!("{what} in `{self}`"))(error)
    }

    /// Tries until it succeeds, fails for good, or was tried often enough.
    async fn repeat<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, RemoteError>
    where
        F: Future<Output = Result<T, Trouble>>,
    {
        let mut n = 1;
        loop {
            match attempt().await {
                Ok(done) => return Ok(done),
                Err(trouble) if trouble.may_pass && n < ATTEMPTS => sleep(BACKOFF * n * n).await,
                Err(trouble) => return Err(trouble.error),
            }
            n += 1;
        }
    }
}

/// Returns a list of objects as Amazon's servers write it: some others name another namespace, or
/// none, and the parser wants the one of S3.
fn in_the_usual_namespace(list: &[u8]) -> String {
    const ROOT: &str = "<ListBucketResult";
    let text = String::from_utf8_lossy(list);
    let Some((before, rest)) = text.split_once(ROOT) else {
        return text.into_owned();
    };
    let content = rest.split_once('>').map_or(rest, |(_, content)| content);
    format!("{before}{ROOT} xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{content}")
}

/// Returns what a server says in its own words: code and message of S3's XML.
fn words(text: &str) -> String {
    let field = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>"))
            .map(|(field, _)| field)
    };
    let said = [field("Code"), field("Message")];
    let said: Vec<&str> = said.into_iter().flatten().collect();
    let said = said.join(": ");
    said.chars().filter(|c| !c.is_control()).take(400).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_any_namespace_are_read() {
        let content = "<Name>b</Name><KeyCount>1</KeyCount><MaxKeys>9</MaxKeys>\
            <IsTruncated>false</IsTruncated><Contents><Key>p/segments/x</Key><ETag>e</ETag>\
            <LastModified>2026-01-02T03:04:05.000Z</LastModified><Size>1</Size></Contents>\
            </ListBucketResult>";
        for root in [
            "<ListBucketResult>",
            "<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"http://doc.s3.amazonaws.com/2006-03-01/\">",
        ] {
            let list = in_the_usual_namespace(format!("{root}{content}").as_bytes());
            let page = ListObjectsV2::parse_response(&list).unwrap();
            assert_eq!(page.contents[0].key, "p/segments/x");
        }
    }

    #[test]
    fn the_servers_own_words_are_found() {
        let text = "<?xml?><Error><Code>AccessDenied</Code><Message>No\u{1b}!</Message></Error>";
        assert_eq!(words(text), "AccessDenied: No!");
        assert_eq!(words("<html>"), "");
    }
}
