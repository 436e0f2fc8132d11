//! The OCI image layout: `oci-layout`, `index.json`, `blobs/sha256/HEX`, as files to write.
//!
//! A layout for Docker has a `manifest.json` beside them, as `docker load` wants it. In a
//! directory the index is written last and the blobs of earlier exports stay, so a reader finds
//! the old image or the new one.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use kiln_cache::Store;
use kiln_graph::{Descriptor, Digest, Index, media_type};
use kiln_registry::Reference;
use serde::Serialize;

use crate::archive::ArchiveFormat;
use crate::config::manifest_bytes;
use crate::destination::write_file;
use crate::error::ExportError;
use crate::image::Bundle;

const IMAGE_NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CREATED: &str = "org.opencontainers.image.created";
const LAYOUT_FILE: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// An `index.json` that is longer is not read.
const MAX_INDEX: u64 = 8 << 20;

/// A file of a layout.
#[derive(Debug)]
pub(crate) struct LayoutFile<'a> {
    pub(crate) path: String,
    pub(crate) content: LayoutContent<'a>,
}

/// What a file of a layout holds.
#[derive(Debug)]
pub(crate) enum LayoutContent<'a> {
    Bytes(&'a [u8]),
    Owned(Vec<u8>),
    /// A blob of the store.
    Stored {
        digest: Digest,
        size: u64,
    },
}

/// One image in Docker's `manifest.json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Writes a layout into a directory, beside images that it already holds.
///
/// An image of the same name is replaced.
pub fn export_layout(
    store: &Store,
    bundle: &Bundle,
    names: &[Reference],
    format: ArchiveFormat,
    dir: &Path,
) -> Result<(), ExportError> {
    let blobs = dir.join("blobs/sha256");
    // Whatever can be refused is refused before something is written.
    let files = layout_files(bundle, names, format, &read_index(dir)?)?;
    fs::create_dir_all(&blobs).map_err(ExportError::write_path(&blobs))?;
    for file in files {
        let path = dir.join(&file.path);
        if !file.is_there(&path) {
            write_file(&path, |out| file.write(store, &path, out))?;
        }
    }
    Ok(())
}

impl LayoutFile<'_> {
    /// Blobs are named by their content; what an earlier export wrote is as good.
    fn is_there(&self, path: &Path) -> bool {
        let size = match &self.content {
            LayoutContent::Bytes(bytes) => bytes.len() as u64,
            LayoutContent::Stored { size, .. } => *size,
            LayoutContent::Owned(_) => return false,
        };
        let found = fs::metadata(path);
        self.path.starts_with("blobs/") && found.is_ok_and(|f| f.is_file() && f.len() == size)
    }

    fn write(&self, store: &Store, path: &Path, out: &mut dyn Write) -> Result<(), ExportError> {
        let bytes = match &self.content {
            LayoutContent::Bytes(bytes) => bytes,
            LayoutContent::Owned(bytes) => &bytes[..],
            LayoutContent::Stored { digest, size } => {
                let digest = *digest;
                let blob = store.open_verified(&digest)?;
                let mut blob = blob.ok_or(ExportError::Missing { digest })?;
                let n = io::copy(&mut blob, out).map_err(ExportError::write_path(path))?;
                blob.finish()?;
                return check_size(&digest, *size, n);
            }
        };
        out.write_all(bytes).map_err(ExportError::write_path(path))
    }
}

/// Returns all files of a layout, in the order in which they are written to a directory.
pub(crate) fn layout_files<'a>(
    bundle: &'a Bundle,
    names: &[Reference],
    format: ArchiveFormat,
    existing: &[Descriptor],
) -> Result<Vec<LayoutFile<'a>>, ExportError> {
    let mut files: Vec<LayoutFile<'a>> = Vec::new();
    for blob in bundle.blobs() {
        let content = match blob.bytes {
            Some(bytes) => LayoutContent::Bytes(bytes),
            None => LayoutContent::Stored {
                digest: blob.digest,
                size: blob.size,
            },
        };
        files.push(LayoutFile {
            path: blob_path(&blob.digest),
            content,
        });
    }
    let mut add = |path: &str, content| {
        files.push(LayoutFile {
            path: path.to_owned(),
            content,
        });
    };
    add("oci-layout", LayoutContent::Bytes(LAYOUT_FILE));
    if format == ArchiveFormat::Docker {
        add(
            "manifest.json",
            LayoutContent::Owned(docker_manifest(bundle, names)?),
        );
    }
    add(
        "index.json",
        LayoutContent::Owned(index_json(bundle, names, existing)?),
    );
    Ok(files)
}

