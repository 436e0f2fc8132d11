//! Secrets: values that a step may see and that nothing else may.
//!
//! A value is in memory and in the step, never in a key, a log, an error or a layer. It is read
//! when it is first needed and stays the same for the rest of the build.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use zeroize::Zeroizing;

/// The largest secret in bytes, as in BuildKit.
pub const MAX_SECRET: usize = 500 << 10;

/// The secrets of a build, by id; clones are cheap and share what was read.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    by_id: Arc<BTreeMap<String, Secret>>,
}

/// Where the value of a secret is.
#[derive(Debug)]
pub enum SecretSource {
    /// In a file, which may be a pipe.
    File(PathBuf),
    /// Here.
    Value(SecretValue),
}

/// Bytes that are not printed, and are overwritten when nobody needs them any more.
#[derive(Clone)]
pub struct SecretValue(Arc<Zeroizing<Vec<u8>>>);

/// A secret that a step needs and cannot have.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Nobody gave it.
    #[error("secret `{id}` is required, but was not given")]
    Missing {
        /// Which secret.
        id: String,
    },
    /// Its file cannot be read.
    #[error("cannot read secret `{id}` from `{}`", path.display())]
    Read {
        /// Which secret.
        id: String,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is too large.
    #[error("secret `{id}` is larger than {} KiB", MAX_SECRET >> 10)]
    TooLarge {
        /// Which secret.
        id: String,
    },
    /// It is to be a variable and has a byte that none can have.
    #[error("secret `{id}` cannot be the variable `{name}`: it has a zero byte")]
    ZeroByte {
        /// Which secret.
        id: String,
        /// The variable.
        name: String,
    },
}

#[derive(Debug)]
struct Secret {
    source: SecretSource,
    /// What was read; a pipe can be read once only. The lock is held while it is read.
    known: Mutex<Option<SecretValue>>,
}

impl Secrets {
    /// Returns secrets by id; of two with one id the later one counts.
    pub fn new(sources: impl IntoIterator<Item = (String, SecretSource)>) -> Self {
        let secret = |(id, source)| {
            let known = Mutex::new(None);
            (id, Secret { source, known })
        };
        Self {
            by_id: Arc::new(sources.into_iter().map(secret).collect()),
        }
    }

    /// Returns a secret, or `None` if nobody gave one of this id; may read a file, and wait for it.
    pub fn get(&self, id: &str) -> Result<Option<SecretValue>, SecretError> {
        let Some(secret) = self.by_id.get(id) else {
            return Ok(None);
        };
        let path = match &secret.source {
            SecretSource::Value(value) => return Ok(Some(value.clone())),
            SecretSource::File(path) => path,
        };
        let mut known = secret.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none() {
            *known = Some(read(id, path)?);
        }
        Ok(known.clone())
    }
}

impl SecretValue {
    /// Returns a secret value.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Zeroizing::new(bytes)))
    }

    /// Returns the bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(…)")
    }
}

impl SecretError {
    /// Returns what the user can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { id } => Some(format!(
                "give it with --secret id={id},src=FILE or --secret id={id},env=VARIABLE"
            )),
            Self::ZeroByte { .. } => Some("mount it as a file: leave `env` out".to_owned()),
            Self::Read { .. } | Self::TooLarge { .. } => None,
        }
    }
}

fn read(id: &str, path: &Path) -> Result<SecretValue, SecretError> {
    let failed = |source| SecretError::Read {
        id: id.to_owned(),
        path: path.to_owned(),
        source,
    };
    // With room for all of it, so that growing leaves no copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_SECRET + 1));
    let file = File::open(path).map_err(failed)?;
    let mut limited = file.take(MAX_SECRET as u64 + 1);
    limited.read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > MAX_SECRET {
        return Err(SecretError::TooLarge { id: id.to_owned() });
    }
    Ok(SecretValue::new(bytes.to_vec()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn of_file(path: &Path) -> Secrets {
        Secrets::new([("a".to_owned(), SecretSource::File(path.to_owned()))])
    }

    #[test]
    fn values_are_not_printed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "hunter2").unwrap();
        let value = SecretValue::new(b"hunter2".to_vec());
        let secrets = Secrets::new([
            ("a".to_owned(), SecretSource::Value(value)),
            ("b".to_owned(), SecretSource::File(path)),
        ]);
        secrets.get("b").unwrap();
        let shown = format!("{secrets:?} {:?}", secrets.get("a"));
        assert!(
            !shown.contains("hunter2") && !shown.contains("104"),
            "{shown}"
        );
    }

    #[test]
    fn a_file_is_read_when_needed_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let secrets = of_file(&path);
        fs::write(&path, "first").unwrap();
        assert_eq!(secrets.get("a").unwrap().unwrap().as_bytes(), b"first");
        fs::write(&path, "second").unwrap();
        assert_eq!(
            secrets.clone().get("a").unwrap().unwrap().as_bytes(),
            b"first"
        );
        assert_eq!(
            of_file(&path).get("a").unwrap().unwrap().as_bytes(),
            b"second"
        );
        assert!(secrets.get("b").unwrap().is_none());
    }

    #[test]
    fn what_grows_too_large_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, vec![b'x'; MAX_SECRET + 1]).unwrap();
        let error = of_file(&path).get("a").unwrap_err();
        assert!(matches!(error, SecretError::TooLarge { .. }), "{error}");
        let error = of_file(Path::new("/dev/zero")).get("a").unwrap_err();
        assert!(matches!(error, SecretError::TooLarge { .. }), "{error}");
        let error = of_file(dir.path()).get("a").unwrap_err();
        assert!(
            error.to_string().contains("cannot read secret `a`"),
            "{error}"
        );
    }
}
