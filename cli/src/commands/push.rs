//! `kiln push`: images of the local store to the registries of their names, without a build.

use std::io::Write;

use kiln_cache::Store;
use kiln_exporter::{Bundle, StoredImage, prepare_stored};
use kiln_graph::{Descriptor, ImageConfig, Index, Manifest, MediaKind, Platform};
use kiln_registry::Reference;
use kiln_runtime::Privilege;
use kiln_solver::{Reporter, blocking};
use kiln_worker::SnapshotLayer;

use crate::environment::Environment;
use crate::export::{keep_blobs, layers_by_blob, once_each, push_as};
use crate::image::image_layer;
use crate::local::{find_root, read, read_bytes};
use crate::registry_args::PushArgs;
use crate::report::Failure;
use crate::session::Session;
use crate::show::{mode_of, with_progress};
use crate::stop::until_stopped;

/// Pushes, and says what was pushed.
pub(crate) fn run(
    args: &PushArgs,
    store: Store,
    env: &Environment,
    privilege: &Privilege,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let names = names(args, &store)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::user)?;
    let session = {
        // Registries start their connections on the runtime.
        let _entered = runtime.enter();
        Session::new(store, env, privilege, &args.registry)?
    };
    let mode = mode_of(args.progress, env).filter(|_| !args.quiet);
    let mut pushed = Vec::new();
    let result = runtime.block_on(with_progress(mode, |reporter| {
        let (session, names, pushed) = (&session, &names, &mut pushed);
        until_stopped(async move { push_all(session, &reporter, names, pushed).await })
    }));
    for (name, root) in pushed {
        let (digest, size) = (root.digest, root.size);
        match args.quiet {
            true => writeln!(out, "{name}"),
            false => writeln!(out, "{name}: digest: {digest} size: {size}"),
        }
        .map_err(Failure::user)?;
    }
    result
}

/// Returns the names to push, each once.
fn names(args: &PushArgs, store: &Store) -> Result<Vec<Reference>, Failure> {
    let mut names: Vec<Reference> = Vec::new();
    for text in &args.names {
        let name: Reference = text
            .parse()
            .map_err(|error| Failure::usage(format!("{error}")))?;
        if name.digest().is_some() {
            let message = format!("`{text}` has a digest, and a push needs a tag");
            return Err(Failure::usage(message));
        }
        let mut found = vec![name];
        if args.all_tags {
            found = all_tags(&found[0], store)?;
        }
        names.extend(found);
    }
    Ok(once_each(names))
}

/// Returns all names of a repository that the store has.
fn all_tags(name: &Reference, store: &Store) -> Result<Vec<Reference>, Failure> {
    if name.tag() != Some("latest") {
        return Err(Failure::usage("a tag cannot be given with --all-tags"));
    }
    let known = store.references().map_err(Failure::user)?;
    let known = known.iter().filter_map(|image| image.name.parse().ok());
    let is_tag = |known: &Reference| known.name() == name.name() && known.digest().is_none();
    let found: Vec<Reference> = known.filter(is_tag).collect();
    if found.is_empty() {
        let error = anyhow::anyhow!("there is no image of `{}` in the local store", name.name());
        return Err(Failure::user(error).with_hint("`kiln images` lists what is there"));
    }
    Ok(found)
}

async fn push_all(
    session: &Session,
    reporter: &Reporter,
    names: &[Reference],
    pushed: &mut Vec<(Reference, Descriptor)>,
) -> Result<(), Failure> {
    for name in names {
        let root = find_root(&session.store, name)?;
        let task = reporter.task(format!("preparing {name}"), None);
        task.started();
        let (bundle, layers) = stored(session, name, &root).await?;
        task.finished();
        let task = reporter.task(format!("pushing {name}"), None);
        task.started();
        let mut layers = layers_by_blob(session, &layers);
        let result = push_as(session, &mut layers, (&bundle, false), name, &task).await;
        match &result {
            Ok(()) => task.finished(),
            Err(failure) => task.failed(failure.error.to_string()),
        }
        result?;
        if *bundle.root() != root {
            // Under its name is now what the registry has.
            keep_blobs(&session.store, &bundle)?;
            let text = name.to_string();
            let kept = session.store.set_reference(&text, bundle.root(), false);
            kept.map_err(Failure::user)?;
        }
        pushed.push((name.clone(), bundle.root().clone()));
    }
    Ok(())
}

/// Returns an image of the store with all its platforms, and all its layers.
async fn stored(
    session: &Session,
    name: &Reference,
    root: &Descriptor,
) -> Result<(Bundle, Vec<SnapshotLayer>), Failure> {
    let store = &session.store;
    let (mut images, mut all) = (Vec::new(), Vec::new());
    let is_index = MediaKind::of(&root.media_type) == Some(MediaKind::Index);
    let index: Option<(Index, Vec<u8>)> = match is_index {
        true => Some((read(store, root)?, read_bytes(store, root)?)),
        false => None,
    };
    let manifests = match &index {
        Some((index, _)) => index.manifests.clone(),
        None => vec![root.clone()],
    };
    for descriptor in manifests {
        let manifest: Manifest = read(store, &descriptor)?;
        let config: ImageConfig = read(store, &manifest.config)?;
        let layers = session.images.stored_layers(name, &manifest, &config);
        let layers = layers.map_err(Failure::user)?;
        let sources = layers.iter().map(|layer| image_layer(store, layer));
        let variant = config.variant.as_deref();
        images.push(StoredImage {
            platform: Platform::normal(&config.os, &config.architecture, variant),
            bytes: read_bytes(store, &descriptor)?,
            config: read_bytes(store, &manifest.config)?,
            layers: sources.collect::<Result<_, _>>().map_err(Failure::user)?,
            manifest,
            descriptor,
        });
        all.extend(layers);
    }
    let (store, root) = (store.clone(), root.clone());
    let index = index.map(|(index, bytes)| (root, index, bytes));
    let bundle = blocking(move || prepare_stored(&store, images, index)).await;
    Ok((bundle.map_err(Failure::user)?, all))
}
