//! From layers and a config to manifests, and from manifests to an index.

use std::collections::BTreeSet;

use kiln_cache::Store;
use kiln_graph::{
    Descriptor, Digest, ImageConfig, Index, Manifest, Platform, PlatformField, media_type,
};

use crate::annotation::{Annotation, AnnotationTarget, select};
use crate::compress::Compression;
use crate::config::{config_bytes, manifest_bytes};
use crate::error::ExportError;
use crate::layer::{ImageLayer, PreparedLayer, prepare_layer};

/// An image to export.
#[derive(Debug, Clone)]
pub struct Image {
    /// What it runs on.
    pub platform: Platform,
    /// Its config: `created` and `history` as they shall be; the diff ids are filled in.
    pub config: ImageConfig,
    /// Its layers, lowest first.
    pub layers: Vec<ImageLayer>,
}

/// In which form images are exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageOptions {
    /// How built layers are compressed.
    pub compression: Compression,
    /// Compress base layers in the same way, too.
    pub force_compression: bool,
    /// Use OCI's media types rather than Docker's. Annotations need OCI's, and get them.
    pub oci_mediatypes: bool,
    /// Notes for manifests and indexes.
    pub annotations: Vec<Annotation>,
    /// Name built layers by their uncompressed tar without making it: for an image that stays in
    /// the store, which can make the bytes whenever somebody wants them.
    pub promise: bool,
}

/// An image whose layers have their blobs: its config and its manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedImage {
    /// What it runs on.
    pub platform: Platform,
    /// When it was made, as its config says.
    pub created: Option<String>,
    /// Its layers, lowest first.
    pub layers: Vec<PreparedLayer>,
    /// Names the config.
    pub config_descriptor: Descriptor,
    /// The config's bytes.
    pub config: Vec<u8>,
    /// Names the manifest, with its platform.
    pub descriptor: Descriptor,
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
}

/// What is exported: one image, or an index with an image for each platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    images: Vec<PreparedImage>,
    index: Option<Vec<u8>>,
    root: Descriptor,
}

/// A blob of a bundle.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BundleBlob<'a> {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    /// The bytes of configs, manifests and indexes; those of layers are in the store.
    pub(crate) bytes: Option<&'a [u8]>,
}

impl ImageOptions {
    pub(crate) fn is_oci(&self) -> bool {
        self.oci_mediatypes || !self.annotations.is_empty()
    }
}

/// Prepares all layers of an image, one after another, and assembles it.
pub fn prepare_image(
    store: &Store,
    image: &Image,
    options: &ImageOptions,
) -> Result<PreparedImage, ExportError> {
    let layers = image
        .layers
        .iter()
        .map(|layer| prepare_layer(store, layer, options));
    let layers = layers.collect::<Result<Vec<_>, _>>()?;
    assemble(&image.platform, &image.config, layers, options)
}

/// Makes config and manifest of an image whose layers are prepared.
pub fn assemble(
    platform: &Platform,
    config: &ImageConfig,
    layers: Vec<PreparedLayer>,
    options: &ImageOptions,
) -> Result<PreparedImage, ExportError> {
    let (config_type, manifest_type) = if options.is_oci() {
        (media_type::OCI_CONFIG, media_type::OCI_MANIFEST)
    } else {
        (media_type::DOCKER_CONFIG, media_type::DOCKER_MANIFEST)
    };
    let diff_ids = layers.iter().map(|layer| layer.diff_id).collect();
    let created = config.created.clone();
    let config = config_bytes(config, platform, diff_ids).map_err(unwritable)?;
    let config_descriptor = describe(config_type, &config);
    let manifest = Manifest {
        schema_version: 2,
        media_type: manifest_type.to_owned(),
        config: config_descriptor.clone(),
        layers: layers
            .iter()
            .map(|layer| layer.descriptor.clone())
            .collect(),
        annotations: select(
            &options.annotations,
            AnnotationTarget::Manifest,
            Some(platform),
        ),
    };
    let manifest = manifest_bytes(&manifest).map_err(unwritable)?;
    let mut descriptor = describe(manifest_type, &manifest);
    descriptor.platform = Some(PlatformField::from(platform));
    let target = AnnotationTarget::ManifestDescriptor;
    descriptor.annotations = select(&options.annotations, target, Some(platform));
    Ok(PreparedImage {
        platform: platform.clone(),
        created,
        layers,
        config_descriptor,
        config,
        descriptor,
        manifest,
    })
}

