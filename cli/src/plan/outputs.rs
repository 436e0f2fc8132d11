//! Where a build's result is to go: what was typed, turned into outputs that make sense.

use anyhow::anyhow;
use kiln_exporter::{Annotation, OutputKind, OutputSpec};
use kiln_registry::Reference;

use crate::args::BuildArgs;
use crate::report::Failure;

/// Returns the outputs; `--push` and `--load` are some, and so is a name alone.
pub(super) fn outputs(
    args: &BuildArgs,
    tags: &[Reference],
    makes_index: bool,
    is_stdout_terminal: bool,
) -> Result<Vec<OutputSpec>, Failure> {
    let mut outputs = Vec::new();
    for text in &args.output {
        outputs.push(parse(text)?);
    }
    if args.push {
        outputs.push(parse("type=image,push=true")?);
    }
    if args.load || outputs.is_empty() && !tags.is_empty() {
        outputs.push(parse("type=image")?);
    }
    let annotations = annotations(&args.annotation)?;
    for output in &mut outputs {
        // What only stays here needs no blob until somebody wants one.
        output.image.promise = output.kind == OutputKind::Image && !output.push;
        output.image.annotations.extend_from_slice(&annotations);
        if args.print.is_none() {
            check(output, tags, makes_index)?;
        }
    }
    if args.print.is_none() {
        check_stdout(&outputs, is_stdout_terminal)?;
    }
    Ok(outputs)
}

fn parse(text: &str) -> Result<OutputSpec, Failure> {
    OutputSpec::parse(text).map_err(|error| Failure::usage(format!("--output {text}: {error}")))
}

fn check(output: &OutputSpec, tags: &[Reference], makes_index: bool) -> Result<(), Failure> {
    if output.kind == OutputKind::Docker && makes_index {
        let message = "docker exporter does not currently support exporting manifest lists";
        let hint = "build one --platform, or use type=oci";
        return Err(Failure::user(anyhow!(message)).with_hint(hint));
    }
    if output.push && output.names.is_empty() && tags.is_empty() {
        let message = "there is no name to push the image to";
        return Err(Failure::usage(message).with_hint("name the image with --tag"));
    }
    let needs_dest = !matches!(output.kind, OutputKind::Image | OutputKind::CacheOnly);
    if needs_dest && output.dest.is_none() {
        let hint = "add dest=PATH, or dest=- for standard output";
        return Err(Failure::usage("the output has no destination").with_hint(hint));
    }
    Ok(())
}

/// An archive would ruin a terminal, and two of them each other.
fn check_stdout(outputs: &[OutputSpec], is_terminal: bool) -> Result<(), Failure> {
    let n_to_stdout = outputs.iter().filter(|output| output.is_stdout()).count();
    if n_to_stdout > 1 {
        let message = "only one output can go to standard output";
        return Err(Failure::usage(message).with_hint("add dest=PATH to the others"));
    }
    if n_to_stdout == 1 && is_terminal {
        let message = "an archive cannot be written to a terminal";
        let hint = "redirect standard output (> image.tar), or add dest=PATH";
        return Err(Failure::usage(message).with_hint(hint));
    }
    Ok(())
}

/// Reads `--annotation [TYPE[,TYPE]:]NAME=VALUE`.
fn annotations(written: &[String]) -> Result<Vec<Annotation>, Failure> {
    let mut annotations = Vec::new();
    for text in written {
        let (left, value) = text
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("--annotation {text}: expected NAME=VALUE")))?;
        let (types, name) = left.split_once(':').unwrap_or(("manifest", left));
        for kind in types.split(',') {
            let (kind, platform) = kind.split_at(kind.find('[').unwrap_or(kind.len()));
            let option = format!("annotation-{kind}{platform}.{name}");
            let parsed = Annotation::parse(&option, value).map_err(|_| {
                Failure::usage(format!(
                    "--annotation {text}: expected NAME=VALUE, or one of manifest, index, \
                     manifest-descriptor or index-descriptor before it, as in index:NAME=VALUE"
                ))
            });
            annotations.push(parsed?);
        }
    }
    Ok(annotations)
}

#[cfg(test)]
mod tests {
    use super::*;

    use clap::Parser as _;
    use kiln_exporter::AnnotationTarget;

    use crate::args::{Cli, Command};
    use crate::report::FailureKind;

    fn plan(args: &[&str], is_stdout_terminal: bool) -> Result<Vec<OutputSpec>, Failure> {
        let words = ["kiln", "build", "."].iter().chain(args);
        let Command::Build(args) = Cli::try_parse_from(words).unwrap().command else {
            unreachable!("`build` was typed");
        };
        let tags: Vec<Reference> = args.tag.iter().map(|tag| tag.parse().unwrap()).collect();
        outputs(&args, &tags, false, is_stdout_terminal)
    }

    #[test]
    fn archives_do_not_go_to_a_terminal() {
        for spec in [
            "type=oci",
            "type=oci,dest=-",
            "type=docker,dest=-",
            "type=tar",
            "-",
        ] {
            let failure = plan(&["-o", spec], true).unwrap_err();
            assert_eq!(failure.kind, FailureKind::Usage);
            assert!(failure.render().contains("redirect"), "{spec}");
            assert!(plan(&["-o", spec], false).is_ok(), "{spec}");
        }
        assert!(plan(&["-o", "type=oci,dest=x.tar", "-t", "a"], true).is_ok());
        assert!(plan(&["-o", "-", "-o", "type=oci"], false).is_err());
    }

    #[test]
    fn archive_for_docker_needs_a_destination() {
        let failure = plan(&["-o", "type=docker"], false).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Usage);
        assert!(failure.render().contains("dest="));
    }

    #[test]
    fn push_needs_a_name() {
        for args in [&["--push"][..], &["-o", "type=registry"]] {
            let failure = plan(args, false).unwrap_err();
            assert_eq!(failure.kind, FailureKind::Usage);
            assert!(failure.render().contains("--tag"));
        }
        assert!(plan(&["--push", "-t", "a"], false).is_ok());
        assert!(plan(&["-o", "type=registry,name=a"], false).is_ok());
    }

    #[test]
    fn annotations_go_to_every_output() {
        let texts = ["a=b=c", "index,manifest[linux/amd64]:k=v"].map(str::to_owned);
        let parsed = annotations(&texts).unwrap();
        let targets: Vec<_> = parsed.iter().map(|one| one.target).collect();
        let manifest = AnnotationTarget::Manifest;
        assert_eq!(targets, [manifest, AnnotationTarget::Index, manifest]);
        assert_eq!((&*parsed[0].key, &*parsed[0].value), ("a", "b=c"));
        assert!(parsed[2].platform.is_some());
        for wrong in ["a", "=b", "moon:a=b"] {
            assert!(annotations(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
        let made = plan(&["-t", "x", "--annotation=a=b", "--push", "--load"], false).unwrap();
        assert!(
            made.iter()
                .all(|output| output.image.annotations.len() == 1)
        );
    }
}
