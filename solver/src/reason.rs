//! Why a vertex ran, or why it did not have to.

use kiln_graph::Difference;
use serde::{Deserialize, Serialize};

/// Differences that a reason lists; of more there is only the number.
pub const MAX_DIFFERENCES: usize = 20;

/// Why a vertex ran or was found in the cache. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Reason {
    /// Its key is that of a recorded action.
    Cached {
        /// When that action ran.
        since: i64,
        /// How long it took, in milliseconds.
        took_ms: i64,
        /// What ran it: the context and the Dockerfile of a build.
        from: String,
    },
    /// A shared cache has recorded it.
    Imported {
        /// When it ran there.
        since: i64,
        /// How long it took, in milliseconds.
        took_ms: i64,
        /// Where the cache is.
        cache: String,
    },
    /// The user asked for it to run.
    Asked,
    /// What is recorded is older than the user accepts.
    Expired {
        /// When the recorded action ran.
        since: i64,
    },
    /// Nothing recorded is like it.
    New,
    /// An action with the same key is recorded, but what it made is gone from the store.
    Gone {
        /// When it ran.
        since: i64,
    },
    /// The nearest recorded action had other inputs.
    Changed {
        /// When that action ran.
        since: i64,
        /// What that step was called.
        step: String,
        /// How its inputs differ from the inputs now, [`MAX_DIFFERENCES`] at most.
        differences: Vec<Difference>,
        /// How many differences there are in all.
        n_differences: usize,
    },
}

impl Reason {
    /// Returns lines for people; times are told as ages, seen from `now`.
    pub fn lines(&self, now: i64) -> Vec<String> {
        let ago = |since: &i64| age(now.saturating_sub(*since));
        match self {
            Self::Cached {
                since,
                took_ms,
                from,
            } => {
                let (when, took) = (ago(since), duration(*took_ms));
                vec![format!(
                    "cached: made {when} in {took}, by a build of {from}"
                )]
            }
            Self::Imported {
                since,
                took_ms,
                cache,
            } => {
                let (when, took) = (ago(since), duration(*took_ms));
                vec![format!(
                    "cached: made {when} in {took}, from the cache {cache}"
                )]
            }
            Self::Asked => vec!["ran because it was asked for".to_owned()],
            Self::Expired { since } => {
                vec![format!("ran because what is cached is from {}", ago(since))]
            }
            Self::New => vec!["ran because nothing recorded is like it".to_owned()],
            Self::Gone { since } => vec![format!(
                "ran because what it made {} is gone from the store",
                ago(since)
            )],
            Self::Changed {
                since,
                step,
                differences,
                n_differences,
            } => {
                let mut lines = vec![format!(
                    "ran because its inputs are not those of `{step}` {}:",
                    ago(since)
                )];
                lines.extend(differences.iter().map(|one| format!("  {one}")));
                if *n_differences > differences.len() {
                    let more = n_differences - differences.len();
                    lines.push(format!("  and {more} more"));
                }
                lines
            }
        }
    }
}

fn duration(ms: i64) -> String {
    match ms / 1000 {
        0 => format!("{ms} ms"),
        seconds => age(seconds).replace(" ago", ""),
    }
}

/// Returns a number of seconds as an age: `5 minutes ago`.
pub fn age(seconds: i64) -> String {
    const UNITS: [(i64, &str); 4] = [
        (86400, "day"),
        (3600, "hour"),
        (60, "minute"),
        (1, "second"),
    ];
    for (length, name) in UNITS {
        let n = seconds / length;
        if n >= 1 {
            let plural = if n == 1 { "" } else { "s" };
            return format!("{n} {name}{plural} ago");
        }
    }
    "just now".to_owned()
}

#[cfg(test)]
mod tests {
    use kiln_graph::{Change, PartKind};

    use super::*;

    #[test]
    fn ages() {
        for (seconds, expected) in [
            (-5, "just now"),
            (0, "just now"),
            (1, "1 second ago"),
            (119, "1 minute ago"),
            (7200, "2 hours ago"),
            (200_000, "2 days ago"),
        ] {
            assert_eq!(age(seconds), expected);
        }
    }

    #[test]
    fn a_change_is_told_line_by_line() {
        let difference = Difference {
            kind: PartKind::File,
            name: "a".to_owned(),
            change: Change::Added,
        };
        let reason = Reason::Changed {
            since: 40,
            step: "[2/2] COPY . .".to_owned(),
            differences: vec![difference],
            n_differences: 3,
        };
        let expected = [
            "ran because its inputs are not those of `[2/2] COPY . .` 1 minute ago:",
            "  file `a` is new",
            "  and 2 more",
        ];
        assert_eq!(reason.lines(100), expected);
        let json = serde_json::to_string(&reason).unwrap();
        assert_eq!(serde_json::from_str::<Reason>(&json).unwrap(), reason);
    }
}
