//! What must hold for any text: the properties that property tests and fuzz targets share.
//!
//! Compiled for tests and, with the feature `fuzzing`, for the folder `fuzz`; no other code may
//! use it. Each function panics where its property does not hold, and returns nothing.

mod excerpts;

use std::collections::HashMap;

use kiln_graph::{Algorithm, GitTimes, Hasher, ImageConfig, Platform};

use crate::diagnostic::{Diagnostic, Span};
use crate::expand::{Quotes, Rules};
use crate::heredoc::{self, Heredoc};
use crate::lines::{Lines, Logical, Word};
use crate::parse::mount::{MountFlag, MountOptions};
use crate::{
    Compiled, Dockerfile, GitUrl, Images, Options, ResolvedImage, compile, parse, render,
    requirements,
};

/// Lines, heredocs and directives: nothing is lost, and every character leads back to its place.
pub fn lexer(text: &str) {
    physical_lines_are_the_text(text);
    let mut lines = Lines::new(text);
    loop {
        let before = lines.position();
        let Some(line) = lines.logical() else {
            break;
        };
        assert!(lines.position() > before, "no line was read");
        assert!(!line.text.contains('\n'));
        characters_are_where_they_say(&line, text);
        for announcement in heredoc::announced(&line.text) {
            let name = announcement.name.clone();
            match heredoc::read(&mut lines, announcement, line.whole()) {
                Ok(heredoc) => heredoc_is_where_it_says(&heredoc, text),
                Err(error) => assert!(error.message.contains(&name)),
            }
        }
    }
    assert_eq!(lines.position(), text.len(), "the end was not read");
    assert!(['\\', '`'].contains(&lines.directives.escape()));
    spans_are_inside(&lines.diagnostics, text);
}

fn physical_lines_are_the_text(text: &str) {
    let mut lines = Lines::new(text);
    let mut read = String::new();
    while let Some(line) = lines.physical() {
        assert!(line.raw.starts_with(line.content()));
        read.push_str(line.raw);
    }
    assert_eq!(read, text.strip_prefix('\u{feff}').unwrap_or(text));
}

fn characters_are_where_they_say(line: &Logical, text: &str) {
    for (at, c) in line.text.char_indices() {
        let span = line.span(at..at + c.len_utf8());
        assert_eq!(
            text.get(span.range()),
            Some(c.encode_utf8(&mut [0; 4]) as &str)
        );
    }
}

fn heredoc_is_where_it_says(heredoc: &Heredoc, text: &str) {
    assert_eq!(text.get(heredoc.span.range()), Some(&*heredoc.body));
    let terminator = &text[heredoc.span.end..heredoc.end];
    let announcement = &heredoc.announcement;
    if announcement.strips_tabs {
        assert_eq!(terminator.trim_start_matches('\t'), announcement.name);
        assert!(
            heredoc
                .content()
                .lines()
                .all(|line| !line.starts_with('\t'))
        );
    } else {
        assert_eq!(terminator, announcement.name);
        assert_eq!(heredoc.content(), *heredoc.body);
    }
}

/// The whole parser: a tree that prints and parses to itself, or errors with a place; then the
/// compiler, whose layers must be a chain.
pub fn parser(text: &str) {
    match parse(text) {
        Ok(file) => {
            tree_is_inside(&file, text);
            spans_are_inside(file.warnings(), text);
            excerpts::assert_is_stable(&file, text);
            compiler(&file, text);
        }
        Err(errors) => are_told(&errors, text),
    }
}

fn tree_is_inside(file: &Dockerfile, text: &str) {
    for span in excerpts::spans(&format!("{:?}{:?}", file.global_args, file.stages)) {
        is_inside(span, text);
    }
}

fn are_told(errors: &[Diagnostic], text: &str) {
    assert!(!errors.is_empty(), "refused without a word");
    spans_are_inside(errors, text);
    for has_colour in [false, true] {
        assert!(!render(errors, "Dockerfile", text, has_colour).is_empty());
    }
}

fn compiler(file: &Dockerfile, text: &str) {
    let options = Options::for_platform(Platform::linux("amd64"));
    let compiled = resolved(file, &options).and_then(|images| compile(file, &options, &images));
    match compiled {
        Ok(compiled) => {
            spans_are_inside(&compiled.warnings, text);
            layers_are_a_chain(&compiled);
        }
        Err(errors) => are_told(&errors, text),
    }
}

/// Returns an image for everything that the target needs.
fn resolved(file: &Dockerfile, options: &Options) -> Result<Images, Vec<Diagnostic>> {
    let mut images = Images::new();
    loop {
        let requests = requirements(file, options, &images)?;
        if requests.is_empty() {
            return Ok(images);
        }
        let keys = requests.into_iter();
        images.extend(keys.map(|request| ((request.reference, request.platform), image())));
    }
}

fn image() -> ResolvedImage {
    let manifest = Hasher::new(Algorithm::Sha256).finish();
    let mut config = ImageConfig {
        os: "linux".to_owned(),
        architecture: "amd64".to_owned(),
        ..ImageConfig::default()
    };
    config.rootfs.diff_ids.push(manifest);
    ResolvedImage {
        reference: "registry.test/base".to_owned(),
        manifest,
        config,
    }
}

fn layers_are_a_chain(compiled: &Compiled) {
    let mut at = compiled.target;
    let layers = compiled.steps.iter().rev().filter_map(|step| step.layer);
    for layer in layers {
        assert_eq!(
            at,
            Some(layer),
            "a layer is not on top of the one before it"
        );
        at = compiled
            .graph
            .vertex(layer)
            .inputs
            .first()
            .copied()
            .flatten();
    }
}

