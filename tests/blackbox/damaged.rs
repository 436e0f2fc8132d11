//! A store that lost something: what is gone is made again, never an error.

use std::fs;
use std::io;
use std::path::Path;

use crate::support::{Context, Lab};

const DOCKERFILE: &str = "ARG BASE
FROM $BASE AS make
COPY Dockerfile /copied
RUN echo one > /one
FROM $BASE
COPY --from=make /one /copied /x/
RUN cat /x/one > /two
";

/// Applies `damage` to every entry of a folder of the store.
fn each(dir: &Path, damage: impl Fn(&Path) -> io::Result<()>) {
    let entries: Vec<_> = fs::read_dir(dir).unwrap().collect();
    assert!(!entries.is_empty(), "nothing in {}", dir.display());
    for entry in entries {
        damage(&entry.unwrap().path()).unwrap();
    }
}

/// Builds, damages the store, and builds again: the same files must come out.
fn recovers_from(damage: impl Fn(&Path)) {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new(DOCKERFILE);
    lab.build(&context).tag("app:1").ok();
    let before = lab.tree(&context);
    damage(&lab.kiln.root());
    lab.build(&context).tag("app:1").ok();
    assert_eq!(lab.tree(&context).difference(&before), "");
}

/// As [`recovers_from`], with damage to every entry of one folder.
fn recovers_from_each(folder: &str, damage: impl Fn(&Path) -> io::Result<()>) {
    recovers_from(|root| each(&root.join(folder), &damage));
}

#[test]
fn lost_layers_are_made_again() {
    recovers_from_each("layers", |path| fs::remove_dir_all(path));
}

#[test]
fn lost_files_of_layers_are_made_again() {
    recovers_from_each("layers", |path| fs::remove_dir_all(path.join("fs")));
}

#[test]
fn empty_file_lists_are_made_again() {
    recovers_from_each("layers", |path| fs::write(path.join("list"), ""));
}

#[test]
fn lost_blobs_are_made_again() {
    recovers_from_each("blobs/sha256", |path| fs::remove_file(path));
}

#[test]
fn damaged_blobs_are_made_again() {
    recovers_from_each("blobs/sha256", |path| fs::write(path, "no"));
}

#[test]
fn damaged_stat_tables_are_made_again() {
    recovers_from_each("contexts", |path| fs::write(path, "no"));
}

#[test]
fn lost_database_is_made_again() {
    recovers_from(|root| {
        for name in ["kiln.db", "kiln.db-wal", "kiln.db-shm"] {
            fs::remove_file(root.join(name)).ok();
        }
    });
}

#[test]
fn lost_logs_are_no_loss() {
    recovers_from(|root| fs::remove_dir_all(root.join("logs")).unwrap());
}
