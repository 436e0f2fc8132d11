//! Files that say where images are really pulled from, and what the command line says of it.
//!
//! - `registries.conf`, version 2 (containers-registries.conf(5)): `$CONTAINERS_REGISTRIES_CONF`, else
//!   `~/.config/containers/registries.conf`, else `/etc/containers/registries.conf`; then the files in
//!   `registries.conf.d` beside the last two, of which only the user's where the user has a
//!   `registries.conf`. Of tables with one prefix the last one read counts, whole. What the file says
//!   of short names is not used: a short name is one of Docker Hub, as in Docker.
//! - `daemon.json` of Docker: `~/.config/docker/daemon.json`, else `/etc/docker/daemon.json`. Its
//!   mirrors of Docker Hub are used where `registries.conf` says nothing of it.
//! - `--registry-mirror`, before both.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use kiln_registry::{Mirror, MirrorPulls, Reference, Registries, RegistryRule};
use serde::Deserialize;

use crate::environment::Environment;
use crate::report::Failure;

const HUB: &str = "docker.io";
const ETC: &str = "/etc/containers/registries.conf";
const OWN: &str = ".config/containers/registries.conf";
const ETC_DOCKER: &str = "/etc/docker/daemon.json";
const OWN_DOCKER: &str = ".config/docker/daemon.json";

/// What all of it says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Places {
    pub(crate) registries: Registries,
    /// Hosts that need no trusted certificate.
    pub(crate) insecure_hosts: Vec<String>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    registry: Vec<Table>,
    /// Version 1.
    registries: Option<toml::Table>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Table {
    #[serde(default)]
    location: String,
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<MirrorTable>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MirrorTable {
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    pull_from_mirror: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct Daemon {
    registry_mirrors: Vec<String>,
    insecure_registries: Vec<String>,
}

impl Places {
    /// Reads the files, and puts what was typed before them.
    pub(crate) fn read(env: &Environment, typed: &[String]) -> Result<Self, Failure> {
        let mut places = Self::default();
        for text in typed {
            let first = typed_mirror(text).with_context(|| format!("--registry-mirror {text}"));
            let first = first.map_err(|error| Failure::usage(format!("{error:#}")))?;
            places.registries.first.push(first);
        }
        for path in files(env).map_err(Failure::user)? {
            places.add_file(&path).map_err(Failure::user)?;
        }
        let own = env.in_home(OWN_DOCKER);
        for path in own.into_iter().chain([ETC_DOCKER.into()]) {
            if let Some(text) = read(&path).map_err(Failure::user)? {
                places.add_daemon(&text, &path);
                break;
            }
        }
        Ok(places)
    }

    fn add_file(&mut self, path: &Path) -> anyhow::Result<()> {
        let failed = || format!("cannot use `{}`", path.display());
        let Some(text) = read(path)? else {
            return Ok(());
        };
        let file: File = toml::from_str(&text).with_context(failed)?;
        if file.registries.is_some() {
            let path = path.display();
            tracing::warn!(%path, "version 1 of registries.conf is not read");
        }
        for table in file.registry {
            let rule = table.into_rule().with_context(failed)?;
            self.registries
                .rules
                .retain(|known| known.prefix != rule.prefix);
            self.registries.rules.push(rule);
        }
        Ok(())
    }

    /// A file that is made for another program must not end a build.
    fn add_daemon(&mut self, text: &str, path: &Path) {
        let path = path.display();
        let daemon: Daemon = match serde_json::from_str(text) {
            Ok(daemon) => daemon,
            Err(error) => {
                tracing::warn!(%path, %error, "it is not used");
                return;
            }
        };
        for host in daemon.insecure_registries {
            match host.contains('/') {
                true => tracing::warn!(%path, network = %host, "only hosts can be insecure"),
                false => self.insecure_hosts.push(host),
            }
        }
        let is_hub = |rule: &RegistryRule| rule.prefix == HUB;
        if daemon.registry_mirrors.is_empty() || self.registries.rules.iter().any(is_hub) {
            return;
        }
        let mut rule = RegistryRule {
            prefix: HUB.to_owned(),
            ..RegistryRule::default()
        };
        for url in daemon.registry_mirrors {
            match mirror_at(&url) {
                Ok(mirror) => rule.mirrors.push(mirror),
                Err(error) => tracing::warn!(%path, %error, "a mirror is not used"),
            }
        }
        self.registries.rules.push(rule);
    }
}

/// Returns the files to read, in their order.
fn files(env: &Environment) -> anyhow::Result<Vec<PathBuf>> {
    let own = env.in_home(OWN);
    let has_own = own.as_ref().is_some_and(|path| path.exists());
    let own_dir = own.as_ref().map(|path| drop_ins(path));
    let etc_dir = drop_ins(Path::new(ETC));
    let (first, dirs) = match (&env.registries_conf, own) {
        (Some(path), _) => (path.clone(), vec![Some(etc_dir), own_dir]),
        (None, Some(own)) if has_own => (own, vec![own_dir]),
        (None, _) => (ETC.into(), vec![Some(etc_dir), own_dir]),
    };
    let mut files = vec![first];
    for dir in dirs.into_iter().flatten() {
        files.extend(files_in(&dir)?);
    }
    Ok(files)
}

fn drop_ins(path: &Path) -> PathBuf {
    path.with_extension("conf.d")
}

/// Returns the configuration files in a folder, sorted by name.
fn files_in(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let failed = || format!("cannot read `{}`", dir.display());
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(failed),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.with_context(failed)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "conf")
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read `{}`", path.display())),
    }
}

