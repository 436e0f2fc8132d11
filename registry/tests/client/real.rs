//! The client against Debian's docker-registry: plain, with a password, with TLS.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use kiln_graph::media_type;
use kiln_registry::{Client, Config, Pushed, Reference, RegistryError};

use crate::support::{
    Peer, blob, client, client_with, config, describe, manifest, openssl, reference,
    require_docker_registry,
};

/// bcrypt of `secret`, as htpasswd writes it.
const HTPASSWD: &str = "kiln:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
const HTPASSWD_AUTH: &str = "auth:\n  htpasswd: {realm: test, path: DIR/htpasswd}";
const TLS: &str = "  tls: {certificate: DIR/server.crt, key: DIR/server.key}";
const CLIENT_TLS: &str =
    "  tls: {certificate: DIR/server.crt, key: DIR/server.key, clientcas: [DIR/ca.crt]}";

/// Pushes an image, pulls it again, mounts its layer elsewhere.
async fn round_trip(client: &Client, host: &str) {
    let target: Reference = reference(host, "team/app:1");
    let (layer, layer_descriptor) = blob(5 << 20);
    let image_config = br#"{"architecture":"amd64","os":"linux"}"#.to_vec();
    let config_descriptor = describe(media_type::OCI_CONFIG, &image_config);
    let parts = [
        (&layer, &layer_descriptor),
        (&image_config, &config_descriptor),
    ];
    for (bytes, descriptor) in parts {
        for expected in [Pushed::Uploaded, Pushed::Existed] {
            let source = Bytes::from(bytes.clone());
            let pushed = client
                .push_blob(&target, descriptor, source, None, &|_| {})
                .await;
            assert_eq!(pushed.unwrap(), expected);
        }
        assert!(client.has_blob(&target, descriptor).await.unwrap());
    }
    let bytes = manifest(&config_descriptor, std::slice::from_ref(&layer_descriptor));
    let kind = media_type::OCI_MANIFEST;
    let digest = client.push_manifest(&target, kind, &bytes).await.unwrap();

    assert_eq!(
        client.resolve(&target).await.unwrap(),
        describe(kind, &bytes)
    );
    let got = client.manifest(&target, None).await.unwrap();
    assert_eq!(
        (&got.bytes, got.digest, got.media_type.as_str()),
        (&bytes, digest, kind)
    );
    let mut out = Vec::new();
    client
        .blob(&target, &layer_descriptor, &mut out, &|_| {})
        .await
        .unwrap();
    assert!(out == layer, "the layer comes back as it went");

    let copy = reference(host, "other/copy:1");
    assert!(!client.has_blob(&copy, &layer_descriptor).await.unwrap());
    let source = Bytes::from(layer);
    let mounted = client
        .push_blob(&copy, &layer_descriptor, source, Some(&target), &|_| {})
        .await;
    assert_eq!(mounted.unwrap(), Pushed::Mounted);
    assert!(client.has_blob(&copy, &layer_descriptor).await.unwrap());
}

#[tokio::test]
async fn image_makes_a_round_trip() {
    if !require_docker_registry() {
        return;
    }
    let peer = Peer::plain();
    round_trip(&client(), peer.host()).await;
}

#[tokio::test]
async fn mount_of_what_is_not_there_is_an_upload() {
    if !require_docker_registry() {
        return;
    }
    let peer = Peer::plain();
    let (bytes, descriptor) = blob(1 << 20);
    let (target, from) = (reference(peer.host(), "a/b"), reference(peer.host(), "c/d"));
    let source = Bytes::from(bytes);
    let pushed = client()
        .push_blob(&target, &descriptor, source, Some(&from), &|_| {})
        .await;
    assert_eq!(pushed.unwrap(), Pushed::Uploaded);
    assert!(client().has_blob(&target, &descriptor).await.unwrap());
}

