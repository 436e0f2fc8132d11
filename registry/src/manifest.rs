//! Manifests and indexes: fetch, look up, push.
//!
//! Bytes stay as they are received; parsing goes no further than telling what they are. What a
//! manifest claims to be must agree in its header and its content, so that two readers cannot
//! take the same bytes for an index and for an image (CVE-2021-41190).

use std::sync::Arc;

use bytes::Bytes;
use kiln_graph::{Algorithm, Descriptor, Digest, MediaKind, media_type};
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::client::Client;
use crate::error::{Operation, RegistryError, clean};
use crate::exchange::{Call, read_body};
use crate::host::Host;
use crate::reference::Reference;
use crate::retry::{Backoff, Trouble};
use crate::scope::Scope;
use crate::token::Need;

/// The longest manifest that is read; registries take 4 MiB.
const MAX_MANIFEST: usize = 8 << 20;
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// A manifest or index as a registry sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestBytes {
    /// The bytes that `digest` is the hash of.
    pub bytes: Vec<u8>,
    /// What they are; always one that [`MediaKind`] knows as a manifest or an index.
    pub media_type: String,
    /// SHA-256 of the bytes.
    pub digest: Digest,
}

impl ManifestBytes {
    /// Returns the descriptor of these bytes.
    pub fn descriptor(&self) -> Descriptor {
        let size = u64::try_from(self.bytes.len()).expect("a length fits into 64 bits");
        Descriptor::new(&self.media_type, self.digest, size)
    }
}

/// The fields of a manifest or index that tell what it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<IgnoredAny>,
    #[serde(default)]
    config: Option<IgnoredAny>,
    #[serde(default)]
    layers: Option<IgnoredAny>,
}

impl Client {
    /// Fetches the manifest or index that `reference` names, or the one with `digest` in the same
    /// repository. The bytes are checked against the digest that was asked for, and against the
    /// registry's own.
    pub async fn manifest(
        &self,
        reference: &Reference,
        digest: Option<Digest>,
    ) -> Result<ManifestBytes, RegistryError> {
        let wanted = |reference: &Reference| match digest {
            Some(digest) => reference.with_digest(digest),
            None => reference.clone(),
        };
        let subject = wanted(reference).to_string();
        let mut sources = self.sources(reference)?;
        loop {
            let (there, host) = sources.next();
            let operation = Operation::new("pull manifest", subject.clone(), &host.name);
            match self.manifest_at(&host, &operation, &wanted(&there)).await {
                Ok(manifest) => return Ok(manifest),
                Err(error) => sources.go_on(error)?,
            }
        }
    }

    async fn manifest_at(
        &self,
        host: &Host,
        operation: &Arc<Operation>,
        reference: &Reference,
    ) -> Result<ManifestBytes, RegistryError> {
        let mut backoff = Backoff::at(self.config(), host);
        loop {
            match self.manifest_attempt(host, operation, reference).await {
                Ok(manifest) => return Ok(manifest),
                Err(trouble) => backoff.pause(trouble).await?,
            }
        }
    }

    async fn manifest_attempt(
        &self,
        host: &Host,
        operation: &Arc<Operation>,
        reference: &Reference,
    ) -> Result<ManifestBytes, Trouble> {
        let scopes = [Scope::pull(reference.repository())];
        let need = Need {
            operation,
            host,
            scopes: &scopes,
        };
        let call = self.manifest_call(need, Method::GET, reference).await?;
        let answer = self.attempt(&call).await?;
        let headers = answer.response.headers().clone();
        let status = answer.response.status();
        let bytes = read_body(answer.response, MAX_MANIFEST, operation, self.config()).await?;
        let actual = Digest::sha256(&bytes);
        let expected = reference.digest().or_else(|| header_digest(&headers));
        if let Some(expected) = expected.filter(|expected| *expected != actual) {
            let operation = operation.clone();
            return Err(RegistryError::WrongDigest {
                operation,
                expected,
                actual,
            }
            .into());
        }
        let media_type = media_type_of(header_text(&headers, &CONTENT_TYPE), &bytes)
            .map_err(|text| RegistryError::unusable(operation, status, text))?;
        Ok(ManifestBytes {
            bytes,
            media_type,
            digest: actual,
        })
    }