impl Bundle {
    /// Bundles images: one stays as it is, several get an index.
    pub fn new(images: Vec<PreparedImage>, options: &ImageOptions) -> Result<Self, ExportError> {
        match &images[..] {
            [image] => {
                let is_index = |annotation: &Annotation| annotation.target.is_index();
                if options.annotations.iter().any(is_index) {
                    let message = "index annotations need images for several platforms";
                    return Err(ExportError::refused(message));
                }
                let root = image.descriptor.clone();
                Ok(Self {
                    images,
                    index: None,
                    root,
                })
            }
            _ => Self::with_index(images, options),
        }
    }

    /// Bundles images with an index, even one.
    pub fn with_index(
        images: Vec<PreparedImage>,
        options: &ImageOptions,
    ) -> Result<Self, ExportError> {
        let platforms: BTreeSet<&Platform> = images.iter().map(|image| &image.platform).collect();
        if platforms.len() < images.len() {
            return Err(ExportError::refused("two images are for the same platform"));
        }
        if images.is_empty() {
            return Err(ExportError::refused("there is no image to export"));
        }
        let media_type = if options.is_oci() {
            media_type::OCI_INDEX
        } else {
            media_type::DOCKER_LIST
        };
        let index = Index {
            schema_version: 2,
            media_type: media_type.to_owned(),
            manifests: images
                .iter()
                .map(|image| image.descriptor.clone())
                .collect(),
            annotations: select(&options.annotations, AnnotationTarget::Index, None),
        };
        let index = manifest_bytes(&index).map_err(unwritable)?;
        let mut root = describe(media_type, &index);
        let target = AnnotationTarget::IndexDescriptor;
        root.annotations = select(&options.annotations, target, None);
        Ok(Self {
            images,
            index: Some(index),
            root,
        })
    }

    /// Bundles what is complete already.
    pub(crate) fn of_parts(
        images: Vec<PreparedImage>,
        index: Option<(Descriptor, Vec<u8>)>,
    ) -> Result<Self, ExportError> {
        let Some(first) = images.first() else {
            return Err(ExportError::refused("there is no image to push"));
        };
        let (root, index) = match index {
            Some((root, bytes)) => (root, Some(bytes)),
            None => (first.descriptor.clone(), None),
        };
        Ok(Self {
            images,
            index,
            root,
        })
    }

    /// Returns the images, in the order given.
    pub fn images(&self) -> &[PreparedImage] {
        &self.images
    }

    /// Returns the descriptor of the manifest, or of the index if there are several images.
    pub fn root(&self) -> &Descriptor {
        &self.root
    }

    /// Returns the bytes of the manifest, or of the index if there are several images.
    pub fn root_bytes(&self) -> &[u8] {
        self.index.as_deref().unwrap_or(&self.images[0].manifest)
    }

    /// Returns true if there is an index.
    pub fn is_index(&self) -> bool {
        self.index.is_some()
    }

    /// Returns every blob once, sorted by digest.
    pub(crate) fn blobs(&self) -> Vec<BundleBlob<'_>> {
        let mut blobs = Vec::new();
        let mut add = |descriptor: &Descriptor, bytes| {
            blobs.push(BundleBlob {
                digest: descriptor.digest,
                size: descriptor.size,
                bytes,
            });
        };
        for image in &self.images {
            for layer in &image.layers {
                add(&layer.descriptor, None);
            }
            add(&image.config_descriptor, Some(&image.config[..]));
            add(&image.descriptor, Some(&image.manifest[..]));
        }
        if let Some(index) = &self.index {
            add(&self.root, Some(&index[..]));
        }
        blobs.sort_by_key(|blob| blob.digest);
        blobs.dedup_by_key(|blob| blob.digest);
        blobs
    }
}

