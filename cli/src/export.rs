//! Where a build's result goes: registries, the local store, archives, folders, files of facts.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;

use kiln_cache::{Layer, Store};
use kiln_exporter::{
    ArchiveFormat, Bundle, Compression, Destination, ExportError, Image, ImageLayer, ImageOptions,
    OutputKind, OutputSpec, Progress, export_archive, export_dir, export_layout, export_tar,
    missing_blobs, prepare_image, push_bundle,
};
use kiln_graph::Digest;
use kiln_registry::Reference;
use kiln_solver::{Direction, Task, blocking};
use kiln_worker::{Snapshot, SnapshotLayer};
use serde_json::{Value, json};

use crate::commands::build::{Build, Built, is_image};
use crate::image;
use crate::report::{Failure, FailureKind};
use crate::session::Session;

/// What a build gave, for `--iidfile`, `--metadata-file` and `--quiet`.
#[derive(Debug)]
pub(crate) struct Facts {
    /// The image's id: digest of its config, or of the index.
    pub(crate) id: String,
    /// The keys that buildx writes.
    pub(crate) metadata: Value,
}

/// Layers whose blobs can be fetched, by the digest of the blob.
pub(crate) type LayersByBlob = HashMap<Digest, SnapshotLayer>;

/// Returns the names that an output pushes to.
pub(crate) fn push_names<'a>(output: &'a OutputSpec, tags: &'a [Reference]) -> &'a [Reference] {
    if output.push {
        names_of(output, tags)
    } else {
        &[]
    }
}

fn names_of<'a>(output: &'a OutputSpec, tags: &'a [Reference]) -> &'a [Reference] {
    if output.names.is_empty() {
        tags
    } else {
        &output.names
    }
}

/// Shows sent bytes under a task.
pub(crate) fn push_progress(task: &Task) -> Progress {
    let task = task.clone();
    Progress::new(move |blob, sent| {
        task.transfer(
            &blob.digest.to_string(),
            Direction::Push,
            sent,
            Some(blob.size),
        );
    })
}

/// Sends the images of all platforms wherever they are to go.
pub(crate) async fn export(build: &Build<'_>, built: &[Built]) -> Result<Option<Facts>, Failure> {
    let mut bundles: Vec<(ImageOptions, Bundle)> = Vec::new();
    for output in &build.plan.outputs {
        if is_image(output.kind) && !bundles.iter().any(|(options, _)| *options == output.image) {
            let alike = build.plan.outputs.iter();
            let alike = alike.filter(|one| is_image(one.kind) && one.image == output.image);
            let needed = alike.map(Needed::by).max().unwrap_or(Needed::Nothing);
            let bundle = bundle(build, built, &output.image, needed).await?;
            bundles.push((output.image.clone(), bundle));
        }
    }
    let mut not_pushed = None;
    for output in &build.plan.outputs {
        let bundle = bundles.iter().find(|(options, _)| *options == output.image);
        let bundle = bundle.map(|(_, bundle)| bundle);
        match export_one(build, built, output, bundle).await {
            // The other outputs need no registry.
            Err(failure) if failure.kind == FailureKind::Push => {
                not_pushed.get_or_insert(failure);
            }
            done => done?,
        }
    }
    if let Some(failure) = not_pushed {
        return Err(failure);
    }
    Ok(bundles.first().map(|(_, bundle)| facts(build, bundle)))
}

/// Returns the facts about images that no output asked for.
pub(crate) async fn facts_alone(build: &Build<'_>, built: &[Built]) -> Result<Facts, Failure> {
    let options = ImageOptions {
        compression: Compression::default(),
        force_compression: false,
        oci_mediatypes: true,
        annotations: Vec::new(),
        promise: true,
    };
    let bundle = bundle(build, built, &options, Needed::Nothing).await?;
    Ok(facts(build, &bundle))
}

