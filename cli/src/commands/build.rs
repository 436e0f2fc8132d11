//! `kiln build`: Dockerfile to graph, graph to layers, layers to wherever they go.

pub(crate) mod caching;
mod telling;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt as _;
use futures_util::future::{join, join_all, try_join, try_join_all};
use futures_util::stream::FuturesUnordered;
use kiln_exporter::{
    Compression, ImageLayer, ImageOptions, OutputKind, PreparedLayer, prepare_layer, push_layer,
};
use kiln_frontend::{
    Compiled, Diagnostic, Dockerfile, ImageKey, ImageRequest, Images, Options, help_for_request,
};
use kiln_graph::{Descriptor, Digest, Platform, VertexId};
use kiln_registry::Reference;
use kiln_solver::{Reporter, SolveOptions, Task, blocking, solve};
use kiln_worker::{
    ContextFiles, LocalWorker, Parts, ResolvedImage, Snapshot, SnapshotLayer, Value, WorkerError,
};
use tokio::sync::mpsc;

use crate::args::Diagnostics;
use crate::commands::build::caching::{Caches, add_inline};
use crate::commands::call::Report;
use crate::commands::why::{self, BuildReport};
use crate::export::{push_names, push_progress};
use crate::image::{self, Assembly};
use crate::plan::BuildPlan;
use crate::report::Failure;
use crate::session::Session;

/// A platform's image, built.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) platform: Platform,
    pub(crate) assembly: Assembly,
}

/// A platform's graph, before anything ran.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) platform: Platform,
    pub(crate) compiled: Compiled,
    resolved: HashMap<Digest, ResolvedImage>,
}

/// A build that goes on: what all its parts share.
#[derive(Debug)]
pub(crate) struct Build<'a> {
    pub(crate) plan: &'a BuildPlan,
    pub(crate) session: &'a Session,
    pub(crate) reporter: &'a Reporter,
    pub(crate) color: bool,
    /// How mistakes in the Dockerfile are told.
    pub(crate) diagnostics: Diagnostics,
    /// Why its steps ran; grows while it goes on.
    pub(crate) report: &'a Mutex<BuildReport>,
    /// Pushing while steps run failed; it is tried again when they have ended.
    is_push_late: AtomicBool,
}

impl<'a> Build<'a> {
    pub(crate) fn new(
        plan: &'a BuildPlan,
        session: &'a Session,
        (reporter, color, diagnostics): (&'a Reporter, bool, Diagnostics),
        report: &'a Mutex<BuildReport>,
    ) -> Self {
        Self {
            plan,
            session,
            reporter,
            color,
            diagnostics,
            report,
            is_push_late: AtomicBool::new(false),
        }
    }
}

impl Build<'_> {
    /// Compiles the Dockerfile for every platform; asks registries for manifests only.
    pub(crate) async fn prepare(&self) -> Result<Vec<Prepared>, Failure> {
        let file = self.parse()?;
        try_join_all(
            self.plan
                .platforms
                .iter()
                .map(|p| self.prepare_one(&file, p)),
        )
        .await
    }

    pub(crate) fn parse(&self) -> Result<Dockerfile, Failure> {
        kiln_frontend::parse(&self.plan.dockerfile.text)
            .map_err(|diagnostics| self.diagnosed(&diagnostics))
    }

    pub(crate) async fn prepare_one(
        &self,
        file: &Dockerfile,
        platform: &Platform,
    ) -> Result<Prepared, Failure> {
        let prepared = self.compile(file, platform).await;
        prepared.map_err(|diagnostics| self.diagnosed(&diagnostics))
    }

    /// Returns what is wrong with the Dockerfile and what the checks find.
    pub(crate) async fn check(&self) -> Report {
        let text = &self.plan.dockerfile.text;
        let file = match kiln_frontend::parse_with_findings(text, &self.plan.options) {
            Ok(file) => file,
            Err(diagnostics) => return Report::new(diagnostics, None, text),
        };
        let compiled = self.compile(&file, &self.plan.platforms[0]).await;
        let diagnostics = match compiled {
            Ok(prepared) => prepared.compiled.warnings,
            Err(diagnostics) => diagnostics,
        };
        Report::new(diagnostics, Some(&file), text)
    }

