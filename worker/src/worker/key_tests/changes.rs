//! What changes a key: for every field one change, of one byte where it has bytes.

use kiln_cache::{Entry, Kind};
use kiln_graph::{CopySource, Mode, MountKind, Network, NewFolder, Principal, Security};

use super::bench::{Bench, file, first_path};
use super::{Change, owner};

pub(super) const EXEC: &[Change] = &[
    ("argument", |b| b.exec_op().args[2] = "mak3".to_owned()),
    ("division of arguments", |b| {
        b.exec_op().args[1..].swap(0, 1);
    }),
    ("number of arguments", |b| {
        b.exec_op().args.push(String::new());
    }),
    ("name of a variable", |b| {
        b.exec_op().env[0].0 = "B".to_owned();
    }),
    ("value of a variable", |b| {
        b.exec_op().env[0].1 = "2".to_owned();
    }),
    ("value of a secret variable", |b| {
        b.exec_op().env[1].1 = "y".to_owned();
    }),
    ("order of variables", |b| b.exec_op().env.swap(0, 1)),
    ("number of variables", |b| b.exec_op().env.truncate(1)),
    ("working directory", |b| b.exec_op().cwd.push('x')),
    ("user", |b| b.exec_op().user.push('x')),
    ("network", |b| b.exec_op().network = Network::None),
    ("network of the host", |b| {
        b.exec_op().network = Network::Host;
    }),
    ("path of a file", |b| b.exec_op().files[0].path.push('x')),
    ("mode of a file", |b| b.exec_op().files[0].mode = 0o645),
    ("content of a file", |b| {
        b.exec_op().files[0].content.push('x');
    }),
    ("number of files", |b| b.exec_op().files.clear()),
    ("security", |b| b.exec_op().security = Security::Insecure),
    ("number of mounts", |b| b.exec_op().mounts.truncate(4)),
    ("order of mounts", |b| b.exec_op().mounts.swap(3, 4)),
    ("target of a bind mount", |b| target(b, 0)),
    ("target of a cache mount", |b| target(b, 1)),
    ("target of a tmpfs", |b| target(b, 2)),
    ("target of a secret", |b| target(b, 3)),
    ("target of an agent", |b| target(b, 4)),
    ("usual target of an agent", |b| {
        b.exec_op().mounts[4].target = None;
    }),
    ("source of a bind mount", |b| {
        if let MountKind::Bind { source, .. } = b.mount(0) {
            *source = "/d/sub".to_owned();
        }
    }),
    ("whole snapshot of a bind mount", |b| {
        if let MountKind::Bind { source, .. } = b.mount(0) {
            *source = "/".to_owned();
        }
    }),
    ("writable bind mount", |b| {
        if let MountKind::Bind { writable, .. } = b.mount(0) {
            *writable = true;
        }
    }),
    ("source of a cache mount", |b| {
        cache(b, |cache| cache.source.push('x'));
    }),
    ("read-only cache mount", |b| {
        cache(b, |cache| cache.read_only = true);
    }),
    ("beginning of a cache mount", |b| {
        cache(b, |cache| cache.input = Some(1));
    }),
    ("no new folder of a cache mount", |b| {
        cache(b, |cache| cache.new = None);
    }),
    ("mode of a cache mount", |b| {
        folder(b, |new| new.mode = 0o754);
    }),
    ("user of a cache mount", |b| folder(b, |new| new.uid = 3)),
    ("group of a cache mount", |b| folder(b, |new| new.gid = 3)),
    ("size of a tmpfs", |b| *b.mount(2) = tmpfs(Some(11), false)),
    ("no size of a tmpfs", |b| *b.mount(2) = tmpfs(None, false)),
    ("read-only tmpfs", |b| *b.mount(2) = tmpfs(Some(10), true)),
    ("id of a secret", |b| {
        secret(b, |secret| secret.id.push('x'));
    }),
    ("variable of a secret", |b| {
        secret(b, |secret| secret.env = Some("T".to_owned()));
    }),
    ("no variable of a secret", |b| {
        secret(b, |secret| secret.env = None);
    }),
    ("required secret", |b| {
        secret(b, |secret| secret.required = true);
    }),
    ("mode of a secret", |b| {
        secret(b, |secret| secret.mode = 0o401);
    }),
    ("user of a secret", |b| secret(b, |secret| secret.uid = 3)),
    ("group of a secret", |b| secret(b, |secret| secret.gid = 3)),
    ("id of an agent", |b| ssh(b, |ssh| ssh.id.push('x'))),
    ("required agent", |b| ssh(b, |ssh| ssh.required = true)),
    ("mode of an agent", |b| ssh(b, |ssh| ssh.mode = 0o601)),
    ("user of an agent", |b| ssh(b, |ssh| ssh.uid = 3)),
    ("group of an agent", |b| ssh(b, |ssh| ssh.gid = 3)),
];

