//! What `--output` says: `type=oci,dest=image.tar`, `DIRECTORY`, or `-`.
//!
//! Reads it as buildx does: fields of one CSV line, keys in any case. Unlike buildx it refuses
//! what it does not know, because an option that is silently ignored is worse than an error.

use std::path::PathBuf;

use kiln_registry::{ParseReferenceError, Reference};

use crate::annotation::Annotation;
use crate::compress::Compression;
use crate::csv;
use crate::image::ImageOptions;

const TYPES: &str = "cacheonly, docker, image, local, oci, registry, tar";
const IMAGE_KEYS: &[&str] = &[
    "name",
    "compression",
    "compression-level",
    "force-compression",
    "oci-mediatypes",
    "annotation.KEY",
];
const PUSH_KEYS: &[&str] = &["push", "push-by-digest", "name-canonical"];
const MAX_GZIP: u8 = 9;
const MAX_ZSTD: u8 = 22;

/// One destination of a build's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputSpec {
    /// What is made.
    pub kind: OutputKind,
    /// Where it goes; `-` is standard output. Without one a `docker` output goes to Docker.
    pub dest: Option<PathBuf>,
    /// Names of the image.
    pub names: Vec<Reference>,
    /// Make one file (`tar=true`, the default) rather than a directory, for `oci` and `docker`.
    pub tar: bool,
    /// Send the image to the registries of its names.
    pub push: bool,
    /// Send it without a tag.
    pub push_by_digest: bool,
    /// In which form.
    pub image: ImageOptions,
}

/// What an output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputKind {
    /// An image in the store, or in a registry (`type=image`, `type=registry`).
    Image,
    /// An OCI layout.
    Oci,
    /// An image for `docker load`.
    Docker,
    /// The root file system as a directory.
    Local,
    /// The root file system as a tar archive.
    Tar,
    /// Nothing but a warm cache.
    CacheOnly,
}

/// Says why a text is not an output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// The quotes are wrong.
    #[error("`{0}` is not a list of key=value fields: its quotes do not match")]
    Csv(String),
    /// A field has no `=`.
    #[error(
        "`{0}` is not key=value; a field that contains commas stands in quotes: \
         '\"name=a,b\",push=true'"
    )]
    Field(String),
    /// There is no type, or one that is not known.
    #[error("output type {0} is not known; known are: {TYPES}")]
    Type(String),
    /// A key is not known for this type.
    #[error("output type `{kind}` has no option `{key}`; known are: {known}")]
    Key {
        /// The type.
        kind: String,
        /// The key.
        key: String,
        /// What this type knows.
        known: String,
    },
    /// A value is not one that the key takes.
    #[error("output option `{key}` cannot be `{value}`; expected {expected}")]
    Value {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What it takes.
        expected: String,
    },
    /// A name is not an image reference.
    #[error("output option `name` is wrong")]
    Name(#[from] ParseReferenceError),
    /// An annotation's key is malformed.
    #[error(
        "`{0}` is not an annotation; expected annotation[-manifest|-manifest-descriptor|-index|\
         -index-descriptor][[platform]].KEY"
    )]
    Annotation(String),
    /// Options that do not go together.
    #[error("{0}")]
    Conflict(&'static str),
}

impl OutputSpec {
    /// Parses the value of `--output`.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let fields = csv::fields(text).ok_or_else(|| SpecError::Csv(text.to_owned()))?;
        if let [field] = &fields[..]
            && field == text
            && !names_an_option(field)
        {
            let kind = if text == "-" {
                OutputKind::Tar
            } else {
                OutputKind::Local
            };
            let dest = Some(text)
                .filter(|dest| !dest.is_empty())
                .map(PathBuf::from);
            return Self {
                dest,
                ..Self::empty(kind)
            }
            .checked();
        }
        let options = fields
            .iter()
            .map(|field| split(field))
            .collect::<Result<Vec<_>, _>>()?;
        let kind = options.iter().rev().find(|(key, _)| key == "type");
        let (_, name) = kind.ok_or_else(|| SpecError::Type("(none)".to_owned()))?;
        let mut spec = Self::empty(kind_of(name)?);
        spec.push = *name == "registry";
        let mut level = None;
        for (key, value) in &options {
            spec.take(key, value, name, &mut level)?;
        }
        spec.image.compression = with_level(spec.image.compression, level)?;
        spec.checked()
    }

    /// Returns true if the result goes to standard output.
    pub fn is_stdout(&self) -> bool {
        self.dest
            .as_ref()
            .is_some_and(|dest| dest.as_os_str() == "-")
    }

    /// Returns an output of this kind with every option as it is by default.
    pub fn empty(kind: OutputKind) -> Self {
        let image = ImageOptions {
            compression: Compression::default(),
            force_compression: false,
            oci_mediatypes: kind != OutputKind::Docker,
            annotations: Vec::new(),
            promise: false,
        };
        let (names, tar) = (Vec::new(), true);
        Self {
            kind,
            dest: None,
            names,
            tar,
            push: false,
            push_by_digest: false,
            image,
        }
    }

    fn take(
        &mut self,
        key: &str,
        value: &str,
        kind: &str,
        level: &mut Option<u8>,
    ) -> Result<(), SpecError> {
        let not_supported = |expected: &str| wrong(key, value, expected);
        match key {
            "platform-split" | "rewrite-timestamp" => {
                return Err(not_supported("it to be left out: it is not supported yet"));
            }
            _ if !self.kind.knows(key) => {
                let (kind, key) = (kind.to_owned(), key.to_owned());
                return Err(SpecError::Key {
                    kind,
                    key,
                    known: self.kind.keys().join(", "),
                });
            }
            "dest" => self.dest = Some(PathBuf::from(value)),
            "name" => {
                let names = value.split(',').map(|name| name.trim().parse());
                self.names = names.collect::<Result<_, _>>()?;
            }
            "tar" => self.tar = boolean(key, value)?,
            "push" => self.push = boolean(key, value)?,
            "push-by-digest" => self.push_by_digest = boolean(key, value)?,
            "name-canonical" => drop(boolean(key, value)?),
            "compression" => self.image.compression = compression(value)?,
            "compression-level" => {
                let number = value
                    .parse()
                    .map_err(|_| not_supported("a number from 0 to 22"));
                *level = Some(number?);
            }
            "force-compression" => self.image.force_compression = boolean(key, value)?,
            "oci-mediatypes" => self.image.oci_mediatypes = boolean(key, value)?,
            _ if key.starts_with("annotation") => {
                self.image.annotations.push(Annotation::parse(key, value)?);
            }
            _ => {}
        }
        Ok(())
    }

    fn checked(self) -> Result<Self, SpecError> {
        let is_dir = self.kind == OutputKind::Local || !self.tar;
        if is_dir && (self.dest.is_none() || self.is_stdout()) {
            return Err(SpecError::Conflict(
                "this output is a directory and needs `dest=DIR`",
            ));
        }
        if self
            .dest
            .as_ref()
            .is_some_and(|dest| dest.as_os_str().is_empty())
        {
            return Err(wrong("dest", "", "a path, or - for standard output"));
        }
        if self.push && self.names.is_empty() && self.push_by_digest {
            return Err(SpecError::Conflict(
                "pushing by digest needs `name=REPOSITORY`",
            ));
        }
        if self.kind == OutputKind::Oci && !self.image.oci_mediatypes {
            let message = "an OCI layout has OCI media types: leave `oci-mediatypes=false` out";
            return Err(SpecError::Conflict(message));
        }
        if matches!(self.kind, OutputKind::Oci | OutputKind::Tar) && self.dest.is_none() {
            return Ok(Self {
                dest: Some(PathBuf::from("-")),
                ..self
            });
        }
        Ok(self)
    }
}