    async fn compile(
        &self,
        file: &Dockerfile,
        platform: &Platform,
    ) -> Result<Prepared, Vec<Diagnostic>> {
        let options = Options {
            target_platform: platform.clone(),
            ..self.plan.options.clone()
        };
        // Checks look for names in the context, which can take long: a signal must still be heard.
        let (file, given) = (Arc::new(file.clone()), options.clone());
        let (images, resolved) = match self.images_of(&file, &options).await {
            Ok(found) => found,
            Err(errors) if given.check => {
                let findings = blocking(move || kiln_frontend::findings(&file, &given)).await;
                return Err([errors, findings].concat());
            }
            Err(errors) => return Err(errors),
        };
        let compiled = blocking(move || kiln_frontend::compile(&file, &given, &images)).await?;
        Ok(Prepared {
            platform: platform.clone(),
            compiled,
            resolved,
        })
    }

    /// Resolves all images that the Dockerfile needs.
    async fn images_of(
        &self,
        file: &Dockerfile,
        options: &Options,
    ) -> Result<(Images, HashMap<Digest, ResolvedImage>), Vec<Diagnostic>> {
        let (mut images, mut resolved) = (Images::new(), HashMap::new());
        loop {
            let requests = kiln_frontend::requirements(file, options, &images)?;
            if requests.is_empty() {
                return Ok((images, resolved));
            }
            // Triggers of what is found can need more.
            for (key, image) in self.resolve_all(file, &requests).await? {
                let known = kiln_frontend::ResolvedImage {
                    reference: image.reference.clone(),
                    manifest: image.manifest,
                    config: image.config.clone(),
                };
                images.insert(key, known);
                resolved.insert(image.manifest, image);
            }
        }
    }

    /// Asks for images, all at once; says of each that fails why.
    async fn resolve_all(
        &self,
        file: &Dockerfile,
        requests: &[ImageRequest],
    ) -> Result<Vec<(ImageKey, ResolvedImage)>, Vec<Diagnostic>> {
        let found = join_all(requests.iter().map(|request| self.resolve(request))).await;
        let (mut images, mut failed) = (Vec::new(), Vec::new());
        for (request, found) in requests.iter().zip(found) {
            match found {
                Ok(image) => {
                    let key = (request.reference.clone(), request.platform.clone());
                    images.push((key, image));
                }
                Err(error) => {
                    let chain: Vec<String> = anyhow::Error::new(error)
                        .chain()
                        .map(ToString::to_string)
                        .collect();
                    let error = Diagnostic::error(request.span, chain.join(": "));
                    failed.push(match help_for_request(file, request) {
                        Some(help) => error.with_help(help),
                        None => error,
                    });
                }
            }
        }
        match failed.is_empty() {
            true => Ok(images),
            false => Err(failed),
        }
    }

    async fn resolve(&self, request: &ImageRequest) -> Result<ResolvedImage, WorkerError> {
        if let Some(image) = self.plan.layouts.get(&request.reference) {
            let (layout, top) = (&image.layout, &image.descriptor);
            let images = &self.session.images;
            return images.resolve_layout(layout, top, &request.platform).await;
        }
        let reference: Reference = request
            .reference
            .parse()
            .map_err(|error| WorkerError::from((request.reference.clone(), error)))?;
        let task = self
            .reporter
            .task(format!("[internal] load metadata for {reference}"), None);
        task.started();
        let images = &self.session.images;
        let found = images
            .resolve(&reference, &request.platform, self.plan.refresh)
            .await;
        match &found {
            Ok(_) => task.finished(),
            Err(error) => task.failed(error.to_string()),
        }
        found
    }

