//! What kiln does not build yet, as far as the text alone shows it.
//!
//! A build that reaches such an instruction is refused before any image is asked for.

use crate::diagnostic::Diagnostic;
use crate::instruction::Dockerfile;
use crate::plan::Plan;

/// Returns a refusal for each instruction that the target needs and kiln does not build.
pub(crate) fn refusals(file: &Dockerfile, plan: &Plan) -> Vec<Diagnostic> {
    let steps = plan.evaluated(file).flat_map(|stage| &stage.steps);
    steps.filter_map(|step| step.refusal.clone()).collect()
}

#[cfg(test)]
mod tests {
    use kiln_graph::Platform;

    use crate::{Options, parse, requirements};

    /// Returns what is refused before any image is known.
    fn refused(text: &str) -> Vec<String> {
        let options = Options::for_platform(Platform::linux("amd64"));
        let errors = requirements(&parse(text).unwrap(), &options).err();
        let errors = errors.unwrap_or_default().into_iter();
        errors
            .map(|error| text[error.span.unwrap().range()].to_owned())
            .collect()
    }

    #[test]
    fn what_is_not_built_is_refused_before_images_are_asked_for() {
        let text = "FROM a\nRUN --device=x y\n";
        assert_eq!(refused(text), ["--device=x"]);
    }

    #[test]
    fn what_the_target_does_not_need_is_not_refused() {
        let text = "FROM a AS unused\nRUN --device=x y\nFROM a\nRUN x";
        assert!(refused(text).is_empty());
    }
}
