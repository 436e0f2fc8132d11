//! `COPY` and `ADD`: sources, destination, owner, permission bits.

use kiln_graph::{
    Copy, CopySource, InlineFile, Input, Meta, Mode, ModeChange, Op, Owner, ParseModeError,
    Principal, redacted,
};

use crate::compile::remote::{Place, input_number};
use crate::compile::stage::StageBuild;
use crate::diagnostic::Diagnostic;
use crate::expand::Rules;
use crate::heredoc::Heredoc;
use crate::instruction::{CopyFiles, CopyKind, Step};
use crate::lines::Word;
use crate::options::CONTEXT;
use crate::paths;
use crate::plan::Origin;

impl StageBuild<'_, '_> {
    pub(super) fn copy(
        &mut self,
        step: &Step,
        files: &CopyFiles,
        origin: Option<&Origin>,
    ) -> Result<(), Diagnostic> {
        let name = self.naming.of_words(&step.code, &self.state.env);
        let sources = self.expand_all(&files.sources)?;
        let destination = self.expand(&files.destination)?;
        check_destination(files, &destination)?;
        let chown = self.expand_option(files.chown.as_ref())?;
        let chmod = self.expand_option(files.chmod.as_ref())?;
        let places = self.places(files, &sources)?;
        let mut copied = Vec::new();
        let mut inputs = vec![self.state.root];
        for (place, source) in places.into_iter().zip(&sources) {
            copied.push(match place {
                Place::Remote(remote) => {
                    let meta = self.meta(step, name.clone());
                    remote.copied(&mut self.build.graph, &mut inputs, meta)
                }
                Place::Local => {
                    let root = self.copied_from(step, origin)?;
                    CopySource::Path {
                        input: input_number(&mut inputs, root),
                        path: match files.parents {
                            true => paths::pivoted(source),
                            false => paths::source(source),
                        },
                        unpack: files.unpack.unwrap_or(files.kind == CopyKind::Add),
                    }
                }
            });
        }
        copied.extend(self.documents(&files.documents)?);
        let op = Copy {
            sources: copied,
            destination: paths::destination(&self.dir(), &destination),
            owner: chown.as_deref().map(owner),
            mode: mode(chmod.as_deref(), files.chmod.as_ref())?,
            // BuildKit, too, looks at the destination where permission bits are given.
            link: files.link && chmod.is_none(),
            parents: files.parents,
            exclude: files
                .excludes
                .iter()
                .map(|word| word.text.clone())
                .collect(),
        };
        let meta = self.meta(step, name);
        let layer = self.add_layer(Op::Copy(op), inputs, meta);
        let text = history(files, [chown, chmod], &sources, &destination);
        self.record(step, text, Some(layer));
        Ok(())
    }

    pub(super) fn expand_option(&self, word: Option<&Word>) -> Result<Option<String>, Diagnostic> {
        let text = word.map(|word| self.expand(word)).transpose()?;
        Ok(text.filter(|text| !text.is_empty()))
    }

    fn copied_from(&mut self, step: &Step, origin: Option<&Origin>) -> Result<Input, Diagnostic> {
        match origin {
            Some(origin) => self.source_root(step, origin),
            None => Ok(Some(self.build.local(CONTEXT))),
        }
    }

    fn documents(&self, documents: &[Heredoc]) -> Result<Vec<CopySource>, Diagnostic> {
        documents
            .iter()
            .map(|document| self.document(document))
            .collect()
    }

    fn document(&self, document: &Heredoc) -> Result<CopySource, Diagnostic> {
        let announcement = &document.announcement;
        let name = announcement.name.clone();
        if name.contains('/') || name == "." || name == ".." {
            let message = format!("a file cannot be named `{name}`");
            return Err(Diagnostic::error(document.span, message)
                .with_help("name the file in the destination"));
        }
        let mut content = document.content();
        if announcement.expands {
            let lookup = |name: &str| self.state.env.get(name).map(str::to_owned);
            content = Rules::body().expand(&content, &lookup).map_err(|error| {
                let message = format!("failed to process heredoc `{name}`: {error}");
                Diagnostic::error(document.span, message)
            })?;
        }
        Ok(CopySource::Inline(InlineFile {
            path: name,
            mode: 0o644,
            content,
        }))
    }
}

/// Says that a folder is read.
pub(super) fn local_meta(name: &str) -> Meta {
    let name = match name {
        CONTEXT => "[internal] load build context".to_owned(),
        name => {
            let typed = name.trim_end_matches('=');
            format!("[context {typed}] load from client")
        }
    };
    Meta {
        name,
        ..Meta::default()
    }
}

fn check_destination(files: &CopyFiles, destination: &str) -> Result<(), Diagnostic> {
    let is_directory = destination.ends_with('/')
        || matches!(destination.rsplit('/').next(), Some("" | "." | ".."));
    if files.sources.len() + files.documents.len() <= 1 || is_directory {
        return Ok(());
    }
    let message = format!(
        "when using `{}` with more than one source, the destination must be a directory and end \
         with a /",
        files.kind.name()
    );
    let help = format!("write `{destination}/`");
    Err(Diagnostic::error(files.destination.span, message).with_help(help))
}

fn owner(text: &str) -> Owner {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    Owner {
        user: principal(user),
        group: group.map(principal),
    }
}

fn principal(text: &str) -> Principal {
    match text {
        "" | "root" => Principal::Id(0),
        text => text
            .parse()
            .map_or_else(|_| Principal::Name(text.to_owned()), Principal::Id),
    }
}

fn mode(text: Option<&str>, word: Option<&Word>) -> Result<Option<Mode>, Diagnostic> {
    let (Some(text), Some(word)) = (text, word) else {
        return Ok(None);
    };
    let is_octal = text.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(mode) = u32::from_str_radix(text, 8).ok().filter(|_| is_octal)
        && mode <= 0o7777
    {
        return Ok(Some(Mode::Bits(mode)));
    }
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        let message = format!(
            "invalid chmod parameter: `{text}`: it should be octal string and between 0 and 07777"
        );
        return Err(Diagnostic::error(word.span, message));
    }
    let change: Result<ModeChange, ParseModeError> = text.parse();
    change
        .map(|change| Some(Mode::Change(change)))
        .map_err(|error| {
            Diagnostic::error(word.span, format!("invalid chmod parameter: {error}"))
                .with_help("write octal bits as `755`, or changes as `u=rwX,go=rX`")
        })
}

fn history(
    files: &CopyFiles,
    [chown, chmod]: [Option<String>; 2],
    sources: &[String],
    destination: &str,
) -> String {
    let mut words = vec![files.kind.name().to_owned()];
    words.extend(files.parents.then(|| "--parents".to_owned()));
    words.extend(chown.map(|chown| format!("--chown={chown}")));
    words.extend(chmod.map(|chmod| format!("--chmod={chmod}")));
    // A history goes wherever the image goes.
    words.extend(sources.iter().map(|source| redacted(source)));
    let names = files
        .documents
        .iter()
        .map(|document| &document.announcement.name);
    words.extend(names.map(|name| format!("<<{name}")));
    words.push(destination.to_owned());
    words.join(" ") + " # buildkit"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_numbers_or_names() {
        let id = Principal::Id;
        let name = |text: &str| Principal::Name(text.to_owned());
        for (text, user, group) in [
            ("1", id(1), None),
            ("root", id(0), None),
            ("a:b", name("a"), Some(name("b"))),
            ("12:34", id(12), Some(id(34))),
            (":5", id(0), Some(id(5))),
        ] {
            assert_eq!(owner(text), Owner { user, group }, "{text}");
        }
    }
}
