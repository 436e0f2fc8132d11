//! Flags of `docker build` and `docker buildx build` that kiln has no use for.
//!
//! They are known, so that nobody is left with "unexpected argument": one that asks for something
//! that kiln does not do is refused with a sentence about it, one that asks for nothing changes
//! nothing. None of them is in the help.

use clap::builder::TypedValueParser as _;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::args::switch;
use crate::report::Failure;

/// The flags that were given, each with what was asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct DockerFlags {
    given: Vec<(&'static Flag, String)>,
}

/// A flag of Docker's.
#[derive(Debug, Clone, Copy)]
struct Flag {
    name: &'static str,
    short: Option<char>,
    kind: Kind,
    /// Why not, and what to do instead.
    why: &'static str,
}

/// What a flag takes, and when it asks for nothing.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Nothing, or true or false; false asks for nothing.
    Switch,
    /// As `Switch`, and asks for nothing either way.
    Idle,
    /// A value; these ask for nothing.
    Value(&'static [&'static str]),
}

const LIMITS: &str = "kiln sets no limits for RUN steps; run kiln itself in a limited cgroup";
const CPU_SETS: &str = "kiln does not choose processors for RUN steps; run kiln under taskset";
const ATTESTATIONS: &str = "kiln makes no attestations; leave it out";

const FLAGS: &[Flag] = &[
    flag("attest", Kind::Value(&[]), ATTESTATIONS),
    flag(
        "builder",
        Kind::Value(&["default"]),
        "kiln builds by itself and has no other builders",
    ),
    flag(
        "cgroup-parent",
        Kind::Value(&[""]),
        "RUN steps are in the cgroup that kiln is in; start kiln in the one you want",
    ),
    flag(
        "compress",
        Kind::Idle,
        "the context is read in place, so there is nothing to compress",
    ),
    flag("cpu-period", Kind::Value(&["0"]), LIMITS),
    flag("cpu-quota", Kind::Value(&["0"]), LIMITS),
    flag("cpu-shares", Kind::Value(&["0"]), LIMITS).with_short('c'),
    flag("cpuset-cpus", Kind::Value(&[""]), CPU_SETS),
    flag("cpuset-mems", Kind::Value(&[""]), CPU_SETS),
    flag(
        "debug",
        Kind::Switch,
        "kiln has no debug mode; set KILN_LOG=debug for a log",
    )
    .with_short('D'),
    flag(
        "disable-content-trust",
        Kind::Idle,
        "kiln verifies digests, not signatures",
    ),
    flag("force-rm", Kind::Idle, "a step leaves no container behind"),
    flag(
        "isolation",
        Kind::Value(&["", "default"]),
        "kiln has one way to isolate RUN steps: namespaces of Linux",
    ),
    flag("memory", Kind::Value(&["0"]), LIMITS).with_short('m'),
    flag("memory-swap", Kind::Value(&["0"]), LIMITS),
    flag(
        "policy",
        Kind::Value(&[]),
        "kiln knows no source policies; pin base images by digest",
    ),
    flag(
        "provenance",
        Kind::Value(&["false", "0", "disabled=true"]),
        ATTESTATIONS,
    ),
    flag("rm", Kind::Idle, "a step leaves no container behind"),
    flag(
        "sbom",
        Kind::Value(&["false", "0", "disabled=true"]),
        ATTESTATIONS,
    ),
    flag(
        "security-opt",
        Kind::Value(&[]),
        "the sandbox of RUN steps has no options",
    ),
    flag("ulimit", Kind::Value(&[]), LIMITS),
];

const fn flag(name: &'static str, kind: Kind, why: &'static str) -> Flag {
    Flag {
        name,
        short: None,
        kind,
        why,
    }
}

impl Flag {
    const fn with_short(self, letter: char) -> Self {
        Self {
            short: Some(letter),
            ..self
        }
    }

