//! What a host is known to want: its challenge, and the tokens that answer it.
//!
//! A cache. Fetching tokens is `token`'s, finding logins is `credentials`'.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{HeaderValue, InvalidHeaderValue};

use crate::challenge::Challenge;
use crate::scope::Scope;

/// The lifetime of a token that names none (Docker's token specification).
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);
/// How long before its end a token is no longer used.
const MARGIN: Duration = Duration::from_secs(10);

/// The place of one token. Its lock is held while the token is fetched, so that all who need
/// the token wait for one fetch.
pub(crate) type Slot = Arc<tokio::sync::Mutex<Option<Token>>>;

/// What one host is known to want.
#[derive(Debug, Default)]
pub(crate) struct Auth {
    /// The last challenge, without its scope.
    challenge: Mutex<Option<Challenge>>,
    /// One slot for each set of scopes.
    tokens: Mutex<HashMap<Vec<Scope>, Slot>>,
}

/// An `Authorization` that holds for a while.
pub(crate) struct Token {
    header: HeaderValue,
    until: Instant,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Auth {
    pub(crate) fn challenge(&self) -> Option<Challenge> {
        lock(&self.challenge).clone()
    }

    /// Remembers a challenge for the requests that follow.
    pub(crate) fn learn(&self, mut challenge: Challenge) {
        if let Challenge::Bearer(bearer) = &mut challenge {
            bearer.scope = None;
        }
        *lock(&self.challenge) = Some(challenge);
    }

    pub(crate) fn slot(&self, scopes: &[Scope]) -> Slot {
        lock(&self.tokens)
            .entry(scopes.to_vec())
            .or_default()
            .clone()
    }
}

impl Token {
    pub(crate) fn new(token: &str, lifetime: Option<u64>) -> Result<Self, InvalidHeaderValue> {
        let lifetime = lifetime.map_or(DEFAULT_LIFETIME, Duration::from_secs);
        let used = lifetime.saturating_sub(MARGIN).max(lifetime / 2);
        // No token is used for longer than a day.
        let used = used.min(Duration::from_secs(24 * 3600));
        Ok(Self {
            header: bearer_header(token)?,
            until: Instant::now() + used,
        })
    }

    /// Returns the header, however old it is: for the request that the token was fetched for.
    pub(crate) fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    /// Returns the header, unless it is too old, or is the one that was refused.
    pub(crate) fn usable(&self, refused: Option<&HeaderValue>) -> Option<HeaderValue> {
        let is_usable = Instant::now() < self.until && Some(&self.header) != refused;
        is_usable.then(|| self.header.clone())
    }
}

pub(crate) fn bearer_header(token: &str) -> Result<HeaderValue, InvalidHeaderValue> {
    secret_header(&format!("Bearer {token}"))
}

pub(crate) fn basic_header(user: &str, password: &str) -> Result<HeaderValue, InvalidHeaderValue> {
    let pair = STANDARD.encode(format!("{user}:{password}"));
    secret_header(&format!("Basic {pair}"))
}

fn secret_header(text: &str) -> Result<HeaderValue, InvalidHeaderValue> {
    let mut header = HeaderValue::from_str(text)?;
    header.set_sensitive(true);
    Ok(header)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_end_before_their_time_and_when_refused() {
        let token = Token::new("t", Some(300)).unwrap();
        let header = token.usable(None).unwrap();
        assert_eq!(header, "Bearer t");
        assert_eq!(token.usable(Some(&header)), None);
        assert_eq!(Token::new("t", Some(0)).unwrap().usable(None), None);
        assert!(Token::new("t", None).unwrap().usable(None).is_some());
        assert!(Token::new("t", Some(u64::MAX)).is_ok());
        assert!(Token::new("a\nb", None).is_err());
    }

    #[test]
    fn headers_hide_their_secrets() {
        let header = basic_header("u", "hunter2").unwrap();
        assert!(header.is_sensitive());
        assert_eq!(header, "Basic dTpodW50ZXIy");
    }
}