/// Returns true for a layer of a shared cache whose blob a registry has.
fn is_in_registry(build: &Build<'_>, layer: &SnapshotLayer) -> bool {
    let promise = build.session.images.promise(&layer.id);
    promise.is_some_and(|promise| promise.cache().place().repository().is_some())
}

/// Which blobs an export must find in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Needed {
    /// None: a registry is asked first whether it has them.
    Nothing,
    /// Those of layers that kiln made: a base image can be pulled again, but a shared cache may
    /// forget what the image needs.
    Made,
    /// All.
    All,
}

impl Needed {
    fn by(output: &OutputSpec) -> Self {
        match (output.kind, output.push) {
            (OutputKind::Image, true) => Self::Nothing,
            (OutputKind::Image, false) => Self::Made,
            _ => Self::All,
        }
    }
}

async fn bundle(
    build: &Build<'_>,
    built: &[Built],
    options: &ImageOptions,
    needed: Needed,
) -> Result<Bundle, Failure> {
    let store = &build.session.store;
    let task = build.reporter.task("exporting layers", None);
    task.started();
    let mut images = Vec::new();
    for one in built {
        let mut layers = Vec::new();
        for layer in &one.assembly.layers {
            layers.push(build.layer_for(layer, options).await?);
        }
        let missing = missing_blobs(store, &layers, options).map_err(Failure::user)?;
        for (layer, source) in one.assembly.layers.iter().zip(&layers) {
            let is_needed = match layer.origin {
                Some(_) => needed == Needed::All || options.force_compression,
                // A later push cannot ask a folder.
                None => needed >= Needed::Made || !is_in_registry(build, layer),
            };
            let ImageLayer::Base { descriptor, .. } = source else {
                continue;
            };
            if is_needed && missing.iter().any(|blob| blob.digest == descriptor.digest) {
                let fetched = build.session.images.fetch(layer, &task).await;
                fetched.map_err(Failure::user)?;
            }
        }
        let (platform, config) = (one.platform_of_image(), one.assembly.config.clone());
        let image = Image {
            platform,
            config,
            layers,
        };
        let (store, options) = (store.clone(), options.clone());
        let prepared = blocking(move || prepare_image(&store, &image, &options)).await;
        images.push(prepared.map_err(Failure::user)?);
    }
    let bundle = match build.plan.makes_index {
        true => Bundle::with_index(images, options),
        false => Bundle::new(images, options),
    };
    let bundle = bundle.map_err(Failure::user)?;
    task.finished();
    Ok(bundle)
}

impl Built {
    /// The platform that the image says it is for.
    fn platform_of_image(&self) -> kiln_graph::Platform {
        let config = &self.assembly.config;
        if config.architecture.is_empty() || config.os.is_empty() {
            return self.platform.clone();
        }
        let variant = config.variant.as_deref();
        kiln_graph::Platform::normal(&config.os, &config.architecture, variant)
    }
}

async fn export_one(
    build: &Build<'_>,
    built: &[Built],
    output: &OutputSpec,
    bundle: Option<&Bundle>,
) -> Result<(), Failure> {
    match (output.kind, bundle) {
        (OutputKind::CacheOnly, _) => Ok(()),
        (OutputKind::Local | OutputKind::Tar, _) => export_files(build, built, output).await,
        (OutputKind::Image, Some(bundle)) if output.push => {
            push(build, built, output, bundle).await
        }
        (OutputKind::Image, Some(bundle)) => keep(build, output, bundle),
        (_, Some(bundle)) => export_image_file(build, output, bundle).await,
        (_, None) => unreachable!("every image output has a bundle"),
    }
}

