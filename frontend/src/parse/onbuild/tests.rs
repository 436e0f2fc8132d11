//! Triggers as text, and text as triggers.

use super::*;
use crate::parse;

fn stored(line: &str) -> String {
    let file = parse(&format!("FROM a\n{line}\n")).unwrap();
    match &file.stages[0].steps[0].instruction {
        Instruction::Onbuild(text) => text.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn images_keep_the_text_behind_the_name() {
    for (line, expected) in [
        ("ONBUILD RUN a  b  ", "RUN a  b  "),
        ("  onbuild\trun x", "run x"),
        ("ONBUILD \\\n RUN a\\\n# no\n b", "RUN a b"),
        ("ONBUILD -- RUN x", "-- RUN x"),
        ("ONBUILD RUN <<E\n\tx\nE", "RUN <<E\n\tx\nE"),
        ("ONBUILD RUN <<-'E' cat\n\tx\n\tE", "RUN <<-'E' cat\n\tx\nE"),
        (
            "ONBUILD COPY <<A <<B /d/\n1\nA\n2\nB",
            "COPY <<A <<B /d/\n1\nA\n2\nB",
        ),
        ("ONBUILD CMD <<E", "CMD <<E"),
        ("ONBUILD COPY [\"<<A\", \"/x\"]", "COPY [\"<<A\", \"/x\"]"),
    ] {
        assert_eq!(stored(line), expected, "{line}");
    }
}

#[test]
fn what_only_fails_later_is_a_warning() {
    for line in [
        "FOO x",
        "RUN --bad x",
        "COPY a",
        "EXPOSE",
        "HEALTHCHECK x",
        "ENV =x",
        "ARG",
    ] {
        let file = parse(&format!("FROM a\nONBUILD {line}\n")).unwrap();
        let warnings = file.warnings();
        assert_eq!(warnings.len(), 1, "{line}");
        let message = &warnings[0].message;
        assert!(
            message.starts_with("this trigger fails where it runs: "),
            "{message}"
        );
    }
    for line in [
        "RUN x",
        "COPY --from=nowhere a b",
        "ENV a b",
        "ENTRYPOINT []",
    ] {
        let file = parse(&format!("FROM a\nONBUILD {line}\n")).unwrap();
        assert!(file.warnings().is_empty(), "{line}");
    }
}

#[test]
fn what_has_no_end_or_no_words_is_an_error() {
    for (line, part) in [
        ("", "at least one"),
        ("ONBUILD RUN x", "chaining"),
        ("from x", "`FROM` isn't allowed"),
        ("MAINTAINER x", "`MAINTAINER` isn't allowed"),
        ("--x RUN y", "`--x`"),
        ("CMD [1]", "strings only"),
        ("HEALTHCHECK --x CMD [1]", "strings only"),
        ("ENV a", "two arguments"),
        ("LABEL a=b c", "`c`"),
        ("RUN <<E\nx", "unterminated"),
    ] {
        let errors = parse(&format!("FROM a\nONBUILD {line}\n")).unwrap_err();
        assert_eq!(errors.len(), 1, "{line}");
        assert!(errors[0].message.contains(part), "{line}: {errors:?}");
    }
}

#[test]
fn triggers_are_single_instructions() {
    let span = Span::new(3, 5);
    let base: Arc<str> = Arc::from("b");
    let step = trigger("copy <<E /x\n1\nE", span, &base).unwrap();
    assert_eq!(
        (step.span, step.code.as_str()),
        (span, "ONBUILD copy <<E /x")
    );
    for (text, part) in [
        ("", "must be an instruction (in `ONBUILD ` of base `b`)"),
        ("# x", "must be an instruction"),
        ("RUN a\nRUN b", "single instruction"),
        ("FROM x", "`FROM` isn't allowed"),
        ("ONBUILD RUN x", "chaining"),
        (
            "RUUN x",
            "unknown instruction: `RUUN` (in `ONBUILD RUUN x` of base `b`)",
        ),
        ("RUN <<E", "unterminated"),
    ] {
        let errors = trigger(text, span, &base).unwrap_err();
        assert_eq!(errors.len(), 1, "{text}");
        assert_eq!(errors[0].span, Some(span), "{text}");
        assert!(errors[0].message.contains(part), "{text}: {errors:?}");
    }
}
