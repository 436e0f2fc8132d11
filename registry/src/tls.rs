//! Trust: the system's certificate authorities, the caller's, and those of single hosts.
//!
//! Reads certificate files. A file that was named and cannot be used is an error; a single
//! certificate of the system's store that cannot be used is left out.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use reqwest::{Certificate, ClientBuilder, Identity};
use rustls::crypto::{CryptoProvider, ring};

use crate::config::Config;
use crate::error::RegistryError;

/// The certificates that every host of a client is checked against.
#[derive(Debug)]
pub(crate) struct Trust {
    extra: Vec<Certificate>,
    /// Loaded when the first host needs it: the store is hundreds of kilobytes of text.
    system: OnceLock<Vec<Certificate>>,
}

/// What a host's certificate folder holds.
#[derive(Debug, Default)]
pub(crate) struct HostCerts {
    authorities: Vec<Certificate>,
    identity: Option<Identity>,
}

impl Trust {
    pub(crate) fn open(config: &Config) -> Result<Self, RegistryError> {
        if CryptoProvider::get_default().is_none() {
            // It fails only if another thread was faster.
            drop(ring::default_provider().install_default());
        }
        let mut extra = Vec::new();
        for file in &config.extra_ca_files {
            extra.extend(read_authorities(file)?);
        }
        let system = OnceLock::new();
        Ok(Self { extra, system })
    }

    /// Sets what servers are checked against, and what they are shown.
    pub(crate) fn apply(&self, builder: ClientBuilder, certs: HostCerts) -> ClientBuilder {
        let system = self.system.get_or_init(load_system);
        let all = system.iter().chain(&self.extra).cloned();
        let builder = builder.tls_certs_only(all.chain(certs.authorities));
        match certs.identity {
            Some(identity) => builder.identity(identity),
            None => builder,
        }
    }
}

impl HostCerts {
    /// Reads the folders named like `host`; `None` if there are none.
    pub(crate) fn open(dirs: &[PathBuf], host: &str) -> Result<Option<Self>, RegistryError> {
        let mut found = None;
        for dir in dirs.iter().map(|dir| dir.join(host)) {
            for file in list(&dir)? {
                found.get_or_insert_with(Self::default).add(&file)?;
            }
        }
        Ok(found)
    }

    fn add(&mut self, file: &Path) -> Result<(), RegistryError> {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => self.authorities.extend(read_authorities(file)?),
            Some("cert") => {
                let key = file.with_extension("key");
                let mut pem = read(file)?;
                pem.push(b'\n');
                pem.extend(read(&key)?);
                let wrong = |source| unusable("client certificate", file, source);
                self.identity = Some(Identity::from_pem(&pem).map_err(wrong)?);
            }
            // Keys are read with their certificates; the rest is not ours.
            _ => {}
        }
        Ok(())
    }
}

/// Returns the failure of TLS that is behind an error.
pub(crate) fn tls_cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(found) = error.downcast_ref() {
        return Some(found);
    }
    // An I/O error does not show the error inside it as its source.
    let inside = error.downcast_ref().and_then(io::Error::get_ref);
    let inside = inside.and_then(|inside| tls_cause(inside));
    inside.or_else(|| error.source().and_then(tls_cause))
}

fn load_system() -> Vec<Certificate> {
    let loaded = rustls_native_certs::load_native_certs();
    for error in &loaded.errors {
        tracing::warn!(%error, "some certificates of the system are left out");
    }
    let usable = |der: &rustls::pki_types::CertificateDer<'static>| {
        rustls::RootCertStore::empty().add(der.clone()).is_ok()
    };
    let certs = loaded.certs.iter().filter(|der| usable(der));
    certs
        .filter_map(|der| Certificate::from_der(der).ok())
        .collect()
}

fn read_authorities(file: &Path) -> Result<Vec<Certificate>, RegistryError> {
    let wrong = |source| unusable("certificate authority", file, source);
    let certs = Certificate::from_pem_bundle(&read(file)?).map_err(wrong)?;
    if certs.is_empty() {
        let what = format!("use certificate authority `{}`", file.display());
        return Err(RegistryError::setup(what, "it holds no PEM certificate"));
    }
    Ok(certs)
}

fn unusable(kind: &str, file: &Path, source: reqwest::Error) -> RegistryError {
    RegistryError::setup(format!("use {kind} `{}`", file.display()), source)
}

fn read(file: &Path) -> Result<Vec<u8>, RegistryError> {
    fs::read(file).map_err(|source| {
        RegistryError::setup(
            format!("read certificate file `{}`", file.display()),
            source,
        )
    })
}

/// Lists a folder in order of names; one that is not there, or may not be read, is empty.
fn list(dir: &Path) -> Result<Vec<PathBuf>, RegistryError> {
    let failed = |source| {
        let what = format!("list certificate folder `{}`", dir.display());
        RegistryError::setup(what, source)
    };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.map_err(failed)?;
    paths.sort();
    Ok(paths)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_were_named_must_be_usable() {
        let dir = tempfile::tempdir().unwrap();
        let with = |file: PathBuf| Config {
            extra_ca_files: vec![file],
            ..Config::default()
        };
        let config = with(dir.path().join("absent.pem"));
        let error = Trust::open(&config).unwrap_err().to_string();
        assert!(error.contains("absent.pem"), "{error}");

        let empty = dir.path().join("empty.pem");
        fs::write(&empty, "no certificate").unwrap();
        let error = Trust::open(&with(empty)).unwrap_err().to_string();
        assert!(error.contains("empty.pem"), "{error}");
    }

    #[test]
    fn client_certificates_need_their_keys() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = [dir.path().to_owned()];
        assert!(HostCerts::open(&dirs, "h:5000").unwrap().is_none());
        fs::create_dir(dir.path().join("h:5000")).unwrap();
        assert!(HostCerts::open(&dirs, "h:5000").unwrap().is_none());
        fs::write(dir.path().join("h:5000/client.cert"), "x").unwrap();
        let error = HostCerts::open(&dirs, "h:5000").unwrap_err().to_string();
        assert!(error.contains("client.key"), "{error}");
    }
}
