//! Agents over real sockets.

use std::os::unix::fs::MetadataExt as _;
use std::sync::Mutex;

use kiln_solver::{Event, Reporter};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair,
    Ed25519KeyPair, KeyPair as _, UnparsedPublicKey,
};
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use super::protocol::{receive, send};
use super::wire::{Reader, put_string, strings};
use super::*;

/// An agent of the user's, which answers everything with `[99]` and remembers it.
struct Upstream {
    path: PathBuf,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
    _tasks: JoinSet<()>,
}

impl Upstream {
    fn start(dir: &TempDir) -> Self {
        let path = dir.path().join("upstream");
        let listener = UnixListener::bind(&path).unwrap();
        let heard = Arc::<Mutex<Vec<_>>>::default();
        let (mut tasks, ears) = (JoinSet::new(), Arc::clone(&heard));
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let ears = Arc::clone(&ears);
                connections.spawn(async move {
                    while let Ok(Some(message)) = receive(&mut client).await {
                        ears.lock().unwrap().push(message);
                        send(&mut client, &[99]).await.unwrap();
                    }
                });
            }
        });
        Self {
            path,
            heard,
            _tasks: tasks,
        }
    }
}

fn socket(id: &str) -> Socket<'_> {
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    Socket {
        id,
        mode: 0o620,
        uid,
        gid,
    }
}

/// Serves an agent in `dir` and returns a client of it.
async fn served(agent: &Agent, dir: &TempDir, reporter: &Reporter) -> (Served, UnixStream) {
    let mut served = Served::new(dir.path().join("served"));
    let task = reporter.task("step", None);
    let path = served.add(agent, socket("default"), &task).unwrap();
    let client = UnixStream::connect(path).await.unwrap();
    (served, client)
}

async fn ask(client: &mut UnixStream, request: &[u8]) -> Vec<u8> {
    send(client, request).await.unwrap();
    receive(client).await.unwrap().unwrap()
}

fn armored(label: &str, bytes: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(70)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

/// Returns a key file in OpenSSH's own format, with these numbers of a key.
fn openssh(cipher: &[u8], kind: &[u8], numbers: &[&[u8]]) -> String {
    let mut private = vec![1, 2, 3, 4, 1, 2, 3, 4];
    private.extend(strings(&[kind]));
    private.extend(strings(numbers));
    private.extend(strings(&[b"a comment"]));
    let mut bytes = b"openssh-key-v1\0".to_vec();
    bytes.extend(strings(&[cipher, b"none", b""]));
    bytes.extend(1_u32.to_be_bytes());
    bytes.extend(strings(&[b"public", &private]));
    armored("OPENSSH PRIVATE KEY", &bytes)
}

fn ed25519() -> (String, Vec<u8>) {
    let seed = [7; 32];
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
    let public = pair.public_key().as_ref().to_vec();
    let both = [&seed[..], &public].concat();
    (openssh(b"none", b"ssh-ed25519", &[&public, &both]), public)
}

/// Returns the key in PKCS#8, its number and its point.
fn p256() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap();
    let (bytes, public) = (document.as_ref(), pair.public_key().as_ref().to_vec());
    // Version 1, then an octet string of 32 bytes.
    let start = bytes
        .windows(5)
        .position(|w| w == [2, 1, 1, 4, 32])
        .unwrap()
        + 5;
    (bytes.to_vec(), bytes[start..start + 32].to_vec(), public)
}

fn agent_of(dir: &TempDir, keys: &[&str]) -> Agent {
    let write = |(number, text): (usize, &&str)| {
        let path = dir.path().join(format!("key{number}"));
        fs::write(&path, text).unwrap();
        path
    };
    let paths: Vec<PathBuf> = keys.iter().enumerate().map(write).collect();
    Agent::open(&paths).unwrap()
}

fn sign_request(public: &[u8], data: &[u8], flags: u32) -> Vec<u8> {
    let mut request = vec![13];
    request.extend(strings(&[public, data]));
    request.extend(flags.to_be_bytes());
    request
}

