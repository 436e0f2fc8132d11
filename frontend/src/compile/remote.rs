//! Remote sources of `ADD`: files by HTTP, commits of Git repositories.
//!
//! Decides what a source is, and what its vertex does. Nothing is fetched here.

use kiln_graph::{
    Algorithm, CopySource, Digest, GitSource, Graph, HttpSource, Input, Meta, Op, redacted,
};

use crate::compile::stage::StageBuild;
use crate::diagnostic::Diagnostic;
use crate::git_url::{GitUrl, git_url};
use crate::instruction::{CopyFiles, CopyKind};
use crate::lines::Word;

/// The name of a file whose URL gives it none, as BuildKit has it.
const UNNAMED: &str = "__unnamed__";

/// Where a source is.
pub(crate) enum Place {
    /// In a context, a stage or an image.
    Local,
    /// Elsewhere.
    Remote(Remote),
}

/// What is fetched from elsewhere.
pub(crate) enum Remote {
    Http { source: HttpSource, unpack: bool },
    Git(GitSource),
}

impl Remote {
    /// Adds the vertex that fetches; returns what is copied from it.
    pub(super) fn copied(
        self,
        graph: &mut Graph,
        inputs: &mut Vec<Input>,
        meta: Meta,
    ) -> CopySource {
        let (op, path, unpack) = match self {
            Self::Http { source, unpack } => {
                let path = format!("/{}", literal(&source.file_name));
                (Op::Http(source), path, unpack)
            }
            Self::Git(source) => (Op::Git(source), "/".to_owned(), false),
        };
        let vertex = graph.add(op, vec![], meta);
        CopySource::Path {
            input: input_number(inputs, Some(vertex)),
            path,
            unpack,
        }
    }
}

/// Returns the number of a source among the inputs of a copy.
pub(super) fn input_number(inputs: &mut Vec<Input>, input: Input) -> usize {
    let known = inputs.iter().skip(1).position(|known| *known == input);
    known.map_or_else(
        || {
            inputs.push(input);
            inputs.len() - 1
        },
        |at| at + 1,
    )
}

impl StageBuild<'_, '_> {
    /// Returns where the sources of a `COPY` or `ADD` are.
    pub(super) fn places(
        &self,
        files: &CopyFiles,
        sources: &[String],
    ) -> Result<Vec<Place>, Diagnostic> {
        let checksum = self.expand_option(files.checksum.as_ref())?;
        let checksum = checksum.as_deref().zip(files.checksum.as_ref());
        let places: Result<Vec<Place>, Diagnostic> = sources
            .iter()
            .zip(&files.sources)
            .map(|(source, word)| place(files, source, word, checksum))
            .collect();
        let places = places?;
        if let Some((_, word)) = checksum {
            check_sources(&places, word)?;
        }
        Ok(places)
    }
}

/// A checksum says what one remote source is.
fn check_sources(places: &[Place], checksum: &Word) -> Result<(), Diagnostic> {
    let message = match places {
        [Place::Remote(_)] => return Ok(()),
        [Place::Local] | [] => "checksum requires HTTP(S) or Git sources",
        _ => "checksum can't be specified for multiple sources",
    };
    Err(Diagnostic::error(checksum.span, message))
}

/// Says where a source is, variables expanded.
pub(crate) fn place(
    files: &CopyFiles,
    source: &str,
    word: &Word,
    checksum: Option<(&str, &Word)>,
) -> Result<Place, Diagnostic> {
    let failed = |error| {
        let message = redacted(&format!("`{source}`: {error}"));
        Diagnostic::error(word.span, message)
    };
    let url = git_url(source).map_err(failed)?;
    let url = url.filter(|url| !url.is_shorthand);
    let is_web = source.starts_with("http://") || source.starts_with("https://");
    if files.kind == CopyKind::Copy && (url.is_some() || is_web) {
        let what = if url.is_some() { "git ref" } else { "URL" };
        let message = format!(
            "source can't be a {what} for `COPY`: `{}`",
            redacted(source)
        );
        return Err(Diagnostic::error(word.span, message).with_help("use `ADD`"));
    }
    Ok(match url {
        Some(url) => Place::Remote(Remote::Git(git(files, url, word, checksum)?)),
        None if is_web => Place::Remote(Remote::Http {
            source: http(source, checksum)?,
            unpack: files.unpack.unwrap_or(false),
        }),
        None => Place::Local,
    })
}

