//! Manifests and blobs from a registry that breaks.

use std::io;
use std::time::{Duration, Instant};

use kiln_graph::{Digest, media_type};
use kiln_registry::{Client, Config, RegistryError};
use tokio::io::AsyncWrite;

use crate::support::{
    Action, Delivery, Fake, Progress, Server, blob, client, config, describe, manifest, reference,
};

const KIND: &str = media_type::OCI_MANIFEST;

async fn fake_with_blob(size: usize) -> (Fake, Vec<u8>, kiln_graph::Descriptor) {
    let fake = Fake::start().await;
    let (bytes, descriptor) = blob(size);
    fake.put_blob("a/b", &bytes);
    (fake, bytes, descriptor)
}

/// Pulls the blob of `a/b`; returns what came, and how it ended.
async fn pull(
    client: &Client,
    fake: &Fake,
    descriptor: &kiln_graph::Descriptor,
) -> (Vec<u8>, Result<(), RegistryError>) {
    let mut out = Vec::new();
    let progress = Progress::default();
    let repository = reference(&fake.host(), "a/b");
    let result = client
        .blob(&repository, descriptor, &mut out, &|n| progress.set(n))
        .await;
    assert_eq!(progress.last(), out.len() as u64);
    (out, result)
}

fn ranges(fake: &Fake) -> Vec<Option<String>> {
    let range = |request: &crate::support::Request| request.header("range").map(str::to_owned);
    fake.log().iter().map(range).collect()
}

#[tokio::test]
async fn manifest_bytes_come_as_they_are() {
    let fake = Fake::start().await;
    let bytes = br#"{ "schemaVersion":2, "manifests" : [] }"#;
    let kind = media_type::DOCKER_LIST;
    fake.put_manifest("a/b", "1", kind, bytes);
    let image = reference(&fake.host(), "a/b:1");
    let got = client().manifest(&image, None).await.unwrap();
    assert_eq!(got.bytes, bytes);
    assert_eq!(got.media_type, kind);
    assert_eq!(got.digest, Digest::sha256(bytes));
    let accept = fake.log()[0].header("accept").unwrap().to_owned();
    for kind in [
        KIND,
        kind,
        media_type::OCI_INDEX,
        media_type::DOCKER_MANIFEST,
    ] {
        assert!(accept.contains(kind), "{accept}");
    }
    let by_digest = client().manifest(&image, Some(got.digest)).await.unwrap();
    assert_eq!(by_digest, got);
}