#[tokio::test]
async fn a_step_reaches_the_agent_of_the_user_but_cannot_change_it() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(&dir);
    let agent = Agent::open(std::slice::from_ref(&upstream.path)).unwrap();
    let (_served, mut client) = served(&agent, &dir, &Reporter::silent()).await;
    let mut bind = vec![27];
    put_string(&mut bind, b"session-bind@openssh.com");
    let mut query = vec![27];
    put_string(&mut query, b"query");
    let sign = sign_request(b"key", b"data", 0);
    for request in [&[17, 1][..], &[18], &[19], &[22, 1], &[25], &query, &[]] {
        assert_eq!(ask(&mut client, request).await, [5], "{request:?}");
    }
    assert!(upstream.heard.lock().unwrap().is_empty());
    for request in [&[11][..], &sign, &bind] {
        assert_eq!(ask(&mut client, request).await, [99], "{request:?}");
    }
    assert_eq!(*upstream.heard.lock().unwrap(), [vec![11], sign, bind]);
}

#[tokio::test]
async fn sockets_are_private_and_go_with_their_step() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(&dir);
    let agent = Agent::open(std::slice::from_ref(&upstream.path)).unwrap();
    // Longer than the address of a socket.
    let deep = dir.path().join("d".repeat(120));
    let mut served = Served::new(deep.clone());
    assert!(!deep.exists());
    let task = Reporter::silent().task("step", None);
    let first = served.add(&agent, socket("a"), &task).unwrap();
    let second = served.add(&agent, socket("b"), &task).unwrap();
    assert_ne!(first, second);
    assert_eq!(fs::metadata(&first).unwrap().mode() & 0o777, 0o620);
    assert_eq!(fs::metadata(&deep).unwrap().mode() & 0o777, 0o700);
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&deep, &link).unwrap();
    let mut client = UnixStream::connect(link.join("0")).await.unwrap();
    assert_eq!(ask(&mut client, &[11]).await, [99]);
    drop(served);
    assert!(!deep.exists());
    assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0, "it hangs up");
}

#[tokio::test]
async fn messages_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(&dir);
    let agent = Agent::open(std::slice::from_ref(&upstream.path)).unwrap();
    let (_served, mut client) = served(&agent, &dir, &Reporter::silent()).await;
    let mut large = vec![13];
    large.resize(256 << 10, 0);
    assert_eq!(ask(&mut client, &large).await, [99]);
    large.push(0);
    // It hangs up without reading the rest.
    let _unsent = send(&mut client, &large).await;
    assert!(!matches!(receive(&mut client).await, Ok(Some(_))));
}

#[tokio::test]
async fn an_agent_that_is_gone_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(&dir);
    let agent = Agent::open(std::slice::from_ref(&upstream.path)).unwrap();
    fs::remove_file(&upstream.path).unwrap();
    let (reporter, events) = Reporter::new();
    let (served, mut client) = served(&agent, &dir, &reporter).await;
    assert_eq!(ask(&mut client, &[11]).await, [5]);
    let again = served.dir().join("0");
    let mut client = UnixStream::connect(again).await.unwrap();
    assert_eq!(ask(&mut client, &[11]).await, [5]);
    drop((served, client, reporter));
    let is_warning = |event: &Event| matches!(event, Event::Warning { text } if text.contains("`default` cannot be reached"));
    assert_eq!(events.try_iter().filter(is_warning).count(), 1);
}