fn git(
    files: &CopyFiles,
    mut url: GitUrl,
    word: &Word,
    checksum: Option<(&str, &Word)>,
) -> Result<GitSource, Diagnostic> {
    if let (Some(flag), Some(query)) = (files.keep_git_dir, url.keep_git_dir)
        && flag != query
    {
        let message = "inconsistent keep-git-dir configuration: flag and URL say different things";
        return Err(Diagnostic::error(word.span, message));
    }
    if let Some((checksum, word)) = checksum {
        let is_hex = checksum.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hex {
            let message = format!("invalid checksum `{checksum}` for a Git source");
            return Err(Diagnostic::error(word.span, message).with_help("give a commit hash"));
        }
        match &url.checksum {
            Some(own) if own != checksum => {
                let message = format!("checksum mismatch: `{checksum}` is not `{own}` of the URL");
                return Err(Diagnostic::error(word.span, message));
            }
            _ => url.checksum = Some(checksum.to_owned()),
        }
    }
    Ok(url.source(files.keep_git_dir.unwrap_or(false)))
}

fn http(source: &str, checksum: Option<(&str, &Word)>) -> Result<HttpSource, Diagnostic> {
    let checksum = checksum.map(|(text, word)| {
        let wrong = |why: String| {
            let message = format!("invalid checksum `{text}`: {why}");
            Diagnostic::error(word.span, message).with_help("write `sha256:` and 64 digits")
        };
        let digest: Digest = text.parse().map_err(|error| wrong(format!("{error}")))?;
        match digest.algorithm() {
            Algorithm::Sha256 => Ok(digest),
            other => Err(wrong(format!("{} is not for files", other.name()))),
        }
    });
    Ok(HttpSource {
        url: source.to_owned(),
        file_name: file_name(source),
        checksum: checksum.transpose()?,
    })
}

/// Returns the last part of a URL's path.
fn file_name(url: &str) -> String {
    let before_fragment = url.split('#').next().unwrap_or_default();
    let before_query = before_fragment.split('?').next().unwrap_or_default();
    let after_scheme = before_query.split_once("://").map_or("", |(_, rest)| rest);
    let path = after_scheme.find('/').map_or("", |at| &after_scheme[at..]);
    let decoded = crate::git_url::percent_decoded(path, false);
    let path = decoded.as_deref().unwrap_or(path).trim_end_matches('/');
    match path.rsplit('/').next().unwrap_or_default() {
        "" | "." | ".." => UNNAMED.to_owned(),
        name if name.contains('\0') => UNNAMED.to_owned(),
        name => name.to_owned(),
    }
}

/// Returns a file name as a wildcard that matches just that.
fn literal(name: &str) -> String {
    if !name.contains(['*', '?', '[']) {
        return name.to_owned();
    }
    let one = |c: char| match c {
        '*' | '?' | '[' => format!("[{c}]"),
        '\\' => "\\\\".to_owned(),
        c => c.to_string(),
    };
    name.chars().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_like_the_end_of_the_path() {
        for (url, expected) in [
            ("http://h/a/file.txt", "file.txt"),
            ("http://h/a/file.txt?x=/y#/z", "file.txt"),
            ("http://h/a%20b", "a b"),
            ("http://h/a%2Fb", "b"),
            ("http://h/a/", "a"),
            ("http://h/", UNNAMED),
            ("http://h", UNNAMED),
            ("http://h?x/y", UNNAMED),
            ("http://h/a/..", UNNAMED),
            ("http://h/a%00", UNNAMED),
            ("http://h/%zz", "%zz"),
        ] {
            assert_eq!(file_name(url), expected, "{url}");
        }
    }

    #[test]
    fn names_with_wildcards_match_themselves_only() {
        assert_eq!(literal("plain\\name"), "plain\\name");
        assert_eq!(literal("a*b?[c\\"), "a[*]b[?][[]c\\\\");
    }
}
