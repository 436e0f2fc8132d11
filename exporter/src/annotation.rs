//! Annotations: `annotation[-TARGET][[PLATFORM]].KEY=VALUE`.

use std::collections::BTreeMap;

use kiln_graph::Platform;

use crate::spec::SpecError;

/// A note for a manifest, an index, or the descriptor of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// Where it stands.
    pub target: AnnotationTarget,
    /// For which platform's image; for all without one.
    pub platform: Option<Platform>,
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// Where an annotation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnnotationTarget {
    /// In the manifest.
    Manifest,
    /// In the index, beside the manifest's digest.
    ManifestDescriptor,
    /// In the index itself.
    Index,
    /// In the layout's `index.json`, beside the index's digest.
    IndexDescriptor,
}

impl AnnotationTarget {
    pub(crate) fn is_index(self) -> bool {
        matches!(self, Self::Index | Self::IndexDescriptor)
    }
}

impl Annotation {
    /// Parses an option `annotation…` and its value.
    pub fn parse(option: &str, value: &str) -> Result<Self, SpecError> {
        let wrong = || SpecError::Annotation(option.to_owned());
        let rest = option.strip_prefix("annotation").ok_or_else(wrong)?;
        let head_end = rest.find(['.', '[']).ok_or_else(wrong)?;
        let (target, rest) = rest.split_at(head_end);
        let target = match target {
            "" | "-manifest" => AnnotationTarget::Manifest,
            "-manifest-descriptor" => AnnotationTarget::ManifestDescriptor,
            "-index" => AnnotationTarget::Index,
            "-index-descriptor" => AnnotationTarget::IndexDescriptor,
            _ => return Err(wrong()),
        };
        let (platform, rest) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (platform, rest) = rest.split_once(']').ok_or_else(wrong)?;
                (Some(platform.parse().map_err(|_| wrong())?), rest)
            }
            None => (None, rest),
        };
        let key = rest
            .strip_prefix('.')
            .filter(|key| !key.is_empty())
            .ok_or_else(wrong)?;
        if target.is_index() && platform.is_some() {
            return Err(wrong());
        }
        Ok(Self {
            target,
            platform,
            key: key.to_owned(),
            value: value.to_owned(),
        })
    }
}

/// Returns the annotations for one place; of several with one key the last one holds.
pub(crate) fn select(
    all: &[Annotation],
    target: AnnotationTarget,
    platform: Option<&Platform>,
) -> BTreeMap<String, String> {
    let applies = |annotation: &&Annotation| {
        let wanted = annotation.platform.as_ref();
        annotation.target == target && wanted.is_none_or(|wanted| Some(wanted) == platform)
    };
    let chosen = all.iter().filter(applies);
    chosen
        .map(|annotation| (annotation.key.clone(), annotation.value.clone()))
        .collect()
}
