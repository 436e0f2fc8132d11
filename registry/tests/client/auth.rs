//! Who gets to see which credentials.

use std::time::Duration;

use bytes::Bytes;
use kiln_graph::media_type;
use kiln_registry::{Client, Config, Credentials, Password, Pushed, RegistryError, Server};
use tokio::io::AsyncReadExt as _;

use crate::support::{
    Action, Auth, Fake, TokenServer, blob, client, client_with, config, manifest, openssl,
    reference,
};

fn docker_config(host: &str, pair: &str) -> String {
    let (user, password) = pair.split_once(':').unwrap();
    format!(r#"{{"auths": {{"{host}": {{"username": "{user}", "password": "{password}"}}}}}}"#)
}

async fn fake_with_image() -> Fake {
    let fake = Fake::start().await;
    let bytes = manifest(&blob(2).1, &[]);
    fake.put_manifest("a/b", "1", media_type::OCI_MANIFEST, &bytes);
    fake
}

async fn pull(client: &Client, fake: &Fake) -> Result<(), RegistryError> {
    let image = reference(&fake.host(), "a/b:1");
    client.manifest(&image, None).await.map(drop)
}

#[tokio::test]
async fn password_is_shown_when_it_is_asked_for() {
    let fake = fake_with_image().await;
    fake.set_auth(Auth::Basic("u:p:q".to_owned()));
    let client = client_with(&docker_config(&fake.host(), "u:p:q"));
    pull(&client, &fake).await.unwrap();
    pull(&client, &fake).await.unwrap();
    let log = fake.log();
    assert_eq!(log[0].header("authorization"), None);
    assert_eq!(
        log.len(),
        3,
        "a known challenge is answered before it is made"
    );
}

#[tokio::test]
async fn wrong_or_missing_password_is_denied() {
    let fake = fake_with_image().await;
    fake.set_auth(Auth::Basic("u:p".to_owned()));
    for client in [client(), client_with(&docker_config(&fake.host(), "u:x"))] {
        let error = pull(&client, &fake).await.unwrap_err();
        let RegistryError::Denied {
            status: 401, text, ..
        } = &error
        else {
            panic!("{error:?}");
        };
        assert_eq!(text, "UNAUTHORIZED: fake UNAUTHORIZED");
    }
    assert!(fake.log().len() <= 4, "nothing is tried again");
}

#[tokio::test]
async fn login_is_right_when_the_registry_takes_it() {
    let fake = Fake::start().await;
    let server: Server = fake.host().parse().unwrap();
    let login = async |password: &str| {
        let password = Password::from(password.to_owned());
        let credentials = Credentials::of(&server, "u", &password);
        let client = Client::new(Config {
            credentials,
            ..config()
        });
        client.unwrap().login(&server).await
    };
    login("p").await.unwrap();
    fake.set_auth(Auth::Basic("u:p".to_owned()));
    login("p").await.unwrap();
    let tokens = TokenServer::start(&fake, Some("u:p")).await;
    login("p").await.unwrap();
    assert_eq!(tokens.log().len(), 1);
    for auth in [Auth::Basic("u:p".to_owned()), Auth::Open] {
        let is_open = matches!(auth, Auth::Open);
        if is_open {
            fake.fail(1, "GET", "/v2/", challenge(&tokens.host()));
        }
        fake.set_auth(auth);
        let error = login("hunter2").await.unwrap_err();
        assert!(matches!(error, RegistryError::Denied { .. }), "{error:?}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

#[tokio::test]
async fn anyone_gets_a_token_where_anyone_may() {
    let fake = fake_with_image().await;
    let tokens = TokenServer::start(&fake, None).await;
    let client = client();
    pull(&client, &fake).await.unwrap();
    pull(&client, &fake).await.unwrap();
    let asked = tokens.log();
    assert_eq!(asked.len(), 1, "the token is kept");
    assert_eq!(asked[0].param("service"), Some("fake"));
    assert_eq!(asked[0].param("scope"), Some("repository:a/b:pull"));
    assert_eq!(asked[0].param("kept"), Some("1"));
}

#[tokio::test]
async fn token_server_gets_the_password_and_the_registry_does_not() {
    let fake = fake_with_image().await;
    let tokens = TokenServer::start(&fake, Some("u:p")).await;
    let client = client_with(&docker_config(&fake.host(), "u:p"));
    pull(&client, &fake).await.unwrap();
    assert_eq!(tokens.log()[0].param("account"), Some("u"));
    for request in fake.log() {
        let given = request.header("authorization").unwrap_or("Bearer");
        assert!(given.starts_with("Bearer"), "{given}");
    }
}

#[tokio::test]
async fn token_server_that_denies_is_named() {
    let fake = fake_with_image().await;
    let tokens = TokenServer::start(&fake, Some("u:p")).await;
    let client = client_with(&docker_config(&fake.host(), "u:wrong"));
    let error = pull(&client, &fake).await.unwrap_err();
    let RegistryError::Denied {
        operation, text, ..
    } = &error
    else {
        panic!("{error:?}");
    };
    assert_eq!(operation.host, tokens.host());
    assert_eq!(text, "incorrect username or password");
}

#[tokio::test]
async fn identity_token_is_posted() {
    let fake = fake_with_image().await;
    let tokens = TokenServer::start(&fake, Some("identity&1")).await;
    let text = format!(
        r#"{{"auths": {{"{}": {{"identitytoken": "identity&1"}}}}}}"#,
        fake.host()
    );
    pull(&client_with(&text), &fake).await.unwrap();
    let request = &tokens.log()[0];
    assert_eq!(request.method, "POST");
    assert_eq!(request.params("refresh_token").len(), 0, "it is in no URL");
}

#[tokio::test]
async fn expired_token_is_replaced_once() {
    let fake = fake_with_image().await;
    let tokens = TokenServer::start(&fake, None).await;
    let client = client();
    pull(&client, &fake).await.unwrap();
    fake.forget_tokens();
    pull(&client, &fake).await.unwrap();
    assert_eq!(tokens.log().len(), 2);
    fake.fail(2, "GET", "manifests", challenge(&tokens.host()));
    let error = pull(&client, &fake).await.unwrap_err();
    assert!(matches!(error, RegistryError::Denied { .. }), "{error:?}");
    assert_eq!(tokens.log().len(), 3, "a second refusal is final");
}

fn challenge(host: &str) -> Action {
    let text = format!(r#"Bearer realm="http://{host}/token",service="fake""#);
    Action::Status(401, vec![("WWW-Authenticate", text)])
}

#[tokio::test]
async fn many_requests_share_one_token() {
    let fake = fake_with_image().await;
    let tokens = TokenServer::start(&fake, None).await;
    let client = client();
    let pulls = (0..5).map(|_| pull(&client, &fake));
    for result in futures_util::future::join_all(pulls).await {
        result.unwrap();
    }
    assert_eq!(tokens.log().len(), 1);
}

#[tokio::test]
async fn mount_asks_for_both_repositories() {
    let fake = Fake::start().await;
    let (bytes, descriptor) = blob(1000);
    fake.put_blob("from/y", &bytes);
    let tokens = TokenServer::start(&fake, Some("u:p")).await;
    let client = client_with(&docker_config(&fake.host(), "u:p"));
    let target = reference(&fake.host(), "to/x");
    let from = reference(&fake.host(), "from/y");
    let pushed = client
        .push_blob(
            &target,
            &descriptor,
            Bytes::from(bytes),
            Some(&from),
            &|_| {},
        )
        .await;
    assert_eq!(pushed.unwrap(), Pushed::Mounted);
    let last = tokens.log().pop().unwrap();
    let scopes = ["repository:to/x:pull,push", "repository:from/y:pull"];
    assert_eq!(last.params("scope"), scopes);
}

#[tokio::test]
async fn upload_after_a_refused_mount_needs_no_right_to_the_other_repository() {
    let fake = Fake::start().await;
    fake.refuse_mounts();
    let (bytes, descriptor) = blob(1000);
    let _tokens = TokenServer::start(&fake, Some("u:p")).await;
    let client = client_with(&docker_config(&fake.host(), "u:p"));
    let [target, from] = ["to/x", "from/y"].map(|name| reference(&fake.host(), name));
    let source = Bytes::from(bytes);
    let pushed = client.push_blob(&target, &descriptor, source, Some(&from), &|_| {});
    assert_eq!(pushed.await.unwrap(), Pushed::Uploaded);
    let log = fake.log();
    let shown = |method: &str| {
        let request = log.iter().rfind(|request| request.method == method);
        request.unwrap().header("authorization").unwrap().to_owned()
    };
    assert_eq!(shown("PUT"), shown("HEAD"));
    assert_ne!(shown("PUT"), shown("POST"));
}

#[tokio::test]
async fn token_that_ends_during_a_push_is_replaced() {
    let fake = Fake::start().await;
    let (bytes, descriptor) = blob(1000);
    let tokens = TokenServer::start(&fake, Some("u:p")).await;
    let client = client_with(&docker_config(&fake.host(), "u:p"));
    fake.fail(1, "PUT", "uploads", challenge(&tokens.host()));
    let target = reference(&fake.host(), "to/x");
    let pushed = client
        .push_blob(&target, &descriptor, Bytes::from(bytes), None, &|_| {})
        .await;
    assert_eq!(pushed.unwrap(), Pushed::Uploaded);
    fake.fail(9, "PUT", "uploads", challenge(&tokens.host()));
    let (bytes, descriptor) = blob(999);
    let pushed = client
        .push_blob(&target, &descriptor, Bytes::from(bytes), None, &|_| {})
        .await;
    assert!(
        matches!(pushed, Err(RegistryError::Denied { .. })),
        "{pushed:?}"
    );
}

#[tokio::test]
async fn redirect_to_another_host_carries_no_authorization() {
    let fake = Fake::start().await;
    let storage = Fake::start().await;
    let (bytes, descriptor) = blob(100_000);
    fake.put_blob("a/b", &bytes);
    storage.put_blob("store", &bytes);
    fake.set_auth(Auth::Basic("u:p".to_owned()));
    let url = format!(
        "http://{}/v2/store/blobs/{}?sig=x",
        storage.host(),
        descriptor.digest
    );
    let client = client_with(&docker_config(&fake.host(), "u:p"));
    let repository = reference(&fake.host(), "a/b");
    // Learns the challenge, so that the next request is authorized at once.
    assert!(client.has_blob(&repository, &descriptor).await.unwrap());
    fake.fail(
        2,
        "GET",
        "blobs",
        Action::Status(307, vec![("Location", url)]),
    );
    let cut = Action::Deliver(crate::support::Delivery::CutAfter(50_000));
    storage.fail(1, "GET", "store", cut);
    let mut out = Vec::new();
    client
        .blob(&repository, &descriptor, &mut out, &|_| {})
        .await
        .unwrap();
    assert_eq!(out, bytes);
    assert!(fake.log().last().unwrap().header("authorization").is_some());
    let log = storage.log();
    assert_eq!(log.len(), 2);
    assert_eq!(log[1].header("range"), Some("bytes=50000-"));
    for request in log {
        assert_eq!(request.header("authorization"), None);
        assert_eq!(request.param("sig"), Some("x"));
    }
}

#[tokio::test]
async fn challenge_of_another_host_is_not_answered() {
    let fake = Fake::start().await;
    let storage = Fake::start().await;
    storage.set_auth(Auth::Basic("u:p".to_owned()));
    let (_, descriptor) = blob(10);
    let url = format!("http://{}/v2/store/blobs/x", storage.host());
    fake.fail(
        1,
        "GET",
        "blobs",
        Action::Status(302, vec![("Location", url)]),
    );
    let client = client_with(&docker_config(&fake.host(), "u:p"));
    let repository = reference(&fake.host(), "a/b");
    let mut out = Vec::new();
    let result = client
        .blob(&repository, &descriptor, &mut out, &|_| {})
        .await;
    let error = result.unwrap_err();
    let RegistryError::Denied { operation, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(operation.host, storage.host());
    assert_eq!(storage.log().len(), 1);
}

#[tokio::test]
async fn redirects_end_and_lead_only_to_http() {
    let (_, descriptor) = blob(10);
    let same = format!("/v2/a/b/blobs/{}", descriptor.digest);
    for (location, why) in [
        (same, "redirected 10 times"),
        ("file:///etc/passwd".to_owned(), "scheme `file`"),
        ("http://u:p@127.0.0.1/".to_owned(), "user name"),
    ] {
        let fake = Fake::start().await;
        let repository = reference(&fake.host(), "a/b");
        fake.fail(
            11,
            "GET",
            "blobs",
            Action::Status(307, vec![("Location", location)]),
        );
        let mut out = Vec::new();
        let result = client()
            .blob(&repository, &descriptor, &mut out, &|_| {})
            .await;
        let error = result.unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[tokio::test]
async fn upload_to_another_host_carries_no_authorization() {
    let fake = Fake::start().await;
    let storage = Fake::start().await;
    fake.set_auth(Auth::Basic("u:p".to_owned()));
    let (bytes, descriptor) = blob(1000);
    let client = client_with(&docker_config(&fake.host(), "u:p"));
    let target = reference(&fake.host(), "to/x");
    assert!(!client.has_blob(&target, &descriptor).await.unwrap());
    let url = format!("http://{}/v2/s/blobs/uploads/1?state=a%2Bb", storage.host());
    fake.fail(
        1,
        "POST",
        "uploads",
        Action::Status(202, vec![("Location", url)]),
    );
    let pushed = client
        .push_blob(&target, &descriptor, Bytes::from(bytes), None, &|_| {})
        .await;
    assert_eq!(pushed.unwrap(), Pushed::Uploaded);
    assert_eq!(storage.log()[0].header("authorization"), None);
    assert!(storage.blob("s", descriptor.digest).is_some());
}

#[tokio::test]
async fn token_server_in_plain_http_elsewhere_gets_nothing() {
    let fake = fake_with_image().await;
    let client = client_with(&docker_config(&fake.host(), "u:p"));
    for host in ["192.0.2.1", "169.254.169.254", "example.invalid"] {
        fake.fail(1, "GET", "manifests", challenge(host));
        let error = pull(&client, &fake).await.unwrap_err();
        assert!(error.to_string().contains("is refused"), "{error}");
    }
}

#[tokio::test]
async fn nothing_is_shown_to_a_host_that_is_asked_what_it_speaks() {
    let dir = tempfile::tempdir().unwrap();
    let made = openssl(
        dir.path(),
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout x.pem -out ca.crt \
         -subj /CN=ca -days 2",
    );
    if !made {
        return;
    }
    // What the host is sent before it has said anything, and then nothing at all.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let client = Client::new(Config {
        credentials: Credentials::parse(&docker_config(&host, "u:p")).unwrap(),
        extra_ca_files: vec![dir.path().join("ca.crt")],
        retries: 0,
        ..config()
    })
    .unwrap();
    let image = reference(&host, "a/b:1");
    let seen = async {
        let mut seen = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = vec![0; 4096];
            let length = stream.read(&mut bytes).await.unwrap();
            bytes.truncate(length);
            seen.push(bytes);
        }
        seen
    };
    let both = async { tokio::join!(client.manifest(&image, None), seen) };
    let limit = Duration::from_secs(30);
    let (result, seen) = tokio::time::timeout(limit, both).await.unwrap();
    assert!(result.is_err());
    // A TLS handshake, then a request in plain HTTP that shows nothing either.
    assert_eq!(seen[0][..2], [0x16, 0x03]);
    let request = String::from_utf8_lossy(&seen[1]);
    assert!(request.starts_with("GET /v2/a/b/manifests/1 "), "{request}");
    assert!(
        !request.to_lowercase().contains("authorization"),
        "{request}"
    );
}

#[tokio::test]
async fn insecure_hosts_are_spoken_to_as_the_caller_says() {
    let fake = fake_with_image().await;
    let insecure = |entry: String| {
        Client::new(Config {
            insecure_hosts: vec![entry],
            ..config()
        })
        .unwrap()
    };
    // No TLS there: falls back.
    pull(&insecure(fake.host()), &fake).await.unwrap();
    pull(&insecure(format!("http://{}", fake.host())), &fake)
        .await
        .unwrap();
    let error = pull(&insecure(format!("https://{}", fake.host())), &fake)
        .await
        .unwrap_err();
    assert!(
        matches!(error, RegistryError::Unreachable { .. }),
        "{error:?}"
    );
}
