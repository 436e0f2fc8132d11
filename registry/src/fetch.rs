//! Files from any web server, with the same TLS, proxies and patience as registries.
//!
//! Speaks plain HTTP where the URL says so. A name and password in the URL go to its own origin
//! only; a redirect to elsewhere never carries them. A redirect may not lead to this machine or
//! the local link, nor from TLS to plain HTTP unless the caller vouches for the bytes.

use std::sync::Arc;

use base64::Engine as _;
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, DATE, ETAG, HeaderMap, HeaderName,
    HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, LOCATION,
};
use reqwest::{Method, Request, Response, StatusCode, Url};

use crate::address;
use crate::client::Client;
use crate::error::{Operation, RegistryError};
use crate::exchange::{Pieces, permit, read_body};
use crate::host::may_be_plain;
use crate::manifest::header_length;
use crate::pull::BlobSink;
use crate::retry::{Backoff, Trouble};

const MAX_REDIRECTS: usize = 10;
const MAX_ERROR_BODY: usize = 64 << 10;

/// A file that is wanted.
#[derive(Clone)]
pub struct FileRequest {
    /// Where it is, `http` or `https`; may hold a name and a password.
    pub url: String,
    /// The `ETag` of what is known.
    pub etag: Option<String>,
    /// The `Last-Modified` of what is known.
    pub last_modified: Option<String>,
    /// The caller knows the digest of the file, so that nobody on the way can change it.
    pub is_pinned: bool,
    /// The value of `Authorization` for its own origin; counts more than those in the URL.
    pub authorization: Option<Vec<u8>>,
}

impl std::fmt::Debug for FileRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let url = without_credentials(&self.url);
        f.debug_struct("FileRequest")
            .field("url", &url)
            .finish_non_exhaustive()
    }
}

/// What a server says of a file before it sends it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileHead {
    /// What is known is still right; nothing is sent.
    pub is_unchanged: bool,
    /// The file's `ETag`.
    pub etag: Option<String>,
    /// The file's `Last-Modified`, as sent.
    pub last_modified: Option<String>,
    /// What the server's clock says.
    pub date: Option<String>,
    /// How many bytes are sent.
    pub length: Option<u64>,
    /// The bytes are compressed with gzip only on their way.
    pub is_gzip: bool,
}

/// A file whose bytes have not been read yet.
#[derive(Debug)]
pub struct FileAnswer {
    /// What the server says.
    pub head: FileHead,
    operation: Arc<Operation>,
    response: Response,
}

/// Returns a URL without name, password, query and fragment: what may be shown.
pub fn without_credentials(url: &str) -> String {
    let parsed = url.parse::<Url>().ok().filter(Url::has_host);
    let Some(mut url) = parsed else {
        let end = url.find(['?', '#']).unwrap_or(url.len());
        return url[..end].rsplit('@').next().unwrap_or_default().to_owned();
    };
    // Some kinds of URLs have none, which is as well.
    let _none = (url.set_username(""), url.set_password(None));
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

/// The request on its way along redirects.
struct Walk {
    first: Url,
    authorization: Option<HeaderValue>,
    headers: HeaderMap,
    is_pinned: bool,
    operation: Arc<Operation>,
}

impl Client {
    /// Asks for a file; its bytes are read with [`Client::file`].
    pub async fn open_file(&self, wanted: &FileRequest) -> Result<FileAnswer, RegistryError> {
        let walk = Walk::new(wanted)?;
        let mut backoff = Backoff::new(self.config());
        loop {
            match self.walk(&walk).await {
                Ok(response) => return Ok(FileAnswer::new(response, &walk)),
                Err(trouble) => backoff.pause(trouble).await?,
            }
        }
    }

    /// Streams the bytes of a file into `sink`. `progress` is told how many have come.
    pub async fn file(
        &self,
        answer: FileAnswer,
        sink: &mut impl BlobSink,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), RegistryError> {
        let FileAnswer {
            operation,
            response,
            ..
        } = answer;
        let mut pieces = Pieces::new(response);
        let mut done = 0;
        loop {
            let chunk = pieces.next(&operation, self.config()).await;
            let local = |source| RegistryError::local(&operation, source);
            let Some(chunk) = chunk.map_err(Trouble::into_error)? else {
                return sink.finish().await.map_err(local);
            };
            done += chunk.len() as u64;
            sink.write(chunk).await.map_err(local)?;
            progress(done);
        }
    }

    /// Sends once, along redirects.
    async fn walk(&self, walk: &Walk) -> Result<Response, Trouble> {
        let mut url = walk.first.clone();
        for _ in 0..=MAX_REDIRECTS {
            let host = self.host(&address::authority(&url))?;
            let _permit = permit(&host).await;
            let is_home = address::is_same_origin(&url, &walk.first);
            let operation = walk.operation.at(&host.name);
            let http = self.http_of_files(&host, &url).await?;
            let response = self
                .send(http, walk.request(&url, is_home), &operation)
                .await?;
            let status = response.status();
            if status.is_success() || status == StatusCode::NOT_MODIFIED {
                return Ok(response);
            }
            let Some(location) = response
                .headers()
                .get(LOCATION)
                .filter(|_| is_redirect(status))
            else {
                return Err(self.refusal(response, &operation).await);
            };
            let refused = |why: String| RegistryError::unusable(&operation, status, why);
            let location = location
                .to_str()
                .map_err(|_| refused("its `Location` is not text".to_owned()))?;
            let is_trusted = |host: &str| walk.is_pinned || may_be_plain(self.config(), host);
            url = address::follow(&url, location, is_trusted).map_err(refused)?;
        }
        let text = format!("it redirected more than {MAX_REDIRECTS} times");
        let status = StatusCode::LOOP_DETECTED;
        Err(RegistryError::unusable(&walk.operation, status, text).into())
    }

    async fn refusal(&self, response: Response, operation: &Arc<Operation>) -> Trouble {
        let (status, headers) = (response.status(), response.headers().clone());
        let body = read_body(response, MAX_ERROR_BODY, operation, self.config()).await;
        // The status counts, whatever becomes of the text.
        Trouble::status(operation, status, &headers, &body.unwrap_or_default())
    }
}

impl Walk {
    fn new(wanted: &FileRequest) -> Result<Self, RegistryError> {
        let shown = without_credentials(&wanted.url);
        let what = || format!("use URL `{shown}`");
        let mut url: Url = wanted
            .url
            .parse()
            .map_err(|e| RegistryError::setup(what(), e))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(RegistryError::setup(what(), "it is neither http nor https"));
        }
        let authorization = match &wanted.authorization {
            Some(value) => Some(authorization(value, &shown)?),
            None => basic_authorization(&url),
        };
        // It has a host, so it can be without them.
        let _none = (url.set_username(""), url.set_password(None));
        url.set_fragment(None);
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let known = [
            (IF_NONE_MATCH, &wanted.etag),
            (IF_MODIFIED_SINCE, &wanted.last_modified),
        ];
        for (name, value) in known {
            insert(&mut headers, name, value.as_deref());
        }
        let host = address::authority(&url);
        Ok(Self {
            operation: Operation::new("download", shown, &host),
            first: url,
            authorization,
            headers,
            is_pinned: wanted.is_pinned,
        })
    }

    fn request(&self, url: &Url, is_home: bool) -> Request {
        let mut request = Request::new(Method::GET, url.clone());
        *request.headers_mut() = self.headers.clone();
        if let Some(authorization) = self.authorization.clone().filter(|_| is_home) {
            request.headers_mut().insert(AUTHORIZATION, authorization);
        }
        request
    }
}

