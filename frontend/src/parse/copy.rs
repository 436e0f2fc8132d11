//! `COPY` and `ADD`.

use crate::diagnostic::Diagnostic;
use crate::heredoc::{self, Heredoc};
use crate::instruction::{CopyFiles, CopyKind, Instruction};
use crate::lines::Word;
use crate::parse::flags::{Flags, Kind};
use crate::parse::{Parsed, Request};

const COPY_FLAGS: [(&str, Kind); 6] = [
    ("from", Kind::Text),
    ("chown", Kind::Text),
    ("chmod", Kind::Text),
    ("link", Kind::Switch),
    ("parents", Kind::Switch),
    ("exclude", Kind::List),
];

const ADD_FLAGS: [(&str, Kind); 7] = [
    ("chown", Kind::Text),
    ("chmod", Kind::Text),
    ("link", Kind::Switch),
    ("keep-git-dir", Kind::Switch),
    ("checksum", Kind::Text),
    ("unpack", Kind::Switch),
    ("exclude", Kind::List),
];

const REFUSED: [&str; 3] = ["link", "parents", "exclude"];

/// `COPY [flags] source… destination`, and `ADD`.
pub(super) fn copy(request: &Request<'_>) -> Parsed {
    let (kind, known) = match request.name {
        "ADD" => (CopyKind::Add, &ADD_FLAGS[..]),
        _ => (CopyKind::Copy, &COPY_FLAGS[..]),
    };
    let mut words = request.words();
    let Some(destination) = words.pop().filter(|_| !words.is_empty()) else {
        return Err(too_few(request));
    };
    let flags = Flags::read(request, known)?;
    if request.json.is_none() && heredoc::announcement(&destination.text).is_some() {
        let message = format!(
            "`{}` cannot accept a heredoc as a destination",
            request.name
        );
        return Err(Diagnostic::error(destination.span, message));
    }
    let (sources, documents) = sources(request, words);
    let refusal = flags.refuse(request, &REFUSED);
    let files = CopyFiles {
        kind,
        sources,
        documents,
        destination,
        from: from(&flags)?,
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.switch("link").unwrap_or(false),
        parents: flags.switch("parents").unwrap_or(false),
        excludes: flags.list("exclude"),
        unpack: flags.switch("unpack"),
        checksum: flags.text("checksum"),
        keep_git_dir: flags.switch("keep-git-dir"),
    };
    Ok((Instruction::Copy(files), refusal))
}

/// Takes the words that announce heredocs out of the sources, and finds their bodies.
fn sources(request: &Request<'_>, words: Vec<Word>) -> (Vec<Word>, Vec<Heredoc>) {
    let (mut sources, mut documents) = (Vec::new(), Vec::new());
    let mut heredocs = request.heredocs.iter();
    for word in words {
        let announced = heredoc::announcement(&word.text).filter(|_| request.json.is_none());
        let document = announced.and_then(|a| heredocs.find(|h| h.announcement == a));
        match document {
            Some(document) => documents.push(document.clone()),
            None => sources.push(word),
        }
    }
    (sources, documents)
}

/// `--from` is never expanded.
fn from(flags: &Flags) -> Result<Option<Word>, Diagnostic> {
    let from = flags.text("from");
    match &from {
        Some(word) if word.text.contains('$') => {
            let message = format!("variables are not expanded in `--from={}`", word.text);
            Err(Diagnostic::error(word.span, message)
                .with_help("give the image a name with `FROM … AS name` and copy from that"))
        }
        _ => Ok(from),
    }
}

fn too_few(request: &Request<'_>) -> Diagnostic {
    request.error(format!(
        "`{}` requires at least two arguments, but only one was provided: \
         destination could not be determined",
        request.name
    ))
}
