//! The in-flight table: which vertex does the work of a key, and who waits for it.
//!
//! Equal keys make equal layers, but not equal values: two vertices may see the same and stand on
//! different roots. So a vertex that joins another does not take its value; it waits until the
//! other is done and then looks the action up on its own inputs. If that finds nothing (the store
//! could not be written), it runs after all.
//!
//! Invariant: of one key, at most one vertex is between claiming and settling.

use std::collections::HashMap;

use kiln_graph::{Digest, VertexId};

/// Who does the work of which key.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    by_key: HashMap<Digest, Claim>,
}

/// What a vertex does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It asks the worker for a recorded action.
    Lookup,
    /// It runs.
    Run,
    /// It waits until [`Claims::settle`] returns it, then enters again.
    Wait,
}

#[derive(Debug)]
enum Claim {
    InFlight {
        owner: VertexId,
        waiting: Vec<VertexId>,
    },
    /// `produced`: by running in this solve, not found in a cache.
    Settled { produced: bool },
}

impl Claims {
    /// Says what `vertex` does, whose key is `key`.
    ///
    /// With `ignore_cache` an action counts only if this solve has produced it.
    pub(crate) fn enter(&mut self, key: Digest, vertex: VertexId, ignore_cache: bool) -> Turn {
        match self.by_key.get_mut(&key) {
            Some(Claim::InFlight { waiting, .. }) => {
                waiting.push(vertex);
                Turn::Wait
            }
            Some(Claim::Settled { produced }) if *produced || !ignore_cache => Turn::Lookup,
            None if !ignore_cache => self.claim(key, vertex, Turn::Lookup),
            Some(Claim::Settled { .. }) | None => self.claim(key, vertex, Turn::Run),
        }
    }

    /// Says what `vertex` does, whose lookup found nothing.
    pub(crate) fn miss(&mut self, key: Digest, vertex: VertexId) -> Turn {
        match self.by_key.get_mut(&key) {
            Some(Claim::InFlight { owner, .. }) if *owner == vertex => Turn::Run,
            Some(Claim::InFlight { waiting, .. }) => {
                waiting.push(vertex);
                Turn::Wait
            }
            Some(Claim::Settled { .. }) | None => self.claim(key, vertex, Turn::Run),
        }
    }

    /// Notes that `vertex` has its value; returns those that waited for it and now enter again.
    pub(crate) fn settle(
        &mut self,
        key: Digest,
        vertex: VertexId,
        produced: bool,
    ) -> Vec<VertexId> {
        let Some(claim) = self.by_key.get_mut(&key) else {
            return Vec::new();
        };
        match claim {
            Claim::InFlight { owner, waiting } if *owner == vertex => {
                let waiting = std::mem::take(waiting);
                *claim = Claim::Settled { produced };
                waiting
            }
            // It joined: the owner has settled, or somebody else owns the key by now.
            Claim::InFlight { .. } | Claim::Settled { .. } => Vec::new(),
        }
    }

    fn claim(&mut self, key: Digest, owner: VertexId, turn: Turn) -> Turn {
        let waiting = Vec::new();
        self.by_key.insert(key, Claim::InFlight { owner, waiting });
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: VertexId = VertexId(1);
    const B: VertexId = VertexId(2);
    const C: VertexId = VertexId(3);

    fn key() -> Digest {
        Digest::blake3("key")
    }

    #[test]
    fn second_waits_and_looks_up_what_the_first_produced() {
        let mut claims = Claims::default();
        assert_eq!(claims.enter(key(), A, false), Turn::Lookup);
        assert_eq!(claims.enter(key(), B, false), Turn::Wait);
        assert_eq!(claims.miss(key(), A), Turn::Run);
        assert_eq!(claims.settle(key(), A, true), vec![B]);
        assert_eq!(claims.enter(key(), B, false), Turn::Lookup);
        assert_eq!(claims.settle(key(), B, false), vec![]);
    }

    #[test]
    fn a_joined_lookup_that_misses_runs_one_at_a_time() {
        let mut claims = Claims::default();
        claims.enter(key(), A, false);
        claims.enter(key(), B, false);
        claims.enter(key(), C, false);
        claims.settle(key(), A, true);
        assert_eq!(claims.enter(key(), B, false), Turn::Lookup);
        assert_eq!(claims.enter(key(), C, false), Turn::Lookup);
        assert_eq!(claims.miss(key(), C), Turn::Run);
        assert_eq!(claims.miss(key(), B), Turn::Wait);
        assert_eq!(claims.settle(key(), C, true), vec![B]);
    }

    #[test]
    fn ignoring_the_cache_takes_only_what_was_produced_now() {
        let mut claims = Claims::default();
        assert_eq!(claims.enter(key(), A, true), Turn::Run);
        claims.settle(key(), A, true);
        assert_eq!(claims.enter(key(), B, true), Turn::Lookup);

        let mut claims = Claims::default();
        assert_eq!(claims.enter(key(), A, false), Turn::Lookup);
        claims.settle(key(), A, false);
        assert_eq!(claims.enter(key(), B, true), Turn::Run);
        claims.settle(key(), B, true);
        assert_eq!(claims.enter(key(), C, true), Turn::Lookup);
    }

    #[test]
    fn different_keys_do_not_meet() {
        let mut claims = Claims::default();
        assert_eq!(claims.enter(key(), A, false), Turn::Lookup);
        let other = Digest::blake3("other");
        assert_eq!(claims.enter(other, B, false), Turn::Lookup);
    }
}