impl Table {
    fn into_rule(self) -> anyhow::Result<RegistryRule> {
        let location = match &self.location[..] {
            "" if self.prefix.starts_with("*.") => None,
            "" => bail!(
                "the table of `{}` has no location, which only `*.` and a domain can do without",
                self.prefix
            ),
            text => Some(location(text)?),
        };
        let prefix = match (&self.prefix[..], &location) {
            ("", Some(location)) => location.clone(),
            (prefix, _) if prefix.starts_with("*.") => prefix.to_owned(),
            (prefix, _) => self::location(prefix)?,
        };
        let digests_only = self.mirror_by_digest_only;
        let mirrors = self.mirror.into_iter();
        let mirrors = mirrors.map(|mirror| mirror.into_mirror(digests_only));
        Ok(RegistryRule {
            mirrors: mirrors.collect::<Result<_, _>>()?,
            prefix,
            location,
            insecure: self.insecure,
            blocked: self.blocked,
        })
    }
}

impl MirrorTable {
    fn into_mirror(self, digests_only: bool) -> anyhow::Result<Mirror> {
        let pulls = match self.pull_from_mirror.as_deref() {
            None if digests_only => MirrorPulls::Digests,
            Some(_) if digests_only => bail!(
                "mirror `{}` has pull-from-mirror, and its registry mirror-by-digest-only",
                self.location
            ),
            None | Some("" | "all") => MirrorPulls::All,
            Some("digest-only") => MirrorPulls::Digests,
            Some("tag-only") => MirrorPulls::Tags,
            Some(other) => bail!("pull-from-mirror is all, digest-only or tag-only, not `{other}`"),
        };
        Ok(Mirror {
            location: location(&self.location)?,
            insecure: self.insecure,
            pulls,
        })
    }
}

/// Checks a host with an optional port and path: with a name behind it, it is a reference to there.
fn location(text: &str) -> anyhow::Result<String> {
    let trimmed = text.trim_end_matches('/');
    let wrong = || anyhow!("`{text}` is not a host with an optional port and path");
    let host = trimmed.split('/').next().unwrap_or_default();
    let reference: Reference = match trimmed.rsplit_once('/') {
        // Of one image, perhaps with its tag.
        Some((_, name)) if name.contains([':', '@']) => trimmed.parse(),
        _ => format!("{trimmed}/x").parse(),
    }
    .map_err(|_| wrong())?;
    match reference.host() == host || host == "index.docker.io" {
        true => Ok(trimmed.to_owned()),
        false => Err(wrong()),
    }
}

/// Reads `HOST[/PATH]=MIRROR[/PATH]`, or the mirror of Docker Hub alone.
fn typed_mirror(text: &str) -> anyhow::Result<(String, Mirror)> {
    let (prefix, mirror) = text.split_once('=').unwrap_or((HUB, text));
    Ok((location(prefix)?, mirror_at(mirror)?))
}

