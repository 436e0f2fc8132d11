//! What `--to` and `--from` of a cache mount say: `type=tar,dest=FILE`, or a path.

use std::path::PathBuf;

use kiln_registry::{ParseReferenceError, Reference};

use crate::csv;

/// Where a cache mount goes or comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountPlace {
    /// A folder.
    Dir(PathBuf),
    /// A tar archive; `-` is standard output or input.
    Tar(PathBuf),
    /// A registry.
    Registry(Reference),
}

/// Says why a text is no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// It is not a list of fields.
    #[error(
        "`{0}` is neither a path nor type=local,dest=DIR, type=tar,dest=FILE or \
         type=registry,ref=NAME"
    )]
    Form(String),
    /// The type is not known.
    #[error("type `{0}` is not known; known are: local, registry, tar")]
    Type(String),
    /// The type does not have this field.
    #[error("type `{kind}` has no option `{key}`; it has `{known}`")]
    Key {
        /// The type.
        kind: String,
        /// The field.
        key: String,
        /// What it has.
        known: &'static str,
    },
    /// The field that says where is missing.
    #[error("type `{kind}` needs `{known}=`")]
    Missing {
        /// The type.
        kind: String,
        /// The field.
        known: &'static str,
    },
    /// The name is no reference.
    #[error("`{name}` is no name in a registry")]
    Name {
        /// The name.
        name: String,
        /// Why not.
        source: ParseReferenceError,
    },
}

impl MountPlace {
    /// Parses the value of `--to` or `--from`.
    pub fn parse(text: &str) -> Result<Self, PlaceError> {
        let form = || PlaceError::Form(text.to_owned());
        let fields = csv::fields(text).ok_or_else(form)?;
        let pairs: Vec<(&str, &str)> = fields
            .iter()
            .filter_map(|field| field.split_once('='))
            .collect();
        let Some((_, kind)) = pairs.iter().rev().find(|(key, _)| *key == "type") else {
            let is_option = |(key, _): &(&str, &str)| ["dest", "src", "ref"].contains(key);
            if text.is_empty() || pairs.iter().any(is_option) {
                return Err(form());
            }
            let is_tar = text == "-" || text.ends_with(".tar");
            let place = if is_tar { Self::Tar } else { Self::Dir };
            return Ok(place(PathBuf::from(text)));
        };
        if pairs.len() != fields.len() {
            return Err(form());
        }
        let known = match *kind {
            "local" | "tar" => "dest",
            "registry" => "ref",
            other => return Err(PlaceError::Type(other.to_owned())),
        };
        let (mut value, kind) = ("", *kind);
        for (key, given) in pairs.iter().filter(|(key, _)| *key != "type") {
            if *key != known && !(known == "dest" && *key == "src") {
                let (kind, key) = (kind.to_owned(), (*key).to_owned());
                return Err(PlaceError::Key { kind, key, known });
            }
            value = given;
        }
        match (kind, value) {
            (kind, "") => Err(PlaceError::Missing {
                kind: kind.to_owned(),
                known,
            }),
            ("local", path) => Ok(Self::Dir(path.into())),
            ("tar", path) => Ok(Self::Tar(path.into())),
            (_, name) => Self::registry(name),
        }
    }

    fn registry(name: &str) -> Result<Self, PlaceError> {
        let failed = |source| PlaceError::Name {
            name: name.to_owned(),
            source,
        };
        let reference: Reference = name.parse().map_err(failed)?;
        if reference.tag().is_some() || reference.digest().is_some() {
            return Ok(Self::Registry(reference));
        }
        Ok(Self::Registry(
            reference.with_tag("latest").map_err(failed)?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_docker_reads_outputs() {
        let dir = |path: &str| Ok(MountPlace::Dir(path.into()));
        let tar = |path: &str| Ok(MountPlace::Tar(path.into()));
        for (text, expected) in [
            ("out", dir("out")),
            ("a=b/c", dir("a=b/c")),
            ("out/x.tar", tar("out/x.tar")),
            ("-", tar("-")),
            ("type=local,dest=x.tar", dir("x.tar")),
            ("type=tar,dest=-", tar("-")),
            ("type=tar,src=a", tar("a")),
            ("\"type=local\",\"dest=a,b\"", dir("a,b")),
        ] {
            assert_eq!(MountPlace::parse(text), expected, "{text}");
        }
        let place = MountPlace::parse("type=registry,ref=h:5000/a/b").unwrap();
        assert_eq!(
            place,
            MountPlace::Registry("h:5000/a/b:latest".parse().unwrap())
        );
    }

    #[test]
    fn mistakes_are_told() {
        for (text, expected) in [
            ("", "neither"),
            ("dest=x", "neither"),
            ("type=tar,x", "neither"),
            ("type=oci,dest=x", "known are: local"),
            ("type=local", "needs `dest=`"),
            ("type=registry,dest=x", "it has `ref`"),
            ("type=registry,ref=A B", "no name in a registry"),
        ] {
            let error = MountPlace::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
