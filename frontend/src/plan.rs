//! The plan of a build: global arguments, what each stage stands on, and which stages count.
//!
//! `FROM` lines are expanded in every stage of the file; nothing else is looked at here, so
//! mistakes in stages that the target does not need stay unnoticed, as they should.

mod sources;

use std::collections::{HashMap, HashSet};

use kiln_graph::Platform;

use crate::diagnostic::Diagnostic;
use crate::directives::is_built_in;
use crate::env::{Env, built_in};
use crate::expand::Rules;
use crate::instruction::{Dockerfile, Stage};
use crate::lines::Word;
use crate::options::{ImageKey, ImageRequest, NamedContext, Options};
use crate::plan::sources::Finder;
use crate::reference::familiar;
use crate::refusals::refusals;
use crate::suggest::nearest;

/// What a stage stands on, or files are copied from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nothing.
    Scratch,
    /// A stage, by number.
    Stage(usize),
    /// An image.
    Image(ImageKey),
    /// A named folder.
    Local(String),
}

/// A stage with its place in the build.
#[derive(Debug)]
pub(crate) struct PlannedStage {
    /// The base, variables expanded.
    pub(crate) base_name: String,
    pub(crate) base: Origin,
    pub(crate) platform: Platform,
    /// A named context stands for the stage: its instructions do not count.
    pub(crate) is_replaced: bool,
    /// Where `COPY --from` and `RUN --mount=from=` take files from.
    pub(crate) sources: HashMap<SourceKey, Origin>,
}

/// The number of a step in its stage, and of the mount among those of the step.
pub(crate) type SourceKey = (usize, usize);

/// What is built, before any stage is evaluated.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) globals: Env,
    pub(crate) stages: Vec<PlannedStage>,
    pub(crate) target: usize,
    pub(crate) is_needed: Vec<bool>,
    /// True if the build is one stage and copies from no other image.
    pub(crate) is_single: bool,
}

/// Returns the images that the target needs, each once, in the order of the file; an error if the
/// target needs something that kiln does not build.
pub fn requirements(
    file: &Dockerfile,
    options: &Options,
) -> Result<Vec<ImageRequest>, Vec<Diagnostic>> {
    let plan = Plan::new(file, options)?;
    let refusals = refusals(file, options, &plan);
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let mut seen = HashSet::new();
    let mut requests = Vec::new();
    for (at, planned) in plan
        .stages
        .iter()
        .enumerate()
        .filter(|(at, _)| plan.is_needed[*at])
    {
        let mut origins = vec![(&planned.base, file.stages[at].span)];
        let mut steps: Vec<_> = planned.sources.iter().collect();
        steps.sort_by_key(|(key, _)| **key);
        origins.extend(
            steps
                .into_iter()
                .map(|(&(step, _), origin)| (origin, file.stages[at].steps[step].span)),
        );
        for (origin, span) in origins {
            if let Origin::Image(key) = origin
                && seen.insert(key.clone())
            {
                let (reference, platform) = key.clone();
                requests.push(ImageRequest {
                    reference,
                    platform,
                    span,
                });
            }
        }
    }
    Ok(requests)
}

impl Plan {
    pub(crate) fn new(file: &Dockerfile, options: &Options) -> Result<Self, Vec<Diagnostic>> {
        let mut diagnostics: Vec<Diagnostic> = check_syntax(options).into_iter().collect();
        let target = find_target(file, options);
        let globals = match globals(file, options) {
            Ok(globals) => globals,
            Err(diagnostic) => return Err(vec![diagnostic]),
        };
        let mut stages = Vec::new();
        for stage in &file.stages {
            let planned = planned(file, options, &globals, &stages, stage);
            diagnostics.extend(planned.as_ref().err().cloned());
            stages.push(planned.unwrap_or_else(|_| broken(options)));
        }
        let n_images = match (Finder { file, options }).find_sources(&mut stages) {
            Ok(n_images) => n_images,
            Err(errors) => {
                diagnostics.extend(errors);
                0
            }
        };
        match target {
            Ok(target) if diagnostics.is_empty() => Ok(Self {
                globals,
                is_needed: needed(&stages, target),
                is_single: stages.len() + n_images == 1,
                stages,
                target,
            }),
            Ok(_) => Err(diagnostics),
            Err(diagnostic) => {
                diagnostics.push(diagnostic);
                Err(diagnostics)
            }
        }
    }
}

