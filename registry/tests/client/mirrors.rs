//! Pulling from mirrors that work, and from some that do not.

use bytes::Bytes;
use kiln_graph::media_type;
use kiln_registry::{Client, Config, Credentials, Mirror, MirrorPulls, Pushed, Registries};

use crate::support::{Action, Auth, Delivery, Fake, blob, config, manifest, reference};

/// Returns a client that asks `mirror`, below `m/`, before the registry.
fn client(registry: &Fake, mirror: &Fake) -> Client {
    let registries = Registries {
        first: vec![(
            registry.host(),
            Mirror {
                location: format!("{}/m", mirror.host()),
                insecure: false,
                pulls: MirrorPulls::All,
            },
        )],
        rules: Vec::new(),
    };
    let pair = |host: String| format!(r#""{host}": {{"username": "u", "password": "p"}}"#);
    let auths = format!(r#"{{"auths": {{{}}}}}"#, pair(mirror.host()));
    Client::new(Config {
        registries,
        credentials: Credentials::parse(&auths).unwrap(),
        ..config()
    })
    .unwrap()
}

async fn both() -> (Fake, Fake) {
    (Fake::start().await, Fake::start().await)
}

async fn pull(
    client: &Client,
    registry: &Fake,
    descriptor: &kiln_graph::Descriptor,
) -> Result<Vec<u8>, kiln_registry::RegistryError> {
    let mut out = Vec::new();
    let repository = reference(&registry.host(), "a/b:1");
    client
        .blob(&repository, descriptor, &mut out, &|_| {})
        .await
        .map(|()| out)
}

#[tokio::test]
async fn what_a_mirror_has_is_not_asked_of_the_registry() {
    let (registry, mirror) = both().await;
    let (bytes, descriptor) = blob(1000);
    mirror.put_blob("m/a/b", &bytes);
    let image = manifest(&descriptor, &[]);
    mirror.put_manifest("m/a/b", "1", media_type::OCI_MANIFEST, &image);
    // Its own credentials, and nobody else's.
    mirror.set_auth(Auth::Basic("u:p".to_owned()));
    let client = client(&registry, &mirror);
    let name = reference(&registry.host(), "a/b:1");
    let got = client.manifest(&name, None).await.unwrap();
    assert_eq!(got.bytes, image);
    client.manifest(&name, Some(got.digest)).await.unwrap();
    assert_eq!(pull(&client, &registry, &descriptor).await.unwrap(), bytes);
    assert!(registry.log().is_empty());
}

#[tokio::test]
async fn what_a_mirror_does_not_have_comes_from_the_registry() {
    let (registry, mirror) = both().await;
    let (bytes, descriptor) = blob(1000);
    registry.put_blob("a/b", &bytes);
    let client = client(&registry, &mirror);
    for n_asked in [1, 2] {
        assert_eq!(pull(&client, &registry, &descriptor).await.unwrap(), bytes);
        assert_eq!(mirror.log().len(), n_asked, "it may have the next one");
    }
    for request in registry.log() {
        assert_eq!(request.header("authorization"), None);
    }
}

#[tokio::test]
async fn broken_mirrors_are_given_up() {
    for action in [
        Action::Status(500, Vec::new()),
        Action::Status(429, vec![("Retry-After", "3600".to_owned())]),
        Action::Deliver(Delivery::Hangup),
        Action::Deliver(Delivery::CutAfter(400)),
        Action::Resize(-1),
        Action::Resize(7),
        Action::Status(307, vec![("Location", "ftp://r.example/".to_owned())]),
    ] {
        let (registry, mirror) = both().await;
        let (bytes, descriptor) = blob(1000);
        registry.put_blob("a/b", &bytes);
        mirror.put_blob("m/a/b", &bytes);
        mirror.fail(100, "GET", "blobs", action.clone());
        let client = client(&registry, &mirror);
        let got = pull(&client, &registry, &descriptor).await.unwrap();
        assert_eq!(got, bytes, "{action:?}");
        let n_asked = mirror.log().len();
        assert!(n_asked <= 2, "{action:?}: {n_asked}");
        pull(&client, &registry, &descriptor).await.unwrap();
        assert_eq!(mirror.log().len(), n_asked, "{action:?}");
    }
}

#[tokio::test]
async fn registry_goes_on_where_a_mirror_stopped() {
    let (registry, mirror) = both().await;
    let (bytes, descriptor) = blob(1000);
    registry.put_blob("a/b", &bytes);
    mirror.put_blob("m/a/b", &bytes);
    mirror.fail(1, "GET", "blobs", Action::Deliver(Delivery::CutAfter(400)));
    mirror.fail(1, "GET", "blobs", Action::Deliver(Delivery::CutAfter(300)));
    let client = client(&registry, &mirror);
    assert_eq!(pull(&client, &registry, &descriptor).await.unwrap(), bytes);
    let log = registry.log();
    assert_eq!(log[0].header("range"), Some("bytes=700-"));
}

#[tokio::test]
async fn wrong_bytes_of_a_mirror_are_worth_another_attempt() {
    let (registry, mirror) = both().await;
    let (bytes, descriptor) = blob(1000);
    registry.put_blob("a/b", &bytes);
    mirror.put_blob("m/a/b", &bytes);
    mirror.fail(1, "GET", "blobs", Action::Corrupt);
    let client = client(&registry, &mirror);
    let error = pull(&client, &registry, &descriptor).await.unwrap_err();
    assert!(error.is_of_mirror(), "{error:?}");
    assert!(error.to_string().contains(&mirror.host()), "{error}");
    assert_eq!(pull(&client, &registry, &descriptor).await.unwrap(), bytes);
    assert_eq!(mirror.log().len(), 1);

    // The registry's own wrong bytes are no reason for another attempt.
    registry.fail(1, "GET", "blobs", Action::Corrupt);
    let error = pull(&client, &registry, &descriptor).await.unwrap_err();
    assert!(!error.is_of_mirror(), "{error:?}");
}

#[tokio::test]
async fn wrong_manifests_of_a_mirror_are_not_used() {
    let (registry, mirror) = both().await;
    let image = manifest(&blob(2).1, &[]);
    for (fake, name) in [(&registry, "a/b"), (&mirror, "m/a/b")] {
        fake.put_manifest(name, "1", media_type::OCI_MANIFEST, &image);
    }
    mirror.fail(1, "GET", "manifests", Action::Corrupt);
    let client = client(&registry, &mirror);
    let name = reference(&registry.host(), "a/b:1");
    let digest = kiln_graph::Digest::sha256(&image);
    let got = client.manifest(&name, Some(digest)).await.unwrap();
    assert_eq!(got.bytes, image);
    assert_eq!(registry.log().len(), 1);
}

#[tokio::test]
async fn what_is_pushed_goes_past_mirrors() {
    let (registry, mirror) = both().await;
    let (bytes, descriptor) = blob(1000);
    mirror.put_blob("m/a/b", &bytes);
    let client = client(&registry, &mirror);
    let name = reference(&registry.host(), "a/b:1");
    let pushed = client
        .push_blob(&name, &descriptor, Bytes::from(bytes), None, &|_| {})
        .await;
    assert_eq!(pushed.unwrap(), Pushed::Uploaded);
    let image = manifest(&descriptor, &[]);
    let kind = media_type::OCI_MANIFEST;
    client.push_manifest(&name, kind, &image).await.unwrap();
    assert!(mirror.log().is_empty());
}
