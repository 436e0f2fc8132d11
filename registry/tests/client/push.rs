//! Pushing to a registry that breaks.

use std::time::Duration;

use bytes::Bytes;
use kiln_graph::{Descriptor, Digest, media_type};
use kiln_registry::{BlobSource, Client, Config, Pushed, Reference, RegistryError};

use crate::support::{Action, Delivery, Fake, Progress, blob, client, config, manifest, reference};

async fn push(
    client: &Client,
    fake: &Fake,
    descriptor: &Descriptor,
    source: impl BlobSource,
    mount_from: Option<&str>,
) -> Result<Pushed, RegistryError> {
    let target = reference(&fake.host(), "to/x");
    let from = mount_from.map(|name| reference(&fake.host(), name));
    client
        .push_blob(&target, descriptor, source, from.as_ref(), &|_| {})
        .await
}

fn n_puts(fake: &Fake) -> usize {
    let calls = fake.calls();
    calls.iter().filter(|call| call.starts_with("PUT")).count()
}

#[tokio::test]
async fn blob_is_sent_once() {
    let fake = Fake::start().await;
    let (bytes, descriptor) = blob(1_000_000);
    let source = Bytes::from(bytes.clone());
    let progress = Progress::default();
    let target = reference(&fake.host(), "to/x");
    let pushed = client()
        .push_blob(&target, &descriptor, source.clone(), None, &|n| {
            progress.set(n);
        })
        .await;
    assert_eq!(pushed.unwrap(), Pushed::Uploaded);
    assert_eq!(progress.last(), 1_000_000);
    assert_eq!(fake.blob("to/x", descriptor.digest), Some(bytes));
    let again = push(&client(), &fake, &descriptor, source, None).await;
    assert_eq!(again.unwrap(), Pushed::Existed);
    let calls = [
        "HEAD to/x/blobs/",
        "POST to/x/blobs/uploads/",
        "PUT to/x/blobs/uploads/1",
    ];
    assert_eq!(fake.calls()[..3], calls);
    assert_eq!(fake.calls()[3..], ["HEAD to/x/blobs/"]);
}

#[tokio::test]
async fn two_tasks_send_a_blob_once() {
    let fake = Fake::start().await;
    let (bytes, descriptor) = blob(100_000);
    let source = Bytes::from(bytes);
    let client = client();
    let (a, b) = tokio::join!(
        push(&client, &fake, &descriptor, source.clone(), None),
        push(&client, &fake, &descriptor, source, None),
    );
    let mut both = [a.unwrap(), b.unwrap()];
    both.sort_by_key(|pushed| *pushed == Pushed::Uploaded);
    assert_eq!(both, [Pushed::Existed, Pushed::Uploaded]);
    assert_eq!(n_puts(&fake), 1);
}

#[tokio::test]
async fn one_upload_is_enough_for_all_repositories_of_a_registry() {
    let (fake, other) = (Fake::start().await, Fake::start().await);
    let (bytes, descriptor) = blob(1000);
    let client = client();
    let send = async |host: String, name: &str, from: Option<&Reference>| {
        let source = Bytes::from(bytes.clone());
        let target = reference(&host, name);
        let pushed = client.push_blob(&target, &descriptor, source, from, &|_| {});
        pushed.await.unwrap()
    };
    assert_eq!(send(fake.host(), "a/x", None).await, Pushed::Uploaded);
    assert_eq!(send(fake.host(), "b/x", None).await, Pushed::Mounted);
    // A base that is elsewhere is no reason to send it twice.
    let base = reference("r.example", "base");
    assert_eq!(send(fake.host(), "c/x", Some(&base)).await, Pushed::Mounted);
    assert_eq!(send(fake.host(), "c/x", None).await, Pushed::Existed);
    assert_eq!(send(other.host(), "a/x", None).await, Pushed::Uploaded);
    assert_eq!(n_puts(&fake), 1);
}

#[tokio::test]
async fn empty_blob_is_pushed() {
    let fake = Fake::start().await;
    let (_, descriptor) = blob(0);
    let pushed = push(&client(), &fake, &descriptor, Bytes::new(), None).await;
    assert_eq!(pushed.unwrap(), Pushed::Uploaded);
    assert_eq!(fake.blob("to/x", descriptor.digest), Some(Vec::new()));
}

#[tokio::test]
async fn files_are_sources() {
    let fake = Fake::start().await;
    let (bytes, descriptor) = blob(700_001);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("blob");
    std::fs::write(&file, &bytes).unwrap();
    push(&client(), &fake, &descriptor, file, None)
        .await
        .unwrap();
    assert_eq!(fake.blob("to/x", descriptor.digest), Some(bytes));
}

#[tokio::test]
async fn mounted_blob_is_not_sent() {
    let fake = Fake::start().await;
    let (bytes, descriptor) = blob(1000);
    fake.put_blob("from/y", &bytes);
    let source = Bytes::from(bytes.clone());
    let pushed = push(&client(), &fake, &descriptor, source, Some("from/y")).await;
    assert_eq!(pushed.unwrap(), Pushed::Mounted);
    assert_eq!(fake.blob("to/x", descriptor.digest), Some(bytes));
    assert_eq!(
        fake.calls(),
        ["HEAD to/x/blobs/", "POST to/x/blobs/uploads/"]
    );
}

#[tokio::test]
async fn refused_mount_goes_on_as_an_upload() {
    let fake = Fake::start().await;
    fake.refuse_mounts();
    let (bytes, descriptor) = blob(1000);
    fake.put_blob("from/y", &bytes);
    let source = Bytes::from(bytes);
    let pushed = push(&client(), &fake, &descriptor, source, Some("from/y")).await;
    assert_eq!(pushed.unwrap(), Pushed::Uploaded);
    let calls = fake.calls();
    assert_eq!(
        calls.len(),
        3,
        "the upload that the registry opened is used: {calls:?}"
    );
}