    fn to_arg(self) -> Arg {
        let arg = Arg::new(self.name).long(self.name).short(self.short);
        let arg = arg.hide(true).action(ArgAction::Append);
        match self.kind {
            Kind::Switch | Kind::Idle => arg
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .value_parser(switch_text()),
            Kind::Value(_) => arg.num_args(1).allow_hyphen_values(true),
        }
    }

    fn asks_for_nothing(&self, value: &str) -> bool {
        match self.kind {
            Kind::Switch => value == "false",
            Kind::Idle => true,
            Kind::Value(idle) => idle.contains(&value),
        }
    }
}

fn switch_text() -> impl clap::builder::TypedValueParser<Value = String> {
    clap::builder::StringValueParser::new()
        .try_map(|text| switch(&text).map(|is_on| is_on.to_string()))
}

impl DockerFlags {
    /// Refuses what kiln cannot do: all of it at once.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let refused = self.given.iter();
        let refused = refused.filter(|(flag, value)| !flag.asks_for_nothing(value));
        let mut sentences: Vec<String> = refused
            .map(|(flag, value)| match flag.kind {
                Kind::Value(_) => format!("--{} {value}: {}", flag.name, flag.why),
                Kind::Switch | Kind::Idle => format!("--{}: {}", flag.name, flag.why),
            })
            .collect();
        sentences.dedup();
        if sentences.is_empty() {
            return Ok(());
        }
        Err(Failure::usage(sentences.join("\nerror: ")))
    }
}

impl Args for DockerFlags {
    fn augment_args(command: Command) -> Command {
        command.args(FLAGS.iter().copied().map(Flag::to_arg))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for DockerFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = Vec::new();
        for flag in FLAGS {
            let values = matches.get_many::<String>(flag.name).unwrap_or_default();
            given.extend(values.map(|value| (flag, value.clone())));
        }
        Ok(Self { given })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::args::{Cli, Command};
    use crate::report::FailureKind;

    fn check(args: &[&str]) -> Result<(), String> {
        let words = ["kiln", "build"].iter().chain(args).chain(&["."]);
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        let Command::Build(args) = cli.command else {
            unreachable!("`build` was typed");
        };
        args.docker.check().map_err(|failure| {
            assert_eq!(failure.kind, FailureKind::Usage);
            failure.render()
        })
    }

    #[test]
    fn what_kiln_cannot_do_is_refused() {
        for args in [
            &["--policy=p"][..],
            &["--ulimit=nofile=1"],
            &["--cgroup-parent", "x"],
            &["-m", "1g"],
            &["--memory-swap", "-1"],
            &["--cpu-period=1"],
            &["--cpu-quota", "-1"],
            &["-c", "2"],
            &["--cpuset-cpus", "0-3"],
            &["--cpuset-mems", "0"],
            &["--security-opt", "x"],
            &["--isolation", "hyperv"],
            &["--builder", "b"],
            &["--attest", "type=sbom"],
            &["--policy", "p"],
            &["-D"],
            &["--debug=true"],
            &["--provenance", "mode=max"],
            &["--sbom=true"],
        ] {
            let text = check(args).expect_err(args[0]);
            assert!(text.starts_with("error: --"), "{text}");
            assert_eq!(text.lines().count(), 1, "{text}");
        }
    }

    #[test]
    fn what_asks_for_nothing_changes_nothing() {
        for args in [
            &["--rm", "--force-rm"][..],
            &["--rm=false"],
            &["--provenance=false", "--sbom=false"],
            &["--provenance", "false"],
            &["--compress", "-D=0"],
        ] {
            check(args).unwrap();
        }
    }

    #[test]
    fn every_refusal_is_told() {
        let text = check(&["--debug", "--policy=p", "--rm", "--debug"]).unwrap_err();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.iter().all(|line| line.starts_with("error: --")));
        assert_eq!(lines.len(), 2, "{text}");
        let text = check(&["--compress=moon"]).unwrap_err();
        assert!(text.contains("true or false"), "{text}");
    }
}
