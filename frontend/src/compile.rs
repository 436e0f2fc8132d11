//! Stages to a graph, an image config and a history.
//!
//! Stages are evaluated in the order of the file, and only those that the target needs. Each
//! instruction that makes files is one vertex on top of the root so far, so each is one layer.
//! A wrong instruction is reported and left out, and the next one is looked at.

mod checks;
mod config;
mod copy;
mod mounts;
mod naming;
mod ports;
pub(crate) mod remote;
mod run;
mod signals;
mod stage;

use std::collections::HashMap;

use kiln_graph::{
    Copy, CopySource, Digest, Graph, ImageConfig, ImageSource, Input, LocalSource, Meta, Op,
    Platform, VertexId,
};

use crate::compile::copy::local_meta;
use crate::compile::naming::Naming;
use crate::compile::stage::StageBuild;
use crate::diagnostic::{Diagnostic, Severity, Span};
use crate::env::{Args, Env, proxies};
use crate::epoch::NAME;
use crate::instruction::{Dockerfile, Instruction, Step};
use crate::lint::rules::INVALID_BASE_IMAGE_PLATFORM;
use crate::lint::{Lint, Phase};
use crate::options::{
    Compiled, HistoryStep, ImageKey, Images, NoCache, Options, ResolvedImage, StageInfo,
};
use crate::outline::Capture;
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
    let mut lint = Lint::new(file, options).map_err(|error| vec![error])?;
    lint.file(file, options);
    let plan = match Plan::new(file, options, images) {
        Ok(plan) => plan,
        Err(errors) => return Err(lint.beside(errors)),
    };
    let source_date_epoch =
        source_date_epoch(options, &plan.globals).map_err(|error| vec![error])?;
    let mut build = Build {
        file,
        options,
        plan: &plan,
        images,
        proxies: proxies(options),
        graph: Graph::new(),
        states: file.stages.iter().map(|_| None).collect(),
        n_users: n_users(&plan),
        roots: vec![None; file.stages.len()],
        envs: vec![None; file.stages.len()],
        diagnostics: unused(file, options, &plan),
        capture: Capture::new(file, options, &plan.globals),
        lint,
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
    /// The stages evaluated so far, as long as another one is still based on them.
    states: Vec<Option<State>>,
    /// How many stages to come are based on each; the target has one more.
    n_users: Vec<usize>,
    /// What the stages evaluated so far came to.
    roots: Vec<Option<Input>>,
    /// The variables that they ended with, as far as checks need them.
    envs: Vec<Option<Env>>,
    diagnostics: Vec<Diagnostic>,
    lint: Lint,
    capture: Capture,
}

/// What a stage has come to.
#[derive(Debug, Clone)]
struct State {
    root: Input,
    env: Env,
    /// Where the entries of the config's environment are, by name.
    env_places: HashMap<String, usize>,
    /// `ARG`s, for the history of `RUN`.
    args: Args,
    image: ImageConfig,
    base: Option<ImageKey>,
    steps: Vec<HistoryStep>,
}

