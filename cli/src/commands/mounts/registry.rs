//! Cache mounts in registries: layers that are there are not sent again.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use kiln_cache::{CacheFolder, Store};
use kiln_exporter::{MOUNT_CONFIG, MountInfo, MountUnpacker, mount_chunks};
use kiln_graph::{Descriptor, Digest, Manifest, MediaKind, media_type};
use kiln_registry::{Client, Pushed, Reference, RegistryError};
use kiln_solver::blocking;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::environment::Environment;
use crate::registry_args::RegistryArgs;
use crate::report::Failure;
use crate::session::client_of;

/// Layers that are on their way, or lie on the disk to be sent, at a time.
const MAX_UPLOADS: usize = 4;
/// Largest config that is read.
const MAX_CONFIG: u64 = 64 << 10;

/// A client, and what it runs on.
pub(super) struct Registry {
    client: Client,
    runtime: Runtime,
}

/// What an export sent.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) digest: Digest,
    pub(super) n_sent: usize,
    pub(super) n_layers: usize,
    pub(super) bytes_sent: u64,
    pub(super) bytes: u64,
}

/// A cache mount of a registry.
#[derive(Debug)]
pub(super) struct Found {
    name: Reference,
    pub(super) info: MountInfo,
    layers: Vec<Descriptor>,
}

impl Registry {
    pub(super) fn new(args: &RegistryArgs, env: &Environment) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(Failure::user)?;
        let client = {
            // Registries start their connections on the runtime.
            let _entered = runtime.enter();
            client_of(env, args)?
        };
        Ok(Self { client, runtime })
    }

    /// Sends a folder; the manifest goes last.
    pub(super) fn push(
        &self,
        store: &Store,
        folder: CacheFolder,
        target: &Reference,
    ) -> Result<Sent, Failure> {
        self.runtime
            .block_on(push(&self.client, store, folder, target))
    }

    /// Looks for a cache mount.
    pub(super) fn find(&self, name: &Reference) -> Result<Found, Failure> {
        self.runtime.block_on(find(&self.client, name))
    }

    /// Fetches the files of a cache mount.
    pub(super) fn pull(
        &self,
        store: &Store,
        found: &Found,
        unpacker: MountUnpacker,
    ) -> Result<MountUnpacker, Failure> {
        self.runtime
            .block_on(pull(&self.client, store, found, unpacker))
    }
}

async fn push(
    client: &Client,
    store: &Store,
    folder: CacheFolder,
    target: &Reference,
) -> Result<Sent, Failure> {
    let (name, dir) = (folder.name().map_err(Failure::user)?, folder.fs_dir());
    let plan = {
        let dir = dir.clone();
        blocking(move || mount_chunks(&dir)).await
    };
    let (chunks, n_entries) = plan.map_err(Failure::user)?;
    // Dropped with this future, the set ends its tasks.
    let mut tasks = JoinSet::new();
    let (mut layers, mut sent) = (Vec::new(), Vec::new());
    for chunk in chunks {
        while tasks.len() >= MAX_UPLOADS {
            sent.extend(joined(tasks.join_next().await)?);
        }
        let (dir, path) = (dir.clone(), store.temp_path());
        let file = path.clone();
        let layer = blocking(move || chunk.write(&dir, &file)).await;
        let layer = layer.map_err(Failure::user)?;
        layers.push(layer.clone());
        let (client, target) = (client.clone(), target.clone());
        tasks.spawn(async move { push_file(&client, &target, layer, path).await });
    }
    while !tasks.is_empty() {
        sent.extend(joined(tasks.join_next().await)?);
    }
    // Nothing may change the folder before all of it is read.
    drop(folder);
    let config = MountInfo::new(&name, n_entries).to_json();
    let path = store.temp_path();
    std::fs::write(&path, &config).map_err(Failure::user)?;
    let config = Descriptor::new(MOUNT_CONFIG, Digest::sha256(&config), config.len() as u64);
    let pushed = push_file(client, target, config.clone(), path).await;
    pushed.map_err(Failure::user)?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::OCI_MANIFEST.to_owned(),
        config,
        layers,
        annotations: Default::default(),
    };
    let json = serde_json::to_vec(&manifest).expect("plain data");
    let digest = client
        .push_manifest(target, media_type::OCI_MANIFEST, &json)
        .await
        .map_err(Failure::user)?;
    Ok(Sent {
        digest,
        n_sent: sent.len(),
        n_layers: manifest.layers.len(),
        bytes_sent: sent.iter().sum(),
        bytes: manifest.layers.iter().map(|layer| layer.size).sum(),
    })
}

/// Sends a file unless the registry has it, and removes it; returns its size if it was sent.
async fn push_file(
    client: &Client,
    target: &Reference,
    descriptor: Descriptor,
    path: PathBuf,
) -> Result<Option<u64>, RegistryError> {
    let pushed = client
        .push_blob(target, &descriptor, path.clone(), None, &|_| ())
        .await;
    remove(&path);
    Ok((pushed? == Pushed::Uploaded).then_some(descriptor.size))
}

fn joined(
    task: Option<Result<Result<Option<u64>, RegistryError>, tokio::task::JoinError>>,
) -> Result<Option<u64>, Failure> {
    let Some(task) = task else {
        return Ok(None);
    };
    task.map_err(Failure::user)?.map_err(Failure::user)
}

async fn find(client: &Client, name: &Reference) -> Result<Found, Failure> {
    let manifest = client.manifest(name, None).await.map_err(Failure::user)?;
    let not_ours = || Failure::user(anyhow!("`{name}` is not a cache mount that kiln exported"));
    let manifest: Manifest = match MediaKind::of(&manifest.media_type) {
        Some(MediaKind::Manifest) => {
            serde_json::from_slice(&manifest.bytes).map_err(|_| not_ours())?
        }
        _ => return Err(not_ours()),
    };
    let config = &manifest.config;
    if config.media_type != MOUNT_CONFIG || config.size > MAX_CONFIG {
        return Err(not_ours());
    }
    let mut json = Vec::new();
    client
        .blob(name, config, &mut json, &|_| ())
        .await
        .map_err(Failure::user)?;
    Ok(Found {
        name: name.clone(),
        info: MountInfo::parse(&json).map_err(Failure::user)?,
        layers: manifest.layers,
    })
}

/// Each layer lies whole and verified on the disk before anything of it is unpacked.
async fn pull(
    client: &Client,
    store: &Store,
    found: &Found,
    mut unpacker: MountUnpacker,
) -> Result<MountUnpacker, Failure> {
    for layer in &found.layers {
        let path = store.temp_path();
        let result = pull_file(client, &found.name, layer, &path).await;
        unpacker = match result {
            Err(error) => {
                remove(&path);
                return Err(error);
            }
            Ok(file) => {
                // Open, it stays readable.
                remove(&path);
                let unpacked = blocking(move || unpacker.layer(file).map(|()| unpacker)).await;
                unpacked.map_err(Failure::user)?
            }
        };
    }
    Ok(unpacker)
}

async fn pull_file(
    client: &Client,
    name: &Reference,
    layer: &Descriptor,
    path: &Path,
) -> Result<std::fs::File, Failure> {
    let mut file = tokio::fs::File::create(path).await.map_err(Failure::user)?;
    client
        .blob(name, layer, &mut file, &|_| ())
        .await
        .map_err(Failure::user)?;
    std::fs::File::open(path).map_err(Failure::user)
}

fn remove(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "temporary file stays until the end");
        }
        _ => {}
    }
}