impl Plan {
    /// Returns the stages whose instructions count.
    pub(crate) fn evaluated<'a>(&self, file: &'a Dockerfile) -> impl Iterator<Item = &'a Stage> {
        let planned = self.stages.iter().zip(&self.is_needed);
        let stages = file.stages.iter().zip(planned);
        stages
            .filter(|(_, (planned, is_needed))| **is_needed && !planned.is_replaced)
            .map(|(stage, _)| stage)
    }
}

/// Stands for a stage whose `FROM` is wrong, while the others are looked at.
fn broken(options: &Options) -> PlannedStage {
    PlannedStage {
        base_name: String::new(),
        base: Origin::Scratch,
        platform: options.target_platform.clone(),
        is_replaced: false,
        sources: HashMap::new(),
    }
}

fn check_syntax(options: &Options) -> Option<Diagnostic> {
    let syntax = options.build_arg("BUILDKIT_SYNTAX")?;
    if syntax.is_empty() || is_built_in(syntax) {
        return None;
    }
    let message =
        format!("kiln does not run external frontends, and `BUILDKIT_SYNTAX={syntax}` is one");
    Some(Diagnostic::option(message))
}

fn find_target(file: &Dockerfile, options: &Options) -> Result<usize, Diagnostic> {
    let Some(target) = options
        .target
        .as_deref()
        .filter(|target| !target.is_empty())
    else {
        return Ok(file.stages.len() - 1);
    };
    let lower = target.to_lowercase();
    let mut stages = file.stages.iter().enumerate().rev();
    let found = stages.find(|(_, stage)| stage.name.as_deref() == Some(&lower));
    found.map(|(at, _)| at).ok_or_else(|| {
        let names = file.stages.iter().filter_map(|stage| stage.name.as_deref());
        Diagnostic::option(format!("target stage `{target}` could not be found"))
            .with_suggestion(nearest(target, names))
    })
}

/// Evaluates the `ARG` instructions before the first `FROM`.
fn globals(file: &Dockerfile, options: &Options) -> Result<Env, Diagnostic> {
    let last = file.stages.last().and_then(|stage| stage.name.as_deref());
    let target = options
        .target
        .as_deref()
        .filter(|target| !target.is_empty());
    let mut env = built_in(options, target.or(last));
    for arg in &file.global_args {
        let value = match (options.build_arg(&arg.name), &arg.value) {
            (Some(value), _) => value.to_owned(),
            (None, Some(word)) => expanded(file, word, &env)?,
            (None, None) => continue,
        };
        env.set(&arg.name, &value);
    }
    Ok(env)
}

/// Expands a word of an instruction.
pub(crate) fn expanded(file: &Dockerfile, word: &Word, env: &Env) -> Result<String, Diagnostic> {
    let lookup = |name: &str| env.get(name).map(str::to_owned);
    Rules::words(file.escape)
        .expand(&word.text, &lookup)
        .map_err(|error| {
            let message = format!("failed to process `{}`: {error}", word.text);
            Diagnostic::error(word.span, message)
        })
}

fn planned(
    file: &Dockerfile,
    options: &Options,
    globals: &Env,
    earlier: &[PlannedStage],
    stage: &Stage,
) -> Result<PlannedStage, Diagnostic> {
    let base_name = expanded(file, &stage.base, globals)?;
    if base_name.is_empty() {
        let message = format!("base name (`{}`) should not be blank", stage.base.text);
        return Err(Diagnostic::error(stage.base.span, message)
            .with_help("declare its variable with `ARG` before the first `FROM`"));
    }
    let own = stage
        .platform
        .as_ref()
        .map(|word| platform(file, word, globals))
        .transpose()?;
    let asked = own
        .clone()
        .unwrap_or_else(|| options.target_platform.clone());
    let replacement = stage
        .name
        .as_deref()
        .and_then(|name| context(options, name, &asked));
    let is_replaced = replacement.is_some();
    let base = match replacement {
        Some(origin) => origin,
        None => base(file, options, &base_name, earlier.len(), &asked),
    };
    if let Origin::Local(name) = &base {
        let message = format!("kiln does not build on the folder of build context `{name}` yet");
        return Err(Diagnostic::error(stage.base.span, message));
    }
    let platform = match &base {
        Origin::Stage(parent) => earlier[*parent].platform.clone(),
        Origin::Scratch => options.target_platform.clone(),
        Origin::Image(_) | Origin::Local(_) => asked,
    };
    Ok(PlannedStage {
        base_name,
        base,
        platform,
        is_replaced,
        sources: HashMap::new(),
    })
}

