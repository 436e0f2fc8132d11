//! Stages to a graph, an image config and a history.
//!
//! Stages are evaluated in the order of the file, and only those that the target needs. Each
//! instruction that makes files is one vertex on top of the root so far, so each is one layer.
//! A wrong instruction is reported and left out, and the next one is looked at.

mod config;
mod copy;
mod mounts;
mod naming;
mod paths;
mod ports;
mod remote;
mod run;
mod signals;
mod stage;

use kiln_graph::{Digest, Graph, ImageConfig, ImageSource, Input, Meta, Op, Platform};

use crate::compile::naming::Naming;
use crate::compile::stage::StageBuild;
use crate::diagnostic::{Diagnostic, Severity, Span};
use crate::env::{Env, proxies};
use crate::instruction::Dockerfile;
use crate::options::{
    Compiled, HistoryStep, ImageKey, Images, NoCache, Options, ResolvedImage, StageInfo,
};
use crate::plan::{Origin, Plan};
use crate::unused::unused;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Compiles what the target needs, or says everything that is wrong with it.
///
/// `images` holds what [`crate::requirements`] asked for.
pub fn compile(
    file: &Dockerfile,
    options: &Options,
    images: &Images,
) -> Result<Compiled, Vec<Diagnostic>> {
    let plan = Plan::new(file, options)?;
    let source_date_epoch = source_date_epoch(options).map_err(|error| vec![error])?;
    let mut build = Build {
        file,
        options,
        plan: &plan,
        images,
        proxies: proxies(options),
        graph: Graph::new(),
        states: file.stages.iter().map(|_| None).collect(),
        diagnostics: [file.warnings.clone(), unused(file, options, &plan)].concat(),
    };
    for at in (0..file.stages.len()).filter(|&at| plan.is_needed[at]) {
        build.stage(at);
    }
    build.finish(source_date_epoch)
}

/// Everything that stages share while they are evaluated.
struct Build<'a> {
    file: &'a Dockerfile,
    options: &'a Options,
    plan: &'a Plan,
    images: &'a Images,
    /// What `RUN` sees of proxies without declaring them.
    proxies: Vec<(String, String)>,
    graph: Graph,
    /// The stages evaluated so far.
    states: Vec<Option<State>>,
    diagnostics: Vec<Diagnostic>,
}

/// What a stage has come to.
#[derive(Debug, Clone)]
struct State {
    root: Input,
    env: Env,
    /// `ARG`s, for the history of `RUN`.
    args: Vec<(String, Option<String>)>,
    image: ImageConfig,
    base: Option<ImageKey>,
    steps: Vec<HistoryStep>,
}

impl Build<'_> {
    fn stage(&mut self, at: usize) {
        let planned = &self.plan.stages[at];
        let stage = &self.file.stages[at];
        let mut naming = Naming::new(self.file, self.options, self.plan, at);
        let state = match self.base(at, &planned.base, &mut naming) {
            Ok(state) => state,
            Err(diagnostic) => {
                self.diagnostics.push(diagnostic);
                // With an unknown base the rest can still be checked.
                scratch(&planned.platform)
            }
        };
        if planned.is_replaced {
            self.states[at] = Some(state);
            return;
        }
        let mut work = StageBuild::new(self, at, naming, state);
        for (number, step) in stage.steps.iter().enumerate() {
            if let Err(diagnostic) = work.step(number, step) {
                work.report(diagnostic);
            }
        }
        let state = work.into_state();
        self.states[at] = Some(state);
    }

    fn base(
        &mut self,
        at: usize,
        origin: &Origin,
        naming: &mut Naming,
    ) -> Result<State, Diagnostic> {
        let span = self.file.stages[at].span;
        match origin {
            Origin::Scratch | Origin::Local(_) => Ok(scratch(&self.options.target_platform)),
            Origin::Stage(parent) => match &self.states[*parent] {
                Some(state) => Ok(state.clone()),
                None => Err(Diagnostic::error(
                    span,
                    "this stage is needed before its base",
                )),
            },
            Origin::Image(key) => self.image_base(key, span, naming),
        }
    }

    fn image_base(
        &mut self,
        key: &ImageKey,
        span: Span,
        naming: &mut Naming,
    ) -> Result<State, Diagnostic> {
        let image = self.resolved(key, span)?;
        if !image.config.config.on_build.is_empty() {
            let message = format!(
                "base image `{}` has `ONBUILD` triggers, which kiln does not build yet",
                key.0
            );
            return Err(Diagnostic::error(span, message));
        }
        self.diagnostics.extend(other_platform(image, key, span));
        let root = if is_empty(image) {
            None
        } else {
            let name = naming.next(&from_text(image), &Env::default());
            self.image_vertex(key, image, self.meta(name, span, naming))
        };
        Ok(State {
            root,
            env: Env::default(),
            args: Vec::new(),
            image: image.config.clone(),
            base: Some(key.clone()),
            steps: Vec::new(),
        })
    }

    /// Returns the root of an image that is only copied from.
    fn image_root(
        &mut self,
        key: &ImageKey,
        span: Span,
        naming: &Naming,
    ) -> Result<Input, Diagnostic> {
        let image = self.resolved(key, span)?;
        if is_empty(image) {
            return Ok(None);
        }
        let meta = self.meta(from_text(image), span, naming);
        Ok(self.image_vertex(key, image, meta))
    }

    fn image_vertex(&mut self, key: &ImageKey, image: &ResolvedImage, meta: Meta) -> Input {
        let source = ImageSource {
            reference: image.reference.clone(),
            manifest: image.manifest,
            platform: key.1.clone(),
        };
        Some(self.graph.add(Op::Image(source), vec![], meta))
    }

    fn meta(&self, name: String, span: Span, naming: &Naming) -> Meta {
        Meta {
            name,
            lines: Some(self.file.lines.lines(span)),
            stage: naming.stage.clone(),
            ignore_cache: false,
        }
    }

    fn ignores_cache(&self, at: usize) -> bool {
        match (&self.options.no_cache, &self.file.stages[at].name) {
            (NoCache::All, _) => true,
            (NoCache::Stages(names), Some(stage)) => {
                names.iter().any(|name| name.to_lowercase() == *stage)
            }
            _ => false,
        }
    }

    fn finish(mut self, source_date_epoch: Option<i64>) -> Result<Compiled, Vec<Diagnostic>> {
        let is_error = |d: &Diagnostic| d.severity == Severity::Error;
        let target = self.states[self.plan.target].take();
        let Some(target) = target.filter(|_| !self.diagnostics.iter().any(is_error)) else {
            self.diagnostics.retain(is_error);
            self.diagnostics.sort_by_key(|diagnostic| diagnostic.span);
            return Err(self.diagnostics);
        };
        let hostname = self.options.build_arg("BUILDKIT_SANDBOX_HOSTNAME");
        Ok(Compiled {
            target: target.root,
            image: finished_image(target.image, self.options),
            base: target.base,
            steps: target.steps,
            stages: self.stage_infos(),
            source_date_epoch,
            hostname: hostname.filter(|name| !name.is_empty()).map(str::to_owned),
            warnings: self.diagnostics,
            graph: self.graph,
        })
    }

    fn stage_infos(&self) -> Vec<StageInfo> {
        let stages = self.file.stages.iter().zip(&self.plan.stages);
        let infos = stages.zip(&self.plan.is_needed);
        infos
            .map(|((stage, planned), &is_needed)| StageInfo {
                name: stage.name.clone(),
                base: planned.base_name.clone(),
                platform: planned.platform.clone(),
                is_needed,
                lines: self.file.lines.lines(stage.span),
            })
            .collect()
    }
}

