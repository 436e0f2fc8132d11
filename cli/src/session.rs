//! What every command works with: store, registries, sandbox.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use kiln_cache::Store;
use kiln_registry::{Client, Config, Credentials};
use kiln_runtime::{Privilege, PrivilegeKind};
use kiln_worker::{Images, LazySandbox};

use crate::environment::Environment;
use crate::report::Failure;

/// Opens the store.
pub(crate) fn open_store(
    root: Option<PathBuf>,
    env: &Environment,
    privilege: &Privilege,
) -> Result<Store, Failure> {
    let is_root = privilege.kind == PrivilegeKind::Root;
    let root = root.or_else(|| env.default_root(is_root)).ok_or_else(|| {
        Failure::usage("there is no home folder to keep the store in").with_hint("give --root")
    })?;
    Store::open(&root)
        .with_context(|| format!("cannot open the store in `{}`", root.display()))
        .map_err(|error| {
            let hint = "give a folder that can be written to with --root or KILN_ROOT";
            Failure::user(error).with_hint(hint)
        })
}

/// What a build works with.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) store: Store,
    pub(crate) client: Client,
    pub(crate) images: Images,
    pub(crate) sandbox: Arc<LazySandbox>,
}

impl Session {
    /// Prepares registries and sandbox on top of a store.
    pub(crate) fn new(
        store: Store,
        env: &Environment,
        privilege: &Privilege,
        (insecure_hosts, ca_files): (&[String], &[PathBuf]),
    ) -> Result<Self, Failure> {
        let credentials = match env.docker_config().map_err(Failure::user)? {
            None => Credentials::default(),
            Some((name, text)) => Credentials::parse(&text)
                .with_context(|| format!("cannot use the credentials in `{name}`"))
                .map_err(Failure::user)?,
        };
        let config = Config {
            credentials: credentials.with_helper_path(env.path.clone()),
            insecure_hosts: insecure_hosts.to_vec(),
            extra_ca_files: ca_files.to_vec(),
            ..Config::default()
        };
        let client = Client::new(config).map_err(Failure::user)?;
        let images = Images::new(store.clone(), client.clone());
        let sandbox = LazySandbox::new(&store.root().join("sandbox"), privilege);
        let sandbox = Arc::new(sandbox);
        Ok(Self {
            store,
            client,
            images,
            sandbox,
        })
    }
}