#[tokio::test]
async fn errors_are_told_apart() {
    if !require_docker_registry() {
        return;
    }
    let peer = Peer::plain();
    let target = reference(peer.host(), "a/b:missing");
    let error = client().manifest(&target, None).await.unwrap_err();
    assert!(matches!(error, RegistryError::NotFound { .. }), "{error:?}");
    assert!(error.to_string().contains("MANIFEST_UNKNOWN"), "{error}");

    let (mut bytes, descriptor) = blob(1000);
    bytes[0] ^= 1;
    let source = Bytes::from(bytes);
    let pushed = client()
        .push_blob(&target, &descriptor, source, None, &|_| {})
        .await;
    let error = pushed.unwrap_err();
    assert!(error.to_string().contains("DIGEST_INVALID"), "{error}");

    let unknown = manifest(&blob(10).1, &[]);
    let kind = media_type::OCI_MANIFEST;
    let error = client()
        .push_manifest(&target, kind, &unknown)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("MANIFEST_BLOB_UNKNOWN"),
        "{error}"
    );
}

#[tokio::test]
async fn password_opens_a_registry() {
    if !require_docker_registry() {
        return;
    }
    let peer = Peer::start("", HTPASSWD_AUTH, |dir| {
        fs::write(dir.join("htpasswd"), HTPASSWD).unwrap();
    });
    let image = reference(peer.host(), "a/b:1");
    let error = client().manifest(&image, None).await.unwrap_err();
    assert!(matches!(error, RegistryError::Denied { .. }), "{error:?}");
    let with = |password: &str| {
        format!(
            r#"{{"auths": {{"{}": {{"username": "kiln", "password": "{password}"}}}}}}"#,
            peer.host()
        )
    };
    let error = client_with(&with("wrong"))
        .manifest(&image, None)
        .await
        .unwrap_err();
    assert!(matches!(error, RegistryError::Denied { .. }), "{error:?}");
    round_trip(&client_with(&with("secret")), peer.host()).await;
}

/// Makes an authority, and certificates of it for the server and for a client.
fn make_certificates(dir: &Path) -> bool {
    let extension = "subjectAltName=IP:127.0.0.1";
    fs::write(dir.join("extension"), extension).unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    if !openssl(
        dir,
        &format!("req -x509 {key} -keyout ca.key -out ca.crt -subj /CN=ca -days 2"),
    ) {
        return false;
    }
    for name in ["server", "client"] {
        let request = format!("req {key} -keyout {name}.key -out {name}.csr -subj /CN={name}");
        let sign = format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out {name}.crt \
             -days 2 -extfile extension"
        );
        openssl(dir, &request);
        openssl(dir, &sign);
    }
    true
}

/// A registry with TLS, and a folder with certificates for its clients.
fn tls_peer(http: &str) -> Option<Peer> {
    let probe = tempfile::tempdir().unwrap();
    if !require_docker_registry() || !openssl(probe.path(), "version") {
        return None;
    }
    let peer = Peer::start(http, "", |dir| {
        make_certificates(dir);
    });
    let certs = peer.path("certs.d").join(peer.host());
    fs::create_dir_all(&certs).unwrap();
    fs::copy(peer.path("ca.crt"), certs.join("ca.crt")).unwrap();
    Some(peer)
}

fn client_with_certs(peer: &Peer) -> Client {
    Client::new(Config {
        certs_dirs: vec![peer.path("certs.d")],
        ..config()
    })
    .unwrap()
}

#[tokio::test]
async fn own_authority_is_trusted_for_its_host() {
    let Some(peer) = tls_peer(TLS) else {
        return;
    };
    round_trip(&client_with_certs(&peer), peer.host()).await;
}

