//! What of a cache is kept: by age, by size, by last use. Pure.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use kiln_graph::{Descriptor, Digest};

use crate::segment::{LayerList, Record, Segment};

/// How much of a cache is kept when its segments are put together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expiry {
    /// What was not used for so long goes.
    pub max_age: Option<Duration>,
    /// Bytes of blobs; what was not used for longest goes.
    pub max_size: Option<u64>,
}

/// What segments hold in all, each thing once, what was used last first.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Merged {
    pub(crate) records: Vec<Record>,
    pub(crate) lists: Vec<LayerList>,
}

/// When keys and layers were last used.
#[derive(Default)]
struct Uses(HashMap<Digest, i64>);

impl Uses {
    fn note(&mut self, what: &Digest, time: i64) {
        let noted = self.0.entry(*what).or_insert(time);
        *noted = time.max(*noted);
    }
}

/// Puts segments together, with the times of last use.
pub(crate) fn merged<'a>(segments: impl IntoIterator<Item = &'a Segment>) -> Merged {
    let (mut records, mut lists) = (HashMap::<Digest, Record>::new(), HashMap::new());
    let mut uses = Uses::default();
    for segment in segments {
        for what in &segment.used {
            uses.note(what, segment.written);
        }
        for record in &segment.records {
            uses.note(&record.key, record.used);
            let is_newer = records
                .get(&record.key)
                .is_none_or(|known| known.created < record.created);
            if is_newer {
                records.insert(record.key, record.clone());
            }
        }
        for list in &segment.lists {
            uses.note(&list.layer, list.used);
            lists.entry(list.layer).or_insert_with(|| list.clone());
        }
    }
    let mut records: Vec<Record> = records.into_values().collect();
    let mut lists: Vec<LayerList> = lists.into_values().collect();
    for record in &mut records {
        record.used = uses.0[&record.key];
    }
    for list in &mut lists {
        list.used = uses.0[&list.layer];
    }
    // Same inputs, same bytes.
    records.sort_by_key(|record| (Reverse(record.used), record.key));
    lists.sort_by_key(|list| (Reverse(list.used), list.layer));
    Merged { records, lists }
}

impl Expiry {
    /// Returns what is kept.
    pub(crate) fn kept(&self, all: Merged, now: i64) -> Merged {
        let is_young = |used: i64| {
            let age = now.saturating_sub(used).max(0).unsigned_abs();
            self.max_age.is_none_or(|limit| age < limit.as_secs())
        };
        let (mut counted, mut total) = (HashSet::new(), 0u64);
        let mut fits = |blobs: &mut dyn Iterator<Item = &Descriptor>| {
            let new = blobs.filter(|blob| counted.insert(blob.digest));
            total = new.fold(total, |sum, blob| sum.saturating_add(blob.size));
            self.max_size.is_none_or(|limit| total <= limit)
        };
        let records = all.records.into_iter();
        let records = records
            .filter(|record| is_young(record.used))
            .take_while(|record| fits(&mut record.blobs()))
            .collect();
        let lists = all.lists.into_iter();
        let lists = lists
            .filter(|list| is_young(list.used))
            .take_while(|list| fits(&mut list.list.blob().into_iter()))
            .collect();
        Merged { records, lists }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::tests::record;

    fn names(records: &[Record]) -> Vec<&str> {
        records.iter().map(|record| &record.name[4..]).collect()
    }

    #[test]
    fn keys_come_once_and_the_last_used_first() {
        let one = Segment::new(10, vec![record("a", 1, 5), record("b", 2, 5)]);
        let mut two = Segment::new(20, vec![record("b", 8, 6)]);
        two.used.push(Digest::blake3("a"));
        two.used.push(Digest::blake3("gone"));
        let merged = merged([&one, &two]).records;
        assert_eq!(names(&merged), ["a", "b"]);
        assert_eq!((merged[0].used, merged[1].used), (20, 8));
        assert_eq!(merged[1].blob.size, 6);
    }

    #[test]
    fn what_is_old_or_too_much_goes() {
        let all = || Merged {
            records: vec![record("a", 90, 5), record("b", 50, 5), record("c", 10, 5)],
            lists: Vec::new(),
        };
        let kept = |expiry: Expiry| expiry.kept(all(), 100).records.len();
        assert_eq!(kept(Expiry::default()), 3);
        let max_age = Some(Duration::from_secs(60));
        assert_eq!(
            kept(Expiry {
                max_age,
                ..Expiry::default()
            }),
            2
        );
        for (size, expected) in [(4, 0), (5, 1), (14, 2), (15, 3)] {
            let max_size = Some(size);
            assert_eq!(
                kept(Expiry {
                    max_size,
                    ..Expiry::default()
                }),
                expected
            );
        }
    }
}
