//! `--call` and `--check`: what a Dockerfile says of itself, and what the checks find.
//!
//! Nothing is built. Texts, JSON and exit status are those of `docker buildx build`.

mod describe;
mod go_json;
mod outline;
mod report;
mod table;
mod targets;

pub(crate) use crate::commands::call::report::Report;

use std::io::Write as _;
use std::str::FromStr;

use kiln_frontend::Severity;

use crate::commands::build::Build;
use crate::report::Failure;

/// What is asked for instead of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) json: bool,
    /// Findings do not change the exit status.
    pub(crate) ignore_status: bool,
}

/// The requests that Dockerfiles answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Build,
    Check,
    Outline,
    Targets,
    Describe,
}

impl FromStr for Call {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut method = None;
        let (mut json, mut ignore_status) = (false, false);
        for field in text.split(',') {
            match field.split_once('=') {
                Some(("format", format)) => json = format == "json",
                Some(("ignorestatus", value)) => ignore_status = crate::args::switch(value)?,
                Some(_) => return Err(format!("`{field}` is neither format nor ignorestatus")),
                None if method.is_some() => return Err(format!("`{field}` is a second method")),
                None => method = Some(field.parse()?),
            }
        }
        Ok(Self {
            method: method.unwrap_or(Method::Build),
            json,
            ignore_status,
        })
    }
}

impl FromStr for Method {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "" | "build" => Self::Build,
            "check" | "lint" => Self::Check,
            "outline" => Self::Outline,
            "targets" => Self::Targets,
            "subrequests.describe" => Self::Describe,
            _ => {
                return Err(
                    "expected build, check, outline, targets or subrequests.describe".to_owned(),
                );
            }
        })
    }
}

/// Answers a request on standard output.
pub(crate) async fn run(call: Call, build: &Build<'_>) -> Result<(), Failure> {
    let source = &build.plan.dockerfile;
    let text = match call.method {
        Method::Build => return Ok(()),
        Method::Check => return check(call, build).await,
        Method::Describe => describe::text(call.json),
        Method::Targets => {
            let file = kiln_frontend::parse(&source.text).map_err(|d| build.diagnosed(&d))?;
            let stages: Vec<_> = file.stages().collect();
            match call.json {
                true => targets::json(&stages, &source.text),
                false => targets::text(&stages),
            }
        }
        Method::Outline => {
            let file = build.parse()?;
            let platform = &build.plan.platforms[0];
            let prepared = build.prepare_one(&file, platform).await?;
            let outline = &prepared.compiled.outline;
            match call.json {
                true => outline::json(outline, &source.text),
                false => outline::text(outline),
            }
        }
    };
    print(&text)
}

async fn check(call: Call, build: &Build<'_>) -> Result<(), Failure> {
    let report = build.check().await;
    let source = &build.plan.dockerfile;
    let text = match call.json {
        true => report::json(&report, source),
        false => report::text(&report, source),
    };
    print(&text)?;
    let mut errors = report.diagnostics;
    errors.retain(|diagnostic| diagnostic.severity == Severity::Error);
    if !errors.is_empty() {
        return Err(match &errors[..] {
            [error] if error.span.is_none() => {
                Failure::user(anyhow::Error::msg(error.message.clone()))
            }
            errors => build.diagnosed(errors),
        });
    }
    match report.n_counted > 0 && !call.ignore_status {
        true => Err(Failure::findings()),
        false => Ok(()),
    }
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).map_err(Failure::user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_options() {
        for (text, method, json, ignore_status) in [
            ("check", Method::Check, false, false),
            ("lint,format=json", Method::Check, true, false),
            ("format=text,outline", Method::Outline, false, false),
            ("targets,ignorestatus=true", Method::Targets, false, true),
            ("subrequests.describe", Method::Describe, false, false),
            ("", Method::Build, false, false),
        ] {
            let expected = Call {
                method,
                json,
                ignore_status,
            };
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in [
            "chekc",
            "check,outline",
            "check,x=1",
            "check,ignorestatus=x",
        ] {
            assert!(text.parse::<Call>().is_err(), "{text}");
        }
    }
}
