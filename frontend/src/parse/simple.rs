//! Instructions that are lists of words: `FROM`, `ARG`, `ENV`, `LABEL`, `EXPOSE`, `VOLUME`, and
//! those with a single text.

use crate::diagnostic::Diagnostic;
use crate::instruction::{Arg, Instruction, Pair, Stage};
use crate::lines::Word;
use crate::parse::Request;
use crate::parse::flags::{Flags, Kind};
use crate::words;

/// `FROM [--platform=…] base [AS name]`.
pub(super) fn from(request: &Request<'_>) -> Result<Stage, Diagnostic> {
    let words = words::split_blanks(request.line, request.head.rest.clone());
    let (base, name) = match &words[..] {
        [base] => (base, None),
        [base, word, name] if word.text.eq_ignore_ascii_case("as") => (base, Some(name)),
        _ => return Err(request.error("`FROM` requires either one or three arguments")),
    };
    let flags = Flags::read(request, &[("platform", Kind::Text)])?;
    Ok(Stage {
        base: base.clone(),
        platform: flags.text("platform"),
        name: name.map(stage_name).transpose()?,
        span: request.span,
        steps: Vec::new(),
    })
}

fn stage_name(word: &Word) -> Result<String, Diagnostic> {
    let name = word.text.to_lowercase();
    let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase());
    let belongs = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    if starts_well && name.chars().all(belongs) {
        return Ok(name);
    }
    let message = format!(
        "invalid name for build stage: `{}`, name can't start with a number or contain symbols",
        word.text
    );
    Err(Diagnostic::error(word.span, message))
}

/// `ARG name[=value]…`; flags are dropped, as BuildKit does.
pub(super) fn arg(request: &Request<'_>) -> Result<Instruction, Diagnostic> {
    let words = quoted_words(request);
    if words.is_empty() {
        return Err(at_least_one(request));
    }
    let args: Result<Vec<Arg>, Diagnostic> =
        words.iter().map(|word| one_arg(request, word)).collect();
    Ok(Instruction::Arg(args?))
}

fn one_arg(request: &Request<'_>, word: &Word) -> Result<Arg, Diagnostic> {
    let (name, value) = match word.text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (word.text.as_str(), None),
    };
    if name.is_empty() {
        return Err(blank_name(request, word));
    }
    Ok(Arg {
        name: name.to_owned(),
        value: value.map(|value| part(word, value)),
        span: word.span,
    })
}

/// `ENV` and `LABEL`: `name=value…`, or the old form `name value`.
pub(super) fn pairs(request: &Request<'_>) -> Result<Vec<Pair>, Diagnostic> {
    Flags::read(request, &[])?;
    let pairs = split_pairs(request)?;
    if pairs.is_empty() {
        return Err(at_least_one(request));
    }
    match pairs.iter().find(|pair| pair.key.text.is_empty()) {
        Some(blank) => Err(blank_name(request, &blank.key)),
        None => Ok(pairs),
    }
}

/// Splits the words of `ENV` and `LABEL` at the first `=`, or the text at the first blank.
pub(super) fn split_pairs(request: &Request<'_>) -> Result<Vec<Pair>, Diagnostic> {
    let words = quoted_words(request);
    let Some(first) = words.first() else {
        return Ok(Vec::new());
    };
    if !first.text.contains('=') {
        let Some((key, value)) = words::split_once(request.line, request.head.rest.clone()) else {
            return Err(request.error(format!("`{}` must have two arguments", request.name)));
        };
        return Ok(vec![Pair { key, value }]);
    }
    words.iter().map(pair).collect()
}

fn pair(word: &Word) -> Result<Pair, Diagnostic> {
    let Some((key, value)) = word.text.split_once('=') else {
        let message = format!("can't find = in `{}`", word.text);
        return Err(Diagnostic::error(word.span, message)
            .with_help("each word must be of the form name=value"));
    };
    Ok(Pair {
        key: part(word, key),
        value: part(word, value),
    })
}

/// `EXPOSE port…`, sorted as written.
pub(super) fn expose(request: &Request<'_>) -> Result<Vec<Word>, Diagnostic> {
    let mut words = words::split_blanks(request.line, request.head.rest.clone());
    if words.is_empty() {
        return Err(at_least_one(request));
    }
    Flags::read(request, &[])?;
    words.sort_by(|a, b| a.text.cmp(&b.text));
    Ok(words)
}

/// `VOLUME path…` in either form.
pub(super) fn volume(request: &Request<'_>) -> Result<Vec<Word>, Diagnostic> {
    let mut words = request.words();
    if words.is_empty() {
        return Err(at_least_one(request));
    }
    Flags::read(request, &[])?;
    for word in &mut words {
        word.text = word.text.trim().to_owned();
        if word.text.is_empty() {
            let message = "`VOLUME` specified can not be an empty string";
            return Err(Diagnostic::error(word.span, message));
        }
    }
    Ok(words)
}

/// An instruction with one text and no flags.
pub(super) fn single(request: &Request<'_>) -> Result<Word, Diagnostic> {
    let word = single_with_any_flags(request)?;
    Flags::read(request, &[])?;
    Ok(word)
}

/// An instruction with one text, whose flags are dropped, as BuildKit does.
pub(super) fn single_with_any_flags(request: &Request<'_>) -> Result<Word, Diagnostic> {
    let word = request.rest();
    if word.text.is_empty() {
        let message = format!("`{}` requires exactly one argument", request.name);
        return Err(request.error(message));
    }
    Ok(word)
}

pub(super) fn at_least_one(request: &Request<'_>) -> Diagnostic {
    request.error(format!("`{}` requires at least one argument", request.name))
}

fn blank_name(request: &Request<'_>, word: &Word) -> Diagnostic {
    let message = format!("`{}` names can not be blank", request.name);
    Diagnostic::error(word.span, message)
}

fn quoted_words(request: &Request<'_>) -> Vec<Word> {
    words::split_quoted(request.line, request.head.rest.clone(), request.escape)
}

fn part(word: &Word, text: &str) -> Word {
    Word {
        text: text.to_owned(),
        span: word.span,
    }
}