    /// Evaluates one platform's graph; layers are compressed and pushed as soon as they are done.
    pub(crate) async fn run(
        &self,
        prepared: &Prepared,
        contexts: HashMap<String, ContextFiles>,
        caches: &Caches,
    ) -> Result<Built, Failure> {
        let compiled = &prepared.compiled;
        let worker = LocalWorker::new(
            Parts {
                store: self.session.store.clone(),
                images: self.session.images.clone(),
                sandbox: self.session.sandbox.clone(),
                settings: self.settings(compiled),
                resolved: prepared.resolved.clone(),
                sources: self.session.sources.clone(),
                contexts,
                reuse: self.plan.reuse.clone(),
                caches: caches.from.clone(),
            },
            &compiled.graph,
        );
        let options = SolveOptions {
            jobs: self.plan.jobs,
        };
        let targets = compiled.target.as_slice();
        let (sender, receiver) = mpsc::unbounded_channel();
        let (to_caches, for_caches) = mpsc::unbounded_channel();
        let solved = async {
            // Dropped with the solve: then the receivers' work ends, too.
            let senders = [sender, to_caches];
            let on_value = |vertex: VertexId, value: &Value| {
                for sender in &senders {
                    // Nobody listens any more when sending ahead failed.
                    let _unheard = sender.send((vertex, value.clone()));
                }
            };
            let graph = &compiled.graph;
            let solved = solve(graph, targets, &worker, &options, self.reporter, on_value).await;
            solved.map_err(|error| self.solve_failure(compiled, error))
        };
        let ahead = self.send_ahead(compiled, receiver);
        let caching = self.send_to_caches(caches, (compiled, &worker), for_caches);
        // What was done of a build that fails is of use to the next one.
        let (built, ()) = join(try_join(solved, ahead), caching).await;
        // Also of a build that failed.
        self.report
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .add(&compiled.graph, &worker.explanations());
        let (values, ()) = built?;
        let mut assembly = image::assemble(compiled, &values, why::now());
        if self.plan.squash {
            self.squash(&mut assembly).await?;
            if self.plan.caches.inline {
                let text = "a squashed image is no cache: its one layer is what no step makes";
                self.reporter.warn(text);
            }
        } else if self.plan.caches.inline {
            let (store, compression) = (&self.session.store, self.compression());
            add_inline(&mut assembly, (compiled, &worker), store, compression)?;
        }
        Ok(Built {
            platform: prepared.platform.clone(),
            assembly,
        })
    }

    /// Forgets what was told of steps: they are evaluated again.
    pub(crate) fn forget_steps(&self) {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.steps.clear();
    }

    /// Makes one layer of those that the base does not have.
    async fn squash(&self, assembly: &mut Assembly) -> Result<(), Failure> {
        let n_base = assembly.n_base();
        if assembly.layers.len() == n_base {
            return Ok(());
        }
        let task = self.reporter.task("squashing layers", None);
        task.started();
        let Session { images, store, .. } = self.session;
        match kiln_worker::squash(images, store, &assembly.layers, n_base, &task).await {
            Ok(layer) => {
                task.finished();
                assembly.squashed(layer);
                Ok(())
            }
            Err(error) => {
                task.failed(error.to_string());
                Err(Failure::user(error))
            }
        }
    }

    fn settings(&self, compiled: &Compiled) -> kiln_worker::StepSettings {
        let mut settings = self.plan.settings.clone();
        if let Some(hostname) = &compiled.hostname {
            settings.hostname.clone_from(hostname);
        }
        settings
    }

