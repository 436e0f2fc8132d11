//! What kiln does not build yet, as far as the text alone shows it.
//!
//! A build that reaches such an instruction is refused before any image is asked for. What only
//! shows once variables are expanded is refused later, while stages are evaluated.

use kiln_graph::{Network, Security};

use crate::diagnostic::{Diagnostic, Span};
use crate::instruction::{CopyFiles, Dockerfile, Instruction, Step};
use crate::lines::Word;
use crate::options::Options;
use crate::plan::Plan;

/// Returns a refusal for each instruction that the target needs and kiln does not build.
pub(crate) fn refusals(file: &Dockerfile, options: &Options, plan: &Plan) -> Vec<Diagnostic> {
    let steps = plan.evaluated(file).flat_map(|stage| &stage.steps);
    steps
        .filter_map(|step| refusal(step).or_else(|| not_allowed(step, options)))
        .collect()
}

/// Refuses what needs the consent of the one who builds.
fn not_allowed(step: &Step, options: &Options) -> Option<Diagnostic> {
    let Instruction::Run(run) = &step.instruction else {
        return None;
    };
    let allowed = &options.allowed;
    let may_use_host = allowed.network_host || options.network == Network::Host;
    let (flag, name) = match (run.network, run.security) {
        (Some(Network::Host), _) if !may_use_host => ("--network=host", "network.host"),
        (_, Some(Security::Insecure)) if !allowed.security_insecure => {
            ("--security=insecure", "security.insecure")
        }
        _ => return None,
    };
    let message = format!("`RUN {flag}` needs the entitlement `{name}`, which is not allowed");
    let help = format!("build with `--allow {name}` if you trust this Dockerfile");
    Some(Diagnostic::error(step.span, message).with_help(help))
}

fn refusal(step: &Step) -> Option<Diagnostic> {
    match (&step.refusal, &step.instruction) {
        (Some(refusal), _) => Some(refusal.clone()),
        (None, Instruction::Copy(files)) => symbolic_word(files),
        (None, _) => None,
    }
}

fn symbolic_word(files: &CopyFiles) -> Option<Diagnostic> {
    let word = files.chmod.as_ref()?;
    is_symbolic(unquoted(word)).then(|| symbolic_mode(&word.text, word.span))
}

fn unquoted(word: &Word) -> &str {
    word.text.trim_start_matches(['"', '\''])
}

/// Returns true for permission bits such as `u+x`.
pub(crate) fn is_symbolic(mode: &str) -> bool {
    mode.starts_with(|c: char| "ugoa+-=".contains(c))
}

/// Refuses permission bits in words.
pub(crate) fn symbolic_mode(mode: &str, span: Span) -> Diagnostic {
    let message = format!("kiln does not build symbolic `--chmod={mode}` yet");
    Diagnostic::error(span, message)
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
        for (line, part) in [
            ("COPY --link a b", "--link"),
            ("RUN --device=x y", "--device=x"),
            ("RUN --network=host y", "RUN --network=host y"),
            ("RUN --security=insecure y", "RUN --security=insecure y"),
            ("ONBUILD RUN x", "ONBUILD RUN x"),
            ("COPY --chmod=u+x a b", "--chmod=u+x"),
        ] {
            assert_eq!(refused(&format!("FROM a\n{line}\n")), [part], "{line}");
        }
    }

    #[test]
    fn what_the_target_does_not_need_is_not_refused() {
        assert!(refused("FROM a AS unused\nCOPY --link a b\nFROM a\nRUN x").is_empty());
    }

    #[test]
    fn what_a_variable_decides_is_not_refused_early() {
        let line = "COPY --chmod=${M:-u+x} a b";
        assert!(refused(&format!("FROM a\n{line}\n")).is_empty(), "{line}");
    }
}
