//! Trying again: what may pass, how long to wait, when to give up.
//!
//! Pauses double, with some chance in them so that many clients do not come back at once. What a
//! registry asks for in `Retry-After` (in seconds) is kept, unless it is longer than the caller
//! would wait.

use std::error::Error;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::config::Config;
use crate::error::{Operation, RegistryError};
use crate::host::Host;
use crate::tls::tls_cause;

/// Hosts that cannot be connected to at all are given up sooner.
const MAX_CONNECT_RETRIES: u32 = 2;
/// Mirrors are given up sooner, too: what they have is elsewhere.
const MAX_MIRROR_RETRIES: u32 = 1;

/// Why an attempt failed.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Trying again changes nothing.
    Final(RegistryError),
    /// It may pass.
    Passing {
        error: RegistryError,
        /// No connection was made.
        is_connect: bool,
        /// When the registry wants to be asked again.
        after: Option<Duration>,
    },
}

impl From<RegistryError> for Trouble {
    fn from(error: RegistryError) -> Self {
        Self::Final(error)
    }
}

impl Trouble {
    pub(crate) fn passing(error: RegistryError) -> Self {
        Self::Passing {
            error,
            is_connect: false,
            after: None,
        }
    }

    /// Silence on a connection for longer than agreed.
    pub(crate) fn silence(operation: &Arc<Operation>, limit: Duration) -> Self {
        let text = format!("it was silent for {} s", limit.as_secs_f32());
        let error = io::Error::new(io::ErrorKind::TimedOut, text);
        Self::passing(RegistryError::unreachable(operation, error))
    }

    /// Less on a connection than makes sense.
    pub(crate) fn drip(operation: &Arc<Operation>, n_bytes: usize, limit: Duration) -> Self {
        let text = format!("it sent {n_bytes} bytes in {} s", limit.as_secs_f32());
        let error = io::Error::new(io::ErrorKind::TimedOut, text);
        Self::passing(RegistryError::unreachable(operation, error))
    }

    /// A request that got no answer, or a body that broke off.
    pub(crate) fn transport(operation: &Arc<Operation>, error: reqwest::Error) -> Self {
        let is_connect = error.is_connect();
        let is_final = error.is_builder() || refuses_certificate(&error);
        let error = RegistryError::unreachable(operation, error.without_url());
        if is_final {
            return Self::Final(error);
        }
        Self::Passing {
            error,
            is_connect,
            after: None,
        }
    }

    /// An error status with its body.
    pub(crate) fn status(
        operation: &Arc<Operation>,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Self {
        let error = RegistryError::status(operation, status, body);
        if !matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504) {
            return Self::Final(error);
        }
        let after = headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok());
        let after = after.and_then(|text| text.trim().parse().ok());
        Self::Passing {
            error,
            is_connect: false,
            after: after.map(Duration::from_secs),
        }
    }
}

/// Returns true if the cause is a certificate that will be as bad the next time.
fn refuses_certificate(error: &(dyn Error + 'static)) -> bool {
    matches!(tls_cause(error), Some(rustls::Error::InvalidCertificate(_)))
}

/// Counts attempts and waits between them.
#[derive(Debug)]
pub(crate) struct Backoff<'a> {
    config: &'a Config,
    max_retries: u32,
    n_pauses: u32,
}

impl<'a> Backoff<'a> {
    pub(crate) fn new(config: &'a Config) -> Self {
        Self {
            config,
            max_retries: config.retries,
            n_pauses: 0,
        }
    }

    /// Returns a count for requests to one host.
    pub(crate) fn at(config: &'a Config, host: &Host) -> Self {
        let mut backoff = Self::new(config);
        if host.role.is_mirror {
            backoff.max_retries = config.retries.min(MAX_MIRROR_RETRIES);
        }
        backoff
    }

    /// Starts counting again, because something was achieved.
    pub(crate) fn reset(&mut self) {
        self.n_pauses = 0;
    }

    /// Waits if trying again is worth it; else returns the error.
    pub(crate) async fn pause(&mut self, trouble: Trouble) -> Result<(), RegistryError> {
        let (error, pause) = match self.next(&trouble) {
            Some(pause) => (trouble.into_error(), pause),
            None => return Err(trouble.into_error()),
        };
        tracing::debug!(%error, ?pause, attempt = self.n_pauses, "trying again");
        tokio::time::sleep(pause).await;
        Ok(())
    }

    fn next(&mut self, trouble: &Trouble) -> Option<Duration> {
        let Trouble::Passing {
            is_connect, after, ..
        } = trouble
        else {
            return None;
        };
        let limit = if *is_connect {
            self.max_retries.min(MAX_CONNECT_RETRIES)
        } else {
            self.max_retries
        };
        let max = self.config.max_pause;
        if self.n_pauses >= limit || after.is_some_and(|after| after > max) {
            return None;
        }
        let doubled = self
            .config
            .backoff
            .saturating_mul(1 << self.n_pauses.min(16));
        self.n_pauses += 1;
        let pause = doubled.min(max).mul_f64(chance());
        Some(after.unwrap_or_default().max(pause))
    }
}

impl Trouble {
    pub(crate) fn into_error(self) -> RegistryError {
        match self {
            Self::Final(error) | Self::Passing { error, .. } => error,
        }
    }
}

/// Returns a number from 0.75 to 1.
fn chance() -> f64 {
    let random = RandomState::new().hash_one(0) % 1024;
    let fraction = f64::from(u16::try_from(random).unwrap_or_default()) / 1024.0;
    0.75 + fraction / 4.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passing(is_connect: bool, after: Option<u64>) -> Trouble {
        let operation = Operation::new("pull blob", "x".to_owned(), "h");
        Trouble::Passing {
            error: RegistryError::unreachable(&operation, "test"),
            is_connect,
            after: after.map(Duration::from_secs),
        }
    }

    #[test]
    fn pauses_double_and_end() {
        let config = Config::default();
        let mut backoff = Backoff::new(&config);
        let mut pauses = Vec::new();
        while let Some(pause) = backoff.next(&passing(false, None)) {
            pauses.push(pause.as_millis());
        }
        let n_retries = usize::try_from(config.retries).unwrap();
        assert_eq!(pauses.len(), n_retries);
        for (pause, full) in pauses.iter().zip([500, 1000, 2000, 4000, 8000]) {
            assert!(*pause >= full * 3 / 4 && *pause <= full, "{pauses:?}");
        }
        backoff.reset();
        assert!(backoff.next(&passing(false, None)).is_some());
    }

    #[test]
    fn hosts_that_refuse_connections_are_given_up_sooner() {
        let config = Config::default();
        let mut backoff = Backoff::new(&config);
        assert!(backoff.next(&passing(true, None)).is_some());
        assert!(backoff.next(&passing(true, None)).is_some());
        assert!(backoff.next(&passing(true, None)).is_none());
    }

    #[test]
    fn retry_after_is_kept_or_too_long() {
        let config = Config::default();
        let mut backoff = Backoff::new(&config);
        let pause = backoff.next(&passing(false, Some(7)));
        assert_eq!(pause, Some(Duration::from_secs(7)));
        assert_eq!(backoff.next(&passing(false, Some(3600))), None);
    }
}