    /// Compresses (and pushes) every layer of the image when it is done, while others still run.
    async fn send_ahead(
        &self,
        compiled: &Compiled,
        mut done: mpsc::UnboundedReceiver<(VertexId, Value)>,
    ) -> Result<(), Failure> {
        // Layers that are squashed go nowhere.
        let steps = compiled.steps.iter().filter(|_| !self.plan.squash);
        let wanted: Vec<VertexId> = steps.filter_map(|step| step.layer).collect();
        let mut running = FuturesUnordered::new();
        let mut open = true;
        while open || !running.is_empty() {
            tokio::select! {
                value = done.recv(), if open => match value {
                    None => open = false,
                    Some((vertex, value)) if wanted.contains(&vertex) => {
                        let top = value.snapshot().and_then(|s| s.top().cloned());
                        running.extend(top.map(|layer| self.send_layer(layer)));
                    }
                    Some(_) => {}
                },
                Some(sent) = running.next(), if !running.is_empty() => sent?,
            }
        }
        Ok(())
    }

    async fn send_layer(&self, layer: SnapshotLayer) -> Result<(), Failure> {
        for output in self
            .plan
            .outputs
            .iter()
            .filter(|output| is_image(output.kind))
        {
            let source = self.layer_for(&layer, &output.image).await?;
            let prepared = self.prepare_layer(source, &output.image).await?;
            for name in push_names(output, &self.plan.tags) {
                if self.is_push_late.load(Ordering::Relaxed) {
                    break;
                }
                let task = self
                    .reporter
                    .task(format!("pushing layers to {name}"), None);
                self.push_ahead(name, &prepared, &task).await;
            }
        }
        Ok(())
    }

    /// Returns a layer in the form that an export with these options starts from. Of one that is
    /// still in a shared cache the blob is passed on, if it is as it would be made here.
    pub(crate) async fn layer_for(
        &self,
        layer: &SnapshotLayer,
        options: &ImageOptions,
    ) -> Result<ImageLayer, Failure> {
        let (store, images) = (&self.session.store, &self.session.images);
        let promise = images.promise(&layer.id);
        let promise = promise.filter(|_| layer.origin.is_none());
        let Some(promise) = promise else {
            return image::image_layer(store, layer).map_err(Failure::user);
        };
        let record = promise.record();
        let is_as_made = options.promise || record.format == options.compression.format();
        if !is_as_made {
            let task = self.reporter.task("fetching layers from caches", None);
            let snapshot = Snapshot::of_image(vec![layer.clone()]);
            let unpacked = images.layers(&snapshot, &task).await;
            unpacked.map_err(Failure::user)?;
            return image::image_layer(store, layer).map_err(Failure::user);
        }
        let repository = promise.cache().place().repository();
        if let Some(repository) = repository {
            // An image that is only pushed stays in the store without its blobs.
            let noted = store.note_origins([&record.blob.digest], &repository.to_string());
            noted.map_err(Failure::user)?;
        }
        Ok(ImageLayer::Base {
            descriptor: Descriptor::new(
                Compression::media_type_of(&record.format),
                record.blob.digest,
                record.blob.size,
            ),
            diff_id: record.diff_id,
            mount_from: repository.cloned(),
        })
    }

    async fn prepare_layer(
        &self,
        layer: ImageLayer,
        options: &ImageOptions,
    ) -> Result<PreparedLayer, Failure> {
        let (store, options) = (self.session.store.clone(), options.clone());
        let prepared = blocking(move || prepare_layer(&store, &layer, &options)).await;
        prepared.map_err(Failure::user)
    }

    /// A registry that fails must not cost what was built: it is asked again at the end.
    async fn push_ahead(&self, name: &Reference, layer: &PreparedLayer, task: &Task) {
        task.started();
        let (client, store) = (&self.session.client, &self.session.store);
        let Err(error) = push_layer(client, store, name, layer, &push_progress(task)).await else {
            return task.finished();
        };
        task.failed(error.to_string());
        if !self.is_push_late.swap(true, Ordering::Relaxed) {
            self.reporter.warn(format!(
                "the push to {name} fails, and is tried again when the image is built"
            ));
        }
    }
}

/// Returns true for outputs that are images, not file trees.
pub(crate) fn is_image(kind: OutputKind) -> bool {
    matches!(
        kind,
        OutputKind::Image | OutputKind::Oci | OutputKind::Docker
    )
}