impl<'a> Build<'a> {
    fn resolved(&self, key: &ImageKey, span: Span) -> Result<&'a ResolvedImage, Diagnostic> {
        self.images.get(key).ok_or_else(|| {
            let message = format!("image `{}` for `{}` was not resolved", key.0, key.1);
            Diagnostic::error(span, message)
        })
    }
}

/// Returns the state of a stage on nothing.
fn scratch(platform: &Platform) -> State {
    let mut image = ImageConfig {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone(),
        ..ImageConfig::default()
    };
    image.config.working_dir = "/".to_owned();
    State {
        root: None,
        env: Env::default(),
        args: Vec::new(),
        image,
        base: None,
        steps: Vec::new(),
    }
}

/// An image without layers is as good as `scratch`, apart from its config.
fn is_empty(image: &ResolvedImage) -> bool {
    let has_layers = image.config.history.iter().any(|entry| !entry.empty_layer);
    image.config.rootfs.diff_ids.is_empty() && !has_layers
}

/// A reference that is pinned to a digest stands as it is.
fn from_text(image: &ResolvedImage) -> String {
    let digest: &Digest = &image.manifest;
    match image.reference.contains('@') {
        true => format!("FROM {}", image.reference),
        false => format!("FROM {}@{digest}", image.reference),
    }
}

fn other_platform(image: &ResolvedImage, key: &ImageKey, span: Span) -> Option<Diagnostic> {
    let config = &image.config;
    let found = Platform::normal(&config.os, &config.architecture, config.variant.as_deref());
    if config.architecture.is_empty()
        || (found.os == key.1.os && found.architecture == key.1.architecture)
    {
        return None;
    }
    let message = format!(
        "base image `{}` was pulled with platform `{found}`, expected `{}`",
        key.0, key.1
    );
    Some(Diagnostic::warning(span, message))
}

fn finished_image(mut image: ImageConfig, options: &Options) -> ImageConfig {
    for (name, value) in &options.labels {
        image
            .config
            .labels
            .insert(name.clone(), value.clone().into());
    }
    image.config.labels.sort_keys();
    image.config.exposed_ports.sort_keys();
    image.config.volumes.sort_keys();
    if options.explicit_platform {
        let platform = &options.target_platform;
        image.os = platform.os.clone();
        image.architecture = platform.architecture.clone();
        image.variant = platform.variant.clone();
    }
    image
}

fn source_date_epoch(options: &Options) -> Result<Option<i64>, Diagnostic> {
    let text = options.build_arg("SOURCE_DATE_EPOCH").unwrap_or_default();
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        let message = format!("invalid `SOURCE_DATE_EPOCH`: `{text}` is no number of seconds");
        Diagnostic::option(message)
    })
}