impl Build<'_> {
    fn stage(&mut self, at: usize) {
        let (plan, file) = (self.plan, self.file);
        let planned = &plan.stages[at];
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
            self.keep(at, state);
            return;
        }
        self.begin_checks(at);
        let mut work = StageBuild::new(self, at, naming, state);
        for (number, step) in plan.steps(file, at) {
            if let Err(diagnostic) = work.step(number, step) {
                work.report(step.blame(diagnostic));
            }
        }
        let state = work.into_state();
        self.keep(at, state);
    }

    fn keep(&mut self, at: usize, state: State) {
        self.roots[at] = Some(state.root);
        // A chain of stages that each add a variable would hold them all again and again.
        let needs_env = self.file.stages[at].steps.iter().any(copies_what_varies);
        self.envs[at] = Some(match needs_env {
            true => state.env.clone(),
            false => Env::default(),
        });
        self.states[at] = (self.n_users[at] > 0).then_some(state);
    }

    /// Returns the state of a stage; the last one that is based on it has it for itself.
    fn inherited(&mut self, from: usize) -> Option<State> {
        self.n_users[from] -= 1;
        let mut state = match self.n_users[from] {
            0 => self.states[from].take(),
            _ => self.states[from].clone(),
        }?;
        state.image.config.on_build.clear();
        Some(state)
    }

    fn base(
        &mut self,
        at: usize,
        origin: &Origin,
        naming: &mut Naming,
    ) -> Result<State, Diagnostic> {
        let span = self.file.stages[at].span;
        match origin {
            Origin::Scratch => Ok(scratch(&self.options.target_platform)),
            Origin::Local(name) => Ok(self.local_base(at, name)),
            Origin::Stage(parent) => match self.inherited(*parent) {
                Some(state) => Ok(state),
                None => Err(Diagnostic::error(
                    span,
                    "this stage is needed before its base",
                )),
            },
            Origin::Image(key) => self.image_base(key, span, naming),
        }
    }

    /// Starts a stage with the files of a folder: one layer, of which the history knows nothing.
    fn local_base(&mut self, at: usize, name: &str) -> State {
        let meta = Meta {
            ignore_cache: self.ignores_cache(at),
            ..local_meta(name)
        };
        let folder = self.local(name);
        let everything = CopySource::Path {
            input: 1,
            path: "/".to_owned(),
            unpack: false,
        };
        let copy = Copy {
            sources: vec![everything],
            destination: "/".to_owned(),
            owner: None,
            mode: None,
            link: false,
            parents: false,
            exclude: Vec::new(),
        };
        let inputs = vec![None, Some(folder)];
        let root = Some(self.graph.add(Op::Copy(copy), inputs, meta));
        State {
            root,
            ..scratch(&self.plan.stages[at].platform)
        }
    }

    /// Returns the vertex of a folder of the machine that builds.
    fn local(&mut self, name: &str) -> VertexId {
        let source = LocalSource {
            name: name.to_owned(),
        };
        self.graph.add(Op::Local(source), vec![], local_meta(name))
    }

    fn image_base(
        &mut self,
        key: &ImageKey,
        span: Span,
        naming: &mut Naming,
    ) -> Result<State, Diagnostic> {
        let image = self.resolved(key, span)?;
        if let Some(warning) = other_platform(image, key, span) {
            let rule = &INVALID_BASE_IMAGE_PLATFORM;
            self.lint.report(Phase::Base, rule, warning);
        }
        let root = if is_empty(image) {
            None
        } else {
            let name = naming.next(&from_text(image), &Env::default());
            self.image_vertex(key, image, self.meta(name, span, naming))
        };
        let mut config = image.config.clone();
        // They run now, and are not inherited further.
        config.config.on_build.clear();
        Ok(State {
            root,
            env: Env::default(),
            env_places: HashMap::new(),
            args: Args::default(),
            image: config,
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
        let (findings, ends_build) = self.finish_checks();
        let target = self.states[self.plan.target].take();
        let Some(target) = target.filter(|_| !self.diagnostics.iter().any(is_error)) else {
            self.diagnostics.retain(is_error);
            self.diagnostics.sort_by_key(|diagnostic| diagnostic.span);
            if self.options.check || ends_build {
                self.diagnostics.extend(findings);
            }
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
            outline: self.capture.finish(self.file, self.plan),
            warnings: [findings, self.diagnostics].concat(),
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

/// Returns true for a copy whose sources depend on variables.
fn copies_what_varies(step: &Step) -> bool {
    let Instruction::Copy(files) = &step.instruction else {
        return false;
    };
    files.sources.iter().any(|source| source.text.contains('$'))
}

fn n_users(plan: &Plan) -> Vec<usize> {
    let mut n_users = vec![0; plan.stages.len()];
    n_users[plan.target] = 1;
    let needed = plan.stages.iter().zip(&plan.is_needed);
    for (planned, _) in needed.filter(|(_, is_needed)| **is_needed) {
        if let Some(base) = planned.base.stage() {
            n_users[base] += 1;
        }
    }
    n_users
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
        env_places: HashMap::new(),
        args: Args::default(),
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
        "Base image {} was pulled with platform \"{found}\", expected \"{}\" for current build",
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

/// Returns the time that everything is given: from the build arguments, or from an `ARG` before
/// the first `FROM`.
fn source_date_epoch(options: &Options, globals: &Env) -> Result<Option<i64>, Diagnostic> {
    let given = options.build_arg(NAME).or_else(|| globals.get(NAME));
    let text = given.unwrap_or_default();
    if text.is_empty() {
        return Ok(None);
    }
    if let Ok(seconds) = text.parse() {
        return Ok(Some(seconds));
    }
    // Who builds has asked `epoch_source` what it names.
    let message = format!("invalid `{NAME}`: `{text}` is no number of seconds");
    Err(Diagnostic::option(message).with_help("give the seconds since 1970, as `date +%s` does"))
}
