//! What the tests share: a fake registry, a real one, clients that do not wait long.

mod fake;
mod http;
mod peer;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kiln_graph::{Descriptor, Digest, media_type};
use kiln_registry::{Client, Config, Credentials, Reference};

pub(crate) use fake::{Action, Auth, Fake, TokenServer};
pub(crate) use http::{Delivery, Request, Server};
pub(crate) use peer::{Peer, openssl, require_docker_registry};

/// A configuration whose pauses are too short to notice.
pub(crate) fn config() -> Config {
    Config {
        backoff: Duration::from_millis(1),
        certs_dirs: Vec::new(),
        ..Config::default()
    }
}

pub(crate) fn client() -> Client {
    Client::new(config()).unwrap()
}

pub(crate) fn client_with(docker_config: &str) -> Client {
    let credentials = Credentials::parse(docker_config).unwrap();
    Client::new(Config {
        credentials,
        ..config()
    })
    .unwrap()
}

pub(crate) fn reference(host: &str, rest: &str) -> Reference {
    format!("{host}/{rest}").parse().unwrap()
}

/// Bytes that do not repeat within any block, and the descriptor of them.
pub(crate) fn blob(size: usize) -> (Vec<u8>, Descriptor) {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    let bytes: Vec<u8> = (0..size).map(|_| next()).collect();
    let descriptor = describe(media_type::OCI_LAYER_GZIP, &bytes);
    (bytes, descriptor)
}

pub(crate) fn describe(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor::new(media_type, Digest::sha256(bytes), bytes.len() as u64)
}

/// An image manifest with these layers, as bytes.
pub(crate) fn manifest(config: &Descriptor, layers: &[Descriptor]) -> Vec<u8> {
    serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": config,
        "layers": layers,
    }))
    .unwrap()
}

/// Remembers the last progress that was told, and that it never went back within an attempt.
#[derive(Default)]
pub(crate) struct Progress(AtomicU64);

impl Progress {
    pub(crate) fn set(&self, n_bytes: u64) {
        self.0.store(n_bytes, Ordering::Relaxed);
    }

    pub(crate) fn last(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
