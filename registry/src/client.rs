//! The client: what its operations share.
//!
//! Owns the hosts that have been spoken to. The operations themselves are in `manifest`, `pull`
//! and `push`, how a request is sent in `exchange`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use kiln_graph::Digest;
use reqwest::{Client as Http, Method, Url};

use crate::address;
use crate::config::Config;
use crate::credentials::Logins;
use crate::error::{Operation, RegistryError};
use crate::exchange::Call;
use crate::host::{Host, Role};
use crate::mirrors::Source;
use crate::reference::Reference;
use crate::server::Server;
use crate::tls::Trust;
use crate::token::Need;

/// Speaks to registries. Clones share connections, tokens and permits.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    trust: Trust,
    logins: Logins,
    /// By name as it is connected to, and what it is there for.
    hosts: Mutex<HashMap<(String, Role), Arc<Host>>>,
    /// Who uploads what now: see [`Client::upload_lock`].
    uploads: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
    /// By host and digest: a repository that a blob was pushed to.
    pushed: Mutex<HashMap<(String, Digest), Reference>>,
}

impl Client {
    /// Returns a client. Reads the certificate files that `config` names, connects to nothing.
    pub fn new(config: Config) -> Result<Self, RegistryError> {
        let trust = Trust::open(&config)?;
        let logins = Logins::new(config.credentials.clone(), config.helper_timeout);
        Ok(Self {
            shared: Arc::new(Shared {
                config,
                trust,
                logins,
                hosts: Mutex::default(),
                uploads: Mutex::default(),
                pushed: Mutex::default(),
            }),
        })
    }

    pub(crate) fn config(&self) -> &Config {
        &self.shared.config
    }

    pub(crate) fn logins(&self) -> &Logins {
        &self.shared.logins
    }

    /// Shows a server the credentials for it: fails if it does not take them.
    pub async fn login(&self, server: &Server) -> Result<(), RegistryError> {
        let host = self.host(address::endpoint(server.host()))?;
        let operation = Operation::new("log in to", server.host().to_owned(), &host.name);
        let need = Need {
            operation: &operation,
            host: &host,
            scopes: &[],
        };
        let url = host.url("", self.config().connect_timeout).await?;
        self.call(&Call::new(need, Method::GET, url))
            .await
            .map(drop)
    }

    /// Returns the registry of a reference itself: what is pushed goes there.
    pub(crate) fn host_of(&self, reference: &Reference) -> Result<Arc<Host>, RegistryError> {
        self.host_at(&self.config().registries.target(reference)?)
    }

    pub(crate) fn host_at(&self, source: &Source) -> Result<Arc<Host>, RegistryError> {
        let role = Role {
            is_insecure: source.insecure,
            is_mirror: source.is_mirror,
        };
        self.host_as(address::endpoint(source.reference.host()), role)
    }

    pub(crate) fn host(&self, name: &str) -> Result<Arc<Host>, RegistryError> {
        self.host_as(name, Role::default())
    }

    fn host_as(&self, name: &str, role: Role) -> Result<Arc<Host>, RegistryError> {
        let mut hosts = self
            .shared
            .hosts
            .lock()
            .expect("no holder of this lock panics");
        let key = (name.to_owned(), role);
        if let Some(host) = hosts.get(&key) {
            return Ok(host.clone());
        }
        let host = Host::open(self.config(), &self.shared.trust, name, role)?;
        Ok(hosts.entry(key).or_insert(Arc::new(host)).clone())
    }

    /// Returns what asks a host for the file at a URL.
    pub(crate) async fn http_of_files<'a>(
        &self,
        host: &'a Host,
        url: &Url,
    ) -> Result<&'a Http, RegistryError> {
        let Shared { config, trust, .. } = &*self.shared;
        host.http_of_files(config, trust, url).await
    }

    /// Returns what speaks HTTP to a host (with its port) that is no registry, and checks its
    /// certificate as it does those of registries. Nothing of a registry's login goes there.
    pub fn http(&self, host: &str) -> Result<Http, RegistryError> {
        Ok(self.host(host)?.http.clone())
    }

    /// Returns a repository that this client has pushed a blob to.
    pub(crate) fn pushed_to(&self, host: &str, digest: Digest) -> Option<Reference> {
        let pushed = self.shared.pushed.lock();
        let pushed = pushed.expect("no holder of this lock panics");
        pushed.get(&(host.to_owned(), digest)).cloned()
    }

    /// Remembers where a blob was pushed to.
    pub(crate) fn note_pushed(&self, host: &str, digest: Digest, target: &Reference) {
        let pushed = self.shared.pushed.lock();
        let mut pushed = pushed.expect("no holder of this lock panics");
        pushed.insert((host.to_owned(), digest), target.clone());
    }

    /// Returns the lock that keeps two tasks from uploading the same blob to the same repository.
    pub(crate) fn upload_lock(&self, key: String) -> Arc<tokio::sync::Mutex<()>> {
        let mut uploads = self
            .shared
            .uploads
            .lock()
            .expect("no holder of this lock panics");
        uploads.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = uploads.get(&key).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::default();
        uploads.insert(key, Arc::downgrade(&lock));
        lock
    }
}
