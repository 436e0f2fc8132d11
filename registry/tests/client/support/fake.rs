//! A registry in memory that does what it is told to, and writes down what it was asked.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_graph::Digest;

use crate::support::http::{Delivery, Reply, Request, Server, pairs};

/// What the registry does instead of what it should.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// An error document with this status and these headers.
    Status(u16, Vec<(&'static str, String)>),
    /// This status with this body.
    Say(u16, &'static str),
    /// The right answer, sent in another way.
    Deliver(Delivery),
    /// The right answer with other bytes of the same length.
    Corrupt,
    /// The right answer without its last bytes, or with more.
    Resize(isize),
    /// The whole where a part was asked for.
    IgnoreRange,
    /// The right answer with another header.
    Header(&'static str, String),
    /// The right thing is done, but the connection ends before the answer.
    LoseAnswer,
}

/// Who may do something.
#[derive(Debug, Clone, Default)]
pub(crate) enum Auth {
    #[default]
    Open,
    /// `user:password`.
    Basic(String),
    /// Tokens of this server, for the scopes that they were asked for.
    Bearer { realm: String },
}

struct Fault {
    method: &'static str,
    path_part: String,
    n_left: usize,
    action: Action,
}

#[derive(Default)]
struct State {
    blobs: HashMap<(String, String), Vec<u8>>,
    manifests: HashMap<(String, String), (String, Vec<u8>)>,
    faults: Vec<Fault>,
    log: Vec<Request>,
    auth: Auth,
    tokens: HashMap<String, HashSet<String>>,
    refuses_mounts: bool,
    n_uploads: usize,
}

/// The registry.
pub(crate) struct Fake {
    state: Arc<Mutex<State>>,
    server: Server,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let handler = move |request: Request| shared.lock().unwrap().handle(&request);
        let server = Server::start(Arc::new(handler)).await;
        Self { state, server }
    }

    pub(crate) fn host(&self) -> String {
        self.server.host()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn put_blob(&self, repository: &str, bytes: &[u8]) {
        let key = (repository.to_owned(), Digest::sha256(bytes).to_string());
        self.state().blobs.insert(key, bytes.to_vec());
    }

    pub(crate) fn put_manifest(&self, repository: &str, tag: &str, kind: &str, bytes: &[u8]) {
        self.state().store_manifest(repository, tag, kind, bytes);
    }

    pub(crate) fn blob(&self, repository: &str, digest: Digest) -> Option<Vec<u8>> {
        let key = (repository.to_owned(), digest.to_string());
        self.state().blobs.get(&key).cloned()
    }

    /// The next `n_times` requests with this method and this in their path go wrong.
    pub(crate) fn fail(
        &self,
        n_times: usize,
        method: &'static str,
        path_part: &str,
        action: Action,
    ) {
        let path_part = path_part.to_owned();
        self.state().faults.push(Fault {
            method,
            path_part,
            n_left: n_times,
            action,
        });
    }

    /// From now on nothing goes wrong.
    pub(crate) fn end_faults(&self) {
        self.state().faults.clear();
    }

    pub(crate) fn set_auth(&self, auth: Auth) {
        self.state().auth = auth;
    }

    pub(crate) fn refuse_mounts(&self) {
        self.state().refuses_mounts = true;
    }

    /// All tokens are invalid from now on.
    pub(crate) fn forget_tokens(&self) {
        self.state().tokens.clear();
    }

    pub(crate) fn log(&self) -> Vec<Request> {
        self.state().log.clone()
    }

    /// Method and path of all requests; a repository's own part of the path is left out.
    pub(crate) fn calls(&self) -> Vec<String> {
        let short = |request: &Request| {
            let path = request.path.replace("/v2/", "");
            let path = path.split("sha256").next().unwrap();
            format!("{} {path}", request.method)
        };
        self.log().iter().map(short).collect()
    }
}

impl State {
    fn handle(&mut self, request: &Request) -> Reply {
        self.log.push(request.clone());
        let fits = |fault: &&mut Fault| {
            fault.n_left > 0
                && fault.method == request.method
                && request.path.contains(&fault.path_part)
        };
        let Some(fault) = self.faults.iter_mut().find(fits) else {
            return self.answer(request, true);
        };
        fault.n_left -= 1;
        let action = fault.action.clone();
        if let Action::Status(status, headers) = action {
            let reply = Reply::error(status, "FAULT");
            let add = |reply: Reply, (name, value): (&str, String)| reply.header(name, value);
            return headers.into_iter().fold(reply, add);
        }
        if let Action::Say(status, body) = action {
            return Reply::new(status)
                .header("Content-Type", "text/html")
                .body(body);
        }
        let mut reply = self.answer(request, !matches!(action, Action::IgnoreRange));
        match action {
            Action::Status(..) | Action::Say(..) | Action::IgnoreRange => {}
            Action::Deliver(delivery) => reply.delivery = delivery,
            Action::Corrupt => reply.body[0] ^= 1,
            Action::Resize(by) => {
                let length = reply.body.len().checked_add_signed(by).unwrap();
                reply.body.resize(length, b'x');
            }
            Action::Header(name, value) => {
                reply.headers.retain(|(known, _)| known != name);
                reply = reply.header(name, value);
            }
            Action::LoseAnswer => reply.delivery = Delivery::Hangup,
        }
        reply
    }

    fn answer(&mut self, request: &Request, knows_ranges: bool) -> Reply {
        if let Some(refusal) = self.refusal(request) {
            return refusal;
        }
        let path = request.path.strip_prefix("/v2/").unwrap_or_default();
        let method = request.method.as_str();
        if let Some((repository, name)) = path.split_once("/manifests/") {
            return match method {
                "PUT" => self.take_manifest(repository, name, request),
                _ => self.give_manifest(repository, name),
            };
        }
        if let Some((repository, _)) = path.split_once("/blobs/uploads/") {
            return match method {
                "POST" => self.open_upload(repository, request),
                _ => self.take_blob(repository, request),
            };
        }
        match path.split_once("/blobs/") {
            Some((repository, digest)) => self.give_blob(repository, digest, request, knows_ranges),
            None => Reply::new(200),
        }
    }

    /// Returns a challenge unless the request may do what it does.
    fn refusal(&self, request: &Request) -> Option<Reply> {
        let given = request.header("authorization").unwrap_or_default();
        let refused = Reply::error(401, "UNAUTHORIZED");
        match &self.auth {
            Auth::Open => None,
            Auth::Basic(pair) => {
                let expected = format!("Basic {}", STANDARD.encode(pair));
                let challenge = r#"Basic realm="fake""#;
                (given != expected).then(|| refused.header("WWW-Authenticate", challenge))
            }
            Auth::Bearer { realm } => {
                let token = given.strip_prefix("Bearer ").unwrap_or_default();
                let needed = needed_scopes(request);
                let granted = self.tokens.get(token).cloned().unwrap_or_default();
                let is_granted = needed.iter().all(|scope| granted.contains(scope));
                let challenge = format!(
                    r#"Bearer realm="{realm}",service="fake",scope="{}""#,
                    needed.join(" ")
                );
                (!is_granted).then(|| refused.header("WWW-Authenticate", challenge))
            }
        }
    }

    fn give_manifest(&self, repository: &str, name: &str) -> Reply {
        let key = (repository.to_owned(), name.to_owned());
        let Some((kind, bytes)) = self.manifests.get(&key) else {
            return Reply::error(404, "MANIFEST_UNKNOWN");
        };
        Reply::new(200)
            .header("Content-Type", kind)
            .header("Docker-Content-Digest", Digest::sha256(bytes).to_string())
            .body(bytes.clone())
    }

    fn take_manifest(&mut self, repository: &str, name: &str, request: &Request) -> Reply {
        let kind = request.header("content-type").unwrap().to_owned();
        self.store_manifest(repository, name, &kind, &request.body);
        let digest = Digest::sha256(&request.body).to_string();
        Reply::new(201).header("Docker-Content-Digest", digest)
    }

    fn store_manifest(&mut self, repository: &str, tag: &str, kind: &str, bytes: &[u8]) {
        for name in [tag.to_owned(), Digest::sha256(bytes).to_string()] {
            let value = (kind.to_owned(), bytes.to_vec());
            self.manifests.insert((repository.to_owned(), name), value);
        }
    }

    fn give_blob(&self, repository: &str, digest: &str, request: &Request, ranges: bool) -> Reply {
        let key = (repository.to_owned(), digest.to_owned());
        let Some(bytes) = self.blobs.get(&key) else {
            return Reply::error(404, "BLOB_UNKNOWN");
        };
        let range = request.header("range").filter(|_| ranges);
        let Some(range) = range else {
            return Reply::new(200).body(bytes.clone());
        };
        let start = range.strip_prefix("bytes=").unwrap().trim_end_matches('-');
        let start: usize = start.parse().unwrap();
        let size = bytes.len();
        Reply::new(206)
            .header(
                "Content-Range",
                format!("bytes {start}-{}/{size}", size - 1),
            )
            .body(&bytes[start..])
    }

    fn open_upload(&mut self, repository: &str, request: &Request) -> Reply {
        if let (Some(digest), Some(from)) = (request.param("mount"), request.param("from"))
            && !self.refuses_mounts
            && let Some(bytes) = self.blobs.get(&(from.to_owned(), digest.to_owned()))
        {
            let bytes = bytes.clone();
            self.blobs
                .insert((repository.to_owned(), digest.to_owned()), bytes);
            return Reply::new(201);
        }
        self.n_uploads += 1;
        let location = format!(
            "/v2/{repository}/blobs/uploads/{}?state=a%2Bb",
            self.n_uploads
        );
        Reply::new(202).header("Location", location)
    }

    fn take_blob(&mut self, repository: &str, request: &Request) -> Reply {
        let digest = Digest::sha256(&request.body).to_string();
        assert_eq!(
            request.param("state"),
            Some("a+b"),
            "the location's query is kept"
        );
        if request.param("digest") != Some(&digest) {
            return Reply::error(400, "DIGEST_INVALID");
        }
        let key = (repository.to_owned(), digest.clone());
        self.blobs.insert(key, request.body.clone());
        Reply::new(201).header("Docker-Content-Digest", digest)
    }
}

/// The rights that a request needs, one word each: `repository:name:pull`.
fn needed_scopes(request: &Request) -> Vec<String> {
    let path = request.path.strip_prefix("/v2/").unwrap_or_default();
    let name = path.split("/blobs/").next().unwrap_or_default();
    let name = name.split("/manifests/").next().unwrap_or_default();
    let mut scopes = vec![format!("repository:{name}:pull")];
    if !matches!(request.method.as_str(), "GET" | "HEAD") {
        scopes.push(format!("repository:{name}:push"));
    }
    scopes.extend(
        request
            .param("from")
            .map(|from| format!("repository:{from}:pull")),
    );
    scopes
}

/// Gives tokens for a [`Fake`] to whoever has the right login.
pub(crate) struct TokenServer {
    log: Arc<Mutex<Vec<Request>>>,
    server: Server,
}

impl TokenServer {
    /// Starts it and makes the registry ask for its tokens. `login` is `user:password`, the
    /// identity token, or nothing for anyone.
    pub(crate) async fn start(fake: &Fake, login: Option<&'static str>) -> Self {
        let log = Arc::new(Mutex::new(Vec::new()));
        let (state, requests) = (fake.state.clone(), log.clone());
        let handler = move |request: Request| {
            requests.lock().unwrap().push(request.clone());
            give_token(&mut state.lock().unwrap(), &request, login)
        };
        let server = Server::start(Arc::new(handler)).await;
        let realm = format!("http://{}/token?kept=1", server.host());
        fake.set_auth(Auth::Bearer { realm });
        Self { log, server }
    }

    pub(crate) fn host(&self) -> String {
        self.server.host()
    }

    pub(crate) fn log(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }
}

fn give_token(state: &mut State, request: &Request, login: Option<&str>) -> Reply {
    let form = pairs(&String::from_utf8_lossy(&request.body));
    let field = |name: &str| {
        let pair = form.iter().find(|(key, _)| key == name);
        pair.map(|(_, value)| value.as_str())
    };
    let is_right = match login {
        None => request.header("authorization").is_none(),
        Some(pair) if pair.contains(':') => {
            let expected = format!("Basic {}", STANDARD.encode(pair));
            request.header("authorization") == Some(&expected)
        }
        Some(identity) => {
            request.method == "POST"
                && field("grant_type") == Some("refresh_token")
                && field("service") == Some("fake")
                && field("refresh_token") == Some(identity)
        }
    };
    if !is_right {
        return Reply::new(401).body(r#"{"details":"incorrect username or password"}"#);
    }
    let mut asked = request.params("scope");
    asked.extend(field("scope").into_iter().flat_map(str::split_whitespace));
    let granted = asked.iter().flat_map(|scope| {
        let (name, actions) = scope.rsplit_once(':').unwrap();
        actions
            .split(',')
            .map(move |action| format!("{name}:{action}"))
    });
    let granted: HashSet<String> = granted.collect();
    let token = format!("token-{}-{}", state.log.len(), state.tokens.len());
    state.tokens.insert(token.clone(), granted);
    // Both names are in use.
    let key = if request.method == "POST" {
        "access_token"
    } else {
        "token"
    };
    Reply::new(200).body(format!(r#"{{"{key}":"{token}","expires_in":300}}"#))
}