/// Reads where a mirror is; `http://` says that it may be insecure.
fn mirror_at(text: &str) -> anyhow::Result<Mirror> {
    let plain = text.strip_prefix("http://");
    let bare = plain.or_else(|| text.strip_prefix("https://"));
    Ok(Mirror {
        location: location(bare.unwrap_or(text))?,
        insecure: plain.is_some(),
        pulls: MirrorPulls::All,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Registries, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("registries.conf");
        fs::write(&path, text).unwrap();
        let mut places = Places::default();
        let added = places.add_file(&path);
        added.map_err(|error| format!("{error:#}"))?;
        Ok(places.registries)
    }

    fn mirror(location: &str, insecure: bool, pulls: MirrorPulls) -> Mirror {
        Mirror {
            location: location.to_owned(),
            insecure,
            pulls,
        }
    }

    #[test]
    fn tables_become_rules() {
        let text = r#"
            unqualified-search-registries = ["example.com"]
            short-name-mode = "enforcing"
            [[registry]]
            prefix = "docker.io"
            location = "hub.internal:5000/proxy/"
            insecure = true
            [[registry.mirror]]
            location = "a.io"
            [[registry.mirror]]
            location = "b.io/x"
            insecure = true
            pull-from-mirror = "tag-only"
            [[registry]]
            prefix = "*.corp.io"
            blocked = true
            [[registry]]
            location = "old.io"
            [[registry]]
            location = "old.io"
            mirror-by-digest-only = true
            mirror = [{ location = "c.io" }]
        "#;
        let rules = read_text(text).unwrap().rules;
        let [hub, corp, old] = &rules[..] else {
            panic!("{rules:?}");
        };
        assert_eq!(hub.location.as_deref(), Some("hub.internal:5000/proxy"));
        assert!(hub.insecure && !hub.blocked);
        let expected = [
            mirror("a.io", false, MirrorPulls::All),
            mirror("b.io/x", true, MirrorPulls::Tags),
        ];
        assert_eq!(hub.mirrors, expected);
        assert!(corp.blocked && corp.location.is_none());
        assert_eq!(old.prefix, "old.io");
        let expected = [mirror("c.io", false, MirrorPulls::Digests)];
        assert_eq!(old.mirrors, expected);
    }

    #[test]
    fn mistakes_are_told_with_their_file() {
        for (text, expected) in [
            ("[[registry]]\nprefix='a.io'", "no location"),
            ("[[registry]]\nlocation='https://a.io'", "`https://a.io`"),
            ("[[registry]]\nlocation='team'", "`team`"),
            ("[[registry]]\nlocation=1", "registries.conf"),
            (
                "[[registry]]\nlocation='a.io'\nmirror=[{location='b.io',pull-from-mirror='x'}]",
                "not `x`",
            ),
        ] {
            let error = read_text(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
            assert!(error.contains("registries.conf"), "{error}");
        }
    }

    #[test]
    fn mirrors_are_typed_with_or_without_their_registry() {
        for (text, prefix, at) in [
            ("m.io", HUB, mirror("m.io", false, MirrorPulls::All)),
            (
                "ghcr.io/team=http://m.lan:5000/ghcr",
                "ghcr.io/team",
                mirror("m.lan:5000/ghcr", true, MirrorPulls::All),
            ),
        ] {
            let typed = typed_mirror(text).unwrap();
            assert_eq!(typed, (prefix.to_owned(), at), "{text}");
        }
        for text in ["", "=m.io", "a.io=", "team", "a.io=b.io=c.io"] {
            assert!(typed_mirror(text).is_err(), "{text}");
        }
    }

    #[test]
    fn dockers_daemon_has_mirrors_of_docker_hub() {
        let path = Path::new("daemon.json");
        let text = r#"{"registry-mirrors": ["https://m.io/", "http://n.lan:80"],
            "insecure-registries": ["lan:5000", "10.0.0.0/8"], "debug": true}"#;
        let mut places = Places::default();
        places.add_daemon(text, path);
        let expected = [
            mirror("m.io", false, MirrorPulls::All),
            mirror("n.lan:80", true, MirrorPulls::All),
        ];
        assert_eq!(places.registries.rules[0].mirrors, expected);
        assert_eq!(places.insecure_hosts, ["lan:5000"]);
        places.registries.rules[0].mirrors.clear();
        places.add_daemon(text, path);
        assert_eq!(places.registries.rules.len(), 1, "registries.conf counts");
        places.add_daemon("{", path);
    }
}