pub(crate) fn describe(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor::new(media_type, Digest::sha256(bytes), bytes.len() as u64)
}

pub(crate) fn unwritable(error: serde_json::Error) -> ExportError {
    ExportError::write("the image's metadata")(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(oci_mediatypes: bool) -> ImageOptions {
        let compression = Compression::default();
        ImageOptions {
            compression,
            force_compression: false,
            oci_mediatypes,
            annotations: vec![],
            promise: false,
        }
    }

    fn image(architecture: &str, options: &ImageOptions) -> PreparedImage {
        let descriptor = Descriptor::new(media_type::OCI_LAYER_GZIP, Digest::sha256("l"), 7);
        let layer = PreparedLayer {
            descriptor,
            diff_id: Digest::sha256("d"),
            mount_from: None,
        };
        let platform = Platform::linux(architecture);
        assemble(&platform, &ImageConfig::default(), vec![layer], options).unwrap()
    }

    #[test]
    fn a_manifest_is_written_as_buildkit_writes_it() {
        let image = image("amd64", &options(true));
        let config = Digest::sha256(&image.config);
        let expected = format!(
            r#"{{
  "schemaVersion": 2,
  "mediaType": "application/vnd.oci.image.manifest.v1+json",
  "config": {{
    "mediaType": "application/vnd.oci.image.config.v1+json",
    "digest": "{config}",
    "size": {}
  }},
  "layers": [
    {{
      "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
      "digest": "{}",
      "size": 7
    }}
  ]
}}"#,
            image.config.len(),
            Digest::sha256("l"),
        );
        assert_eq!(String::from_utf8_lossy(&image.manifest), expected);
        assert_eq!(image.descriptor.digest, Digest::sha256(&expected));
    }

    #[test]
    fn several_images_get_an_index_and_one_does_not() {
        for (oci, list) in [
            (true, media_type::OCI_INDEX),
            (false, media_type::DOCKER_LIST),
        ] {
            let options = options(oci);
            let (one, two) = (image("amd64", &options), image("arm64", &options));
            let alone = Bundle::new(vec![one.clone()], &options).unwrap();
            assert_eq!((alone.root(), alone.is_index()), (&one.descriptor, false));
            let both = Bundle::new(vec![one.clone(), two], &options).unwrap();
            assert_eq!(both.root().media_type, list);
            let index: Index = serde_json::from_slice(both.root_bytes()).unwrap();
            assert_eq!(index.manifests[0], one.descriptor);
            let indexed = Bundle::with_index(vec![one.clone()], &options).unwrap();
            assert_eq!(indexed.root().media_type, list);
            assert_eq!(indexed.blobs().len(), alone.blobs().len() + 1);
            // Two configs, two manifests, the index, and one layer that both share.
            assert_eq!(both.blobs().len(), 6);
            assert!(Bundle::new(vec![one.clone(), one], &options).is_err());
        }
    }

    #[test]
    fn annotations_land_where_they_belong() {
        let mut options = options(false);
        for (key, value) in [
            ("annotation.a", "all"),
            ("annotation-manifest[linux/arm64].b", "arm"),
            ("annotation-manifest-descriptor.c", "d"),
            ("annotation-index.e", "i"),
        ] {
            options
                .annotations
                .push(Annotation::parse(key, value).unwrap());
        }
        let (amd, arm) = (image("amd64", &options), image("arm64", &options));
        let manifest: Manifest = serde_json::from_slice(&arm.manifest).unwrap();
        assert_eq!(manifest.media_type, media_type::OCI_MANIFEST);
        assert_eq!(manifest.annotations.len(), 2);
        assert!(!String::from_utf8_lossy(&amd.manifest).contains("arm"));
        assert!(Bundle::new(vec![amd.clone()], &options).is_err());
        let bundle = Bundle::new(vec![amd, arm], &options).unwrap();
        let index: Index = serde_json::from_slice(bundle.root_bytes()).unwrap();
        assert_eq!(index.annotations["e"], "i");
        assert_eq!(index.manifests[1].annotations["c"], "d");
    }
}
