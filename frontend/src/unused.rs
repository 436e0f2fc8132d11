//! Warnings about options that name what the Dockerfile does not have.

use std::collections::BTreeSet;

use crate::diagnostic::Diagnostic;
use crate::env::is_predefined;
use crate::instruction::{Arg, Dockerfile, Instruction, Step};
use crate::options::{NoCache, Options};
use crate::plan::Plan;

/// Returns a warning for each kind of option that is without effect.
pub(crate) fn unused(file: &Dockerfile, options: &Options, plan: &Plan) -> Vec<Diagnostic> {
    let mut warnings: Vec<Diagnostic> = build_args(file, options, plan).into_iter().collect();
    warnings.extend(no_cache_stages(file, options));
    warnings
}

/// The sentence is BuildKit's, because people look for it in logs.
fn build_args(file: &Dockerfile, options: &Options, plan: &Plan) -> Option<Diagnostic> {
    let steps = plan.evaluated(file).flat_map(declared);
    let declared: BTreeSet<&str> = file
        .global_args
        .iter()
        .chain(steps)
        .map(|arg| arg.name.as_str())
        .collect();
    let given = options.build_args.iter().map(|(name, _)| name.as_str());
    let unused: BTreeSet<&str> = given
        .filter(|name| !declared.contains(name) && !is_predefined(name))
        .collect();
    if unused.is_empty() {
        return None;
    }
    let names: Vec<&str> = unused.into_iter().collect();
    let names = names.join(" ");
    let message = format!("[Warning] One or more build-args [{names}] were not consumed");
    Some(Diagnostic::option_warning(message))
}

fn declared(step: &Step) -> &[Arg] {
    match &step.instruction {
        Instruction::Arg(args) => args,
        _ => &[],
    }
}

fn no_cache_stages(file: &Dockerfile, options: &Options) -> Vec<Diagnostic> {
    let NoCache::Stages(wanted) = &options.no_cache else {
        return Vec::new();
    };
    let names = file.stages.iter().filter_map(|stage| stage.name.as_deref());
    let names: BTreeSet<&str> = names.collect();
    let unknown = wanted
        .iter()
        .filter(|name| !names.contains(name.to_lowercase().as_str()));
    unknown
        .map(|name| {
            let message = format!("stage `{name}` of `--no-cache-filter` could not be found");
            Diagnostic::option_warning(message).with_help(existing(&names))
        })
        .collect()
}

fn existing(names: &BTreeSet<&str>) -> String {
    if names.is_empty() {
        return "no stage has a name: write `FROM … AS name`".to_owned();
    }
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    format!("the stages are {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use kiln_graph::Platform;

    use super::*;
    use crate::{Images, Severity, parse};

    fn options() -> Options {
        Options::for_platform(Platform::linux("amd64"))
    }

    fn warnings(text: &str, options: &Options) -> Vec<Diagnostic> {
        let file = parse(text).unwrap();
        let plan = Plan::new(&file, options, &Images::new()).unwrap();
        unused(&file, options, &plan)
    }

    fn unused_args(text: &str, names: &[&str]) -> Vec<Diagnostic> {
        let given = names.iter().map(|&name| (name.to_owned(), "1".to_owned()));
        let build_args = given.collect();
        let options = Options {
            build_args,
            ..options()
        };
        warnings(text, &options)
    }

    #[test]
    fn build_args_that_nothing_declares_are_named_once_and_in_order() {
        let text = "ARG GLOBAL\nFROM a AS unused\nARG ELSEWHERE\nFROM a\nARG OWN=x OTHER\nENV E=1";
        let names = ["NOPE", "GLOBAL", "ELSEWHERE", "OWN", "OTHER", "NOPE", "E"];
        let found = unused_args(text, &names);
        let message = "[Warning] One or more build-args [E ELSEWHERE NOPE] were not consumed";
        assert_eq!(found, [Diagnostic::option_warning(message)]);
        assert_eq!(
            (found[0].severity, found[0].span),
            (Severity::Warning, None)
        );
    }

    #[test]
    fn predefined_build_args_need_no_declaration() {
        let names = [
            "TARGETARCH",
            "BUILDPLATFORM",
            "TARGETSTAGE",
            "BUILDKIT_INLINE_CACHE",
            "SOURCE_DATE_EPOCH",
            "http_proxy",
            "ALL_PROXY",
        ];
        assert_eq!(unused_args("FROM a", &names), []);
    }

    #[test]
    fn unknown_stages_to_run_again_are_answered_with_the_known_ones() {
        let no_cache = NoCache::Stages(vec!["B".to_owned(), "nope".to_owned()]);
        let options = Options {
            no_cache,
            ..options()
        };
        let message = "stage `nope` of `--no-cache-filter` could not be found";
        let warning = Diagnostic::option_warning(message);
        let found = warnings("FROM x AS b\nFROM x AS a\nFROM x", &options);
        assert_eq!(
            found,
            [warning.clone().with_help("the stages are `a`, `b`")]
        );
        let found = warnings("FROM x", &options);
        let help = "no stage has a name: write `FROM … AS name`";
        assert_eq!(found[1], warning.with_help(help));
    }
}
