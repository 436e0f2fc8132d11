//! OCI layouts as sources of images: a folder with `index.json` and `blobs`.
//!
//! Nothing in the folder is trusted: every blob is read through a descriptor below the folder,
//! links are not followed, and what comes out has the digest and the size that it should have.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use kiln_cache::{Store, StoreError, open_beneath, open_dir};
use kiln_graph::{Descriptor, Digest, Index};

use crate::error::WorkerError;

/// What the name of an image in a layout begins with.
pub(crate) const SCHEME: &str = "oci-layout://";

/// Longest index, manifest or config in bytes.
const MAX_DOCUMENT: u64 = 16 << 20;

/// Where tools write the name of an image in an index.
const NAMES: [&str; 2] = [
    "org.opencontainers.image.ref.name",
    "io.containerd.image.name",
];

/// A folder that holds images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciLayout {
    dir: PathBuf,
}

impl OciLayout {
    /// Returns the layout in a folder. Nothing is read.
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    /// Returns the layout that the name of an image begins with.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let dir = name.strip_prefix(SCHEME)?;
        Some(Self::new(Path::new(dir)))
    }

    /// Returns what images of this layout are called.
    pub fn name(&self) -> String {
        format!("{SCHEME}{}", self.dir.display())
    }

    /// Finds an image by its digest, by its tag, or as the only one.
    pub fn find(&self, tag: &str, digest: Option<Digest>) -> Result<Descriptor, WorkerError> {
        let bytes = self.read(b"index.json", MAX_DOCUMENT)?;
        let index: Index = serde_json::from_slice(&bytes)
            .map_err(|error| self.unusable(format!("`index.json` is malformed: {error}")))?;
        if let Some(digest) = digest {
            let listed = index
                .manifests
                .into_iter()
                .find(|found| found.digest == digest);
            return listed.map_or_else(|| self.unlisted(digest), Ok);
        }
        let is_named = |found: &&Descriptor| {
            let mut names = NAMES.iter().filter_map(|name| found.annotations.get(*name));
            names.any(|name| name == tag || name.rsplit_once(':').is_some_and(|(_, t)| t == tag))
        };
        let found = index.manifests.iter().find(is_named);
        match (found, &index.manifests[..]) {
            (Some(found), _) => Ok(found.clone()),
            (None, [only]) => Ok(only.clone()),
            (None, all) => {
                let n = all.len();
                Err(self.unusable(format!("none of its {n} images is called `{tag}`")))
            }
        }
    }

    /// A digest may name a manifest that only another index lists.
    fn unlisted(&self, digest: Digest) -> Result<Descriptor, WorkerError> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Head {
            #[serde(default)]
            media_type: String,
        }
        let bytes = self.read(blob_path(&digest).as_bytes(), MAX_DOCUMENT)?;
        let head: Option<Head> = serde_json::from_slice(&bytes).ok();
        let media_type = head
            .map(|head| head.media_type)
            .filter(|text| !text.is_empty());
        let media_type =
            media_type.unwrap_or_else(|| "application/vnd.oci.image.manifest.v1+json".to_owned());
        Ok(Descriptor::new(&media_type, digest, bytes.len() as u64))
    }

    /// Reads a small blob.
    pub(crate) fn read_blob(&self, digest: &Digest) -> Result<Vec<u8>, WorkerError> {
        let bytes = self.read(blob_path(digest).as_bytes(), MAX_DOCUMENT)?;
        let actual = Digest::sha256(&bytes);
        if actual != *digest {
            return Err(self.unusable(format!("blob {digest} is damaged: it has {actual}")));
        }
        Ok(bytes)
    }

    /// Copies a blob into a store, if it is not there yet.
    pub(crate) fn copy_blob(&self, store: &Store, blob: &Descriptor) -> Result<(), WorkerError> {
        let file = self.open(blob_path(&blob.digest).as_bytes())?;
        let mut writer = store.write_blob()?;
        let copied = io::copy(&mut file.take(blob.size.saturating_add(1)), &mut writer)
            .and_then(|n| writer.flush().map(|()| n))
            .map_err(|source| self.failed("copy a blob of", source))?;
        if copied != blob.size {
            let digest = blob.digest;
            return Err(self.unusable(format!("blob {digest} is not {} bytes long", blob.size)));
        }
        match writer.commit(Some(&blob.digest)) {
            Ok(_) => Ok(()),
            Err(StoreError::WrongDigest { expected, actual }) => {
                Err(self.unusable(format!("blob {expected} is damaged: it has {actual}")))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn read(&self, path: &[u8], limit: u64) -> Result<Vec<u8>, WorkerError> {
        let mut bytes = Vec::new();
        let file = self.open(path)?;
        file.take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| self.failed("read", source))?;
        if bytes.len() as u64 > limit {
            let path = String::from_utf8_lossy(path);
            return Err(self.unusable(format!("`{path}` is too large")));
        }
        Ok(bytes)
    }

    fn open(&self, path: &[u8]) -> Result<std::fs::File, WorkerError> {
        let open = || open_beneath(&open_dir(&self.dir)?, path);
        open().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                let path = String::from_utf8_lossy(path);
                self.unusable(format!("there is no `{path}` in it"))
            }
            _ => self.failed("read", error),
        })
    }

    fn unusable(&self, why: String) -> WorkerError {
        WorkerError::image(&self.name(), why)
    }

    fn failed(&self, what: &'static str, source: io::Error) -> WorkerError {
        WorkerError::Io {
            what,
            path: self.dir.clone(),
            source,
        }
    }
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A layout with these blobs, and with an index of these names.
    fn layout(blobs: &[&str], names: &[&str]) -> (tempfile::TempDir, OciLayout) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        for blob in blobs {
            fs::write(dir.path().join(blob_path(&Digest::sha256(blob))), blob).unwrap();
        }
        let manifests: Vec<serde_json::Value> = names
            .iter()
            .map(|name| {
                serde_json::json!({
                    "mediaType": "m", "size": 1, "digest": Digest::sha256(name).to_string(),
                    "annotations": {"org.opencontainers.image.ref.name": name},
                })
            })
            .collect();
        let index = serde_json::json!({"schemaVersion": 2, "manifests": manifests});
        fs::write(dir.path().join("index.json"), index.to_string()).unwrap();
        let layout = OciLayout::new(dir.path());
        (dir, layout)
    }

    #[test]
    fn images_are_found_by_tag_or_alone() {
        let (_dir, two) = layout(&[], &["v1", "v2"]);
        let digest = |name: &str| Digest::sha256(name);
        assert_eq!(two.find("v2", None).unwrap().digest, digest("v2"));
        assert_eq!(
            two.find("x", Some(digest("v1"))).unwrap().digest,
            digest("v1")
        );
        assert!(
            two.find("latest", None)
                .unwrap_err()
                .to_string()
                .contains("`latest`")
        );
        let (_dir, one) = layout(&[], &["v1"]);
        assert_eq!(one.find("latest", None).unwrap().digest, digest("v1"));
    }

    #[test]
    fn blobs_are_verified_and_links_are_not_followed() {
        let (dir, layout) = layout(&["good"], &[]);
        let good = Digest::sha256("good");
        assert_eq!(layout.read_blob(&good).unwrap(), b"good");
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        layout
            .copy_blob(&store, &Descriptor::new("t", good, 4))
            .unwrap();
        assert!(store.has_blob(&good));
        assert!(
            layout
                .copy_blob(&store, &Descriptor::new("t", good, 3))
                .is_err()
        );
        let path = dir.path().join(blob_path(&good));
        fs::write(&path, "evil").unwrap();
        assert!(
            layout
                .read_blob(&good)
                .unwrap_err()
                .to_string()
                .contains("damaged")
        );
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(layout.read_blob(&good).is_err());
        fs::remove_file(&path).unwrap();
        assert!(
            layout
                .read_blob(&good)
                .unwrap_err()
                .to_string()
                .contains("there is no")
        );
    }
}
