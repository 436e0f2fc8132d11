//! Where an image is really pulled from: mirrors, other locations, registries that are blocked.
//!
//! The rules are those of containers-registries.conf(5), and mean what they mean there: the rule
//! with the longest prefix of an image's name counts; mirrors are asked in their order, and the
//! registry's own location last. What is pushed goes to the registry of its name. An image keeps
//! the name that it was asked for by, wherever it came from. Reads no file, sends nothing.

use std::collections::VecDeque;

use crate::error::RegistryError;
use crate::reference::Reference;

/// How the names of images lead to registries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registries {
    /// One rule a prefix.
    pub rules: Vec<RegistryRule>,
    /// Mirrors that are asked before those of the rules, each for names with a prefix.
    pub first: Vec<(String, Mirror)>,
}

/// What holds for images whose names have a prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistryRule {
    /// `host[:port]` with or without a path, or `*.` and a domain.
    pub prefix: String,
    /// What is in the place of the prefix; with none the name stays as it is.
    pub location: Option<String>,
    /// The location may be plain HTTP or have an unknown certificate.
    pub insecure: bool,
    /// Nothing is pulled from there or pushed to it.
    pub blocked: bool,
    /// Where else the images are.
    pub mirrors: Vec<Mirror>,
}

/// A place that has the images of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// What is in the place of the prefix: `host[:port]` with or without a path.
    pub location: String,
    /// It may be plain HTTP or have an unknown certificate.
    pub insecure: bool,
    /// What it is asked for.
    pub pulls: MirrorPulls,
}

/// Which images a mirror is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MirrorPulls {
    /// All.
    #[default]
    All,
    /// Those that are named by digest.
    Digests,
    /// Those that are named by tag.
    Tags,
}

/// A place to ask for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// The name that the image has there.
    pub(crate) reference: Reference,
    pub(crate) insecure: bool,
    pub(crate) is_mirror: bool,
}

impl Registries {
    /// Returns the places to pull an image from, the registry's own last.
    pub(crate) fn sources(&self, reference: &Reference) -> Result<VecDeque<Source>, RegistryError> {
        let rule = self.rule(reference)?;
        let name = reference.to_string();
        let first = self.first.iter();
        let first = first.filter_map(|(prefix, mirror)| Some((matched(prefix, &name)?, mirror)));
        let own = rule.iter().flat_map(|(rule, length)| {
            let mirrors = rule.mirrors.iter();
            mirrors.map(|mirror| (*length, mirror))
        });
        let mut sources = VecDeque::new();
        for (length, mirror) in first.chain(own) {
            if mirror.pulls.fits(reference) {
                sources.push_back(Source {
                    reference: moved(&name, length, &mirror.location)?,
                    insecure: mirror.insecure,
                    is_mirror: true,
                });
            }
        }
        let reference = match rule {
            Some((
                RegistryRule {
                    location: Some(to), ..
                },
                length,
            )) => moved(&name, length, to)?,
            _ => reference.clone(),
        };
        sources.push_back(Source {
            reference,
            insecure: rule.is_some_and(|(rule, _)| rule.insecure),
            is_mirror: false,
        });
        Ok(sources)
    }

    /// Returns the place to push an image to. That a location in the place of its registry may be
    /// insecure says nothing of the registry itself.
    pub(crate) fn target(&self, reference: &Reference) -> Result<Source, RegistryError> {
        let rule = self.rule(reference)?;
        let stays = |rule: &RegistryRule| match &rule.location {
            Some(location) => *location == rule.prefix,
            None => true,
        };
        Ok(Source {
            reference: reference.clone(),
            insecure: rule.is_some_and(|(rule, _)| rule.insecure && stays(rule)),
            is_mirror: false,
        })
    }

    /// Returns the rule for an image, and how much of its name the prefix is.
    fn rule(&self, reference: &Reference) -> Result<Option<(&RegistryRule, usize)>, RegistryError> {
        let name = reference.to_string();
        let rules = self.rules.iter();
        let fits = rules.filter_map(|rule| Some((rule, matched(&rule.prefix, &name)?)));
        let rule = fits.max_by_key(|(rule, _)| rule.prefix.len());
        match rule {
            Some((rule, _)) if rule.blocked => {
                let why = format!("registries.conf blocks `{}`", rule.prefix);
                Err(RegistryError::setup(format!("use `{reference}`"), why))
            }
            rule => Ok(rule),
        }
    }
}

impl MirrorPulls {
    fn fits(self, reference: &Reference) -> bool {
        match self {
            Self::All => true,
            Self::Digests => reference.digest().is_some(),
            Self::Tags => reference.digest().is_none(),
        }
    }
}

/// Returns how much of a name a prefix stands for, if it is a prefix of it.
fn matched(prefix: &str, name: &str) -> Option<usize> {
    let host = &name[..name.find('/')?];
    if let Some(domain) = prefix.strip_prefix('*') {
        let is_below = domain.starts_with('.') && host.ends_with(domain);
        return (is_below && host.len() > domain.len()).then_some(host.len());
    }
    let rest = name.strip_prefix(prefix)?;
    // A colon behind a host begins a port, which makes it another host.
    let ends = |c: char| match prefix.contains('/') {
        true => matches!(c, '/' | ':' | '@'),
        false => c == '/',
    };
    let is_whole = rest.is_empty() || rest.starts_with(ends);
    is_whole.then_some(prefix.len())
}

