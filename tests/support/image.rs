//! Reads images that kiln wrote: OCI layouts and Docker archives.

use std::fs;
use std::path::{Path, PathBuf};

use kiln_graph::Digest;
use serde_json::Value;
use tempfile::TempDir;

use super::{command, run, text};

/// An image in an OCI layout, checked: every blob is there with its digest and size.
#[derive(Debug)]
pub(crate) struct Image {
    dir: PathBuf,
    /// Holds the layout if it came out of an archive.
    _unpacked: Option<TempDir>,
    pub(crate) index: Value,
    pub(crate) manifest: Value,
    pub(crate) config: Value,
}

impl Image {
    /// Reads an archive that was written with `type=oci`.
    pub(crate) fn open_archive(path: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        run(command("tar")
            .arg("-xf")
            .arg(path)
            .arg("-C")
            .arg(dir.path()));
        let mut image = Self::open(dir.path());
        image._unpacked = Some(dir);
        image
    }

    /// Reads an OCI layout of one image.
    pub(crate) fn open(dir: &Path) -> Self {
        let index = json(&dir.join("index.json"));
        let descriptor = one_image(dir, &index);
        let manifest = json_of(&blob(dir, &descriptor));
        let config = json_of(&blob(dir, &manifest["config"]));
        for layer in list(&manifest["layers"]) {
            blob(dir, layer);
        }
        Self {
            dir: dir.to_owned(),
            _unpacked: None,
            index,
            manifest,
            config,
        }
    }

    /// The layout's folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn n_layers(&self) -> usize {
        list(&self.manifest["layers"]).len()
    }

    /// Returns the digest of a layer's blob.
    pub(crate) fn layer_digest(&self, at: usize) -> String {
        string(&self.manifest["layers"][at]["digest"])
    }

    /// Returns the digest of the config, which names the image.
    pub(crate) fn id(&self) -> String {
        string(&self.manifest["config"]["digest"])
    }

    /// Returns the digest of the manifest.
    pub(crate) fn digest(&self) -> String {
        string(&one_image(&self.dir, &self.index)["digest"])
    }

    /// Returns the digests of the layers' uncompressed archives.
    pub(crate) fn diff_ids(&self) -> Vec<String> {
        list(&self.config["rootfs"]["diff_ids"])
            .iter()
            .map(string)
            .collect()
    }

    /// Returns the `created_by` texts of the history.
    pub(crate) fn history(&self) -> Vec<String> {
        let entries = list(&self.config["history"]).iter();
        entries.map(|entry| string(&entry["created_by"])).collect()
    }

    /// Returns the sorted names in a layer's archive, as `tar` prints them.
    pub(crate) fn layer(&self, at: usize) -> Vec<String> {
        list_tar(&blob_path(&self.dir, &self.layer_digest(at)))
    }
}

/// Returns the sorted names in an archive.
pub(crate) fn list_tar(path: &Path) -> Vec<String> {
    let output = run(command("tar").arg("-tf").arg(path));
    let mut names: Vec<_> = text(&output.stdout).lines().map(str::to_owned).collect();
    names.sort_unstable();
    names
}

/// Follows indexes of one image.
fn one_image(dir: &Path, index: &Value) -> Value {
    let manifests = list(&index["manifests"]);
    assert_eq!(manifests.len(), 1, "{index}");
    let descriptor = manifests[0].clone();
    if string(&descriptor["mediaType"]).contains("index") {
        return one_image(dir, &json_of(&blob(dir, &descriptor)));
    }
    descriptor
}

fn blob(dir: &Path, descriptor: &Value) -> Vec<u8> {
    let digest = string(&descriptor["digest"]);
    let bytes = fs::read(blob_path(dir, &digest)).unwrap();
    assert_eq!(Digest::sha256(&bytes).to_string(), digest);
    assert_eq!(Some(bytes.len() as u64), descriptor["size"].as_u64());
    bytes
}

fn blob_path(dir: &Path, digest: &str) -> PathBuf {
    dir.join("blobs").join(digest.replace(':', "/"))
}

fn json(path: &Path) -> Value {
    json_of(&fs::read(path).unwrap())
}

fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