    /// Looks up what `reference` names without fetching it, where the registry tells; else
    /// fetches it.
    pub async fn resolve(&self, reference: &Reference) -> Result<Descriptor, RegistryError> {
        let host = self.host_of(reference)?;
        let operation = Operation::new("look up", reference.to_string(), &host.name);
        let scopes = [Scope::pull(reference.repository())];
        let need = Need {
            operation: &operation,
            host: &host,
            scopes: &scopes,
        };
        let call = self.manifest_call(need, Method::HEAD, reference).await?;
        match self.call(&call).await {
            Ok(answer) => {
                if let Some(found) = head_descriptor(answer.response.headers()) {
                    check_digest(&operation, reference.digest(), found.digest)?;
                    return Ok(found);
                }
            }
            // The answer to HEAD has no body that would say what is wrong.
            Err(error) if is_refusal(&error) => {
                tracing::debug!(%error, "HEAD failed, trying GET");
            }
            Err(error) => return Err(error),
        }
        let manifest = self.manifest(reference, None).await?;
        Ok(manifest.descriptor())
    }

    /// Pushes a manifest or index under the target's tag, or by digest if it has none.
    pub async fn push_manifest(
        &self,
        target: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, RegistryError> {
        let host = self.host_of(target)?;
        let operation = Operation::new("push manifest", target.to_string(), &host.name);
        let digest = Digest::sha256(bytes);
        check_digest(&operation, target.digest(), digest)?;
        let scopes = [Scope::push(target.repository())];
        let need = Need {
            operation: &operation,
            host: &host,
            scopes: &scopes,
        };
        let by_digest = digest.to_string();
        let name = target.tag().unwrap_or(&by_digest);
        let path = format!("{}/manifests/{name}", target.repository());
        let url = host.url(&path, self.config().connect_timeout).await?;
        let mut call = Call::new(need, Method::PUT, url);
        let value = HeaderValue::from_str(media_type)
            .map_err(|source| RegistryError::setup("use the manifest's media type", source))?;
        call.headers.insert(CONTENT_TYPE, value);
        call.body = Bytes::copy_from_slice(bytes);
        let answer = self.call(&call).await?;
        let stored = header_digest(answer.response.headers());
        check_digest(&operation, stored, digest)?;
        Ok(digest)
    }

    async fn manifest_call<'a>(
        &self,
        need: Need<'a>,
        method: Method,
        reference: &Reference,
    ) -> Result<Call<'a>, RegistryError> {
        let name = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        };
        let path = format!("{}/manifests/{name}", reference.repository());
        let url = need.host.url(&path, self.config().connect_timeout).await?;
        let mut call = Call::new(need, method, url);
        call.headers
            .insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
        Ok(call)
    }
}

fn check_digest(
    operation: &Arc<Operation>,
    expected: Option<Digest>,
    actual: Digest,
) -> Result<(), RegistryError> {
    match expected {
        Some(expected) if expected != actual => Err(RegistryError::WrongDigest {
            operation: operation.clone(),
            expected,
            actual,
        }),
        _ => Ok(()),
    }
}

fn header_text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Returns the registry's digest, if it uses an algorithm that can be checked.
pub(crate) fn header_digest(headers: &HeaderMap) -> Option<Digest> {
    let digest: Digest = header_text(headers, &CONTENT_DIGEST)?.trim().parse().ok()?;
    Some(digest).filter(|digest| digest.algorithm() == Algorithm::Sha256)
}

pub(crate) fn header_length(headers: &HeaderMap) -> Option<u64> {
    header_text(headers, &CONTENT_LENGTH)?.trim().parse().ok()
}

/// Returns what HEAD says, if it says everything.
fn head_descriptor(headers: &HeaderMap) -> Option<Descriptor> {
    let media_type = plain(header_text(headers, &CONTENT_TYPE)?);
    if !is_manifest(&media_type) {
        return None;
    }
    // Nothing is 0 bytes long; some registries say so for lack of a better answer.
    let size = header_length(headers).filter(|size| *size > 0)?;
    Some(Descriptor::new(&media_type, header_digest(headers)?, size))
}

fn plain(media_type: &str) -> String {
    let plain = media_type.split(';').next().unwrap_or_default();
    plain.trim().to_ascii_lowercase()
}

fn is_manifest(media_type: &str) -> bool {
    let kind = MediaKind::of(media_type);
    matches!(kind, Some(MediaKind::Index | MediaKind::Manifest))
}