fn check_size(digest: &Digest, expected: u64, actual: u64) -> Result<(), ExportError> {
    if expected == actual {
        return Ok(());
    }
    Err(ExportError::Changed {
        path: format!("blob {digest}"),
    })
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// Docker's list of images; an index has no place in it.
fn docker_manifest(bundle: &Bundle, names: &[Reference]) -> Result<Vec<u8>, ExportError> {
    let [image] = bundle.images() else {
        let message = "docker exporter does not currently support exporting manifest lists";
        return Err(ExportError::refused(message));
    };
    let tags: Vec<String> = names.iter().filter_map(repo_tag).collect();
    let image = DockerImage {
        config: blob_path(&image.config_descriptor.digest),
        repo_tags: Some(tags).filter(|tags| !tags.is_empty()),
        layers: image
            .layers
            .iter()
            .map(|layer| blob_path(&layer.descriptor.digest))
            .collect(),
    };
    let json = serde_json::to_vec(&[image]);
    json.map_err(|error| ExportError::write("`manifest.json`")(error.into()))
}

/// A tag as `docker load` takes it; there is no place for a digest.
fn repo_tag(name: &Reference) -> Option<String> {
    name.with_tag(name.tag()?).ok().map(|name| name.familiar())
}

/// The layout's index: one entry for each name, and what other exports left there.
fn index_json(
    bundle: &Bundle,
    names: &[Reference],
    existing: &[Descriptor],
) -> Result<Vec<u8>, ExportError> {
    let mut root = bundle.root().clone();
    if let Some(created) = bundle
        .images()
        .iter()
        .find_map(|image| image.created.as_ref())
    {
        root.annotations
            .entry(CREATED.to_owned())
            .or_insert_with(|| created.clone());
    }
    let mut added: Vec<Descriptor> = names.iter().map(|name| named(&root, name)).collect();
    if added.is_empty() {
        added.push(root);
    }
    let is_replaced = |old: &Descriptor| {
        added.iter().any(
            |new| match (name_of(&new.annotations), name_of(&old.annotations)) {
                (None, None) => new.digest == old.digest,
                (new, old) => new == old,
            },
        )
    };
    let kept = existing.iter().filter(|old| !is_replaced(old)).cloned();
    let index = Index {
        schema_version: 2,
        media_type: media_type::OCI_INDEX.to_owned(),
        manifests: kept.chain(added.iter().cloned()).collect(),
        annotations: BTreeMap::new(),
    };
    manifest_bytes(&index).map_err(|error| ExportError::write("`index.json`")(error.into()))
}

fn named(root: &Descriptor, name: &Reference) -> Descriptor {
    let mut named = root.clone();
    named
        .annotations
        .insert(IMAGE_NAME.to_owned(), name.to_string());
    if let Some(tag) = name.tag() {
        named
            .annotations
            .insert(REF_NAME.to_owned(), tag.to_owned());
    }
    named
}

/// Two entries with the same tag would leave readers to choose, so the tag is the name.
fn name_of(annotations: &BTreeMap<String, String>) -> Option<&String> {
    annotations
        .get(REF_NAME)
        .or_else(|| annotations.get(IMAGE_NAME))
}

/// Reads what a layout in the directory already lists.
fn read_index(dir: &Path) -> Result<Vec<Descriptor>, ExportError> {
    let path = dir.join("index.json");
    let failed = || ExportError::read(format!("`{}`", path.display()));
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed()(error)),
        Ok(found) if !found.is_file() || found.len() > MAX_INDEX => {
            return Err(failed()(io::Error::other(
                "it is not the index of an OCI layout",
            )));
        }
        Ok(_) => {}
    }
    let bytes = fs::read(&path).map_err(failed())?;
    let index: Index = serde_json::from_slice(&bytes).map_err(|error| failed()(error.into()))?;
    Ok(index.manifests)
}