#[tokio::test]
async fn keys_of_files_are_listed_and_sign() {
    let dir = tempfile::tempdir().unwrap();
    let (ed25519_file, ed25519_public) = ed25519();
    let (pkcs8, number, point) = p256();
    let number = [&[0], &number[..]].concat();
    let ecdsa_file = openssh(
        b"none",
        b"ecdsa-sha2-nistp256",
        &[b"nistp256", &point, &number],
    );
    let agent = agent_of(
        &dir,
        &[&ed25519_file, &ecdsa_file, &armored("PRIVATE KEY", &pkcs8)],
    );
    let (_served, mut client) = served(&agent, &dir, &Reporter::silent()).await;

    let answer = ask(&mut client, &[11]).await;
    let mut reader = Reader(&answer);
    assert_eq!((reader.byte(), reader.number()), (Some(12), Some(3)));
    let keys: Vec<&[u8]> = (0..3)
        .map(|_| {
            let key = reader.string().unwrap();
            assert_eq!(reader.string(), Some(&b""[..]), "no comment");
            key
        })
        .collect();
    assert_eq!(keys[0], strings(&[b"ssh-ed25519", &ed25519_public]));
    assert_eq!(
        keys[1],
        strings(&[b"ecdsa-sha2-nistp256", b"nistp256", &point])
    );
    assert_eq!(keys[1], keys[2]);

    let signature = signature_of(&mut client, keys[0], b"ssh-ed25519").await;
    let key = UnparsedPublicKey::new(&ED25519, &ed25519_public);
    key.verify(b"data", &signature).unwrap();

    let signature = signature_of(&mut client, keys[1], b"ecdsa-sha2-nistp256").await;
    let mut reader = Reader(&signature);
    let mut fixed = Vec::new();
    for _ in 0..2 {
        let integer = reader.integer().unwrap();
        fixed.extend(vec![0; 32 - integer.len()]);
        fixed.extend(integer);
    }
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point);
    key.verify(b"data", &fixed).unwrap();

    for request in [
        sign_request(b"another", b"data", 0),
        vec![13, 0, 0],
        vec![18],
    ] {
        assert_eq!(ask(&mut client, &request).await, [5]);
    }
}

async fn signature_of(client: &mut UnixStream, key: &[u8], kind: &[u8]) -> Vec<u8> {
    let answer = ask(client, &sign_request(key, b"data", 0)).await;
    let mut reader = Reader(&answer);
    assert_eq!(reader.byte(), Some(14));
    let mut reader = Reader(reader.string().unwrap());
    assert_eq!(reader.string(), Some(kind));
    reader.string().unwrap().to_vec()
}

#[test]
fn damaged_and_encrypted_keys_are_refused() {
    let (good, public) = ed25519();
    assert!(key_file::parse(good.as_bytes()).is_ok());
    let other = [9; 32];
    let wrong = [&[7; 32][..], &other].concat();
    for (text, expected) in [
        (
            openssh(b"aes256-ctr", b"ssh-ed25519", &[]),
            KeyError::Encrypted,
        ),
        (openssh(b"none", b"ssh-dss", &[]), KeyError::Unsupported),
        (
            openssh(b"none", b"sk-ssh-ed25519@openssh.com", &[]),
            KeyError::Unsupported,
        ),
        (
            openssh(b"none", b"ssh-ed25519", &[&public]),
            KeyError::Malformed,
        ),
        (
            openssh(b"none", b"ssh-ed25519", &[&other, &wrong]),
            KeyError::Malformed,
        ),
        (
            openssh(b"none", b"ssh-rsa", &[&[3_u8][..]; 6]),
            KeyError::Rsa,
        ),
        (openssh(b"none", b"ssh-rsa", &[&b""[..]; 6]), KeyError::Rsa),
        (
            openssh(
                b"none",
                b"ecdsa-sha2-nistp256",
                &[b"nistp256", &[4; 65], &[1; 40]],
            ),
            KeyError::Malformed,
        ),
        (
            openssh(
                b"none",
                b"ecdsa-sha2-nistp256",
                &[b"nistp521", &[4; 65], &[1]],
            ),
            KeyError::Unsupported,
        ),
    ] {
        assert_eq!(
            key_file::parse(text.as_bytes()).unwrap_err(),
            expected,
            "{text}"
        );
    }
    // Cut anywhere, it is an error and no more.
    for length in 0..good.len() - 36 {
        assert!(
            key_file::parse(&good.as_bytes()[..length]).is_err(),
            "{length}"
        );
    }
}

#[test]
fn keys_are_not_printed() {
    let dir = tempfile::tempdir().unwrap();
    let shown = format!("{:?}", agent_of(&dir, &[&ed25519().0]));
    assert_eq!(shown, "Agent(Keys([Key(Ed25519)]))");
}
