//! What of the cache a build uses, and why it does not use the rest.

use std::time::Duration;

use kiln_cache::Store;
use kiln_graph::{Digest, Record};
use kiln_solver::{MAX_DIFFERENCES, Reason};

use crate::copy::now;
use crate::error::WorkerError;

/// What of the cache a build accepts, and what it leaves there of itself.
#[derive(Debug, Clone, Default)]
pub struct Reuse {
    /// Age from which on an action is as good as none.
    pub max_age: Option<Duration>,
    /// What is recorded as the origin of actions: the context and the Dockerfile.
    pub origin: String,
}

impl Reuse {
    /// Returns true for an action of a time that is not accepted.
    pub(crate) fn is_too_old(&self, created: i64) -> bool {
        let age = now().seconds.saturating_sub(created).unsigned_abs();
        self.max_age.is_some_and(|limit| age >= limit.as_secs())
    }

    /// Returns why no recorded action could be used for a key.
    pub(crate) fn reason(
        &self,
        store: &Store,
        (key, record): (&Digest, &Record),
        name: &str,
    ) -> Result<Reason, WorkerError> {
        if let Some(action) = store.action(key)? {
            let since = action.created;
            return Ok(match self.is_too_old(since) {
                true => Reason::Expired { since },
                false => Reason::Gone { since },
            });
        }
        let mut nearest: Option<(usize, Reason)> = None;
        for action in store.alike(name, &self.origin)? {
            let Some(before) = store.record(&action.key)? else {
                continue;
            };
            let mut differences = record.differences(&before);
            let n_differences = differences.len();
            // The latest of those that are equally near.
            if nearest.as_ref().is_some_and(|(n, _)| *n <= n_differences) {
                continue;
            }
            differences.truncate(MAX_DIFFERENCES);
            let reason = Reason::Changed {
                since: action.created,
                step: action.name,
                differences,
                n_differences,
            };
            nearest = Some((n_differences, reason));
            // Nothing can be nearer.
            if n_differences <= 1 {
                break;
            }
        }
        Ok(nearest.map_or(Reason::New, |(_, reason)| reason))
    }
}