#[tokio::test]
async fn unknown_authority_is_refused_at_once_unless_insecure() {
    let Some(peer) = tls_peer(TLS) else {
        return;
    };
    // Another authority is trusted for the host, and not the one that signed.
    let other = peer.path("other.d").join(peer.host());
    fs::create_dir_all(&other).unwrap();
    openssl(
        &other,
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout x.pem -out ca.crt \
         -subj /CN=other -days 2",
    );
    let with = |insecure_hosts| {
        Client::new(Config {
            certs_dirs: vec![peer.path("other.d")],
            insecure_hosts,
            // Long enough for the test to hang if the refusal were tried again.
            backoff: std::time::Duration::from_secs(3600),
            max_pause: std::time::Duration::from_secs(3600),
            ..config()
        })
        .unwrap()
    };
    let image = reference(peer.host(), "a/b:1");
    let error = with(Vec::new()).manifest(&image, None).await.unwrap_err();
    assert!(
        matches!(error, RegistryError::Unreachable { .. }),
        "{error:?}"
    );
    for entry in [peer.host().to_owned(), format!("https://{}", peer.host())] {
        let error = with(vec![entry]).manifest(&image, None).await.unwrap_err();
        assert!(matches!(error, RegistryError::NotFound { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn extra_authorities_are_trusted_for_all_hosts() {
    let Some(peer) = tls_peer(TLS) else {
        return;
    };
    // An empty folder entry makes the loopback host one with TLS; the authority is elsewhere.
    let certs = peer.path("certs.d").join(peer.host());
    openssl(
        &certs,
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout x.pem -out ca.crt \
         -subj /CN=other -days 2",
    );
    let client = Client::new(Config {
        certs_dirs: vec![peer.path("certs.d")],
        extra_ca_files: vec![peer.path("ca.crt")],
        ..config()
    })
    .unwrap();
    round_trip(&client, peer.host()).await;
}

fn client_with_authority(file: std::path::PathBuf, insecure_hosts: Vec<String>) -> Client {
    Client::new(Config {
        extra_ca_files: vec![file],
        insecure_hosts,
        ..config()
    })
    .unwrap()
}

#[tokio::test]
async fn extra_authorities_are_enough_on_this_machine() {
    let Some(peer) = tls_peer(TLS) else {
        return;
    };
    let client = client_with_authority(peer.path("ca.crt"), Vec::new());
    round_trip(&client, peer.host()).await;
    // Said to be plain, it is not asked what else it speaks.
    let plain = vec![format!("http://{}", peer.host())];
    let client = client_with_authority(peer.path("ca.crt"), plain);
    let image = reference(peer.host(), "team/app:1");
    assert!(client.manifest(&image, None).await.is_err());
}

#[tokio::test]
async fn wrong_certificate_on_this_machine_is_no_reason_for_plain_http() {
    let Some(peer) = tls_peer(TLS) else {
        return;
    };
    openssl(
        &peer.path("certs.d"),
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout x.pem -out other.crt \
         -subj /CN=other -days 2",
    );
    let client = client_with_authority(peer.path("certs.d/other.crt"), Vec::new());
    let image = reference(peer.host(), "team/app:1");
    let error = client.manifest(&image, None).await.unwrap_err();
    let RegistryError::Unreachable { .. } = &error else {
        panic!("{error:?}");
    };
    assert!(format!("{error:?}").contains("UnknownIssuer"), "{error:?}");
}

#[tokio::test]
async fn plain_registries_on_this_machine_work_beside_extra_authorities() {
    if !require_docker_registry() || !openssl(Path::new("/"), "version") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    make_certificates(dir.path());
    let peer = Peer::plain();
    let client = client_with_authority(dir.path().join("ca.crt"), Vec::new());
    round_trip(&client, peer.host()).await;
}

#[tokio::test]
async fn client_certificate_is_shown() {
    let Some(peer) = tls_peer(CLIENT_TLS) else {
        return;
    };
    let image = reference(peer.host(), "a/b:1");
    let error = client_with_certs(&peer)
        .manifest(&image, None)
        .await
        .unwrap_err();
    assert!(
        matches!(error, RegistryError::Unreachable { .. }),
        "{error:?}"
    );
    // Asked what it speaks, it hangs up only after it has said so.
    let error = client_with_authority(peer.path("ca.crt"), Vec::new())
        .manifest(&image, None)
        .await
        .unwrap_err();
    assert!(
        matches!(error, RegistryError::Unreachable { .. }),
        "{error:?}"
    );
    let certs = peer.path("certs.d").join(peer.host());
    fs::copy(peer.path("client.crt"), certs.join("client.cert")).unwrap();
    fs::copy(peer.path("client.key"), certs.join("client.key")).unwrap();
    round_trip(&client_with_certs(&peer), peer.host()).await;
}
