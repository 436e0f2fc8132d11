//! Sending one request: authorization, redirects, and trying again.
//!
//! The only place that decides where an `Authorization` header goes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Client as Http, Method, Request, Response, StatusCode, Url};
use tokio::sync::SemaphorePermit;
use tokio::time::timeout;

use crate::address;
use crate::challenge::Challenge;
use crate::client::Client;
use crate::config::Config;
use crate::error::{Operation, RegistryError};
use crate::host::{Host, may_be_plain};
use crate::retry::{Backoff, Trouble};
use crate::scope::Scope;
use crate::token::Need;

const MAX_REDIRECTS: usize = 10;
const MAX_ERROR_BODY: usize = 64 << 10;
/// What has to come in the time that a connection may be silent.
const MIN_BYTES: usize = 4096;

/// A request that can be sent more than once.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) operation: &'a Arc<Operation>,
    pub(crate) host: &'a Host,
    pub(crate) scopes: &'a [Scope],
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// An answer with a status that means success. Holds the host's permit while its body is read.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) response: Response,
    /// The registry's own answer did not carry it: another host's did.
    pub(crate) is_redirected: bool,
    _permit: SemaphorePermit<'a>,
}

impl<'a> Call<'a> {
    pub(crate) fn new(need: Need<'a>, method: Method, url: Url) -> Self {
        Self {
            operation: need.operation,
            host: need.host,
            scopes: need.scopes,
            method,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    pub(crate) fn need(&self) -> Need<'a> {
        Need {
            operation: self.operation,
            host: self.host,
            scopes: self.scopes,
        }
    }

    fn request(&self, url: &Url, authorization: Option<&HeaderValue>) -> Request {
        let mut request = Request::new(self.method.clone(), url.clone());
        *request.headers_mut() = self.headers.clone();
        if let Some(authorization) = authorization {
            let headers = request.headers_mut();
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        // A body, even an empty one, gives POST its `Content-Length: 0`.
        if !matches!(self.method, Method::GET | Method::HEAD) {
            *request.body_mut() = Some(self.body.clone().into());
        }
        request
    }
}

impl Client {
    /// Sends until it succeeds, fails for good, or was tried often enough.
    pub(crate) async fn call<'a>(&self, call: &Call<'a>) -> Result<Answer<'a>, RegistryError> {
        let mut backoff = Backoff::new(self.config());
        loop {
            match self.attempt(call).await {
                Ok(answer) => return Ok(answer),
                Err(trouble) => backoff.pause(trouble).await?,
            }
        }
    }