pub(super) const SETTINGS: &[Change] = &[
    ("host name", |b| b.settings.hostname.push('x')),
    ("name of another host", |b| {
        b.settings.extra_hosts[0].0.push('x');
    }),
    ("number of other hosts", |b| b.settings.extra_hosts.clear()),
    ("size of /dev/shm", |b| b.settings.shm_size = Some(2)),
    ("usual size of /dev/shm", |b| b.settings.shm_size = None),
];

/// Changes of files that a copy selects and a step mounts.
pub(super) const FILES: &[Change] = &[
    ("content", |b| b.file("d/file").kind = file("", "b").kind),
    ("mode", |b| b.file("d/file").mode = 0o645),
    ("set-user-id bit", |b| b.file("d/file").mode = 0o4644),
    ("name", |b| b.file("d/copy").path = b"d/cop1".to_vec()),
    ("user", |b| b.file("d/file").uid = 1),
    ("group", |b| b.file("d/file").gid = 1),
    ("value of an attribute", |b| {
        b.file("d/file").xattrs[0].1 = b"2".to_vec();
    }),
    ("name of an attribute", |b| {
        b.file("d/file").xattrs[0].0 = b"user.b".to_vec();
    }),
    ("number of attributes", |b| b.file("d/file").xattrs.clear()),
    ("target of a link", |b| {
        let target = b"fil2".to_vec();
        b.file("d/link").kind = Kind::Symlink { target };
    }),
    ("user of a link", |b| b.file("d/link").uid = 1),
    ("copy in the place of a hard link", |b| {
        let (kind, xattrs) = (
            b.file("d/file").kind.clone(),
            b.file("d/file").xattrs.clone(),
        );
        (b.file("d/hard").kind, b.file("d/hard").xattrs) = (kind, xattrs);
    }),
    ("file that a hard link is", |b| {
        let target = b"d/copy".to_vec();
        b.file("d/hard").kind = Kind::Hardlink { target };
    }),
    ("mode of a folder", |b| b.file("d/sub").mode = 0o754),
    ("file in the place of a folder", |b| {
        b.file("d/sub").kind = file("", "").kind;
    }),
    ("pipe in the place of a file", |b| {
        b.file("d/copy").kind = Kind::Fifo;
    }),
    ("new file", |b| b.files.push(file("d/sub/new", ""))),
    ("new folder", |b| b.files.push(Entry::dir(b"d/sub/new"))),
    ("lost file", |b| {
        b.files.retain(|entry| entry.path != b"d/copy");
    }),
];

/// Changes of the snapshot that a vertex works on.
pub(super) const BASE: &[Change] = &[
    ("content of the base", |b| b.base[1] = file("b/file", "c")),
    ("mode of the base", |b| b.base[1].mode = 0o645),
    ("empty base", |b| b.base.clear()),
];

