//! The configuration file: what holds for every build of a user.
//!
//! ```toml
//! # $XDG_CONFIG_HOME/kiln/config.toml, or ~/.config/kiln/config.toml
//! max-cache = "20GB"
//! ```

use std::io;
use std::path::Path;

use serde::{Deserialize, Deserializer};

use crate::environment::Environment;
use crate::report::Failure;
use crate::size::size;

/// What the configuration file says.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct Configuration {
    /// Room that the cache may take on disk, in bytes.
    #[serde(deserialize_with = "read_size")]
    pub(crate) max_cache: Option<u64>,
}

fn read_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    size(&text).map(Some).map_err(serde::de::Error::custom)
}

impl Configuration {
    /// Reads the file; where there is none, nothing is configured.
    pub(crate) fn read(env: &Environment) -> Result<Self, Failure> {
        match env.config_file() {
            Some(path) => Self::read_file(&path),
            None => Ok(Self::default()),
        }
    }

    fn read_file(path: &Path) -> Result<Self, Failure> {
        let failed = |error: anyhow::Error| {
            let context = format!("cannot use the configuration in `{}`", path.display());
            Failure::user(error.context(context))
        };
        match std::fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text).map_err(|error| failed(error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(failed(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Configuration, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        Configuration::read_file(&path).map_err(|failure| failure.render())
    }

    #[test]
    fn a_limit_is_a_size() {
        let limit = |text: &str| read(text).unwrap().max_cache;
        assert_eq!(limit("max-cache = '2GB'"), Some(2 << 30));
        assert_eq!(limit("# nothing"), None);
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (text, expected) in [
            ("max-cache = 'much'", "`much` is not a size"),
            ("max-cash = '1GB'", "max-cash"),
            ("max-cache =", "config.toml"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