/// Words and variables: no panic, both forms of the result agree, and quoting is undone.
pub fn expansion(text: &str, variables: &[(String, String)]) {
    let variables: HashMap<&str, &str> = variables
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let env = |name: &str| variables.get(name).map(|value| (*value).to_owned());
    for rules in all_rules() {
        let (whole, words) = (rules.expand(text, &env), rules.split(text, &env));
        match (whole, words) {
            (Ok(whole), Ok(words)) => {
                let dense = |text: &str| text.split_whitespace().collect::<String>();
                assert_eq!(dense(&words.concat()), dense(&whole), "{text:?}");
                assert!(words.iter().all(|word| !word.is_empty()));
            }
            (whole, words) => assert_eq!(whole.err(), words.err(), "{text:?}"),
        }
    }
    plain_text_stays(text);
    quoted_text_stays(text);
    values_are_taken_as_they_are(text);
}

fn all_rules() -> impl Iterator<Item = Rules> {
    let names = Rules {
        quotes: Quotes::Keep,
        raw_escapes: true,
        keep_unset: true,
        ..Rules::words('\\')
    };
    [Rules::words('\\'), Rules::words('`'), Rules::body(), names].into_iter()
}

fn plain_text_stays(text: &str) {
    if !text.contains(['$', '\'', '"', '\\', '`']) {
        for rules in all_rules() {
            assert_eq!(rules.expand(text, &|_| None).as_deref(), Ok(text));
        }
    }
}

fn quoted_text_stays(text: &str) {
    let escaped: String = text.chars().flat_map(|c| ['\\', c]).collect();
    let rules = Rules::words('\\');
    assert_eq!(rules.expand(&escaped, &|_| None).as_deref(), Ok(text));
    if !text.contains('\'') {
        let quoted = format!("'{text}'");
        assert_eq!(rules.expand(&quoted, &|_| None).as_deref(), Ok(text));
    }
}

fn values_are_taken_as_they_are(text: &str) {
    let env = |name: &str| (name == "v").then(|| text.to_owned());
    for word in [
        "$v", "${v}", "\"$v\"", "${v-x}", "${v:?}$w", "${u:-$v}", "${v+$v}",
    ] {
        let got = Rules::words('\\').expand(word, &env);
        // An empty value is as good as none for the forms with a colon.
        if !(text.is_empty() && word.contains(":?")) {
            assert_eq!(got.as_deref(), Ok(text), "{word}");
        }
    }
}

/// `RUN --mount`: options with a place for what is wrong, and the same options from its fields.
pub fn mount(text: &str) {
    match options_of(text) {
        Ok((flag, options)) => {
            let quoted = |field: &str| format!("\"{}\"", field.replace('"', "\"\""));
            let fields: Vec<String> = flag.texts().into_iter().map(quoted).collect();
            let again = options_of(&fields.join(",")).map(|(_, options)| options);
            assert_eq!(again.as_ref(), Ok(&options), "{text:?} as {fields:?}");
            assert!(
                options.mode.is_none_or(|mode| mode <= 0o7777),
                "{options:?}"
            );
        }
        Err(error) => spans_are_inside(&[error], text),
    }
}

fn options_of(text: &str) -> Result<(MountFlag, MountOptions), Diagnostic> {
    let span = Span::new(0, text.len());
    let text = text.to_owned();
    let flag = MountFlag::parse(&Word { text, span })?;
    let options = flag.options(&|value| Ok(value.text.clone()))?;
    Ok((flag, options))
}

/// Git URLs: nothing that `git` could take for something else, and the same again from its parts.
pub fn git_url(text: &str) {
    let Ok(Some(url)) = crate::git_url(text) else {
        return;
    };
    assert!(!url.remote.starts_with('-') && !url.remote.contains(char::is_control));
    for name in [&url.reference, &url.subdir, &url.checksum]
        .into_iter()
        .flatten()
    {
        assert!(
            !name.is_empty() && !name.contains(char::is_control),
            "{url:?}"
        );
    }
    let reference = url.reference.as_deref().unwrap_or("main");
    assert!(!reference.starts_with(['-', '+', '^']) && !reference.contains([':', ' ', '*']));
    let subdir = url.subdir.as_deref().unwrap_or("sub");
    assert!(
        subdir
            .split('/')
            .all(|part| !["", ".", ".."].contains(&part)),
        "{url:?}"
    );
    if url.is_shorthand {
        return;
    }
    let parts = [
        ("ref", &url.reference),
        ("subdir", &url.subdir),
        ("checksum", &url.checksum),
    ];
    let given = parts
        .into_iter()
        .filter_map(|(key, part)| part.as_ref().map(|part| (key, part)));
    let pairs: Vec<String> = given
        .map(|(key, part)| format!("{key}={}", encoded(part)))
        .collect();
    let again = crate::git_url(&format!("{}?{}", url.remote, pairs.join("&")));
    let expected = GitUrl {
        keep_git_dir: None,
        submodules: None,
        times: GitTimes::default(),
        fetch_by_commit: false,
        ..url
    };
    assert_eq!(again, Ok(Some(expected)), "{text:?}");
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

fn spans_are_inside(diagnostics: &[Diagnostic], text: &str) {
    for span in diagnostics.iter().filter_map(|diagnostic| diagnostic.span) {
        is_inside(span, text);
    }
}

fn is_inside(span: Span, text: &str) {
    assert!(span.start <= span.end, "{span:?}");
    assert!(
        text.get(span.range()).is_some(),
        "{span:?} is not in the text"
    );
}