    /// Sends once, with a valid authorization and along redirects. Success is a status of 2xx.
    pub(crate) async fn attempt<'a>(&self, call: &Call<'a>) -> Result<Answer<'a>, Trouble> {
        let permit = permit(call.host).await;
        let mut url = call.url.clone();
        let mut response = self.send_authorized(call, &url).await?;
        for _ in 0..MAX_REDIRECTS {
            let Some(target) = self.redirect(call, &url, &response)? else {
                let is_redirected = !address::is_same_origin(&url, &call.url);
                let response = self.expect_success(call, &url, response).await?;
                return Ok(Answer {
                    response,
                    is_redirected,
                    _permit: permit,
                });
            };
            url = target;
            response = if address::is_same_origin(&url, &call.url) {
                self.send_authorized(call, &url).await?
            } else {
                let http = self.host(&address::authority(&url))?.http.clone();
                let operation = call.operation.at(&address::authority(&url));
                self.send(&http, call.request(&url, None), &operation)
                    .await?
            };
        }
        let text = format!("it redirected {MAX_REDIRECTS} times");
        Err(RegistryError::unusable(call.operation, response.status(), text).into())
    }

    /// Sends to the registry itself; answers at most one challenge.
    async fn send_authorized(&self, call: &Call<'_>, url: &Url) -> Result<Response, Trouble> {
        let authorization = self.authorization(call.need()).await?;
        let request = call.request(url, authorization.as_ref());
        let response = self.send(&call.host.http, request, call.operation).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let Some(challenge) = Challenge::pick(response.headers()) else {
            return Ok(response);
        };
        let refused = authorization.as_ref();
        let Some(authorization) = self.answer(call.need(), &challenge, refused).await? else {
            return Ok(response);
        };
        call.host.auth.learn(challenge);
        let request = call.request(url, Some(&authorization));
        self.send(&call.host.http, request, call.operation).await
    }

    /// Returns the authorization for a request, if the host is known to want one.
    pub(crate) async fn authorization(
        &self,
        need: Need<'_>,
    ) -> Result<Option<HeaderValue>, Trouble> {
        match need.host.auth.challenge() {
            Some(challenge) => self.answer(need, &challenge, None).await,
            None => Ok(None),
        }
    }

    /// Sends exactly this request and waits for the head of the answer.
    pub(crate) async fn send(
        &self,
        http: &Http,
        request: Request,
        operation: &Arc<Operation>,
    ) -> Result<Response, Trouble> {
        let limit = self.config().connect_timeout + self.config().idle_timeout;
        match timeout(limit, http.execute(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(Trouble::transport(operation, error)),
            Err(_) => Err(Trouble::silence(operation, limit)),
        }
    }

    /// Returns where a redirect leads, if the answer is one.
    fn redirect(
        &self,
        call: &Call<'_>,
        url: &Url,
        response: &Response,
    ) -> Result<Option<Url>, RegistryError> {
        let status = response.status();
        if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let refused = |text: String| RegistryError::unusable(call.operation, status, text);
        if !matches!(call.method, Method::GET | Method::HEAD) {
            let text = "it redirects a request that changes something";
            return Err(refused(text.to_owned()));
        }
        self.location(url, response).map(Some).map_err(refused)
    }

    /// Returns the URL in the `Location` of an answer, or why it may not be used.
    pub(crate) fn location(&self, url: &Url, response: &Response) -> Result<Url, String> {
        let location = response.headers().get(LOCATION);
        let location = location.and_then(|value| value.to_str().ok());
        let location = location.ok_or("its `Location` is missing")?;
        address::follow(url, location, |host| may_be_plain(self.config(), host))
    }

    async fn expect_success(
        &self,
        call: &Call<'_>,
        url: &Url,
        response: Response,
    ) -> Result<Response, Trouble> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let operation = if address::is_same_origin(url, &call.url) {
            call.operation.clone()
        } else {
            call.operation.at(&address::authority(url))
        };
        let headers = response.headers().clone();
        let body = read_body(response, MAX_ERROR_BODY, &operation, self.config()).await;
        // The status counts, whatever becomes of the text.
        let body = body.unwrap_or_default();
        Err(Trouble::status(&operation, status, &headers, &body))
    }
}

pub(crate) async fn permit(host: &Host) -> SemaphorePermit<'_> {
    let permit = host.permits.acquire().await;
    permit.expect("the semaphore is never closed")
}

/// The body of an answer, piece by piece. A connection that only drips is as bad as a silent one.
#[derive(Debug)]
pub(crate) struct Pieces {
    response: Response,
    /// How long was waited for how many bytes, since the pace was last right.
    waited: Duration,
    n_bytes: usize,
}

impl Pieces {
    pub(crate) fn new(response: Response) -> Self {
        Self {
            response,
            waited: Duration::ZERO,
            n_bytes: 0,
        }
    }

    /// Returns the next bytes; `None` at the end.
    pub(crate) async fn next(
        &mut self,
        operation: &Arc<Operation>,
        config: &Config,
    ) -> Result<Option<Bytes>, Trouble> {
        let (limit, start) = (config.idle_timeout, Instant::now());
        let chunk = match timeout(limit, self.response.chunk()).await {
            Ok(chunk) => chunk.map_err(|error| Trouble::transport(operation, error))?,
            Err(_) => return Err(Trouble::silence(operation, limit)),
        };
        self.waited += start.elapsed();
        self.n_bytes += chunk.as_ref().map_or(0, Bytes::len);
        if self.waited > limit {
            if self.n_bytes < MIN_BYTES && chunk.is_some() {
                return Err(Trouble::drip(operation, self.n_bytes, limit));
            }
            (self.waited, self.n_bytes) = (Duration::ZERO, 0);
        }
        Ok(chunk)
    }
}

/// Reads a body of at most `limit` bytes.
pub(crate) async fn read_body(
    response: Response,
    limit: usize,
    operation: &Arc<Operation>,
    config: &Config,
) -> Result<Vec<u8>, Trouble> {
    let status = response.status();
    let mut pieces = Pieces::new(response);
    let mut body = Vec::new();
    while let Some(chunk) = pieces.next(operation, config).await? {
        if body.len() + chunk.len() > limit {
            let text = format!("it is longer than {limit} bytes");
            return Err(RegistryError::unusable(operation, status, text).into());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