fn platform(file: &Dockerfile, word: &Word, globals: &Env) -> Result<Platform, Diagnostic> {
    let text = expanded(file, word, globals)?;
    if text.is_empty() {
        let message = format!("empty platform value from expression `{}`", word.text);
        return Err(Diagnostic::error(word.span, message));
    }
    text.parse().map_err(|error| {
        let message = format!("failed to parse platform: {error}");
        Diagnostic::error(word.span, message)
    })
}

fn base(
    file: &Dockerfile,
    options: &Options,
    name: &str,
    n_earlier: usize,
    platform: &Platform,
) -> Origin {
    let lower = name.to_lowercase();
    let mut earlier = file.stages[..n_earlier].iter().enumerate().rev();
    match earlier.find(|(_, stage)| stage.name.as_deref() == Some(&lower)) {
        Some((at, _)) => Origin::Stage(at),
        None => image(options, name, platform),
    }
}

/// Returns what a name stands for that is no stage.
pub(crate) fn image(options: &Options, name: &str, platform: &Platform) -> Origin {
    if name == "scratch" {
        return Origin::Scratch;
    }
    context(options, name, platform)
        .unwrap_or_else(|| Origin::Image((name.to_owned(), platform.clone())))
}

/// Returns what a named context puts in the place of `name`.
fn context(options: &Options, name: &str, platform: &Platform) -> Option<Origin> {
    if matches!(name, "scratch" | "context") {
        return None;
    }
    let name = familiar(name);
    let for_platform = format!("{name}::{platform}");
    let find = |wanted: &str| {
        let mut contexts = options.named_contexts.iter();
        contexts.find(|(key, _)| key.as_str() == wanted || familiar(key) == wanted)
    };
    let (key, context) = find(&for_platform).or_else(|| find(&name))?;
    Some(match context {
        NamedContext::Local => Origin::Local(key.clone()),
        NamedContext::Image(reference) if reference == "scratch" => Origin::Scratch,
        NamedContext::Image(reference) => Origin::Image((reference.clone(), platform.clone())),
    })
}

fn needed(stages: &[PlannedStage], target: usize) -> Vec<bool> {
    let mut needed = vec![false; stages.len()];
    let mut pending = vec![target];
    while let Some(at) = pending.pop() {
        if std::mem::replace(&mut needed[at], true) {
            continue;
        }
        let origins = std::iter::once(&stages[at].base).chain(stages[at].sources.values());
        pending.extend(origins.filter_map(|origin| match origin {
            Origin::Stage(stage) => Some(*stage),
            _ => None,
        }));
    }
    needed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;

    fn requests(text: &str, options: &Options) -> Vec<String> {
        let requests = requirements(&parse(text).unwrap(), options).unwrap();
        let shown = requests.into_iter().map(|request| {
            let at = &text[request.span.range()];
            format!("{} {} at {at}", request.reference, request.platform)
        });
        shown.collect()
    }

    #[test]
    fn images_are_asked_for_once_a_platform_and_only_if_needed() {
        let text = "FROM a AS unused\nCOPY --from=never / /\n\
            FROM --platform=linux/arm64 a AS one\n\
            FROM a\nCOPY --from=one /x /\nCOPY --from=b:1 /x /\nCOPY --from=b:1 /y /\n\
            COPY --from=a /z /\nCOPY --from=scratch / /";
        let options = Options::for_platform(Platform::linux("amd64"));
        let expected = [
            "a linux/arm64 at FROM --platform=linux/arm64 a AS one",
            "a linux/amd64 at FROM a",
            "b:1 linux/amd64 at COPY --from=b:1 /x /",
        ];
        assert_eq!(requests(text, &options), expected);
    }

    #[test]
    fn named_contexts_stand_for_images() {
        let mut options = Options::for_platform(Platform::linux("amd64"));
        let image = NamedContext::Image("example.com/other@sha256:0".to_owned());
        options.named_contexts.insert("base".to_owned(), image);
        let found = requests("FROM docker.io/library/base:latest", &options);
        assert_eq!(
            found,
            ["example.com/other@sha256:0 linux/amd64 at FROM docker.io/library/base:latest"]
        );
    }
}