impl FileAnswer {
    fn new(response: Response, walk: &Walk) -> Self {
        let headers = response.headers();
        let text = |name: HeaderName| Some(headers.get(name)?.to_str().ok()?.to_owned());
        let encoding = text(CONTENT_ENCODING).unwrap_or_default();
        let head = FileHead {
            is_unchanged: response.status() == StatusCode::NOT_MODIFIED,
            etag: text(ETAG),
            last_modified: text(LAST_MODIFIED),
            date: text(DATE),
            length: header_length(headers),
            is_gzip: encoding.eq_ignore_ascii_case("gzip"),
        };
        Self {
            head,
            operation: walk.operation.clone(),
            response,
        }
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: Option<&str>) {
    if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
        headers.insert(name, value);
    }
}

fn authorization(value: &[u8], shown: &str) -> Result<HeaderValue, RegistryError> {
    let bad = |_| {
        let why = "the secret for it cannot be sent: it has control characters";
        RegistryError::setup(format!("use URL `{shown}`"), why)
    };
    let mut value = HeaderValue::from_bytes(value).map_err(bad)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Returns what the name and password of a URL stand for.
fn basic_authorization(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let name = percent_decoded(url.username());
    let password = percent_decoded(url.password().unwrap_or_default());
    let login = [name, b":".to_vec(), password].concat();
    let text = base64::engine::general_purpose::STANDARD.encode(login);
    let mut value = HeaderValue::from_str(&format!("Basic {text}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| byte == b'%');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &after[2..];
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_a_url_holds_no_secret() {
        for (url, expected) in [
            ("https://u:p@h/x?token=1#f", "https://h/x"),
            ("http://h:80/a b", "http://h/a%20b"),
            ("u:p@[broken?x", "[broken"),
        ] {
            assert_eq!(without_credentials(url), expected);
        }
    }

    #[test]
    fn logins_of_urls_become_a_header() {
        let header = |url: &str| {
            let value = basic_authorization(&url.parse().unwrap())?;
            Some(value.to_str().unwrap().to_owned())
        };
        assert_eq!(header("http://h/"), None);
        assert_eq!(header("http://u:p@h/").as_deref(), Some("Basic dTpw"));
        assert_eq!(
            header("http://u%40:p%3a@h/").as_deref(),
            Some("Basic dUA6cDo=")
        );
    }

    #[test]
    fn only_web_addresses_are_fetched() {
        for url in ["file:///etc/passwd", "ftp://h/x", "http:///", "nothing"] {
            let wanted = FileRequest {
                url: url.to_owned(),
                etag: None,
                last_modified: None,
                authorization: None,
                is_pinned: false,
            };
            assert!(Walk::new(&wanted).is_err(), "{url}");
        }
    }
}
