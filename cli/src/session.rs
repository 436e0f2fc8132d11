//! What every command works with: store, registries, sandbox.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use kiln_cache::{DATABASE, Store, StoreError};
use kiln_registry::{Client, Config, Credentials};
use kiln_runtime::{Privilege, PrivilegeKind};
use kiln_worker::{GitSettings, Images, LazySandbox, Sources};

use crate::environment::Environment;
use crate::registries::Places;
use crate::registry_args::RegistryArgs;
use crate::report::Failure;

// Primary result codes of SQLite (sqlite.org/rescode.html).
const SQLITE_BUSY: i32 = 5;
const SQLITE_LOCKED: i32 = 6;
const SQLITE_CORRUPT: i32 = 11;
const SQLITE_FULL: i32 = 13;
const SQLITE_NOT_A_DATABASE: i32 = 26;
// An extended one: a file that processes share could not be made longer.
const SQLITE_IOERR_SHMSIZE: i32 = 4874;

/// Opens the store.
pub(crate) fn open_store(
    root: Option<PathBuf>,
    env: &Environment,
    privilege: &Privilege,
) -> Result<Store, Failure> {
    open_store_with(Store::open, root, env, privilege)
}

/// Opens the store in one of the ways to do so.
pub(crate) fn open_store_with(
    open: impl FnOnce(&Path) -> Result<Store, StoreError>,
    root: Option<PathBuf>,
    env: &Environment,
    privilege: &Privilege,
) -> Result<Store, Failure> {
    let is_root = privilege.kind == PrivilegeKind::Root;
    let root = root.or_else(|| env.default_root(is_root)).ok_or_else(|| {
        Failure::usage("there is no home folder to keep the store in").with_hint("give --root")
    })?;
    open(&root).map_err(|error| {
        let hint = store_hint(&root, &error);
        let context = format!("cannot open the store in `{}`", root.display());
        let failure = Failure::user(anyhow::Error::new(error).context(context));
        match hint {
            Some(hint) => failure.with_hint(hint),
            None => failure,
        }
    })
}

const ELSEWHERE: &str = "give a folder that can be written to with --root or KILN_ROOT";
const NO_ROOM: &str = "make room, with `kiln prune` for instance, or give a folder on another disk with --root or KILN_ROOT";

/// Returns what may help; some errors say it themselves.
fn store_hint(root: &Path, error: &StoreError) -> Option<String> {
    match error {
        StoreError::Database { source, .. } => {
            let code = source.sqlite_error();
            Some(database_hint(root, code.map(|error| error.extended_code)))
        }
        StoreError::Io { source, .. } => Some(match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => NO_ROOM.to_owned(),
            _ => ELSEWHERE.to_owned(),
        }),
        StoreError::Version { .. } => None,
        StoreError::WrongDigest { .. }
        | StoreError::Damaged { .. }
        | StoreError::Changed { .. } => Some(format!(
            "the store is damaged; remove `{}`, or give another folder with --root or KILN_ROOT",
            root.display()
        )),
    }
}

fn database_hint(root: &Path, code: Option<i32>) -> String {
    if code == Some(SQLITE_IOERR_SHMSIZE) {
        return NO_ROOM.to_owned();
    }
    // The lowest byte is the kind of the error.
    match code.map(|code| code & 0xff) {
        Some(SQLITE_FULL) => NO_ROOM.to_owned(),
        Some(SQLITE_BUSY | SQLITE_LOCKED) => {
            "another process holds the database; try again later".to_owned()
        }
        Some(SQLITE_CORRUPT | SQLITE_NOT_A_DATABASE) => format!(
            "the database `{0}` is damaged; `kiln store verify --repair` replaces it, and steps run \
             again then; if that fails, remove `{0}`, `{0}-wal` and `{0}-shm`",
            root.join(DATABASE).display()
        ),
        _ => ELSEWHERE.to_owned(),
    }
}

/// Adds to a failure of the store what may help, unless it says so already.
pub(crate) fn with_store_hint(failure: Failure) -> Failure {
    let error = failure.error.chain().find_map(|one| one.downcast_ref());
    let hint = match error {
        Some(error @ StoreError::Database { .. }) if failure.hints.is_empty() => {
            store_hint(Path::new(""), error)
        }
        _ => None,
    };
    match hint {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}

/// Returns the user's credentials, with their helpers.
pub(crate) fn credentials_of(env: &Environment) -> Result<Credentials, Failure> {
    let credentials = match env.docker_config().map_err(Failure::user)? {
        None => Credentials::default(),
        Some((name, text)) => Credentials::parse(&text)
            .with_context(|| format!("cannot use the credentials in `{name}`"))
            .map_err(Failure::user)?,
    };
    Ok(credentials.with_helper_path(env.path.clone()))
}

/// Returns how registries are spoken to with these credentials.
pub(crate) fn config_of(
    env: &Environment,
    credentials: Credentials,
    args: &RegistryArgs,
) -> Result<Config, Failure> {
    let places = Places::read(env, &args.registry_mirror)?;
    let mut insecure_hosts = args.trust.insecure_registry.clone();
    insecure_hosts.extend(places.insecure_hosts);
    Ok(Config {
        credentials,
        insecure_hosts,
        registries: places.registries,
        extra_ca_files: args.trust.ca_file.clone(),
        ..Config::default()
    })
}

/// Returns a client of registries with the user's credentials.
pub(crate) fn client_of(env: &Environment, args: &RegistryArgs) -> Result<Client, Failure> {
    let config = config_of(env, credentials_of(env)?, args)?;
    Client::new(config).map_err(Failure::user)
}

/// What a build works with.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) store: Store,
    pub(crate) client: Client,
    pub(crate) images: Images,
    pub(crate) sandbox: Arc<LazySandbox>,
    pub(crate) sources: Sources,
}

impl Session {
    /// Prepares registries and sandbox on top of a store.
    pub(crate) fn new(
        store: Store,
        env: &Environment,
        privilege: &Privilege,
        registries: &RegistryArgs,
    ) -> Result<Self, Failure> {
        let client = client_of(env, registries)?;
        let git = GitSettings {
            path: env.path.clone(),
            proxies: env.proxies(),
        };
        let sources = Sources::new(store.clone(), client.clone(), git);
        let images = Images::new(store.clone(), client.clone());
        let sandbox = LazySandbox::new(&store.root().join("sandbox"), privilege);
        let sandbox = Arc::new(sandbox);
        Ok(Self {
            store,
            client,
            images,
            sandbox,
            sources,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(root: &Path) -> Option<String> {
        store_hint(root, &Store::open(root).unwrap_err())
    }

    #[test]
    fn hints_fit_what_is_wrong_with_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("store");
        drop(Store::open(&root).unwrap());
        std::fs::write(root.join("version"), "99").unwrap();
        assert_eq!(hint(&root), None);
        let file = root.join("version");
        assert_eq!(hint(&file).as_deref(), Some(ELSEWHERE));
        let database = |code| database_hint(&root, Some(code));
        assert!(database(SQLITE_NOT_A_DATABASE).contains("is damaged"));
        assert_eq!(database(SQLITE_FULL), NO_ROOM);
        assert_eq!(database(SQLITE_IOERR_SHMSIZE), NO_ROOM);
        assert_eq!(database_hint(&root, None), ELSEWHERE);
    }
}
