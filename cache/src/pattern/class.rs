//! Sets of characters: ranges, and what negation makes of them.

use std::ops::RangeInclusive;

/// A set of characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Class {
    negated: bool,
    ranges: Vec<RangeInclusive<char>>,
}

impl Class {
    /// Returns the set of these ranges, or of all other characters.
    pub(super) fn new(negated: bool, ranges: Vec<RangeInclusive<char>>) -> Self {
        Self { negated, ranges }
    }

    /// Returns the set of one character.
    pub(super) fn one(c: char) -> Self {
        Self::new(false, vec![c..=c])
    }

    /// Returns the set of all characters but one.
    pub(super) fn all_but(c: char) -> Self {
        Self::new(true, vec![c..=c])
    }

    /// Returns the characters of the set as ranges.
    pub(super) fn into_ranges(self) -> Vec<RangeInclusive<char>> {
        if self.negated {
            complement(&self.ranges)
        } else {
            self.ranges
        }
    }

    pub(super) fn has(&self, c: char) -> bool {
        self.ranges.iter().any(|range| range.contains(&c)) != self.negated
    }
}

/// Returns the ranges that hold what `ranges`, which are sorted, do not.
pub(super) fn complement(ranges: &[RangeInclusive<char>]) -> Vec<RangeInclusive<char>> {
    let mut rest = Vec::new();
    let mut low = '\0';
    for range in ranges {
        if low < *range.start() {
            rest.push(low..=before(*range.start()));
        }
        low = after(*range.end());
    }
    rest.push(low..=char::MAX);
    rest
}

// The sets that are complemented hold only ASCII, so neither end is near the surrogates.
fn before(c: char) -> char {
    char::from_u32(u32::from(c) - 1).unwrap_or(c)
}

fn after(c: char) -> char {
    char::from_u32(u32::from(c) + 1).unwrap_or(c)
}
