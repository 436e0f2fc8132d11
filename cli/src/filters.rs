//! Filters of `kiln du` and `kiln prune`, as buildx has them.
//!
//! `NAME=VALUE`, `NAME!=VALUE`, `NAME~=REGULAR-EXPRESSION`, or `NAME` alone for what is true or
//! false. An item must pass all of them.

use std::time::Duration;

use kiln_cache::Item;
use regex_lite::Regex;

use crate::duration::duration;
use crate::report::Failure;

/// What items must be like.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    conditions: Vec<Condition>,
    /// How long an item must have been unused.
    pub(crate) unused_for: Option<Duration>,
}

#[derive(Debug)]
struct Condition {
    subject: Subject,
    test: Test,
}

#[derive(Debug, Clone, Copy)]
enum Subject {
    Id,
    Kind,
    Description,
    InUse,
    Mutable,
    Immutable,
    Shared,
    Private,
}

#[derive(Debug)]
enum Test {
    Is(String),
    IsNot(String),
    Matches(Regex),
}

impl Filters {
    /// Reads what was typed.
    pub(crate) fn parse(typed: &[String]) -> Result<Self, Failure> {
        let mut filters = Self::default();
        for text in typed {
            filters.add(text)?;
        }
        Ok(filters)
    }

    fn add(&mut self, text: &str) -> Result<(), Failure> {
        let bad = |why: String| Failure::usage(format!("--filter {text}: {why}"));
        let at = text.find(['=', '!', '~']);
        let (name, rest) = text.split_at(at.unwrap_or(text.len()));
        let operator = ["!=", "~=", "="]
            .into_iter()
            .find(|one| rest.starts_with(one));
        let value = match operator {
            Some(operator) => &rest[operator.len()..],
            None if rest.is_empty() => "true",
            None => return Err(bad("expected =, != or ~=".to_owned())),
        };
        if matches!(name, "until" | "unused-for") {
            self.unused_for = Some(duration(value).map_err(bad)?);
            return Ok(());
        }
        let subject = match name {
            "id" => Subject::Id,
            "type" => Subject::Kind,
            "description" => Subject::Description,
            "inuse" => Subject::InUse,
            "mutable" => Subject::Mutable,
            "immutable" => Subject::Immutable,
            "shared" => Subject::Shared,
            "private" => Subject::Private,
            "parents" => return Err(bad("in kiln nothing keeps what it was made from".to_owned())),
            _ => {
                let known =
                    "id, type, description, inuse, mutable, immutable, shared, private, until";
                return Err(bad(format!(
                    "there is no filter `{name}`; known are {known}"
                )));
            }
        };
        let test = match operator {
            Some("!=") => Test::IsNot(value.to_owned()),
            Some("~=") => Test::Matches(Regex::new(value).map_err(|error| bad(error.to_string()))?),
            _ => Test::Is(value.to_owned()),
        };
        self.conditions.push(Condition { subject, test });
        Ok(())
    }

    /// Returns true if everything passes.
    pub(crate) fn is_empty(&self) -> bool {
        self.conditions.is_empty() && self.unused_for.is_none()
    }

    /// Returns true if an item was unused for as long as is asked; `now` is in seconds since 1970.
    pub(crate) fn is_old(&self, item: &Item, now: i64) -> bool {
        let age = now.saturating_sub(item.used).max(0).unsigned_abs();
        self.unused_for.is_none_or(|least| age >= least.as_secs())
    }

    /// Returns true if an item passes.
    pub(crate) fn accept(&self, item: &Item) -> bool {
        self.conditions.iter().all(|one| one.accepts(item))
    }
}

impl Condition {
    fn accepts(&self, item: &Item) -> bool {
        let truth = |is: bool| if is { "true" } else { "false" };
        // An id may be given without the kind before it, and short.
        if let (Subject::Id, Test::Is(wanted)) = (self.subject, &self.test) {
            let name = item.id.rsplit(['/', '-']).next().unwrap_or(&item.id);
            return item.id == *wanted
                || (!wanted.is_empty()
                    && (item.id.starts_with(wanted.as_str())
                        || name.starts_with(wanted.as_str())));
        }
        let value = match self.subject {
            Subject::Id => item.id.as_str(),
            Subject::Kind => item.kind.name(),
            Subject::Description => item.note.as_str(),
            Subject::InUse => truth(item.in_use),
            Subject::Mutable => truth(item.is_mutable()),
            Subject::Immutable => truth(!item.is_mutable()),
            // An image that was built here has it, too.
            Subject::Shared => truth(item.is_pinned),
            Subject::Private => truth(!item.is_pinned),
        };
        match &self.test {
            Test::Is(wanted) => value == wanted,
            Test::IsNot(unwanted) => value != unwanted,
            Test::Matches(regex) => regex.is_match(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use kiln_cache::ItemKind;

    use super::*;

    fn item() -> Item {
        Item {
            id: "layers/blake3-0123".to_owned(),
            kind: ItemKind::Layer,
            bytes: 1,
            created: 0,
            used: 0,
            in_use: false,
            is_pinned: true,
            note: "RUN pip install".to_owned(),
        }
    }

    #[test]
    fn all_conditions_must_hold() {
        let accepts = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
            Filters::parse(&texts).unwrap().accept(&item())
        };
        for good in [
            &["type=regular", "id=0123"][..],
            &["type!=exec.cachemount"],
            &["description~=pip|npm"],
            &["immutable"],
            &["shared", "inuse=false"],
            &["id=layers/blake3-0123"],
            &["until=24h"],
        ] {
            assert!(accepts(good), "{good:?}");
        }
        for bad in [
            &["type=regular", "id=9"][..],
            &["private"],
            &["description~=^pip"],
            &["mutable"],
        ] {
            assert!(!accepts(bad), "{bad:?}");
        }
    }

    #[test]
    fn bad_filters_are_named() {
        for text in ["moon=1", "until=x", "description~=(", "parents=x"] {
            let error = Filters::parse(&[text.to_owned()]).unwrap_err().render();
            assert!(error.contains(text), "{error}");
        }
    }
}
