//! `kiln build`: Dockerfile to graph, graph to layers, layers to wherever they go.

use std::collections::HashMap;
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::StreamExt as _;
use futures_util::future::{join_all, try_join_all};
use futures_util::stream::FuturesUnordered;
use kiln_exporter::{
    ImageLayer, ImageOptions, OutputKind, PreparedLayer, prepare_layer, push_layer,
};
use kiln_frontend::{
    Compiled, Diagnostic, Dockerfile, ImageKey, ImageRequest, Images, Options, Severity, Span,
    help_for_request, render, to_json,
};
use kiln_graph::{Digest, Meta, Platform, SourceLines, VertexId};
use kiln_registry::Reference;
use kiln_solver::{Reporter, SolveError, SolveOptions, Task, blocking, solve};
use kiln_worker::{
    ContextFiles, LocalWorker, Parts, ResolvedImage, SnapshotLayer, Value, WorkerError,
};
use tokio::sync::mpsc;

use crate::args::Diagnostics;
use crate::commands::call::Report;
use crate::excerpt;
use crate::export::{push_names, push_progress};
use crate::image::{self, Assembly};
use crate::plan::BuildPlan;
use crate::report::{Failure, FailureKind};
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
}

impl<'a> Build<'a> {
    pub(crate) fn new(
        plan: &'a BuildPlan,
        session: &'a Session,
        (reporter, color, diagnostics): (&'a Reporter, bool, Diagnostics),
    ) -> Self {
        Self {
            plan,
            session,
            reporter,
            color,
            diagnostics,
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
        let beside = |errors: Vec<Diagnostic>| match options.check {
            true => [errors, kiln_frontend::findings(file, &options)].concat(),
            false => errors,
        };
        let (mut images, mut resolved) = (Images::new(), HashMap::new());
        loop {
            let requests = kiln_frontend::requirements(file, &options, &images).map_err(beside)?;
            if requests.is_empty() {
                break;
            }
            // Triggers of what is found can need more.
            for (key, image) in self.resolve_all(file, &requests).await.map_err(beside)? {
                let known = kiln_frontend::ResolvedImage {
                    reference: image.reference.clone(),
                    manifest: image.manifest,
                    config: image.config.clone(),
                };
                images.insert(key, known);
                resolved.insert(image.manifest, image);
            }
        }
        let compiled = kiln_frontend::compile(file, &options, &images)?;
        Ok(Prepared {
            platform: platform.clone(),
            compiled,
            resolved,
        })
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
        prepared: Prepared,
        contexts: HashMap<String, ContextFiles>,
    ) -> Result<Built, Failure> {
        let Prepared {
            platform,
            compiled,
            resolved,
        } = prepared;
        let worker = LocalWorker::new(
            Parts {
                store: self.session.store.clone(),
                images: self.session.images.clone(),
                sandbox: self.session.sandbox.clone(),
                settings: self.settings(&compiled),
                resolved,
                sources: self.session.sources.clone(),
                contexts,
            },
            &compiled.graph,
        );
        let options = SolveOptions {
            jobs: self.plan.jobs,
        };
        let targets = compiled.target.as_slice();
        let (sender, receiver) = mpsc::unbounded_channel();
        let solved = async {
            // Dropped with the solve: then the receiver's work ends, too.
            let sender = sender;
            let on_value = |vertex: VertexId, value: &Value| {
                // Nobody listens any more when sending ahead failed.
                let _unheard = sender.send((vertex, value.clone()));
            };
            let graph = &compiled.graph;
            let solved = solve(graph, targets, &worker, &options, self.reporter, on_value).await;
            solved.map_err(|error| self.solve_failure(&compiled, error))
        };
        let ahead = self.send_ahead(&compiled, receiver);
        let (values, ()) = futures_util::future::try_join(solved, ahead).await?;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let mut assembly = image::assemble(&compiled, &values, now);
        if self.plan.squash {
            self.squash(&mut assembly).await?;
        }
        Ok(Built { platform, assembly })
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
                        let top = value.snapshot().and_then(|s| s.layers().last().cloned());
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
        let store = &self.session.store;
        for output in self
            .plan
            .outputs
            .iter()
            .filter(|output| is_image(output.kind))
        {
            let source = image::image_layer(store, &layer).map_err(Failure::user)?;
            let prepared = self.prepare_layer(source, &output.image).await?;
            for name in push_names(output, &self.plan.tags) {
                let task = self
                    .reporter
                    .task(format!("pushing layers to {name}"), None);
                self.push_layer(name, &prepared, &task).await?;
            }
        }
        Ok(())
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

    async fn push_layer(
        &self,
        name: &Reference,
        layer: &PreparedLayer,
        task: &Task,
    ) -> Result<(), Failure> {
        task.started();
        let (client, store) = (&self.session.client, &self.session.store);
        match push_layer(client, store, name, layer, &push_progress(task)).await {
            Ok(_) => task.finished(),
            Err(error) => {
                task.failed(error.to_string());
                return Err(Failure::user(error));
            }
        }
        Ok(())
    }

    fn rendered(&self, diagnostics: &[Diagnostic], color: bool) -> String {
        let source = &self.plan.dockerfile;
        render(diagnostics, &source.name, &source.text, color)
    }

    /// Returns a warning with its place, or as plain lines if it has none.
    fn warning_text(&self, warning: &Diagnostic) -> String {
        if warning.span.is_none() {
            return unplaced_text(warning);
        }
        let text = self.rendered(std::slice::from_ref(warning), false);
        // Whoever shows it says that it is a warning.
        let text = text.strip_prefix("warning: ").unwrap_or(&text);
        text.trim_end().to_owned()
    }

    fn tell(&self, warning: &Diagnostic) {
        match self.diagnostics {
            Diagnostics::Json => {
                let text = self.json(std::slice::from_ref(warning));
                // Nobody reads it when standard error is closed; the build goes on.
                let _unseen = std::io::stderr().write_all(text.as_bytes());
            }
            Diagnostics::Text => self.reporter.warn(self.warning_text(warning)),
        }
    }

    /// Tells the warnings of all platforms, each once.
    pub(crate) fn warn(&self, warnings: &[Diagnostic]) {
        let mut told: Vec<&Diagnostic> = Vec::new();
        for warning in warnings {
            if !told.contains(&warning) {
                self.tell(warning);
                told.push(warning);
            }
        }
    }

    pub(crate) fn diagnosed(&self, diagnostics: &[Diagnostic]) -> Failure {
        let errors = diagnostics.iter();
        let n = errors.filter(|d| d.severity == Severity::Error).count();
        let message = match n {
            1 => format!("`{}` cannot be built", self.plan.dockerfile.name),
            _ => format!(
                "`{}` cannot be built: {n} errors",
                self.plan.dockerfile.name
            ),
        };
        let failure = Failure::user(anyhow::Error::msg(message));
        match self.diagnostics {
            Diagnostics::Json => failure.with_json(self.json(diagnostics)),
            Diagnostics::Text => failure.with_excerpt(self.rendered(diagnostics, self.color)),
        }
    }

    fn json(&self, diagnostics: &[Diagnostic]) -> String {
        let source = &self.plan.dockerfile;
        to_json(diagnostics, &source.name, &source.text)
    }

    /// The step's output is in the progress; here is only what happened, and where.
    fn solve_failure_as_json(&self, meta: &Meta, error: SolveError<WorkerError>) -> Failure {
        let (kind, error) = match error {
            SolveError::StepFailed { failure, .. } => {
                (FailureKind::Step, anyhow::Error::msg(failure.message))
            }
            error => (FailureKind::User, error.into()),
        };
        let chain: Vec<String> = error.chain().map(ToString::to_string).collect();
        let text = &self.plan.dockerfile.text;
        let diagnostic = match meta.lines {
            Some(lines) => Diagnostic::error(span_of(lines, text), chain.join(": ")),
            None => Diagnostic::option(chain.join(": ")),
        };
        Failure::new(kind, error).with_json(self.json(&[diagnostic]))
    }

    fn solve_failure(&self, compiled: &Compiled, error: SolveError<WorkerError>) -> Failure {
        let meta = &compiled.graph.vertex(error.vertex()).meta;
        if self.diagnostics == Diagnostics::Json {
            return self.solve_failure_as_json(meta, error);
        }
        let lines = meta
            .lines
            .map(|lines| excerpt::of_source(&self.plan.dockerfile, lines));
        let lines = lines.unwrap_or_default();
        match error {
            SolveError::StepFailed { failure, .. } => {
                let log = excerpt::of_log(&meta.name, &failure.log_tail);
                Failure::new(FailureKind::Step, anyhow::Error::msg(failure.message))
                    .with_excerpt(log + &lines)
            }
            error => {
                let hint = hint_of(&error);
                let failure = Failure::user(error).with_excerpt(lines);
                match hint {
                    Some(hint) => failure.with_hint(hint),
                    None => failure,
                }
            }
        }
    }
}

/// Returns what the user can do about an error that knows.
fn hint_of(error: &SolveError<WorkerError>) -> Option<String> {
    match error {
        SolveError::Worker {
            source: WorkerError::Credential(source),
            ..
        } => source.hint(),
        _ => None,
    }
}

/// Returns the bytes of some lines, without the last line break.
fn span_of(lines: SourceLines, text: &str) -> Span {
    let (mut start, mut end, mut at) = (text.len(), text.len(), 0);
    for (number, line) in (1..=lines.last).zip(text.split_inclusive('\n')) {
        if number == lines.first {
            start = at;
        }
        end = at + line.trim_end().len();
        at += line.len();
    }
    Span::new(start, end.max(start))
}

/// Returns true for outputs that are images, not file trees.
pub(crate) fn is_image(kind: OutputKind) -> bool {
    matches!(
        kind,
        OutputKind::Image | OutputKind::Oci | OutputKind::Docker
    )
}

fn unplaced_text(warning: &Diagnostic) -> String {
    match &warning.help {
        Some(help) => format!("{}\n{help}", warning.message),
        None => warning.message.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_whole_lines() {
        let text = "FROM a\nRUN b \\\n  c\nRUN d\n";
        let at = |first, last| &text[span_of(SourceLines { first, last }, text).range()];
        assert_eq!(at(2, 3), "RUN b \\\n  c");
        assert_eq!(at(4, 4), "RUN d");
        assert_eq!(at(9, 9), "");
    }

    #[test]
    fn warnings_without_a_place_are_plain_lines() {
        let warning = Diagnostic::option("build argument `A` is not used");
        assert_eq!(unplaced_text(&warning), "build argument `A` is not used");
        let text = unplaced_text(&warning.with_help("leave it out"));
        assert_eq!(text, "build argument `A` is not used\nleave it out");
    }
}
