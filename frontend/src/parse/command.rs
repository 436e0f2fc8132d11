//! Instructions that are commands: `RUN`, `CMD`, `ENTRYPOINT`, `SHELL`, and `ONBUILD`.

use kiln_graph::{Network, Security};

use crate::diagnostic::Diagnostic;
use crate::instruction::{CommandLine, Instruction, Run};
use crate::lines::Word;
use crate::parse::flags::{Flags, Kind};
use crate::parse::mount::MountFlag;
use crate::parse::simple::at_least_one;
use crate::parse::{Parsed, Request};
use crate::suggest::nearest;

const RUN_FLAGS: [(&str, Kind); 4] = [
    ("mount", Kind::List),
    ("network", Kind::Text),
    ("security", Kind::Text),
    ("device", Kind::List),
];

/// `RUN`.
pub(super) fn run(request: &Request<'_>) -> Parsed {
    let flags = Flags::read(request, &RUN_FLAGS)?;
    let run = Run {
        command: request.command_line(),
        heredocs: request.heredocs.clone(),
        network: flags
            .text("network")
            .map(|word| network(&word))
            .transpose()?,
        mounts: flags
            .list("mount")
            .iter()
            .map(MountFlag::parse)
            .collect::<Result<_, _>>()?,
        security: flags
            .text("security")
            .map(|word| security(&word))
            .transpose()?,
    };
    if matches!(&run.command, CommandLine::Exec(args) if args.is_empty()) {
        return Err(request.error("`RUN []` has nothing to run"));
    }
    let device = flags.list("device").into_iter().next();
    let refusal = device.map(|word| {
        let message = "kiln does not give devices to build steps: `RUN --device` is experimental";
        Diagnostic::error(word.span, message)
    });
    Ok((Instruction::Run(run), refusal))
}

fn security(word: &Word) -> Result<Security, Diagnostic> {
    match word.text.as_str() {
        "sandbox" => Ok(Security::Sandbox),
        "insecure" => Ok(Security::Insecure),
        other => {
            let message = format!("security `{other}` is not valid");
            let suggestion = nearest(other, ["sandbox", "insecure"]);
            Err(Diagnostic::error(word.span, message).with_suggestion(suggestion))
        }
    }
}

fn network(word: &Word) -> Result<Network, Diagnostic> {
    match word.text.as_str() {
        "default" => Ok(Network::Default),
        "none" => Ok(Network::None),
        "host" => Ok(Network::Host),
        other => {
            let message = format!("invalid network mode: `{other}`");
            let suggestion = nearest(other, ["default", "none", "host"]);
            Err(Diagnostic::error(word.span, message).with_suggestion(suggestion))
        }
    }
}

/// `CMD` and `ENTRYPOINT`.
pub(super) fn plain(request: &Request<'_>) -> Result<CommandLine, Diagnostic> {
    Flags::read(request, &[])?;
    Ok(request.command_line())
}

/// `SHELL`, in exec form only.
pub(super) fn shell(request: &Request<'_>) -> Result<Vec<String>, Diagnostic> {
    Flags::read(request, &[])?;
    match request.command_line() {
        CommandLine::Exec(args) if !args.is_empty() => Ok(args),
        CommandLine::Shell(text) if !text.is_empty() => Err(request
            .error("`SHELL` requires the arguments to be in JSON form")
            .with_help("write `SHELL [\"/bin/bash\", \"-c\"]`")),
        _ => Err(at_least_one(request)),
    }
}

/// `ONBUILD`: checked as far as its first word, and refused.
pub(super) fn onbuild(request: &Request<'_>) -> Parsed {
    let rest = request.rest();
    let trigger = rest.text.split_whitespace().next().unwrap_or_default();
    match trigger.to_ascii_uppercase().as_str() {
        "" => return Err(at_least_one(request)),
        "ONBUILD" => {
            let message = "chaining `ONBUILD` via `ONBUILD ONBUILD` isn't allowed";
            return Err(request.error(message));
        }
        name @ ("MAINTAINER" | "FROM") => {
            let message = format!("`{name}` isn't allowed as an `ONBUILD` trigger");
            return Err(request.error(message));
        }
        _ => {}
    }
    Flags::read(request, &[])?;
    let refusal = request.error("kiln does not build `ONBUILD` yet");
    Ok((Instruction::Onbuild, Some(refusal)))
}