async fn push(
    build: &Build<'_>,
    built: &[Built],
    output: &OutputSpec,
    bundle: &Bundle,
) -> Result<(), Failure> {
    // Whatever becomes of the push, the image is there.
    keep(build, output, bundle)?;
    let names = names_of(output, &build.plan.tags);
    let layers = built.iter().flat_map(|one| &one.assembly.layers);
    let mut layers = layers_by_blob(build.session, layers);
    for (at, name) in names.iter().enumerate() {
        let task = build
            .reporter
            .task(format!("pushing manifest for {name}"), None);
        task.started();
        let what = (bundle, output.push_by_digest);
        let pushed = push_as(build.session, &mut layers, what, name, &task).await;
        end(&task, pushed).map_err(|failure| match output.push_by_digest {
            true => failure,
            false => failure.with_hint(to_finish(&names[at..])),
        })?;
    }
    Ok(())
}

fn to_finish(names: &[Reference]) -> String {
    let names: Vec<String> = names.iter().map(Reference::familiar).collect();
    let names = names.join(" ");
    format!("the image is in the local store; `kiln push {names}` sends what is missing")
}

/// Pushes under one name; a base layer that the registry has nowhere is pulled first.
pub(crate) async fn push_as(
    session: &Session,
    layers: &mut LayersByBlob,
    (bundle, by_digest): (&Bundle, bool),
    name: &Reference,
    task: &Task,
) -> Result<(), Failure> {
    let (client, store) = (&session.client, &session.store);
    let (names, progress) = (std::slice::from_ref(name), push_progress(task));
    loop {
        let pushed = push_bundle(client, store, bundle, names, by_digest, &progress).await;
        match pushed {
            Err(ExportError::Missing { digest }) if layers.contains_key(&digest) => {
                let layer = layers.remove(&digest).expect("it was looked up");
                let fetched = session.images.fetch(&layer, task).await;
                fetched.map_err(|error| Failure::new(FailureKind::Push, error))?;
            }
            Err(error) => return Err(Failure::new(FailureKind::Push, error)),
            Ok(_) => return Ok(()),
        }
    }
}

/// Returns the layers whose blobs are elsewhere: in base images, in shared caches.
pub(crate) fn layers_by_blob<'a>(
    session: &Session,
    layers: impl IntoIterator<Item = &'a SnapshotLayer>,
) -> LayersByBlob {
    let with_blob = layers.into_iter().filter_map(|layer| {
        let blob = match &layer.origin {
            Some(origin) => origin.blob.digest,
            None => session.images.promise(&layer.id)?.record().blob.digest,
        };
        Some((blob, layer.clone()))
    });
    with_blob.collect()
}

/// Names the image in the local store.
fn keep(build: &Build<'_>, output: &OutputSpec, bundle: &Bundle) -> Result<(), Failure> {
    let store = &build.session.store;
    keep_blobs(store, bundle)?;
    for name in names_of(output, &build.plan.tags) {
        let task = build.reporter.task(format!("naming to {name}"), None);
        task.started();
        store
            .set_reference(&name.to_string(), bundle.root(), false)
            .map_err(Failure::user)?;
        task.finished();
    }
    Ok(())
}

/// Puts configs and manifests into the store.
pub(crate) fn keep_blobs(store: &Store, bundle: &Bundle) -> Result<(), Failure> {
    for image in bundle.images() {
        store.put_blob(&image.config).map_err(Failure::user)?;
        store.put_blob(&image.manifest).map_err(Failure::user)?;
    }
    store.put_blob(bundle.root_bytes()).map_err(Failure::user)?;
    Ok(())
}

async fn export_image_file(
    build: &Build<'_>,
    output: &OutputSpec,
    bundle: &Bundle,
) -> Result<(), Failure> {
    let format = match output.kind {
        OutputKind::Docker => ArchiveFormat::Docker,
        _ => ArchiveFormat::Oci,
    };
    let dest = destination(output);
    let task = build
        .reporter
        .task(format!("writing {}", dest.display()), None);
    task.started();
    let (store, bundle) = (build.session.store.clone(), bundle.clone());
    let names = names_of(output, &build.plan.tags).to_vec();
    let (is_stdout, tar) = (output.is_stdout(), output.tar);
    let written = blocking(move || {
        if is_stdout {
            let mut out = io::stdout();
            let stream = Destination::Stream(&mut out);
            return export_archive(&store, &bundle, &names, format, stream);
        }
        if tar {
            return export_archive(&store, &bundle, &names, format, Destination::Path(&dest));
        }
        export_layout(&store, &bundle, &names, format, &dest)
    })
    .await;
    end(&task, written.map_err(Failure::user))
}