#[tokio::test]
async fn registry_without_mounts_gets_an_upload() {
    let fake = Fake::start().await;
    fake.fail(1, "POST", "uploads", Action::Status(405, Vec::new()));
    let (bytes, descriptor) = blob(1000);
    let source = Bytes::from(bytes);
    let pushed = push(&client(), &fake, &descriptor, source, Some("from/y")).await;
    assert_eq!(pushed.unwrap(), Pushed::Uploaded);
}

#[tokio::test]
async fn broken_upload_is_started_anew() {
    let fake = Fake::start().await;
    fake.fail(1, "PUT", "uploads", Action::Status(503, Vec::new()));
    fake.fail(1, "POST", "uploads", Action::Status(500, Vec::new()));
    let (bytes, descriptor) = blob(500_000);
    let source = Bytes::from(bytes.clone());
    let pushed = push(&client(), &fake, &descriptor, source, None).await;
    assert_eq!(pushed.unwrap(), Pushed::Uploaded);
    assert_eq!(fake.blob("to/x", descriptor.digest), Some(bytes));
    assert_eq!(n_puts(&fake), 2);
}

#[tokio::test]
async fn lost_answer_does_not_send_again() {
    let fake = Fake::start().await;
    fake.fail(1, "PUT", "uploads", Action::LoseAnswer);
    let (bytes, descriptor) = blob(500_000);
    let source = Bytes::from(bytes);
    let pushed = push(&client(), &fake, &descriptor, source, None).await;
    assert_eq!(pushed.unwrap(), Pushed::Uploaded);
    assert_eq!(n_puts(&fake), 1);
}

#[tokio::test]
async fn source_of_another_length_is_a_local_failure() {
    let fake = Fake::start().await;
    let (bytes, descriptor) = blob(300_000);
    let short = Bytes::from(bytes[..299_999].to_vec());
    let error = push(&client(), &fake, &descriptor, short, None)
        .await
        .unwrap_err();
    let RegistryError::Local { source, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(source.to_string(), "it has 299999 bytes instead of 300000");
    assert!(n_puts(&fake) <= 1);

    let missing = std::path::PathBuf::from("/nonexistent/blob");
    let error = push(&client(), &fake, &descriptor, missing, None)
        .await
        .unwrap_err();
    assert!(matches!(error, RegistryError::Local { .. }), "{error:?}");
}

#[tokio::test]
async fn refused_content_is_not_sent_again() {
    let fake = Fake::start().await;
    let (mut bytes, descriptor) = blob(1000);
    bytes[0] ^= 1;
    let source = Bytes::from(bytes);
    let error = push(&client(), &fake, &descriptor, source, None)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("DIGEST_INVALID"), "{error}");
    assert_eq!(n_puts(&fake), 1);
}

#[tokio::test]
async fn silent_registry_is_asked_again() {
    let fake = Fake::start().await;
    for (method, path) in [("HEAD", "blobs"), ("POST", "uploads"), ("PUT", "uploads")] {
        fake.fail(1, method, path, Action::Deliver(Delivery::Silent));
    }
    let client = Client::new(Config {
        connect_timeout: Duration::from_millis(50),
        idle_timeout: Duration::from_millis(50),
        ..config()
    })
    .unwrap();
    let (bytes, descriptor) = blob(1000);
    let pushed = push(&client, &fake, &descriptor, Bytes::from(bytes), None).await;
    assert_eq!(pushed.unwrap(), Pushed::Uploaded);
    // The blob had arrived.
    assert_eq!(n_puts(&fake), 1);
}

#[tokio::test]
async fn manifest_is_pushed_by_tag_or_digest() {
    let fake = Fake::start().await;
    let kind = media_type::OCI_MANIFEST;
    let bytes = manifest(&blob(2).1, &[]);
    let digest = Digest::sha256(&bytes);
    let tagged = reference(&fake.host(), "to/x:1");
    assert_eq!(
        client().push_manifest(&tagged, kind, &bytes).await.unwrap(),
        digest
    );
    let got = client().manifest(&tagged, None).await.unwrap();
    assert_eq!((got.bytes, got.media_type.as_str()), (bytes.clone(), kind));

    let pinned = reference(&fake.host(), &format!("to/y@{digest}"));
    client().push_manifest(&pinned, kind, &bytes).await.unwrap();
    let put = fake.log().last().unwrap().path.clone();
    assert_eq!(put, format!("/v2/to/y/manifests/{digest}"));

    let other = pinned.with_digest(Digest::sha256("other"));
    let error = client()
        .push_manifest(&other, kind, &bytes)
        .await
        .unwrap_err();
    assert!(
        matches!(error, RegistryError::WrongDigest { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn registry_that_stored_something_else_is_noticed() {
    let fake = Fake::start().await;
    let other = Digest::sha256("other").to_string();
    for path in ["manifests", "uploads"] {
        fake.fail(
            1,
            "PUT",
            path,
            Action::Header("Docker-Content-Digest", other.clone()),
        );
    }
    let (bytes, descriptor) = blob(10);
    let tagged = reference(&fake.host(), "to/x:1");
    let kind = media_type::OCI_MANIFEST;
    let error = client()
        .push_manifest(&tagged, kind, b"{}")
        .await
        .unwrap_err();
    assert!(
        matches!(error, RegistryError::WrongDigest { .. }),
        "{error:?}"
    );
    let source = Bytes::from(bytes);
    let error = push(&client(), &fake, &descriptor, source, None)
        .await
        .unwrap_err();
    assert!(
        matches!(error, RegistryError::WrongDigest { .. }),
        "{error:?}"
    );
}