#[tokio::test]
async fn manifest_with_another_digest_is_refused() {
    let fake = Fake::start().await;
    let (_, config) = blob(3);
    let bytes = manifest(&config, &[]);
    fake.put_manifest("a/b", "1", KIND, &bytes);
    let image = reference(&fake.host(), "a/b:1");
    let digest = Digest::sha256(&bytes);
    for pinned in [image.clone(), image.with_digest(digest)] {
        fake.fail(1, "GET", "manifests", Action::Corrupt);
        let error = client().manifest(&pinned, None).await.unwrap_err();
        let RegistryError::WrongDigest { expected, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(*expected, digest);
    }
}

#[tokio::test]
async fn what_is_missing_is_said_in_the_registrys_words() {
    let fake = Fake::start().await;
    let image = reference(&fake.host(), "a/b:1");
    for error in [
        client().manifest(&image, None).await.unwrap_err(),
        client().resolve(&image).await.unwrap_err(),
    ] {
        assert!(matches!(error, RegistryError::NotFound { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(&format!("`{image}`")), "{text}");
        assert!(
            text.contains("404: MANIFEST_UNKNOWN: fake MANIFEST_UNKNOWN"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn manifests_of_any_length_do_not_fill_memory() {
    let fake = Fake::start().await;
    let bytes = vec![b' '; (8 << 20) + 1];
    fake.put_manifest("a/b", "1", KIND, &bytes);
    let image = reference(&fake.host(), "a/b:1");
    let error = client().manifest(&image, None).await.unwrap_err();
    assert!(error.to_string().contains("longer than"), "{error}");
}

#[tokio::test]
async fn resolve_needs_no_body() {
    let fake = Fake::start().await;
    let bytes = manifest(&blob(1).1, &[]);
    fake.put_manifest("a/b", "1", KIND, &bytes);
    let image = reference(&fake.host(), "a/b:1");
    let expected = describe(KIND, &bytes);
    assert_eq!(client().resolve(&image).await.unwrap(), expected);
    assert_eq!(fake.calls(), ["HEAD a/b/manifests/1"]);
}

#[tokio::test]
async fn resolve_fetches_where_head_tells_too_little() {
    let bytes = manifest(&blob(1).1, &[]);
    let status = |status| Action::Status(status, Vec::new());
    for action in [
        Action::Header("Docker-Content-Digest", "odd".to_owned()),
        Action::Header("Content-Type", "text/plain".to_owned()),
        status(405),
        status(404),
        status(403),
    ] {
        let fake = Fake::start().await;
        fake.put_manifest("a/b", "1", KIND, &bytes);
        let text = format!("{action:?}");
        fake.fail(1, "HEAD", "manifests", action);
        let image = reference(&fake.host(), "a/b:1");
        let got = client().resolve(&image).await.unwrap();
        assert_eq!(got, describe(KIND, &bytes), "{text}");
    }
}

#[tokio::test]
async fn blob_streams_and_is_looked_up() {
    let (fake, bytes, descriptor) = fake_with_blob(3 << 20).await;
    let repository = reference(&fake.host(), "a/b");
    let (got, result) = pull(&client(), &fake, &descriptor).await;
    result.unwrap();
    assert_eq!(got, bytes);
    assert!(client().has_blob(&repository, &descriptor).await.unwrap());
    let other = blob(7).1;
    assert!(!client().has_blob(&repository, &other).await.unwrap());
    let mut longer = descriptor;
    longer.size += 1;
    let error = client().has_blob(&repository, &longer).await.unwrap_err();
    assert!(
        matches!(error, RegistryError::WrongSize { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn empty_blob_is_a_blob() {
    let (fake, _, descriptor) = fake_with_blob(0).await;
    let (got, result) = pull(&client(), &fake, &descriptor).await;
    result.unwrap();
    assert!(got.is_empty());
}

#[tokio::test]
async fn broken_connection_goes_on_where_it_stopped() {
    let (fake, bytes, descriptor) = fake_with_blob(1_000_000).await;
    for n_bytes in [600_000, 0] {
        fake.fail(
            1,
            "GET",
            "blobs",
            Action::Deliver(Delivery::CutAfter(n_bytes)),
        );
    }
    fake.fail(1, "GET", "blobs", Action::Deliver(Delivery::Hangup));
    let (got, result) = pull(&client(), &fake, &descriptor).await;
    result.unwrap();
    assert_eq!(got, bytes);
    let known = Some("bytes=600000-".to_owned());
    assert_eq!(ranges(&fake), [None, known.clone(), known.clone(), known]);
}

#[tokio::test]
async fn registry_without_ranges_sends_again_what_is_known() {
    let (fake, bytes, descriptor) = fake_with_blob(1_000_000).await;
    fake.fail(
        1,
        "GET",
        "blobs",
        Action::Deliver(Delivery::CutAfter(600_000)),
    );
    fake.fail(1, "GET", "blobs", Action::IgnoreRange);
    let (got, result) = pull(&client(), &fake, &descriptor).await;
    result.unwrap();
    assert_eq!(got, bytes);
}

#[tokio::test]
async fn wrong_part_is_refused() {
    let (fake, _, descriptor) = fake_with_blob(1000).await;
    fake.fail(1, "GET", "blobs", Action::Deliver(Delivery::CutAfter(600)));
    let range = "bytes 500-999/1000".to_owned();
    fake.fail(1, "GET", "blobs", Action::Header("Content-Range", range));
    let error = pull(&client(), &fake, &descriptor).await.1.unwrap_err();
    assert!(error.to_string().contains("not the part"), "{error}");
}

#[tokio::test]
async fn connection_that_always_breaks_is_given_up() {
    let (fake, _, descriptor) = fake_with_blob(1000).await;
    fake.fail(100, "GET", "blobs", Action::Deliver(Delivery::CutAfter(0)));
    let error = pull(&client(), &fake, &descriptor).await.1.unwrap_err();
    assert!(
        matches!(error, RegistryError::Unreachable { .. }),
        "{error:?}"
    );
    let n_retries = usize::try_from(config().retries).unwrap();
    assert_eq!(fake.log().len(), 1 + n_retries);
}

#[tokio::test]
async fn slow_registry_is_waited_for_and_a_silent_one_is_not() {
    let (fake, bytes, descriptor) = fake_with_blob(100_000).await;
    let client = Client::new(Config {
        idle_timeout: Duration::from_millis(150),
        ..config()
    })
    .unwrap();
    fake.fail(1, "GET", "blobs", Action::Deliver(Delivery::Slow));
    let (got, result) = pull(&client, &fake, &descriptor).await;
    result.unwrap();
    assert_eq!(got, bytes);
    assert_eq!(fake.log().len(), 1);

    fake.fail(
        1,
        "GET",
        "blobs",
        Action::Deliver(Delivery::SilentAfter(40_000)),
    );
    let (got, result) = pull(&client, &fake, &descriptor).await;
    result.unwrap();
    assert_eq!(got, bytes);
    assert_eq!(ranges(&fake)[2].as_deref(), Some("bytes=40000-"));
}

#[tokio::test]
async fn wrong_content_is_never_ok() {
    let (fake, _, descriptor) = fake_with_blob(1000).await;
    fake.fail(1, "GET", "blobs", Action::Corrupt);
    let error = pull(&client(), &fake, &descriptor).await.1.unwrap_err();
    assert!(
        matches!(error, RegistryError::WrongDigest { .. }),
        "{error:?}"
    );

    for by in [-1, 1] {
        fake.fail(1, "GET", "blobs", Action::Resize(by));
        let (got, result) = pull(&client(), &fake, &descriptor).await;
        let error = result.unwrap_err();
        let RegistryError::WrongSize {
            expected, actual, ..
        } = error
        else {
            panic!("{error:?}");
        };
        assert_eq!(
            (expected, actual),
            (1000, 1000_u64.checked_add_signed(by as i64).unwrap())
        );
        assert!(
            got.is_empty(),
            "the announced length is enough to refuse it"
        );
    }
}

#[tokio::test]
async fn size_is_checked_without_an_announced_length() {
    let (fake, bytes, mut descriptor) = fake_with_blob(1000).await;
    let chunked = Action::Deliver(Delivery::Chunked);
    fake.fail(1, "GET", "blobs", chunked.clone());
    let (got, result) = pull(&client(), &fake, &descriptor).await;
    result.unwrap();
    assert_eq!(got, bytes);
    descriptor.size = 999;
    fake.fail(1, "GET", "blobs", chunked.clone());
    let (got, result) = pull(&client(), &fake, &descriptor).await;
    let error = result.unwrap_err();
    assert!(
        matches!(error, RegistryError::WrongSize { actual: 1000, .. }),
        "{error:?}"
    );
    assert!(got.len() <= 999, "no byte beyond the size reaches the sink");
}

#[tokio::test]
async fn passing_failures_are_tried_again() {
    let (fake, bytes, descriptor) = fake_with_blob(1000).await;
    fake.fail(2, "GET", "blobs", Action::Status(500, Vec::new()));
    fake.fail(
        1,
        "GET",
        "blobs",
        Action::Status(429, vec![("Retry-After", "1".to_owned())]),
    );
    let start = Instant::now();
    let (got, result) = pull(&client(), &fake, &descriptor).await;
    result.unwrap();
    assert_eq!(got, bytes);
    assert_eq!(fake.log().len(), 4);
    assert!(
        start.elapsed() >= Duration::from_secs(1),
        "Retry-After is kept"
    );
}

#[tokio::test]
async fn too_long_pauses_are_refused_with_the_registrys_words() {
    let (fake, _, descriptor) = fake_with_blob(1000).await;
    fake.fail(
        1,
        "GET",
        "blobs",
        Action::Status(429, vec![("Retry-After", "3600".to_owned())]),
    );
    let error = pull(&client(), &fake, &descriptor).await.1.unwrap_err();
    let RegistryError::Answer {
        status: 429, text, ..
    } = &error
    else {
        panic!("{error:?}");
    };
    assert_eq!(text, "FAULT: fake FAULT");
    assert_eq!(fake.log().len(), 1);
}

#[tokio::test]
async fn sink_failures_end_the_transfer() {
    struct Full;
    impl kiln_registry::BlobSink for Full {
        async fn write(&mut self, _: bytes::Bytes) -> io::Result<()> {
            Err(io::ErrorKind::StorageFull.into())
        }
        async fn finish(&mut self) -> io::Result<()> {
            unreachable!("it was not written")
        }
    }
    let (fake, _, descriptor) = fake_with_blob(1000).await;
    let repository = reference(&fake.host(), "a/b");
    let result = client()
        .blob(&repository, &descriptor, &mut Full, &|_| {})
        .await;
    let error = result.unwrap_err();
    assert!(matches!(error, RegistryError::Local { .. }), "{error:?}");
    assert_eq!(fake.log().len(), 1);
}

#[tokio::test]
async fn blob_goes_to_any_writer() {
    fn is_sink<S: kiln_registry::BlobSink>() {}
    fn is_writer<W: AsyncWrite>() {}
    is_writer::<tokio::fs::File>();
    is_sink::<tokio::fs::File>();

    let (fake, bytes, descriptor) = fake_with_blob(300_000).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("blob");
    let mut out = tokio::fs::File::create(&file).await.unwrap();
    let repository = reference(&fake.host(), "a/b");
    client()
        .blob(&repository, &descriptor, &mut out, &|_| {})
        .await
        .unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
}

#[tokio::test]
async fn requests_at_a_time_are_bounded() {
    let (fake, _, descriptor) = fake_with_blob(10_000).await;
    fake.fail(100, "GET", "blobs", Action::Deliver(Delivery::Slow));
    let client = Client::new(Config {
        concurrency: 1,
        ..config()
    })
    .unwrap();
    let repository = reference(&fake.host(), "a/b");
    let start = Instant::now();
    let one = async {
        let mut out = Vec::new();
        client
            .blob(&repository, &descriptor, &mut out, &|_| {})
            .await
            .unwrap();
    };
    let two = async {
        let mut out = Vec::new();
        client
            .blob(&repository, &descriptor, &mut out, &|_| {})
            .await
            .unwrap();
    };
    tokio::join!(one, two);
    // Each takes at least nine pauses of 20 ms.
    assert!(start.elapsed() >= Duration::from_millis(360));
}

#[tokio::test]
async fn host_that_is_not_there_is_unreachable() {
    let server = Server::start(std::sync::Arc::new(|_| unreachable!())).await;
    let host = server.host();
    drop(server);
    let image = reference(&host, "a/b:1");
    let error = client().manifest(&image, None).await.unwrap_err();
    assert!(
        matches!(error, RegistryError::Unreachable { .. }),
        "{error:?}"
    );
    let text = error.to_string();
    assert!(
        text.contains(&format!("`{host}` cannot be reached")),
        "{text}"
    );
}