pub(super) const COPY: &[Change] = &[
    ("path", |b| *first_path(b.copy_op()) = "/way".to_owned()),
    ("slash after a path", |b| first_path(b.copy_op()).push('/')),
    ("wildcard", |b| *first_path(b.copy_op()) = "/d*".to_owned()),
    ("unpacking", |b| {
        if let CopySource::Path { unpack, .. } = &mut b.copy_op().sources[0] {
            *unpack = true;
        }
    }),
    ("path of an inline file", |b| {
        inline(b, |file| file.path.push('x'));
    }),
    ("mode of an inline file", |b| {
        inline(b, |file| file.mode = 0o645);
    }),
    ("content of an inline file", |b| {
        inline(b, |file| file.content.push('x'));
    }),
    ("order of sources", |b| b.copy_op().sources.swap(0, 1)),
    ("number of sources", |b| b.copy_op().sources.truncate(1)),
    ("destination", |b| {
        b.copy_op().destination = "/y/".to_owned();
    }),
    ("slash after the destination", |b| {
        b.copy_op().destination = "/x".to_owned();
    }),
    ("owner", |b| {
        b.copy_op().owner = Some(owner(Principal::Id(0), None));
    }),
    ("number of an owner", |b| {
        b.copy_op().owner = Some(owner(Principal::Id(1), None));
    }),
    ("name of an owner", |b| {
        b.copy_op().owner = Some(owner(name("1"), None));
    }),
    ("group", |b| {
        b.copy_op().owner = Some(owner(Principal::Id(0), Some(Principal::Id(0))));
    }),
    ("name of a group", |b| {
        b.copy_op().owner = Some(owner(Principal::Id(0), Some(name("0"))));
    }),
    ("mode", |b| b.copy_op().mode = Some(Mode::Bits(0o644))),
    ("bits of a mode", |b| {
        b.copy_op().mode = Some(Mode::Bits(0o645));
    }),
    ("change of a mode", |b| {
        b.copy_op().mode = Some(Mode::Change("u+x".parse().unwrap()));
    }),
    ("other change of a mode", |b| {
        b.copy_op().mode = Some(Mode::Change("u-x".parse().unwrap()));
    }),
    ("link", |b| b.copy_op().link = true),
    ("parents", |b| b.copy_op().parents = true),
    ("excluded path", |b| {
        b.copy_op().exclude[0] = "nO".to_owned();
    }),
    ("number of excluded paths", |b| b.copy_op().exclude.clear()),
];

pub(super) const MAKE_DIR: &[Change] = &[
    ("path", |b| b.make_dir_op().path.push('x')),
    ("mode", |b| b.make_dir_op().mode = 0o754),
    ("user", |b| b.make_dir_op().user.push('x')),
];

fn name(name: &str) -> Principal {
    Principal::Name(name.to_owned())
}

fn target(bench: &mut Bench, at: usize) {
    bench.exec_op().mounts[at].target = Some("/z".to_owned());
}

fn tmpfs(size: Option<u64>, read_only: bool) -> MountKind {
    MountKind::Tmpfs { size, read_only }
}

fn cache(bench: &mut Bench, change: impl FnOnce(&mut kiln_graph::CacheMount)) {
    match bench.mount(1) {
        MountKind::Cache(cache) => change(cache),
        other => panic!("{other:?}"),
    }
}

fn folder(bench: &mut Bench, change: impl FnOnce(&mut NewFolder)) {
    cache(bench, |cache| change(cache.new.as_mut().unwrap()));
}

fn secret(bench: &mut Bench, change: impl FnOnce(&mut kiln_graph::SecretMount)) {
    match bench.mount(3) {
        MountKind::Secret(secret) => change(secret),
        other => panic!("{other:?}"),
    }
}

fn ssh(bench: &mut Bench, change: impl FnOnce(&mut kiln_graph::SshMount)) {
    match bench.mount(4) {
        MountKind::Ssh(ssh) => change(ssh),
        other => panic!("{other:?}"),
    }
}

fn inline(bench: &mut Bench, change: impl FnOnce(&mut kiln_graph::InlineFile)) {
    match &mut bench.copy_op().sources[1] {
        CopySource::Inline(file) => change(file),
        other => panic!("{other:?}"),
    }
}
