//! Every fault at every request: the right thing happens, or an error says what went wrong.

use std::time::Duration;

use bytes::Bytes;
use kiln_graph::{Descriptor, media_type};
use kiln_registry::{Client, Config, RegistryError};
use tokio::time::timeout;

use crate::support::{
    Action, Delivery, Fake, TokenServer, blob, client, client_with, config, manifest, reference,
};

/// How long anything may take here: far longer than it does.
const PATIENCE: Duration = Duration::from_secs(20);

/// The requests of a pull and of a push, as faults name them.
const REQUESTS: &[(&str, &str)] = &[
    ("GET", "/from/x/manifests/"),
    ("GET", "/from/x/blobs/"),
    ("HEAD", "/to/x/blobs/"),
    ("POST", "/to/x/blobs/uploads/"),
    ("PUT", "/to/x/blobs/uploads/"),
    ("PUT", "/to/x/manifests/"),
];

fn impatient() -> Client {
    Client::new(Config {
        connect_timeout: Duration::from_millis(50),
        idle_timeout: Duration::from_millis(50),
        retries: 2,
        ..config()
    })
    .unwrap()
}

struct Copy {
    fake: Fake,
    bytes: Vec<u8>,
    layer: Descriptor,
    manifest: Vec<u8>,
}

impl Copy {
    async fn new() -> Self {
        let fake = Fake::start().await;
        let (bytes, layer) = blob(3000);
        let manifest = manifest(&layer, std::slice::from_ref(&layer));
        fake.put_blob("from/x", &bytes);
        fake.put_manifest("from/x", "1", media_type::OCI_MANIFEST, &manifest);
        Self {
            fake,
            bytes,
            layer,
            manifest,
        }
    }

    /// Pulls an image and pushes it elsewhere; nothing but the image may pass for it.
    async fn run(&self, client: &Client) -> Result<(), RegistryError> {
        let host = self.fake.host();
        let (from, to) = (reference(&host, "from/x:1"), reference(&host, "to/x:1"));
        let got = client.manifest(&from, None).await?;
        assert_eq!(got.bytes, self.manifest);
        let mut bytes = Vec::new();
        client.blob(&from, &self.layer, &mut bytes, &|_| {}).await?;
        assert_eq!(bytes, self.bytes);
        let source = Bytes::from(bytes);
        client
            .push_blob(&to, &self.layer, source, None, &|_| {})
            .await?;
        let kind = media_type::OCI_MANIFEST;
        client.push_manifest(&to, kind, &self.manifest).await?;
        let stored = self.fake.blob("to/x", self.layer.digest);
        assert_eq!(stored.as_ref(), Some(&self.bytes));
        Ok(())
    }
}

/// Returns true if what was asked for is done, and only the answer does not come.
fn is_lost(action: &Action) -> bool {
    matches!(action, Action::Deliver(Delivery::Hangup | Delivery::Silent))
}

/// Runs a copy in which one kind of request goes wrong `n_times`.
async fn with_fault(
    (method, path): (&'static str, &str),
    n_times: usize,
    action: Action,
) -> Result<(), String> {
    let copy = Copy::new().await;
    copy.fake.fail(n_times, method, path, action);
    let copied = timeout(PATIENCE, copy.run(&impatient())).await;
    let copied = copied.expect("it ends");
    copied.map_err(|error| error.to_string())
}

#[tokio::test]
async fn what_passes_is_waited_for() {
    for request in REQUESTS {
        for action in [
            Action::Status(500, Vec::new()),
            Action::Status(503, vec![("Retry-After", "0".to_owned())]),
            Action::Status(429, Vec::new()),
            Action::Deliver(Delivery::Hangup),
            Action::Deliver(Delivery::Silent),
        ] {
            let done = with_fault(*request, 1, action.clone()).await;
            assert_eq!(done, Ok(()), "{request:?} {action:?}");
        }
    }
    for request in &REQUESTS[..2] {
        for delivery in [
            Delivery::CutAfter(20),
            Delivery::SilentAfter(20),
            Delivery::Drip,
            Delivery::Chunked,
        ] {
            let done = with_fault(*request, 1, Action::Deliver(delivery)).await;
            assert_eq!(done, Ok(()), "{request:?} {delivery:?}");
        }
    }
}

#[tokio::test]
async fn what_stays_is_an_error() {
    for request in REQUESTS {
        for action in [
            Action::Status(500, Vec::new()),
            Action::Status(503, vec![("Retry-After", "3600".to_owned())]),
            Action::Status(401, vec![("WWW-Authenticate", "Basic".to_owned())]),
            Action::Status(
                307,
                vec![("Location", "http://169.254.169.254/".to_owned())],
            ),
            Action::Deliver(Delivery::Hangup),
            Action::Deliver(Delivery::Silent),
        ] {
            // The blob has arrived, which asking for it shows.
            if request.0 == "PUT" && request.1.contains("uploads") && is_lost(&action) {
                continue;
            }
            let error = with_fault(*request, 1000, action.clone()).await;
            let error = error.expect_err(&format!("{request:?} {action:?}"));
            assert!(
                error.starts_with("cannot "),
                "{request:?} {action:?}: {error}"
            );
        }
    }
    for request in &REQUESTS[..2] {
        for action in [
            Action::Deliver(Delivery::CutAfter(1)),
            Action::Deliver(Delivery::SilentAfter(1)),
            Action::Corrupt,
            Action::Resize(-1),
            Action::Resize(1),
            Action::Say(200, "<html>please log in</html>"),
            Action::Say(200, ""),
        ] {
            let error = with_fault(*request, 1000, action.clone()).await;
            let error = error.expect_err(&format!("{request:?} {action:?}"));
            assert!(error.starts_with("cannot pull"), "{action:?}: {error}");
        }
    }
}

#[tokio::test]
async fn drips_end() {
    let copy = Copy::new().await;
    let drip = Action::Deliver(Delivery::Drip);
    copy.fake.fail(1000, "GET", "/from/x/blobs/", drip);
    let copied = timeout(PATIENCE, copy.run(&impatient())).await;
    let error = copied.expect("it ends").unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("bytes in 0.05 s"), "{source}");
}

