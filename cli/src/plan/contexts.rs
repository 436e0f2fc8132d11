//! Where contexts are: what was typed turned into folders, repositories, addresses and layouts.
//!
//! Nothing is fetched here. A folder of that name wins over an address, for the main context; for
//! a named one it is the other way round, as `docker buildx` has it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kiln_cache::IgnoreList;
use kiln_frontend::{NAMED_CONTEXT, NamedContext, git_url};
use kiln_graph::{Descriptor, Digest, GitSource, HttpSource, redacted};
use kiln_worker::{OciLayout, Snapshot};

use crate::plan::{CONTEXT, read_ignore};
use crate::report::Failure;

/// What a fetched context is called that is one file.
pub(crate) const CONTEXT_FILE: &str = "context";

/// Where a context is.
#[derive(Debug, Clone)]
pub(crate) enum ContextPlace {
    /// A folder of this machine, and what of it is ignored.
    Folder(PathBuf, IgnoreList),
    /// A commit of a Git repository.
    Git(GitSource),
    /// A file of a web server.
    Http(HttpSource),
    /// Standard input: an archive, or a Dockerfile.
    Stdin,
    /// Files that were fetched.
    Fetched(Snapshot),
}

/// An image of an OCI layout.
#[derive(Debug, Clone)]
pub(crate) struct LayoutImage {
    pub(crate) layout: OciLayout,
    pub(crate) descriptor: Descriptor,
}

/// The contexts of `--build-context`.
#[derive(Debug, Default)]
pub(crate) struct NamedContexts {
    /// What stands behind each name, for the frontend.
    pub(crate) named: BTreeMap<String, NamedContext>,
    /// Files by the name that they have in the graph.
    pub(crate) places: Vec<(String, ContextPlace)>,
    /// Images of layouts by the reference that the frontend has.
    pub(crate) layouts: HashMap<String, LayoutImage>,
}

/// Returns where the main context is; a folder without its ignore list.
pub(crate) fn main_context(written: &str, keep_git_dir: bool) -> Result<ContextPlace, Failure> {
    if written == "-" {
        return Ok(ContextPlace::Stdin);
    }
    if Path::new(written).is_dir() {
        return Ok(ContextPlace::Folder(written.into(), IgnoreList::default()));
    }
    match remote_context(written, keep_git_dir)? {
        Some(place) => Ok(place),
        None => {
            let dir = folder(written)?;
            Ok(ContextPlace::Folder(dir, IgnoreList::default()))
        }
    }
}

/// Returns the address that a text is; `None` if it is none.
fn remote_context(written: &str, keep_git_dir: bool) -> Result<Option<ContextPlace>, Failure> {
    let wrong = |error| Failure::usage(redacted(&format!("build context `{written}`: {error}")));
    if let Some(url) = git_url(written).map_err(wrong)? {
        let mut source = url.source(keep_git_dir);
        // The build argument adds to the URL, and takes nothing away.
        source.keep_git_dir |= keep_git_dir;
        return Ok(Some(ContextPlace::Git(source)));
    }
    if is_web_address(written) {
        return Ok(Some(ContextPlace::Http(web_file(written))));
    }
    Ok(None)
}

