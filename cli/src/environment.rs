//! What the environment says; the only place that reads it.

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The environment of this process, read once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    home: Option<PathBuf>,
    data_home: Option<PathBuf>,
    config_home: Option<PathBuf>,
    docker_config: Option<PathBuf>,
    auth_config: Option<String>,
    variables: Vec<(OsString, OsString)>,
    /// The `registries.conf` to read instead of the usual ones.
    pub(crate) registries_conf: Option<PathBuf>,
    /// `PATH`, for credential helpers.
    pub(crate) path: OsString,
    /// Colour is not wanted (`NO_COLOR`).
    pub(crate) no_color: bool,
    /// Standard error is a terminal that can be drawn on.
    pub(crate) is_terminal: bool,
    /// Standard output is a terminal.
    pub(crate) is_stdout_terminal: bool,
    /// What is logged: `KILN_LOG`, a level.
    pub(crate) log_level: Option<String>,
}

impl Environment {
    /// Returns an environment of one variable.
    #[cfg(test)]
    pub(crate) fn with_variable(name: &str, value: &str) -> Self {
        Self {
            variables: vec![(name.into(), value.into())],
            ..Self::default()
        }
    }

    /// Reads the environment.
    pub(crate) fn read() -> Self {
        let folder = |name| var_os(name).map(PathBuf::from);
        let can_draw = var_os("TERM").is_none_or(|term| term != "dumb");
        Self {
            home: folder("HOME"),
            data_home: folder("XDG_DATA_HOME"),
            config_home: folder("XDG_CONFIG_HOME"),
            docker_config: folder("DOCKER_CONFIG"),
            auth_config: var_os("DOCKER_AUTH_CONFIG").and_then(|text| text.into_string().ok()),
            variables: std::env::vars_os().collect(),
            registries_conf: folder("CONTAINERS_REGISTRIES_CONF"),
            path: var_os("PATH").unwrap_or_default(),
            no_color: var_os("NO_COLOR").is_some(),
            is_terminal: std::io::stderr().is_terminal() && can_draw,
            is_stdout_terminal: std::io::stdout().is_terminal(),
            log_level: var_os("KILN_LOG").and_then(|level| level.into_string().ok()),
        }
    }

    /// Returns the variables that name proxies, for programs that fetch.
    pub(crate) fn proxies(&self) -> Vec<(String, String)> {
        let is_proxy = |name: &str| {
            let lower = name.to_ascii_lowercase();
            ["http_proxy", "https_proxy", "all_proxy", "no_proxy"].contains(&lower.as_str())
        };
        let text = |text: &OsString| text.to_str().map(str::to_owned);
        let variables = self.variables.iter();
        let texts = variables.filter_map(|(name, value)| Some((text(name)?, text(value)?)));
        texts.filter(|(name, _)| is_proxy(name)).collect()
    }

    /// Returns an environment with nothing but some variables.
    #[cfg(test)]
    pub(crate) fn with_variables(variables: &[(&str, &str)]) -> Self {
        let owned = variables.iter().map(|&(k, v)| (k.into(), v.into()));
        Self {
            variables: owned.collect(),
            ..Self::default()
        }
    }

    /// Returns a variable, for `--build-arg NAME`.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.raw_variable(name).and_then(OsStr::to_str)
    }

    /// Returns a variable, which may be empty or any bytes, for `--secret` and `--ssh`.
    pub(crate) fn raw_variable(&self, name: &str) -> Option<&OsStr> {
        let found = self.variables.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_os_str())
    }

    /// Returns the folder that the store is in when none is given.
    pub(crate) fn default_root(&self, is_root: bool) -> Option<PathBuf> {
        if is_root {
            return Some(PathBuf::from("/var/lib/kiln"));
        }
        let absolute = |path: &&PathBuf| path.is_absolute();
        match self.data_home.as_ref().filter(absolute) {
            Some(data) => Some(data.join("kiln")),
            None => self
                .home
                .as_ref()
                .map(|home| home.join(".local/share/kiln")),
        }
    }

    /// Returns where the user's configuration of kiln is, if there is any.
    pub(crate) fn config_file(&self) -> Option<PathBuf> {
        let absolute = |path: &&PathBuf| path.is_absolute();
        let folder = match self.config_home.as_ref().filter(absolute) {
            Some(folder) => folder.clone(),
            None => self.home.as_ref()?.join(".config"),
        };
        Some(folder.join("kiln/config.toml"))
    }

    /// Returns a path in the user's home, if there is one.
    pub(crate) fn in_home(&self, path: &str) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(path))
    }

    /// Returns where Docker's config file is, if there is any place for it.
    pub(crate) fn docker_config_file(&self) -> Option<PathBuf> {
        let folder = match (&self.docker_config, &self.home) {
            (Some(folder), _) => folder.clone(),
            (None, Some(home)) => home.join(".docker"),
            (None, None) => return None,
        };
        Some(folder.join("config.json"))
    }

    /// Returns true if `DOCKER_AUTH_CONFIG` is in the place of Docker's config file.
    pub(crate) fn has_auth_config(&self) -> bool {
        self.auth_config.is_some()
    }

    /// Returns the text of Docker's config file, or of `DOCKER_AUTH_CONFIG`, with its name.
    pub(crate) fn docker_config(&self) -> anyhow::Result<Option<(String, String)>> {
        if let Some(text) = &self.auth_config {
            return Ok(Some(("DOCKER_AUTH_CONFIG".to_owned(), text.clone())));
        }
        let Some(path) = self.docker_config_file() else {
            return Ok(None);
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some((path.display().to_string(), text))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read `{}`", path.display())),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is where the environment is read"
)]
fn var_os(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Returns a path as it looks from the folder that kiln was started in.
pub(crate) fn display_path(path: &Path) -> String {
    path.strip_prefix("./")
        .unwrap_or(path)
        .display()
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreadable_config_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let env = Environment {
            docker_config: Some(dir.path().to_owned()),
            ..Environment::default()
        };
        assert!(env.docker_config().unwrap().is_none());
        let path = dir.path().join("config.json");
        std::fs::create_dir(&path).unwrap();
        let error = env.docker_config().unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("cannot read `{}`", path.display())
        );
    }
}