/// Returns the media type of a manifest, or says why it cannot be told.
fn media_type_of(header: Option<&str>, bytes: &[u8]) -> Result<String, String> {
    let shape: Shape =
        serde_json::from_slice(bytes).map_err(|_| "it is not the JSON of a manifest".to_owned())?;
    let said = shape.media_type.as_deref().filter(|text| !text.is_empty());
    let header = header.map(plain).filter(|text| is_specific(text));
    if shape.schema_version == 1 || header.as_deref().is_some_and(is_schema_1) {
        return Err("it is in Docker's old image format, schema 1".to_owned());
    }
    let (is_index, is_image) = (
        shape.manifests.is_some(),
        shape.config.is_some() || shape.layers.is_some(),
    );
    let by_shape = match (is_index, is_image) {
        (true, true) => return Err("it is an index and an image manifest at once".to_owned()),
        (true, false) => Some(media_type::OCI_INDEX),
        (false, true) => Some(media_type::OCI_MANIFEST),
        (false, false) => None,
    };
    if let (Some(said), Some(header)) = (said, &header)
        && plain(said) != *header
    {
        let (said, header) = (clean(said), clean(header));
        return Err(format!(
            "it says that it is `{said}`, its header `{header}`"
        ));
    }
    let found = header.as_deref().or(said).or(by_shape);
    let found = found.ok_or_else(|| "it is neither a manifest nor an index".to_owned())?;
    let kind = MediaKind::of(found);
    match kind {
        Some(MediaKind::Index) if !is_image => Ok(found.to_owned()),
        Some(MediaKind::Manifest) if !is_index => Ok(found.to_owned()),
        Some(MediaKind::Index | MediaKind::Manifest) => {
            Err(format!("its content is not that of `{}`", clean(found)))
        }
        _ => Err(format!("`{}` is no image", clean(found))),
    }
}

/// Returns true unless the media type is one that servers send for lack of a better one.
fn is_specific(media_type: &str) -> bool {
    !matches!(
        media_type,
        "" | "application/json" | "application/octet-stream" | "text/plain" | "text/json"
    )
}

fn is_schema_1(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.docker.distribution.manifest.v1+")
}

/// Returns true if the registry understood a request and said no.
pub(crate) fn is_refusal(error: &RegistryError) -> bool {
    match error {
        RegistryError::NotFound { .. } | RegistryError::Denied { .. } => true,
        RegistryError::Answer { status, .. } => (400..429).contains(status),
        _ => false,
    }
}

/// Returns true if the status of a HEAD says that there is nothing.
pub(crate) fn is_absent(error: &RegistryError) -> bool {
    let not_found = StatusCode::NOT_FOUND.as_u16();
    matches!(error, RegistryError::NotFound { status, .. } if *status == not_found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_told_by_header_content_and_shape() {
        let (index, image) = (media_type::OCI_INDEX, media_type::OCI_MANIFEST);
        let list = media_type::DOCKER_LIST;
        let typed = |kind: &str, rest: &str| format!(r#"{{"mediaType":"{kind}",{rest}}}"#);
        let (manifests, layers) = (r#""manifests":[]"#, r#""config":{},"layers":[]"#);
        for (header, body, expected) in [
            (Some(index), typed(index, manifests), Ok(index)),
            (Some(list), format!("{{{manifests}}}"), Ok(list)),
            (Some("application/json"), typed(list, manifests), Ok(list)),
            (None, format!("{{{manifests}}}"), Ok(index)),
            (None, format!("{{{layers}}}"), Ok(image)),
            (
                Some(&*format!("{image}; charset=utf-8")),
                format!("{{{layers}}}"),
                Ok(image),
            ),
            (Some(index), typed(image, layers), Err("says that it is")),
            (Some(index), format!("{{{layers}}}"), Err("is not that of")),
            (
                Some(image),
                format!("{{{manifests}}}"),
                Err("is not that of"),
            ),
            (
                Some(image),
                format!("{{{manifests},{layers}}}"),
                Err("at once"),
            ),
            (None, "{}".to_owned(), Err("neither")),
            (
                Some("application/vnd.x+json"),
                "{}".to_owned(),
                Err("is no image"),
            ),
            (
                Some(media_type::OCI_LAYER),
                "{}".to_owned(),
                Err("is no image"),
            ),
            (None, r#"{"schemaVersion":1}"#.to_owned(), Err("schema 1")),
            (Some(image), "<html>".to_owned(), Err("not the JSON")),
        ] {
            match (media_type_of(header, body.as_bytes()), expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{body}"),
                (Err(got), Err(part)) => assert!(got.contains(part), "{body}: {got}"),
                (got, _) => panic!("{body}: {got:?}"),
            }
        }
    }
}