impl OutputKind {
    fn keys(self) -> Vec<&'static str> {
        let mut keys = vec!["type"];
        match self {
            Self::Image => keys.extend([PUSH_KEYS, IMAGE_KEYS].concat()),
            Self::Oci | Self::Docker => keys.extend([&["dest", "tar"], IMAGE_KEYS].concat()),
            Self::Local | Self::Tar => keys.push("dest"),
            Self::CacheOnly => {}
        }
        keys
    }

    fn knows(self, key: &str) -> bool {
        let keys = self.keys();
        keys.contains(&key) || key.starts_with("annotation") && keys.contains(&"annotation.KEY")
    }
}

/// A single field that starts like an option is a mistake, not a directory.
fn names_an_option(field: &str) -> bool {
    let Some((key, _)) = field.split_once('=') else {
        return false;
    };
    let key = key.trim().to_ascii_lowercase();
    key == "type" || OutputKind::Oci.knows(&key) || OutputKind::Image.knows(&key)
}

/// Splits a field; the key of an annotation keeps its case.
fn split(field: &str) -> Result<(String, &str), SpecError> {
    let (key, value) = field
        .split_once('=')
        .ok_or_else(|| SpecError::Field(field.to_owned()))?;
    let key = key.trim();
    let lower = key.to_ascii_lowercase();
    let is_annotation = lower.starts_with("annotation");
    Ok((if is_annotation { key.to_owned() } else { lower }, value))
}

fn kind_of(name: &str) -> Result<OutputKind, SpecError> {
    Ok(match name {
        "image" | "registry" => OutputKind::Image,
        "oci" => OutputKind::Oci,
        "docker" => OutputKind::Docker,
        "local" => OutputKind::Local,
        "tar" => OutputKind::Tar,
        "cacheonly" => OutputKind::CacheOnly,
        other => return Err(SpecError::Type(format!("`{other}`"))),
    })
}

fn wrong(key: &str, value: &str, expected: &str) -> SpecError {
    let (key, value, expected) = (key.to_owned(), value.to_owned(), expected.to_owned());
    SpecError::Value {
        key,
        value,
        expected,
    }
}

/// Reads a boolean as Go does.
fn boolean(key: &str, value: &str) -> Result<bool, SpecError> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(wrong(key, value, "true or false")),
    }
}

impl Compression {
    /// Returns what `compression=` and `compression-level=` say.
    pub fn named(name: &str, level: Option<u8>) -> Result<Self, SpecError> {
        with_level(compression(name)?, level)
    }
}

fn compression(value: &str) -> Result<Compression, SpecError> {
    match value {
        "gzip" => Ok(Compression::gzip()),
        "zstd" => Ok(Compression::zstd()),
        "uncompressed" => Ok(Compression::None),
        _ => Err(wrong("compression", value, "gzip, zstd or uncompressed")),
    }
}

fn with_level(compression: Compression, level: Option<u8>) -> Result<Compression, SpecError> {
    let Some(level) = level else {
        return Ok(compression);
    };
    let (leveled, max) = match compression {
        Compression::None => return Ok(compression),
        Compression::Gzip { .. } => (Compression::Gzip { level }, MAX_GZIP),
        Compression::Zstd { .. } => (Compression::Zstd { level }, MAX_ZSTD),
    };
    if level > max {
        let expected = format!("a number from 0 to {max}");
        return Err(wrong("compression-level", &level.to_string(), &expected));
    }
    Ok(leveled)
}

#[cfg(test)]
mod tests;