fn destination(output: &OutputSpec) -> PathBuf {
    output.dest.clone().expect("the plan has no such output")
}

fn end(task: &Task, result: Result<(), Failure>) -> Result<(), Failure> {
    match &result {
        Ok(()) => task.finished(),
        Err(failure) => task.failed(failure.error.to_string()),
    }
    result
}

async fn export_files(
    build: &Build<'_>,
    built: &[Built],
    output: &OutputSpec,
) -> Result<(), Failure> {
    let [one] = built else {
        let error = anyhow::anyhow!("files of several platforms cannot be exported together yet");
        return Err(Failure::user(error).with_hint("build one --platform at a time"));
    };
    let dest = destination(output);
    let dest = match (build.plan.makes_index, output.kind) {
        // A folder for each platform, as if there were several.
        (true, OutputKind::Local) => dest.join(one.platform.to_string().replace('/', "_")),
        (true, _) => {
            let error = anyhow::anyhow!("files for a platform of its own cannot go into a tar");
            return Err(Failure::user(error).with_hint("leave BUILDKIT_MULTI_PLATFORM out"));
        }
        (false, _) => dest,
    };
    let task = build
        .reporter
        .task(format!("writing {}", dest.display()), None);
    task.started();
    let snapshot = Snapshot::of_image(one.assembly.layers.clone());
    let layers = build
        .session
        .images
        .layers(&snapshot, &task)
        .await
        .map_err(Failure::user)?;
    let (kind, is_stdout) = (output.kind, output.is_stdout());
    let written = blocking(move || {
        let merged = image::merged_entries(&layers);
        let entries: Vec<(kiln_cache::Entry, &Layer)> = merged
            .into_iter()
            .map(|(entry, at)| (entry, &layers[at]))
            .collect();
        match kind {
            OutputKind::Local => export_dir(&entries, &dest),
            _ if is_stdout => {
                let mut out = io::stdout();
                export_tar(&entries, Destination::Stream(&mut out))
            }
            _ => export_tar(&entries, Destination::Path(&dest)),
        }
    })
    .await;
    end(&task, written.map_err(Failure::user))
}

fn facts(build: &Build<'_>, bundle: &Bundle) -> Facts {
    let root = bundle.root();
    let mut metadata = BTreeMap::new();
    let id = match (bundle.is_index(), bundle.images().first()) {
        (false, Some(image)) => {
            let digest = image.config_descriptor.digest.to_string();
            metadata.insert("containerimage.config.digest", json!(digest));
            digest
        }
        _ => root.digest.to_string(),
    };
    metadata.insert("containerimage.digest", json!(root.digest.to_string()));
    metadata.insert("containerimage.descriptor", json!(root));
    let names = build
        .plan
        .outputs
        .iter()
        .flat_map(|output| names_of(output, &build.plan.tags));
    let names = once_each(names.map(ToString::to_string));
    if !names.is_empty() {
        metadata.insert("image.name", json!(names.join(",")));
    }
    Facts {
        id,
        metadata: json!(metadata),
    }
}

/// Several outputs may have one name.
pub(crate) fn once_each<T: PartialEq>(names: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut seen = Vec::new();
    for name in names {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_several_outputs_are_told_once() {
        let names = ["b", "a", "b", "a", "c"].map(str::to_owned);
        assert_eq!(once_each(names.into_iter()), ["b", "a", "c"]);
    }
}
