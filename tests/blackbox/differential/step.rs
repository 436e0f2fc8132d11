//! Steps of a script, and what they look like in a Dockerfile.

pub(super) const FLAGS: [&str; 8] = [
    "",
    "",
    "",
    "--chmod=640 ",
    "--chmod=u+x,g-r ",
    "--chown=7:8 ",
    "--link ",
    "--chown=9 --chmod=444 ",
];
/// What a RUN does, with `IN` for the folders that it reads and `OUT` for the one that it makes.
pub(super) const PROGRAMS: [&str; 10] = [
    "find IN -type f | sort | xargs cat > OUT/all",
    "find IN -type f | sort | xargs cat | wc -l > OUT/n_lines",
    "find IN -type f | wc -l > OUT/n_files",
    "find IN | sort | xargs stat -c '%n %a %u:%g %F' > OUT/list",
    "cp -a IN OUT",
    "env | sed -n '/^V[01]=/p; /^MODE=/p' | sort > OUT/env; pwd >> OUT/env",
    "find /o -type f | sort | head -n 1 | xargs rm -f; echo gone > OUT/gone",
    "find /o -type f | sort | head -n 2 | xargs chmod g+w /o; env | sed -n /^V1=/p > OUT/v1",
    "find /o -type f | sort | tail -n 1 | xargs -I F ln F OUT/hard; echo linked > OUT/linked",
    "find IN -type l | sort | xargs ls -d > OUT/links; ln -s none OUT/link",
];

#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) number: usize,
    pub(super) what: What,
}

#[derive(Debug, Clone)]
pub(super) enum What {
    /// A path of the context, maybe with a wildcard.
    Copy {
        source: String,
        flags: usize,
    },
    CopyFrom {
        stage: usize,
        read: usize,
        link: bool,
    },
    Run {
        program: usize,
        reads: Vec<usize>,
        mount: Option<MountOf>,
    },
    Workdir,
    Env {
        value: usize,
    },
    Arg {
        which: usize,
    },
}

#[derive(Debug, Clone)]
pub(super) enum MountOf {
    Context(&'static str),
    Stage { stage: usize, read: usize },
}

impl Step {
    pub(super) fn makes_files(&self) -> bool {
        !matches!(self.what, What::Env { .. } | What::Arg { .. })
    }

    pub(super) fn reads(&self, number: usize) -> bool {
        matches!(&self.what, What::Run { reads, .. } if reads.contains(&number))
    }

    pub(super) fn text(&self) -> String {
        let out = format!("/o/{}", self.number);
        match &self.what {
            What::Copy { source, flags } => format!("COPY {}{source} {out}/", FLAGS[*flags]),
            What::CopyFrom { stage, read, link } => {
                let link = if *link { "--link " } else { "" };
                format!("COPY {link}--from=s{stage} /o/{read} {out}/")
            }
            What::Workdir => format!("WORKDIR {out}"),
            What::Env { value } => format!("ENV MODE=mode{value}"),
            What::Arg { which } => format!("ARG V{which}"),
            What::Run {
                program,
                reads,
                mount,
            } => {
                let mut inputs: Vec<_> = reads.iter().map(|read| format!("/o/{read}")).collect();
                let flag = match mount {
                    None => String::new(),
                    Some(MountOf::Context(dir)) => format!("source={dir} "),
                    Some(MountOf::Stage { stage, read }) => {
                        format!("from=s{stage},source=/o/{read} ")
                    }
                };
                if !flag.is_empty() {
                    inputs.push("/m".to_owned());
                }
                let flag = match flag.is_empty() {
                    true => flag,
                    false => format!("--mount=type=bind,target=/m,{flag}"),
                };
                let program = PROGRAMS[*program].replace("IN", &inputs.join(" "));
                let program = program.replace("OUT", &out);
                format!("RUN {flag}mkdir -p {out}; {program}")
            }
        }
    }
}

pub(super) fn last_step(stage: usize) -> String {
    format!("COPY --from=s{stage} /o /s{stage}")
}
