//! Subordinate ids: which ranges `/etc/subuid` and `/etc/subgid` give to a user. Pure.

use std::fmt::Write as _;

/// A range of ids outside, mapped to as many inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub inside: u32,
    pub outside: u32,
    pub count: u32,
}

/// Returns the ranges that `table` gives to a user, by name or number.
pub(crate) fn ranges(table: &str, name: Option<&str>, id: u32) -> Vec<(u32, u32)> {
    let id = id.to_string();
    table
        .lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let owner = fields.next()?;
            let start = fields.next()?.parse().ok()?;
            let count: u32 = fields.next()?.parse().ok()?;
            let is_theirs = owner == id || Some(owner) == name;
            (is_theirs && count > 0).then_some((start, count))
        })
        .collect()
}

/// Returns the name of a user in an account file.
pub(crate) fn name_of(passwd: &str, id: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then_some(name)
    })
}

/// Maps 0 to a user's own id, and what follows to the ranges, one after the other.
pub(crate) fn layout(own: u32, ranges: &[(u32, u32)]) -> Vec<Extent> {
    let mut extents = vec![Extent {
        inside: 0,
        outside: own,
        count: 1,
    }];
    let mut next = 1u32;
    for &(outside, count) in ranges {
        let count = count.min(u32::MAX - next);
        extents.push(Extent {
            inside: next,
            outside,
            count,
        });
        next = next.saturating_add(count);
    }
    extents
}

/// Parses a map as the kernel shows it.
pub(crate) fn parse_map(text: &str) -> Vec<Extent> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace().map(str::parse);
            Some(Extent {
                inside: fields.next()?.ok()?,
                outside: fields.next()?.ok()?,
                count: fields.next()?.ok()?,
            })
        })
        .collect()
}

/// Returns the map that gives a namespace inside this one all of its ids under the same numbers.
pub(crate) fn identity_map(extents: &[Extent]) -> String {
    let mut text = String::new();
    for Extent { inside, count, .. } in extents {
        let _infallible = writeln!(text, "{inside} {inside} {count}");
    }
    text
}

/// Returns how many ids are mapped.
pub(crate) fn n_ids(extents: &[Extent]) -> u64 {
    extents.iter().map(|extent| u64::from(extent.count)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let table = "other:1:2\npeer:100000:65536\nbroken\n1000:500000:10\npeer:7:0\n";
        let found = ranges(table, Some("peer"), 1000);
        assert_eq!(found, [(100_000, 65_536), (500_000, 10)]);
        assert!(ranges(table, None, 1001).is_empty());
    }

    #[test]
    fn names_come_from_the_account_file() {
        let passwd = "root:x:0:0::/root:/bin/sh\npeer:x:1000:1000::/home/peer:/bin/sh\n";
        assert_eq!(name_of(passwd, 1000), Some("peer"));
        assert_eq!(name_of(passwd, 5), None);
    }

    #[test]
    fn the_layout_is_contiguous_inside() {
        let extents = layout(1000, &[(100_000, 65_536), (500_000, 10)]);
        let inside: Vec<u32> = extents.iter().map(|extent| extent.inside).collect();
        assert_eq!(inside, [0, 1, 65_537]);
        assert_eq!(n_ids(&extents), 65_547);
        assert_eq!(identity_map(&extents), "0 0 1\n1 1 65536\n65537 65537 10\n");
    }

    #[test]
    fn the_kernels_map_is_read_back() {
        let map = "         0          0 4294967295\n";
        let whole = Extent {
            inside: 0,
            outside: 0,
            count: u32::MAX,
        };
        assert_eq!(parse_map(map), [whole]);
    }
}
