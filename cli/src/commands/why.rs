//! `kiln why`: why the steps of a build ran, or did not have to.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_cache::Store;
use kiln_graph::{Digest, Graph};
use kiln_solver::{Reason, age};
use kiln_worker::Explanation;
use serde::{Deserialize, Serialize};

use crate::args::{TextOrJson, WhyArgs};
use crate::progress::clean_line;
use crate::report::Failure;

/// What a build did, as `kiln why` and `--explain` tell it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BuildReport {
    /// The context and the Dockerfile.
    pub(crate) origin: String,
    /// Names of the image.
    pub(crate) tags: Vec<String>,
    /// All steps that were looked up or run, in the order of the Dockerfile.
    pub(crate) steps: Vec<StepReport>,
}

/// What happened to a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StepReport {
    /// Its name in the progress.
    pub(crate) name: String,
    /// What its result is recorded under.
    pub(crate) key: Digest,
    /// Why it ran, or since when it is cached.
    #[serde(flatten)]
    pub(crate) reason: Reason,
}

impl BuildReport {
    /// Adds the steps of a graph that have an explanation.
    pub(crate) fn add(&mut self, graph: &Graph, explained: &HashMap<Digest, Explanation>) {
        for (_, vertex) in graph.vertices() {
            if let Some(found) = explained.get(&vertex.digest) {
                self.steps.push(StepReport {
                    name: vertex.meta.name.clone(),
                    key: found.key,
                    reason: found.reason.clone(),
                });
            }
        }
    }

    /// Returns the report in a format; `now` is in seconds since 1970.
    pub(crate) fn render(&self, format: TextOrJson, now: i64) -> String {
        match format {
            TextOrJson::Json => {
                serde_json::to_string_pretty(self).expect("a report is plain data") + "\n"
            }
            TextOrJson::Text => self.text(now),
        }
    }

    fn text(&self, now: i64) -> String {
        let mut text = String::new();
        for step in &self.steps {
            let name = clean_line(&step.name);
            writeln!(text, "{name}").expect("writing to a String");
            for line in step.reason.lines(now) {
                writeln!(text, "    {}", clean_line(&line)).expect("writing to a String");
            }
        }
        text
    }
}

/// Returns the seconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_secs()).unwrap_or(i64::MAX)
}

/// Prints why the steps of a past build ran.
pub(crate) fn run(args: &WhyArgs, store: &Store, out: &mut impl Write) -> Result<(), Failure> {
    let found = store.past_build(args.build).map_err(Failure::user)?;
    let Some(found) = found else {
        let what = match args.build {
            Some(number) => format!("build {number} is not remembered"),
            None => "no build is remembered".to_owned(),
        };
        return Err(Failure::usage(what).with_hint("`kiln build --explain` tells of a new build"));
    };
    let mut report: BuildReport = serde_json::from_str(&found.report).map_err(|error| {
        Failure::user(anyhow::Error::new(error).context("the report is damaged"))
    })?;
    if let Some(wanted) = &args.step {
        report
            .steps
            .retain(|step| step.name.contains(wanted.as_str()));
        if report.steps.is_empty() {
            let what = format!("build {} has no step `{wanted}`", found.number);
            return Err(Failure::usage(what).with_hint("`kiln why` lists all steps"));
        }
    }
    let text = report.render(args.format, now());
    let heading = match args.format {
        TextOrJson::Json => String::new(),
        TextOrJson::Text => {
            let ago = age(now() - found.ended);
            format!("build {} of {}, {ago}\n\n", found.number, report.origin)
        }
    };
    out.write_all((heading + &text).as_bytes())
        .map_err(Failure::user)
}