pub(crate) fn is_web_address(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// Returns what fetches a file that is called `context`.
pub(crate) fn web_file(url: &str) -> HttpSource {
    HttpSource {
        url: url.to_owned(),
        file_name: CONTEXT_FILE.to_owned(),
        checksum: None,
    }
}

fn folder(written: &str) -> Result<PathBuf, Failure> {
    let path = PathBuf::from(written);
    if path.is_dir() {
        return Ok(path);
    }
    let why = if path.exists() {
        "it is not a folder"
    } else {
        "there is no such folder"
    };
    Err(Failure::user(anyhow::anyhow!(
        "build context `{written}` cannot be read: {why}"
    )))
}

/// Returns what `--build-context NAME=VALUE` says.
pub(crate) fn named_contexts(
    written: &[(String, String)],
    keep_git_dir: bool,
) -> Result<NamedContexts, Failure> {
    let mut contexts = NamedContexts::default();
    for (name, value) in written {
        let context = if let Some(image) = value.strip_prefix("docker-image://") {
            NamedContext::Image(image.to_owned())
        } else if let Some(layout) = value.strip_prefix("oci-layout://") {
            let (reference, image) = layout_image(name, layout)?;
            contexts.layouts.insert(reference.clone(), image);
            NamedContext::Image(reference)
        } else {
            let place = named_place(name, value, keep_git_dir)?;
            // The main context keeps its name.
            let in_graph = match name == CONTEXT {
                true => NAMED_CONTEXT,
                false => name,
            };
            contexts.places.retain(|(known, _)| known != in_graph);
            contexts.places.push((in_graph.to_owned(), place));
            NamedContext::Local
        };
        contexts.named.insert(name.clone(), context);
    }
    Ok(contexts)
}

fn named_place(name: &str, value: &str, keep_git_dir: bool) -> Result<ContextPlace, Failure> {
    if let Some(place) = remote_context(value, keep_git_dir)? {
        return Ok(place);
    }
    if value.contains("://") || value.starts_with("target:") {
        let value = redacted(value);
        let message = format!("--build-context {name}={value}: kiln cannot use this");
        let hint = "give a folder, a Git repository, http(s)://, docker-image:// or oci-layout://";
        return Err(Failure::usage(message).with_hint(hint));
    }
    let dir = folder(value)?;
    let ignore = read_ignore(&dir, None)?;
    Ok(ContextPlace::Folder(dir, ignore))
}

/// Reads `PATH[:TAG][@DIGEST]`; returns how the image is called, too.
fn layout_image(name: &str, written: &str) -> Result<(String, LayoutImage), Failure> {
    let option = || format!("--build-context {name}=oci-layout://{written}");
    let (path, digest) = match written.split_once('@') {
        Some((path, digest)) => (path, Some(digest)),
        None => (written, None),
    };
    let (path, tag) = path.split_once(':').unwrap_or((path, "latest"));
    let digest: Option<Digest> = digest
        .map(str::parse)
        .transpose()
        .map_err(|error| Failure::usage(format!("{}: {error}", option())))?;
    let dir = Path::new(path)
        .canonicalize()
        .with_context(|| format!("{}: `{path}` cannot be read", option()))
        .map_err(Failure::user)?;
    if dir.to_str().is_none() {
        let message = format!("{}: the name of the folder is not UTF-8", option());
        return Err(Failure::usage(message));
    }
    let layout = OciLayout::new(&dir);
    let descriptor = layout
        .find(tag, digest)
        .map_err(|error| Failure::user(anyhow::Error::new(error).context(option())))?;
    let reference = format!("{}@{}", layout.name(), descriptor.digest);
    Ok((reference, LayoutImage { layout, descriptor }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_win_over_addresses_for_the_main_context() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        assert!(matches!(
            main_context(path, false),
            Ok(ContextPlace::Folder(..))
        ));
        assert!(matches!(main_context("-", false), Ok(ContextPlace::Stdin)));
        for (text, kept) in [
            ("https://h/x.git#a:b", false),
            ("git@h:x", false),
            ("github.com/a/b", true),
            ("https://h/x.git?keep-git-dir=0", true),
        ] {
            let place = main_context(text, kept).unwrap();
            let ContextPlace::Git(source) = place else {
                panic!("{text}")
            };
            assert_eq!(source.keep_git_dir, kept, "{text}");
        }
        assert!(matches!(
            main_context("http://h/x.tar", false),
            Ok(ContextPlace::Http(_))
        ));
        let error = main_context("/nowhere/at/all", false).unwrap_err().render();
        assert!(error.contains("there is no such folder"), "{error}");
        let error = main_context("https://h/x.git?y=1", false)
            .unwrap_err()
            .render();
        assert!(error.contains("unexpected query `y`"), "{error}");
    }

    #[test]
    fn named_contexts_have_many_forms() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap().to_owned();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let written = [
            pair("f", &path),
            pair("g", "https://h/x.git"),
            pair("w", "https://h/x"),
            pair("i", "docker-image://busybox"),
            pair("context", &path),
        ];
        let contexts = named_contexts(&written, false).unwrap();
        let names: Vec<&str> = contexts
            .places
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(names, ["f", "g", "w", NAMED_CONTEXT]);
        assert_eq!(
            contexts.named["i"],
            NamedContext::Image("busybox".to_owned())
        );
        for bad in [
            "target:x",
            "ftp://h/x",
            "/nowhere/at/all",
            "oci-layout:///nowhere",
        ] {
            assert!(named_contexts(&[pair("n", bad)], false).is_err(), "{bad}");
        }
    }
}
