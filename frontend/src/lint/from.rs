//! Rules about `FROM`: its arguments, its platform, its base with default values.

use crate::env::Env;
use crate::expand::Rules;
use crate::instruction::{Dockerfile, Stage};
use crate::lines::Word;
use crate::lint::name::is_image_name;
use crate::lint::rules::{
    FROM_PLATFORM_FLAG_CONST_DISALLOWED, INVALID_DEFAULT_ARG_IN_FROM, REDUNDANT_TARGET_PLATFORM,
    UNDEFINED_ARG_IN_FROM,
};
use crate::lint::variables::{Used, similar, used};
use crate::lint::{Lint, Phase};
use crate::options::Options;
use crate::plan::globals;

/// Looks at the `FROM` of every stage; nothing if the arguments before them cannot be evaluated.
pub(super) fn check(lint: &mut Lint, file: &Dockerfile, options: &Options) {
    let plain = Options {
        build_args: Vec::new(),
        ..options.clone()
    };
    if let Ok(defaults) = globals(file, &plain) {
        defaults_make_a_base(lint, file, &defaults);
    }
    let Ok(globals) = globals(file, options) else {
        return;
    };
    let known = known_names(file, &globals);
    for stage in &file.stages {
        let base = used(Rules::words(file.escape), &stage.base.text, &globals);
        undefined(lint, stage.base.span, &base, &known);
        if let Some(platform) = &stage.platform {
            self::platform(lint, file, stage, platform, &globals, &known);
        }
    }
}

/// The base must be a name even if no build argument is given.
fn defaults_make_a_base(lint: &mut Lint, file: &Dockerfile, defaults: &Env) {
    for stage in &file.stages {
        let base = used(Rules::words(file.escape), &stage.base.text, defaults);
        let Some(name) = base.value else {
            return;
        };
        if !is_image_name(&name) {
            let written = &stage.base.text;
            let message = format!(
                "Default value for ARG {written} results in empty or invalid base image name"
            );
            let span = stage.base.span;
            lint.warn(Phase::From, &INVALID_DEFAULT_ARG_IN_FROM, span, message);
        }
    }
}

fn known_names(file: &Dockerfile, globals: &Env) -> Vec<String> {
    let mut names: Vec<String> = globals.to_vec().into_iter().map(|(name, _)| name).collect();
    for arg in &file.global_args {
        if !names.contains(&arg.name) {
            names.push(arg.name.clone());
        }
    }
    names
}

fn undefined(lint: &mut Lint, span: crate::Span, used: &Used, known: &[String]) {
    for name in used.unset.iter().filter(|name| !known.contains(name)) {
        let mut message = format!("FROM argument '{name}' is not declared");
        if let Some(meant) = similar(name, known.iter().map(String::as_str)) {
            message = format!("{message} (did you mean {meant}?)");
        }
        lint.warn(Phase::From, &UNDEFINED_ARG_IN_FROM, span, message);
    }
}

fn platform(
    lint: &mut Lint,
    file: &Dockerfile,
    stage: &Stage,
    word: &Word,
    globals: &Env,
    known: &[String],
) {
    let used = used(Rules::words(file.escape), &word.text, globals);
    undefined(lint, word.span, &used, known);
    let is_target = used.set == ["TARGETPLATFORM"] && used.unset.is_empty();
    if is_target && used.value.as_deref() == globals.get("TARGETPLATFORM") {
        let message = format!(
            "Setting platform to predefined {} in FROM is redundant as this is the default behavior",
            word.text
        );
        let rule = &REDUNDANT_TARGET_PLATFORM;
        lint.warn(Phase::From, rule, word.span, message);
    }
    if !used.set.is_empty() || !used.unset.is_empty() {
        return;
    }
    let Some(value) = used.value else {
        return;
    };
    let Ok(platform) = value.parse::<kiln_graph::Platform>() else {
        return;
    };
    let name = stage.name.as_deref().unwrap_or_default();
    if !name.contains(&platform.os) && !name.contains(&platform.architecture) {
        let message = format!("FROM --platform flag should not use constant value \"{value}\"");
        let rule = &FROM_PLATFORM_FLAG_CONST_DISALLOWED;
        lint.warn(Phase::From, rule, word.span, message);
    }
}
