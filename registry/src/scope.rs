//! Scopes: what a token is for, as token servers write it.

use std::fmt;

/// The right to pull from, or also push to, one repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Scope {
    pub(crate) repository: String,
    pub(crate) push: bool,
}

impl Scope {
    pub(crate) fn pull(repository: &str) -> Self {
        let repository = repository.to_owned();
        Self {
            repository,
            push: false,
        }
    }

    pub(crate) fn push(repository: &str) -> Self {
        let repository = repository.to_owned();
        Self {
            repository,
            push: true,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let actions = if self.push { "pull,push" } else { "pull" };
        write!(f, "repository:{}:{actions}", self.repository)
    }
}

/// Returns the scopes to ask for: what is needed, and what the challenge says beyond it.
pub(crate) fn wanted(needed: &[Scope], challenge: Option<&str>) -> Vec<String> {
    let needed = needed.iter().map(Scope::to_string);
    let challenge = challenge.unwrap_or_default().split_whitespace();
    let mut merged: Vec<(String, Vec<String>)> = Vec::new();
    for scope in needed.chain(challenge.map(str::to_owned)) {
        // A repository may have a port in its name: the actions are behind the last colon.
        let (name, actions) = scope.rsplit_once(':').unwrap_or((&scope, ""));
        let at = merged.iter().position(|(known, _)| known == name);
        let at = at.unwrap_or_else(|| {
            merged.push((name.to_owned(), Vec::new()));
            merged.len() - 1
        });
        for action in actions.split(',').filter(|action| !action.is_empty()) {
            if !merged[at].1.iter().any(|known| known == action) {
                merged[at].1.push(action.to_owned());
            }
        }
    }
    let text = |(name, actions): (String, Vec<String>)| match actions.join(",") {
        actions if actions.is_empty() => name,
        actions => format!("{name}:{actions}"),
    };
    merged.into_iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_of_one_repository_are_merged() {
        let needed = [Scope::push("a/b"), Scope::pull("c")];
        let more = "repository:a/b:pull,delete registry:catalog:* odd";
        let texts = wanted(&needed, Some(more));
        let expected = [
            "repository:a/b:pull,push,delete",
            "repository:c:pull",
            "registry:catalog:*",
            "odd",
        ];
        assert_eq!(texts, expected);
        assert_eq!(wanted(&[Scope::pull("x")], None), ["repository:x:pull"]);
    }
}
