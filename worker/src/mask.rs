//! Shows `***` where a step writes a secret.
//!
//! Every line of a secret is looked for, blanks around it left out, as the step may print one of
//! them alone. The search is one automaton over all lines (Aho and Corasick, 1975), fed as output
//! comes: what may be the beginning of a secret is held back until it is known, so a secret that is
//! written in pieces is found, too. Held back is never more than the longest line.
//!
//! It does not find what a step has changed: encoded, reversed, cut into columns.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Lines that are shorter are not looked for: they would be found everywhere.
const MIN_LENGTH: usize = 4;

const MASK: &[u8] = b"***";

/// What is looked for; clones are cheap.
#[derive(Clone)]
pub(crate) struct Masks {
    automaton: Arc<Automaton>,
}

/// Masks one stream of output.
pub(crate) struct Masker {
    automaton: Arc<Automaton>,
    state: u32,
    /// What came and was not passed on.
    held: Vec<u8>,
    /// Parts of `held` that are secret, in order, apart from each other.
    secret: VecDeque<(usize, usize)>,
    /// What was shown last is a mask; what is secret right behind it needs no other.
    after_mask: bool,
}

/// A trie of all lines; each state stands for what was read last.
#[derive(Default)]
struct Automaton {
    next: HashMap<(u32, u8), u32>,
    states: Vec<State>,
}

#[derive(Clone, Copy, Default)]
struct State {
    /// Bytes from the root.
    depth: u32,
    /// The state of the longest proper suffix.
    fallback: u32,
    /// Length of the longest line that ends here, or 0.
    matched: u32,
    /// Some line is longer.
    goes_on: bool,
}

const ROOT: u32 = 0;

impl fmt::Debug for Masks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Masks(…)")
    }
}

impl Masks {
    /// Returns what finds these secrets, or `None` if there is nothing to find.
    pub(crate) fn new<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let mut automaton = Automaton {
            next: HashMap::new(),
            states: vec![State::default()],
        };
        for secret in secrets {
            let lines = secret.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
            for line in lines.filter(|line| line.len() >= MIN_LENGTH) {
                automaton.insert(line);
            }
        }
        if automaton.next.is_empty() {
            return None;
        }
        automaton.link();
        Some(Self {
            automaton: Arc::new(automaton),
        })
    }

    /// Returns a masker for one stream.
    pub(crate) fn masker(&self) -> Masker {
        Masker {
            automaton: Arc::clone(&self.automaton),
            state: ROOT,
            held: Vec::new(),
            secret: VecDeque::new(),
            after_mask: false,
        }
    }
}

impl Masker {
    /// Takes output and returns what of it, and of what was held back, can be shown.
    pub(crate) fn push(&mut self, data: &[u8]) -> Vec<u8> {
        for &byte in data {
            self.held.push(byte);
            self.state = self.automaton.step(self.state, byte);
            let state = self.automaton.state(self.state);
            if state.matched > 0 {
                let end = self.held.len();
                self.mark(end - state.matched as usize, end);
            }
            if !state.goes_on {
                // At the end of a line: nothing but a suffix can go on.
                self.state = state.fallback;
            }
        }
        let may_go_on = self.automaton.state(self.state).depth as usize;
        self.release(self.held.len() - may_go_on)
    }

    /// Returns what is held back: no more comes.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        self.state = ROOT;
        self.release(self.held.len())
    }

    /// Marks a part as secret; parts come in the order of their ends.
    fn mark(&mut self, mut start: usize, end: usize) {
        while let Some(&(before, _)) = self.secret.back().filter(|last| last.1 >= start) {
            start = start.min(before);
            self.secret.pop_back();
        }
        self.secret.push_back((start, end));
    }

    /// Returns the first `length` bytes, masked. Of a secret that reaches beyond, the rest is
    /// dropped without a further mask when it is released.
    fn release(&mut self, length: usize) -> Vec<u8> {
        let mut shown = Vec::with_capacity(length);
        let mut from = 0;
        while let Some((start, end)) = self.secret.front().copied().filter(|p| p.0 < length) {
            self.show(from..start, &mut shown);
            if !self.after_mask {
                shown.extend_from_slice(MASK);
                self.after_mask = true;
            }
            from = end.min(length);
            if end > length {
                break;
            }
            self.secret.pop_front();
        }
        self.show(from..length, &mut shown);
        self.held.drain(..length);
        for (start, end) in &mut self.secret {
            *start = start.saturating_sub(length);
            *end -= length;
        }
        shown
    }

    fn show(&mut self, part: Range<usize>, shown: &mut Vec<u8>) {
        if !part.is_empty() {
            shown.extend_from_slice(&self.held[part]);
            self.after_mask = false;
        }
    }
}

impl Automaton {
    fn state(&self, state: u32) -> State {
        self.states[state as usize]
    }

    fn insert(&mut self, line: &[u8]) {
        let mut state = ROOT;
        for &byte in line {
            let fresh = u32::try_from(self.states.len()).expect("secrets are small");
            let next = *self.next.entry((state, byte)).or_insert(fresh);
            if next == fresh {
                let depth = self.state(state).depth + 1;
                self.states.push(State {
                    depth,
                    ..State::default()
                });
                self.states[state as usize].goes_on = true;
            }
            state = next;
        }
        self.states[state as usize].matched = self.state(state).depth;
    }

    /// Finds for every state the one to fall back to, nearer to the root first.
    fn link(&mut self) {
        let mut edges: Vec<(u32, u8, u32)> = self
            .next
            .iter()
            .map(|(&(from, byte), &to)| (from, byte, to))
            .collect();
        edges.sort_unstable_by_key(|&(from, _, _)| self.state(from).depth);
        for (from, byte, to) in edges {
            let fallback = if from == ROOT {
                ROOT
            } else {
                self.step(self.state(from).fallback, byte)
            };
            let inherited = self.state(fallback).matched;
            let state = &mut self.states[to as usize];
            state.fallback = fallback;
            state.matched = state.matched.max(inherited);
        }
    }

    fn step(&self, mut state: u32, byte: u8) -> u32 {
        loop {
            if let Some(&next) = self.next.get(&(state, byte)) {
                return next;
            }
            if state == ROOT {
                return ROOT;
            }
            state = self.state(state).fallback;
        }
    }
}

#[cfg(test)]
mod tests;
