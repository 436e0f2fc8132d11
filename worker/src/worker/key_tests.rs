//! Keys, field by field: what changes one, what must not, and what they are to the byte.

mod bench;
mod changes;
mod golden;

use kiln_cache::Mtime;
use kiln_graph::{Digest, Mode, MountKind, Owner, Principal, Sharing};

use self::bench::{Bench, Keys, first_path};
use crate::secrets::{SecretSource, SecretValue, Secrets};

/// What a change of a bench is, and the change.
type Change = (&'static str, fn(&mut Bench));

/// Why a change does not count, of which bench, and the change.
type NoChange = (&'static str, fn() -> Bench, fn(&mut Bench));

/// What may change without another key.
const UNCHANGED: &[NoChange] = &[
    (
        "each checkout gives files another time",
        Bench::copy,
        |bench| {
            bench.file("d/file").mtime = Mtime {
                seconds: 99,
                nanoseconds: 9,
            };
        },
    ),
    (
        "each checkout gives mounted files another time",
        Bench::exec,
        |bench| {
            bench.file("d/file").mtime = Mtime {
                seconds: 99,
                nanoseconds: 9,
            };
        },
    ),
    (
        "proxies belong to the machine, not to the step",
        Bench::exec,
        |bench| {
            bench.exec_op().unkeyed_env[0].1.push('x');
        },
    ),
    (
        "values of secrets must leave no trace, not even a hash",
        Bench::exec,
        |bench| {
            let value = SecretSource::Value(SecretValue::new(b"other".to_vec()));
            bench.settings.credentials.secrets = Secrets::new([("s".to_owned(), value)]);
        },
    ),
    (
        "a cache mount only makes the step quick",
        Bench::exec,
        |bench| {
            if let MountKind::Cache(cache) = bench.mount(1) {
                cache.id.push('x');
            }
        },
    ),
    (
        "who waits for whom does not decide what is made",
        Bench::exec,
        |bench| {
            if let MountKind::Cache(cache) = bench.mount(1) {
                cache.sharing = Sharing::Locked;
            }
        },
    ),
    (
        "where a host is differs from machine to machine",
        Bench::exec,
        |bench| {
            bench.settings.extra_hosts[0].1.push('9');
        },
    ),
    ("the bits are replaced", with_mode, |bench| {
        bench.file("d/file").mode = 0o600;
    }),
    ("the owner is replaced", with_owner, |bench| {
        bench.file("d/file").uid = 77;
    }),
    ("the group is replaced", with_owner, |bench| {
        bench.file("d/file").gid = 77;
    }),
    (
        "of a selected folder what it holds is copied",
        Bench::copy,
        |bench| {
            let folder = bench.file("d");
            (folder.mode, folder.uid, folder.gid) = (0o700, 7, 8);
            folder.xattrs = vec![(b"user.x".to_vec(), b"1".to_vec())];
        },
    ),
    ("it is not selected", Bench::copy, |bench| {
        bench.file("other").mode = 0o600;
    }),
    ("it is not mounted", Bench::exec, |bench| {
        bench.file("other").mode = 0o600;
    }),
    ("what is left out is not selected", Bench::copy, |bench| {
        bench.file("d/no").mode = 0o600;
    }),
    (
        "folders on the way to a file do not land",
        one_file,
        |bench| {
            *first_path(bench.copy_op()) = "/file".to_owned();
            let file = bench.file("d/file");
            file.path = b"file".to_vec();
        },
    ),
    (
        "a link to nowhere else is as good as what it leads to",
        one_file,
        |bench| {
            *first_path(bench.copy_op()) = "/way/file".to_owned();
        },
    ),
    (
        "a linked copy is made without a look at its destination",
        linked,
        |bench| {
            bench.base.pop();
        },
    ),
];

fn with_mode() -> Bench {
    let mut bench = Bench::copy();
    bench.copy_op().mode = Some(Mode::Bits(0o640));
    bench
}

fn with_owner() -> Bench {
    let mut bench = Bench::copy();
    bench.copy_op().owner = Some(owner(Principal::Id(7), Some(Principal::Id(8))));
    bench
}

fn one_file() -> Bench {
    let mut bench = Bench::copy();
    *first_path(bench.copy_op()) = "/d/file".to_owned();
    bench
}

fn linked() -> Bench {
    let mut bench = Bench::copy();
    bench.copy_op().link = true;
    bench
}

/// A linked copy whose owner is looked up in the destination.
fn linked_with_name() -> Bench {
    let mut bench = linked();
    bench.copy_op().owner = Some(owner(Principal::Name("u".to_owned()), None));
    bench
}

fn owner(user: Principal, group: Option<Principal>) -> Owner {
    Owner { user, group }
}

fn assert_changes(keys: &Keys, make: fn() -> Bench, changes: &[Change]) {
    let (plain, before) = keys.of(&make());
    let mut seen: Vec<(Digest, &str)> = vec![(plain, "nothing")];
    for (what, change) in changes {
        let mut bench = make();
        change(&mut bench);
        let (key, record) = keys.of(&bench);
        if let Some((_, other)) = seen.iter().find(|(known, _)| *known == key) {
            panic!("the key with another {what} is that with another {other}");
        }
        seen.push((key, what));
        let told = record.differences(&before);
        assert!(!told.is_empty(), "nothing is told of another {what}");
    }
}

#[test]
fn whatever_a_step_can_see_changes_its_key() {
    let keys = Keys::new();
    assert_changes(&keys, Bench::exec, changes::EXEC);
    assert_changes(&keys, Bench::exec, changes::SETTINGS);
    assert_changes(&keys, Bench::exec, changes::FILES);
    assert_changes(&keys, Bench::exec, changes::BASE);
}

#[test]
fn whatever_a_copy_makes_changes_its_key() {
    let keys = Keys::new();
    assert_changes(&keys, Bench::copy, changes::COPY);
    assert_changes(&keys, Bench::copy, changes::FILES);
    assert_changes(&keys, Bench::copy, changes::BASE);
    assert_changes(&keys, linked, changes::FILES);
    assert_changes(&keys, linked_with_name, changes::BASE);
}

#[test]
fn whatever_a_new_folder_is_changes_its_key() {
    let keys = Keys::new();
    assert_changes(&keys, Bench::make_dir, changes::MAKE_DIR);
    assert_changes(&keys, Bench::make_dir, changes::BASE);
}

#[test]
fn what_decides_nothing_does_not_change_a_key() {
    let keys = Keys::new();
    for (why, make, change) in UNCHANGED {
        let (before, mut bench) = (keys.of(&make()), make());
        change(&mut bench);
        let after = keys.of(&bench);
        let told = after.1.differences(&before.1);
        assert_eq!(after.0, before.0, "{why}: {told:?}");
    }
}

#[test]
fn keys_are_what_they_were() {
    let keys = Keys::new();
    let now: Vec<String> = golden::BENCHES
        .iter()
        .map(|(_, make)| keys.of(&make()).0.hex())
        .collect();
    let names = golden::BENCHES.iter().map(|(name, _)| *name);
    let now: Vec<_> = names.zip(now.iter().map(String::as_str)).collect();
    assert_eq!(
        now,
        golden::KEYS,
        "the encoding changed: raise VERSION in graph/src/encode.rs, then write these keys down"
    );
}
