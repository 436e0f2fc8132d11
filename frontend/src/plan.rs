//! The plan of a build: global arguments, what each stage stands on, and which stages count.
//!
//! `FROM` lines are expanded in every stage of the file; nothing else is looked at here, so
//! mistakes in stages that the target does not need stay unnoticed, as they should.

mod sources;
mod triggers;

use std::collections::{HashMap, HashSet};

use kiln_graph::Platform;

use crate::diagnostic::Diagnostic;
use crate::directives::is_built_in;
use crate::env::{Env, built_in};
use crate::expand::Rules;
use crate::instruction::{Dockerfile, Stage, Step};
use crate::lines::Word;
use crate::options::{
    CONTEXT, ImageKey, ImageRequest, Images, NAMED_CONTEXT, NamedContext, Options,
};
use crate::plan::sources::Finder;
use crate::plan::triggers::read_triggers;
use crate::reference::familiar;
use crate::refusals::refusals;
use crate::suggest::{nearest, nearest_platform};

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

impl Origin {
    /// Returns the number of the stage, if it is one.
    pub(crate) fn stage(&self) -> Option<usize> {
        match self {
            Self::Stage(stage) => Some(*stage),
            _ => None,
        }
    }
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
    /// `ONBUILD` triggers of the base, which run first. Their numbers as steps come after those
    /// of the stage's own.
    pub(crate) triggers: Vec<Step>,
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

/// Returns the images that the target needs and `images` lacks, each once, in the order of the
/// file; an error if the target needs something that kiln does not build.
///
/// Triggers of an image can need further images: ask again with what was found, until nothing is
/// missing.
pub fn requirements(
    file: &Dockerfile,
    options: &Options,
    images: &Images,
) -> Result<Vec<ImageRequest>, Vec<Diagnostic>> {
    let plan = Plan::new(file, options, images)?;
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
                .map(|(&(step, _), origin)| (origin, plan.step(file, at, step).span)),
        );
        for (origin, span) in origins {
            if let Origin::Image(key) = origin
                && !images.contains_key(key)
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
    pub(crate) fn new(
        file: &Dockerfile,
        options: &Options,
        images: &Images,
    ) -> Result<Self, Vec<Diagnostic>> {
        let mut diagnostics: Vec<Diagnostic> = check_syntax(options).into_iter().collect();
        let target = find_target(file, options);
        let globals = match globals(file, options) {
            Ok(globals) => globals,
            Err(diagnostic) => return Err(vec![diagnostic]),
        };
        let (mut stages, mut names) = (Vec::new(), HashMap::new());
        for (at, stage) in file.stages.iter().enumerate() {
            let planned = planned(file, options, &globals, (&stages, &names), stage);
            diagnostics.extend(planned.as_ref().err().cloned());
            stages.push(planned.unwrap_or_else(|_| broken(options)));
            names.extend(stage.name.as_deref().map(|name| (name, at)));
        }
        let finder = Finder::new(file, options);
        let n_images = match finder.find_sources(&mut stages) {
            Ok(n_images) => n_images,
            Err(errors) => {
                diagnostics.extend(errors);
                0
            }
        };
        let target = match target {
            Ok(target) if diagnostics.is_empty() => target,
            target => {
                diagnostics.extend(target.err());
                return Err(diagnostics);
            }
        };
        let is_needed = read_triggers(&finder, &mut stages, target, images)?;
        let is_needed = match options.checks_all_stages() {
            true => vec![true; stages.len()],
            false => is_needed,
        };
        if let Some(circle) = finder.circle(&stages) {
            return Err(vec![circle]);
        }
        Ok(Self {
            globals,
            is_needed,
            is_single: stages.len() + n_images == 1,
            stages,
            target,
        })
    }

    /// Returns the instructions that count, those of triggers included.
    pub(crate) fn evaluated<'a>(&'a self, file: &'a Dockerfile) -> impl Iterator<Item = &'a Step> {
        let planned = self.stages.iter().zip(&self.is_needed);
        let stages = file.stages.iter().zip(planned);
        stages
            .filter(|(_, (planned, is_needed))| **is_needed && !planned.is_replaced)
            .flat_map(|(stage, (planned, _))| planned.triggers.iter().chain(&stage.steps))
    }

    /// Returns a stage's instruction by its number.
    pub(crate) fn step<'a>(
        &'a self,
        file: &'a Dockerfile,
        stage: usize,
        number: usize,
    ) -> &'a Step {
        let own = &file.stages[stage].steps;
        match number.checked_sub(own.len()) {
            Some(trigger) => &self.stages[stage].triggers[trigger],
            None => &own[number],
        }
    }

    /// Returns a stage's instructions in the order in which they run, each with its number.
    pub(crate) fn steps<'a>(
        &'a self,
        file: &'a Dockerfile,
        stage: usize,
    ) -> impl Iterator<Item = (usize, &'a Step)> {
        let own = &file.stages[stage].steps;
        let triggers = (own.len()..).zip(&self.stages[stage].triggers);
        triggers.chain(own.iter().enumerate())
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
        triggers: Vec::new(),
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
pub(crate) fn globals(file: &Dockerfile, options: &Options) -> Result<Env, Diagnostic> {
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
    (earlier, names): (&[PlannedStage], &HashMap<&str, usize>),
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
        None => match names.get(base_name.to_lowercase().as_str()) {
            Some(&at) => Origin::Stage(at),
            None => image(options, &base_name, &asked),
        },
    };
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
        triggers: Vec::new(),
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
        Diagnostic::error(word.span, message).with_suggestion(nearest_platform(&text))
    })
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
    if name == "scratch" {
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
        NamedContext::Local if key == CONTEXT => Origin::Local(NAMED_CONTEXT.to_owned()),
        NamedContext::Local => Origin::Local(key.clone()),
        NamedContext::Image(reference) if reference == "scratch" => Origin::Scratch,
        NamedContext::Image(reference) => Origin::Image((reference.clone(), platform.clone())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;

    fn requests(text: &str, options: &Options) -> Vec<String> {
        let requests = requirements(&parse(text).unwrap(), options, &Images::new()).unwrap();
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
