//! `--call=check`: findings as text with excerpts, and as JSON.

use std::fmt::Write as _;

use kiln_frontend::{Diagnostic, Dockerfile, Severity};
use kiln_graph::SourceLines;
use serde::Serialize;
use serde_json::{Value, json};

use crate::commands::call::go_json::{self, bytes, location};
use crate::excerpt;
use crate::plan::Source;

/// What a check found.
#[derive(Debug)]
pub(crate) struct Report {
    /// Findings and errors.
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// The findings, each with its lines, in the order in which they were found.
    findings: Vec<(Diagnostic, SourceLines)>,
    /// Findings that count for the exit status.
    pub(crate) n_counted: usize,
    /// The first error and its lines, if it has a place.
    error: Option<(String, Option<SourceLines>)>,
}

impl Report {
    /// Sorts out what is told; without a `file` each diagnostic has the lines of its own span.
    pub(crate) fn new(diagnostics: Vec<Diagnostic>, file: Option<&Dockerfile>, text: &str) -> Self {
        let lines_of = |diagnostic: &Diagnostic| match file {
            Some(file) => file.lines_of(diagnostic),
            None => diagnostic.span.map(|span| span.lines(text)),
        };
        let mut findings = Vec::new();
        for diagnostic in diagnostics.iter().filter(|d| d.rule.is_some()) {
            if let Some(lines) = lines_of(diagnostic) {
                findings.push((diagnostic.clone(), lines));
            }
        }
        let counted = findings.iter().filter_map(|(finding, _)| finding.rule);
        let error = diagnostics.iter().find(|d| d.severity == Severity::Error);
        Self {
            n_counted: counted.filter(|rule| !rule.is_own()).count(),
            error: error.map(|error| (error.message.clone(), lines_of(error))),
            findings,
            diagnostics,
        }
    }
}

pub(super) fn text(report: &Report, source: &Source) -> String {
    let mut out = match (report.findings.len(), &report.error) {
        (0, None) => return "Check complete, no warnings found.\n".to_owned(),
        (0, Some(_)) => return String::new(),
        (1, _) => "Check complete, 1 warning has been found!\n".to_owned(),
        (n, _) => format!("Check complete, {n} warnings have been found!\n"),
    };
    let mut findings: Vec<&(Diagnostic, SourceLines)> = report.findings.iter().collect();
    findings.sort_by_key(|(_, lines)| lines.first);
    let lines: Vec<&str> = source.text.split('\n').collect();
    for (finding, place) in findings {
        add(&mut out, finding, *place, &source.name, &lines).expect("writing to a String");
    }
    if report.error.is_some() {
        out.push('\n');
    }
    out
}

fn add(
    out: &mut String,
    finding: &Diagnostic,
    place: SourceLines,
    name: &str,
    lines: &[&str],
) -> std::fmt::Result {
    let Some(rule) = finding.rule else {
        return Ok(());
    };
    write!(out, "\nWARNING: {}", rule.name)?;
    if let Some(url) = rule.url {
        write!(out, " - {url}")?;
    }
    writeln!(out, "\n{}", finding.message)?;
    if let Some(help) = finding.help.as_ref().filter(|_| rule.is_own()) {
        writeln!(out, "{help}")?;
    }
    out.push_str(&excerpt::of_lines(name, lines, place));
    Ok(())
}

#[derive(Serialize)]
struct Document<'a> {
    warnings: Option<Vec<Warning<'a>>>,
    sources: [SourceFile<'a>; 1],
    #[serde(rename = "buildError", skip_serializing_if = "Option::is_none")]
    error: Option<BuildError<'a>>,
}

#[derive(Serialize)]
struct Warning<'a> {
    #[serde(rename = "ruleName")]
    rule: &'a str,
    description: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'a str>,
    detail: String,
    location: Value,
}

#[derive(Serialize)]
struct SourceFile<'a> {
    filename: &'a str,
    data: String,
    language: &'a str,
}

#[derive(Serialize)]
struct BuildError<'a> {
    message: &'a str,
    location: Value,
}

pub(super) fn json(report: &Report, source: &Source) -> String {
    let findings = report.findings.iter();
    let warnings = findings.filter_map(|(finding, lines)| warning(finding, *lines));
    let warnings: Vec<Warning<'_>> = warnings.collect();
    let error = report.error.as_ref().map(|(message, lines)| BuildError {
        message,
        location: lines.map_or_else(|| json!({}), location),
    });
    go_json::text(&Document {
        warnings: (!warnings.is_empty()).then_some(warnings),
        sources: [SourceFile {
            filename: source.name.rsplit('/').next().unwrap_or(&source.name),
            data: bytes(&source.text),
            language: "Dockerfile",
        }],
        error,
    })
}

fn warning(finding: &Diagnostic, lines: SourceLines) -> Option<Warning<'_>> {
    let rule = finding.rule?;
    let help = finding.help.as_ref().filter(|_| rule.is_own());
    let detail = match help {
        Some(help) => format!("{}: {help}", finding.message),
        None => finding.message.clone(),
    };
    Some(Warning {
        rule: rule.name,
        description: rule.description,
        url: rule.url,
        detail,
        location: location(lines),
    })
}