#[tokio::test]
async fn refusals_are_told_in_the_registrys_own_words() {
    for (status, body, words) in [
        (
            400,
            r#"{"errors":[{"code":"TAG_INVALID","message":"The image tag '1' already exists and is immutable"}]}"#,
            "TAG_INVALID: The image tag '1' already exists and is immutable",
        ),
        (
            403,
            r#"{"errors":[{"code":"DENIED","message":"quota exceeded: 5 GB of 5 GB"}]}"#,
            "DENIED: quota exceeded: 5 GB of 5 GB",
        ),
        (
            409,
            r#"{"errors":[{"code":"CONFLICT","message":"tag is immutable"}]}"#,
            "CONFLICT: tag is immutable",
        ),
        (
            413,
            r#"{"errors":[{"code":"SIZE_INVALID","message":"too large for this plan"}]}"#,
            "SIZE_INVALID: too large for this plan",
        ),
        (
            429,
            r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your limit"}]}"#,
            "TOOMANYREQUESTS: You have reached your limit",
        ),
    ] {
        for request in &REQUESTS[3..] {
            let error = with_fault(*request, 1000, Action::Say(status, body)).await;
            let error = error.unwrap_err();
            let expected = format!("({status}: {words})");
            assert!(error.ends_with(&expected), "{request:?}: {error}");
        }
    }
}

#[tokio::test]
async fn tokens_that_end_on_the_way_are_replaced() {
    for request in &REQUESTS[..2] {
        let copy = Copy::new().await;
        let tokens = TokenServer::start(&copy.fake, None).await;
        let host = copy.fake.host();
        let client = client();
        let from = reference(&host, "from/x:1");
        client.manifest(&from, None).await.unwrap();
        let cut = Action::Deliver(Delivery::CutAfter(100));
        copy.fake.fail(1, request.0, request.1, cut);
        copy.fake.forget_tokens();
        copy.run(&client).await.unwrap();
        assert!(tokens.log().len() >= 2);
    }
}

#[tokio::test]
async fn token_servers_that_fail_are_named() {
    let copy = Copy::new().await;
    let lost = Fake::start().await;
    let challenge = format!(r#"Bearer realm="http://{}/token",service="x""#, lost.host());
    let action = Action::Status(401, vec![("WWW-Authenticate", challenge)]);
    copy.fake.fail(1000, "GET", "manifests", action);
    let auths = format!(
        r#"{{"auths": {{"{}": {{"username": "u", "password": "hunter2"}}}}}}"#,
        copy.fake.host()
    );
    for (status, page) in [
        (200, "<html>please log in</html>"),
        (200, "{}"),
        (502, "<p>"),
    ] {
        lost.fail(10, "GET", "/token", Action::Say(status, page));
        let error = copy.run(&client_with(&auths)).await.unwrap_err();
        let text = format!("{error:?} {error}");
        assert!(text.contains(&lost.host()), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
        lost.end_faults();
    }
}
