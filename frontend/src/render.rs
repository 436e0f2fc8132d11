//! Diagnostics as text with source excerpts.
//!
//! Only formats: the file name is whatever the caller wants people to see, and nothing is read.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::diagnostic::{Diagnostic, LineIndex, Severity, Span};

/// Returns `diagnostics` as text, each with an excerpt that names `file_name:line:column`.
pub fn render(diagnostics: &[Diagnostic], file_name: &str, text: &str, color: bool) -> String {
    let renderer = if color {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    let source = Source {
        name: file_name,
        text,
        lines: LineIndex::new(text),
    };
    let rendered: Vec<String> = diagnostics
        .iter()
        .map(|diagnostic| renderer.render(&[report(diagnostic, &source)]))
        .collect();
    let mut out = rendered.join("\n\n");
    if !out.is_empty() {
        out.push('\n');
    }
    out
}

struct Source<'a> {
    name: &'a str,
    text: &'a str,
    lines: LineIndex,
}

fn report<'a>(diagnostic: &'a Diagnostic, source: &Source<'a>) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = match diagnostic.rule {
        Some(rule) => format!("{}: {}", rule.name, diagnostic.message),
        None => diagnostic.message.clone(),
    };
    let mut group = Group::with_title(level.primary_title(title));
    if let Some(span) = diagnostic.span {
        // Only the lines that are shown: the renderer reads all that it is given.
        let span = within(span, source.text);
        let (line, start) = source.lines.line_start(span.start);
        let rest = &source.text[span.end..];
        let end = span.end + rest.find('\n').map_or(rest.len(), |at| at + 1);
        let annotation = AnnotationKind::Primary.span(span.start - start..span.end - start);
        let snippet = Snippet::source(&source.text[start..end]).line_start(line);
        group = group.element(snippet.path(source.name).annotation(annotation));
    }
    match &diagnostic.help {
        Some(help) => group.element(Level::HELP.message(help)),
        None => group,
    }
}

/// Cuts a span down to `text`, so that a span of another text cannot bring the renderer down.
pub(crate) fn within(span: Span, text: &str) -> Span {
    let start = text.floor_char_boundary(span.start);
    Span::new(start, text.ceil_char_boundary(span.end).max(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "FROM a\nRUUN x\n";

    fn wrong() -> Diagnostic {
        Diagnostic::error(Span::new(7, 11), "unknown instruction `RUUN`")
            .with_help("did you mean `RUN`?")
    }

    #[test]
    fn names_file_line_and_column() {
        let out = render(&[wrong()], "Dockerfile", TEXT, false);
        assert!(out.contains("Dockerfile:2:1"), "{out}");
        assert!(out.contains("RUUN x"), "{out}");
        assert!(out.contains("did you mean `RUN`?"), "{out}");
        assert!(!out.contains('\u{1b}'), "{out}");
    }

    #[test]
    fn colour_is_on_demand() {
        assert!(render(&[wrong()], "Dockerfile", TEXT, true).contains('\u{1b}'));
    }

    #[test]
    fn option_errors_have_no_excerpt() {
        let out = render(
            &[Diagnostic::option("no such stage")],
            "Dockerfile",
            TEXT,
            false,
        );
        assert_eq!(out, "error: no such stage\n");
    }

    #[test]
    fn spans_of_another_text_are_cut() {
        let out = render(
            &[Diagnostic::error(Span::new(90, 95), "x")],
            "Dockerfile",
            "é",
            false,
        );
        assert!(out.contains("Dockerfile:1"), "{out}");
    }
}