/// Puts a location in the place of the beginning of a name.
fn moved(name: &str, length: usize, location: &str) -> Result<Reference, RegistryError> {
    let text = format!("{location}{}", &name[length..]);
    text.parse().map_err(|source: crate::ParseReferenceError| {
        RegistryError::setup(format!("look for `{name}` at `{location}`"), source)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(location: &str, pulls: MirrorPulls) -> Mirror {
        Mirror {
            location: location.to_owned(),
            insecure: location.starts_with("insecure"),
            pulls,
        }
    }

    fn rule(prefix: &str, location: Option<&str>, mirrors: &[&str]) -> RegistryRule {
        RegistryRule {
            prefix: prefix.to_owned(),
            location: location.map(str::to_owned),
            mirrors: mirrors
                .iter()
                .map(|at| mirror(at, MirrorPulls::All))
                .collect(),
            ..RegistryRule::default()
        }
    }

    fn sources(registries: &Registries, name: &str) -> Vec<String> {
        let sources = registries.sources(&name.parse().unwrap()).unwrap();
        sources.iter().map(|s| s.reference.to_string()).collect()
    }

    #[test]
    fn mirrors_come_in_order_and_the_registry_last() {
        let registries = Registries {
            rules: vec![
                rule("docker.io", None, &["m.io/hub", "n.io:5000"]),
                rule("docker.io/library/debian", Some("d.io/x"), &[]),
                rule("*.corp.io", Some("proxy.io/corp"), &[]),
                rule("r.io/team", None, &["insecure.io"]),
            ],
            first: vec![("docker.io".to_owned(), mirror("f.io", MirrorPulls::All))],
        };
        for (name, expected) in [
            (
                "busybox",
                &[
                    "f.io/library/busybox:latest",
                    "m.io/hub/library/busybox:latest",
                    "n.io:5000/library/busybox:latest",
                    "docker.io/library/busybox:latest",
                ][..],
            ),
            ("debian:12", &["f.io/library/debian:12", "d.io/x:12"]),
            ("a.corp.io/x:1", &["proxy.io/corp/x:1"]),
            ("corp.io/x:1", &["corp.io/x:1"]),
            ("a.corp.io:5000/x:1", &["a.corp.io:5000/x:1"]),
            ("r.io/team/x:1", &["insecure.io/x:1", "r.io/team/x:1"]),
            ("r.io/teams/x:1", &["r.io/teams/x:1"]),
            ("r.io:5000/team/x:1", &["r.io:5000/team/x:1"]),
        ] {
            assert_eq!(sources(&registries, name), expected, "{name}");
        }
        let found = registries.sources(&"r.io/team/x".parse().unwrap()).unwrap();
        assert!(found[0].insecure && found[0].is_mirror);
        assert!(!found[1].insecure && !found[1].is_mirror);
    }

    #[test]
    fn mirrors_may_be_for_digests_or_tags() {
        let mut registries = Registries {
            rules: vec![rule("r.io", None, &[])],
            first: Vec::new(),
        };
        registries.rules[0].mirrors = vec![
            mirror("d.io", MirrorPulls::Digests),
            mirror("t.io", MirrorPulls::Tags),
        ];
        let digest = format!("sha256:{}", "0".repeat(64));
        assert_eq!(sources(&registries, "r.io/x:1"), ["t.io/x:1", "r.io/x:1"]);
        let name = format!("r.io/x:1@{digest}");
        let found = sources(&registries, &name);
        assert_eq!(found, [format!("d.io/x:1@{digest}"), name]);
    }

    #[test]
    fn pushes_go_to_the_registry_itself() {
        let mut moved = rule("r.io", Some("elsewhere.io"), &["m.io"]);
        moved.insecure = true;
        let mut lan = rule("lan.io", Some("lan.io"), &[]);
        lan.insecure = true;
        let mut blocked = rule("bad.io/x", None, &[]);
        blocked.blocked = true;
        let registries = Registries {
            rules: vec![moved, lan, blocked],
            first: Vec::new(),
        };
        let target = |name: &str| registries.target(&name.parse().unwrap());
        let source = target("r.io/x:1").unwrap();
        assert_eq!(source.reference.to_string(), "r.io/x:1");
        assert!(!source.insecure && target("lan.io/x").unwrap().insecure);
        assert!(target("bad.io/y").is_ok());
        let error = told(&target("bad.io/x/y").unwrap_err());
        assert!(error.contains("blocks `bad.io/x`"), "{error}");
        assert!(registries.sources(&"bad.io/x/y".parse().unwrap()).is_err());
    }

    fn told(error: &RegistryError) -> String {
        let source = std::error::Error::source(error).map(ToString::to_string);
        format!("{error}: {}", source.unwrap_or_default())
    }
}
