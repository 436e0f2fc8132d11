//! What a build is refused for by its text alone: what kiln cannot do, and what nobody allowed.
//!
//! A build that reaches such an instruction is refused before any image is asked for.

use kiln_graph::{Network, Security};

use crate::diagnostic::Diagnostic;
use crate::instruction::{Dockerfile, Instruction, Step};
use crate::options::Options;
use crate::plan::Plan;

/// Returns a refusal for each instruction that the target needs and that may not be built.
pub(crate) fn refusals(file: &Dockerfile, options: &Options, plan: &Plan) -> Vec<Diagnostic> {
    let steps = plan.evaluated(file);
    let refusal = |step: &Step| step.refusal.clone().or_else(|| not_allowed(step, options));
    steps
        .filter_map(|step| refusal(step).map(|refusal| step.blame(refusal)))
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

#[cfg(test)]
mod tests {
    use kiln_graph::Platform;

    use crate::{Images, Options, parse, requirements};

    /// Returns what is refused before any image is known.
    fn refused(text: &str) -> Vec<String> {
        let options = Options::for_platform(Platform::linux("amd64"));
        let errors = requirements(&parse(text).unwrap(), &options, &Images::new()).err();
        let errors = errors.unwrap_or_default().into_iter();
        errors
            .map(|error| text[error.span.unwrap().range()].to_owned())
            .collect()
    }

    #[test]
    fn what_is_not_built_is_refused_before_images_are_asked_for() {
        for (line, part) in [
            ("RUN --device=x y", "--device=x"),
            ("RUN --network=host y", "RUN --network=host y"),
            ("RUN --security=insecure y", "RUN --security=insecure y"),
        ] {
            assert_eq!(refused(&format!("FROM a\n{line}\n")), [part], "{line}");
        }
    }

    #[test]
    fn what_the_target_does_not_need_is_not_refused() {
        let text = "FROM a AS unused\nRUN --device=x y\nFROM a\nRUN x";
        assert!(refused(text).is_empty());
    }
}
