//! What a step may ask an agent (RFC 9987), and what our own answers.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::agents::key::Key;
use crate::agents::wire::{Reader, put_string};

/// The largest message in bytes, as in OpenSSH.
const MAX_MESSAGE: usize = 256 << 10;

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
const EXTENSION: u8 = 27;

/// Binds a connection to a session, so that keys with constraints can be used
/// (OpenSSH, `PROTOCOL.agent`).
const SESSION_BIND: &[u8] = b"session-bind@openssh.com";

/// Reads a message; `None` if there is no other.
pub(crate) async fn receive(stream: &mut UnixStream) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match stream.read(&mut length).await? {
        0 => return Ok(None),
        n => stream.read_exact(&mut length[n..]).await?,
    };
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_MESSAGE {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

/// Writes a message.
pub(crate) async fn send(stream: &mut UnixStream, message: &[u8]) -> io::Result<()> {
    let mut framed = Vec::with_capacity(message.len() + 4);
    put_string(&mut framed, message);
    stream.write_all(&framed).await
}

/// Returns true for what a step may ask: to list identities, to sign, to bind its session.
pub(crate) fn is_allowed(request: &[u8]) -> bool {
    let mut reader = Reader(request);
    match reader.byte() {
        Some(REQUEST_IDENTITIES) => reader.0.is_empty(),
        Some(SIGN_REQUEST) => true,
        Some(EXTENSION) => reader.string() == Some(SESSION_BIND),
        _ => false,
    }
}

/// Returns the answer that says no.
pub(crate) fn refusal() -> Vec<u8> {
    vec![FAILURE]
}

/// Returns the answer of an agent that has these keys.
pub(crate) fn answer(keys: &[Key], request: &[u8]) -> Vec<u8> {
    let mut reader = Reader(request);
    let answer = match reader.byte() {
        Some(REQUEST_IDENTITIES) => Some(identities(keys)),
        Some(SIGN_REQUEST) => signed(keys, &mut reader),
        _ => None,
    };
    answer.unwrap_or_else(refusal)
}

fn identities(keys: &[Key]) -> Vec<u8> {
    let mut out = vec![IDENTITIES_ANSWER];
    let n_keys = u32::try_from(keys.len()).expect("keys were named one by one");
    out.extend_from_slice(&n_keys.to_be_bytes());
    for key in keys {
        put_string(&mut out, key.public());
        // The comment, which would say who and where the user is.
        put_string(&mut out, b"");
    }
    out
}

fn signed(keys: &[Key], reader: &mut Reader<'_>) -> Option<Vec<u8>> {
    let (public, data, flags) = (reader.string()?, reader.string()?, reader.number()?);
    let key = keys.iter().find(|key| key.public() == public)?;
    let mut out = vec![SIGN_RESPONSE];
    put_string(&mut out, &key.sign(data, flags)?);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_can_list_and_sign_and_nothing_else() {
        let extension = |name: &[u8]| {
            let mut request = vec![EXTENSION];
            put_string(&mut request, name);
            request
        };
        assert!(is_allowed(&[REQUEST_IDENTITIES]));
        assert!(is_allowed(&[SIGN_REQUEST, 0]));
        assert!(is_allowed(&extension(SESSION_BIND)));
        assert!(!is_allowed(&extension(b"query")));
        assert!(!is_allowed(&[EXTENSION]));
        assert!(!is_allowed(&[REQUEST_IDENTITIES, 0]));
        assert!(!is_allowed(&[]));
        // Version 1 of SSH, adding, removing, locking, smart cards.
        let others = (0..=255).filter(|kind| ![11, 13, 27].contains(kind));
        for kind in others {
            assert!(
                !is_allowed(&[kind]) && !is_allowed(&[kind, 0, 0, 0, 0]),
                "{kind}"
            );
        }
    }

    #[test]
    fn an_agent_without_keys_says_so() {
        assert_eq!(
            answer(&[], &[REQUEST_IDENTITIES]),
            [IDENTITIES_ANSWER, 0, 0, 0, 0]
        );
        for request in [&[][..], &[SIGN_REQUEST], &[SIGN_REQUEST, 0, 0, 0, 9], &[25]] {
            assert_eq!(answer(&[], request), refusal(), "{request:?}");
        }
    }
}
