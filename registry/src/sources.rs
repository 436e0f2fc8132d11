//! Going through the places that may have an image, until one gives it.
//!
//! A mirror that fails is told of once; one that is broken is not asked again by this client. What
//! a mirror does not have is nothing to tell. The registry's own failure is the one that counts.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::client::Client;
use crate::error::RegistryError;
use crate::host::Host;
use crate::reference::Reference;

/// The places that have not been asked yet; the last one is the registry itself.
#[derive(Debug)]
pub(crate) struct Sources {
    left: VecDeque<(Reference, Arc<Host>)>,
    now: Option<Arc<Host>>,
}

impl Client {
    /// Returns where an image may be, without mirrors that were given up.
    pub(crate) fn sources(&self, reference: &Reference) -> Result<Sources, RegistryError> {
        let mut left = VecDeque::new();
        for source in self.config().registries.sources(reference)? {
            let host = self.host_at(&source)?;
            if !host.is_given_up.load(Ordering::Relaxed) {
                left.push_back((source.reference, host));
            }
        }
        Ok(Sources { left, now: None })
    }
}

impl Sources {
    /// Returns the next place, and the name that the image has there.
    pub(crate) fn next(&mut self) -> (Reference, Arc<Host>) {
        let next = self.left.pop_front();
        let (reference, host) = next.expect("the last one's failure ends it");
        self.now = Some(host.clone());
        (reference, host)
    }

    /// Goes on to the next place, unless nobody could help or nobody is left.
    pub(crate) fn go_on(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        match self.now.take() {
            Some(mirror) if mirror.role.is_mirror => note(&mirror, error),
            _ => Err(error),
        }
    }
}

/// Tells of a mirror's failure, unless it is the caller's own.
fn note(mirror: &Host, error: RegistryError) -> Result<(), RegistryError> {
    match &error {
        RegistryError::Local { .. } => return Err(error),
        RegistryError::NotFound { .. } => {
            tracing::debug!(mirror = mirror.name, %error, "the mirror does not have it");
            return Ok(());
        }
        // It may serve others, or other images.
        RegistryError::Denied { .. } => {}
        _ => mirror.is_given_up.store(true, Ordering::Relaxed),
    }
    warn(mirror, &error);
    Ok(())
}

fn warn(mirror: &Host, error: &RegistryError) {
    if !mirror.is_told.swap(true, Ordering::Relaxed) {
        let mirror = &mirror.name;
        tracing::warn!(%mirror, %error, "the mirror failed, the registry is asked instead");
    }
}

/// Wrong bytes of which mirrors sent some are theirs: they are given up.
pub(crate) fn blamed_on(mirrors: &[Arc<Host>], error: RegistryError) -> RegistryError {
    let (
        [.., last],
        RegistryError::WrongDigest {
            operation,
            expected,
            actual,
        },
    ) = (mirrors, &error)
    else {
        return error;
    };
    let error = RegistryError::WrongDigest {
        operation: operation.at_mirror(&last.name),
        expected: *expected,
        actual: *actual,
    };
    for mirror in mirrors {
        mirror.is_given_up.store(true, Ordering::Relaxed);
    }
    warn(last, &error);
    error
}
