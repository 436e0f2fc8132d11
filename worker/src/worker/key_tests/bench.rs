//! A vertex with its inputs, and what its key is.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;

use kiln_cache::{Entry, FileList, Kind, Store};
use kiln_graph::{
    CacheMount, Copy, CopySource, Digest, Encoder, Exec, Graph, InlineFile, MakeDir, Meta, Mount,
    MountKind, Network, NewFolder, Op, Record, SecretMount, Security, Sharing, SshMount, Vertex,
};
use kiln_registry::{Client, Config};
use kiln_runtime::{Privilege, PrivilegeKind};
use kiln_solver::{Reporter, Worker as _};

use crate::credentials::Credentials;
use crate::images::Images;
use crate::reuse::Reuse;
use crate::snapshot::{Snapshot, Value};
use crate::sources::{GitSettings, Sources};
use crate::step::{LazySandbox, StepSettings};
use crate::worker::{LocalWorker, Parts, domain_of};

/// What a key is made of: an op, the snapshot that it works on, and another one that it reads.
pub(super) struct Bench {
    pub(super) op: Op,
    pub(super) base: Vec<Entry>,
    pub(super) files: Vec<Entry>,
    pub(super) settings: StepSettings,
}

/// Makes keys.
pub(super) struct Keys {
    store: Store,
    runtime: tokio::runtime::Runtime,
    /// Holds the store.
    _dir: tempfile::TempDir,
}

pub(super) fn file(path: &str, content: &str) -> Entry {
    let kind = Kind::File {
        size: content.len() as u64,
        digest: Digest::blake3(content),
    };
    Entry::root_owned(path.as_bytes(), kind, 0o644)
}

fn link(path: &str, target: &str) -> Entry {
    let target = target.as_bytes().to_vec();
    Entry::root_owned(path.as_bytes(), Kind::Symlink { target }, 0o777)
}

fn hard_link(path: &str, target: &str) -> Entry {
    let target = target.as_bytes().to_vec();
    Entry::root_owned(path.as_bytes(), Kind::Hardlink { target }, 0o644)
}

fn mount(target: Option<&str>, kind: MountKind) -> Mount {
    Mount {
        target: target.map(str::to_owned),
        kind,
    }
}

fn mounts() -> Vec<Mount> {
    let bind = MountKind::Bind {
        input: 1,
        source: "/d".to_owned(),
        writable: false,
    };
    let cache = MountKind::Cache(CacheMount {
        id: "i".to_owned(),
        sharing: Sharing::Shared,
        input: None,
        source: "s".to_owned(),
        read_only: false,
        new: Some(NewFolder {
            mode: 0o755,
            uid: 1,
            gid: 2,
        }),
    });
    let tmpfs = MountKind::Tmpfs {
        size: Some(10),
        read_only: false,
    };
    let secret = MountKind::Secret(SecretMount {
        id: "s".to_owned(),
        env: Some("S".to_owned()),
        required: false,
        mode: 0o400,
        uid: 1,
        gid: 2,
    });
    let ssh = MountKind::Ssh(SshMount {
        id: "a".to_owned(),
        required: false,
        mode: 0o600,
        uid: 1,
        gid: 2,
    });
    vec![
        mount(Some("/b"), bind),
        mount(Some("/c"), cache),
        mount(Some("/t"), tmpfs),
        mount(Some("/s"), secret),
        mount(Some("/a"), ssh),
    ]
}

impl Bench {
    fn of(op: Op) -> Self {
        let mut files = vec![
            Entry::dir(b"d"),
            file("d/copy", "a"),
            file("d/file", "a"),
            hard_link("d/hard", "d/file"),
            link("d/link", "file"),
            file("d/no", "a"),
            Entry::dir(b"d/sub"),
            file("other", "a"),
            link("way", "d"),
        ];
        files[2].xattrs = vec![(b"user.a".to_vec(), b"1".to_vec())];
        let settings = StepSettings {
            hostname: "h".to_owned(),
            extra_hosts: vec![("peer".to_owned(), "10.0.0.1".to_owned())],
            shm_size: Some(1),
            credentials: Credentials::default(),
        };
        Self {
            op,
            base: vec![Entry::dir(b"b"), file("b/file", "b")],
            files,
            settings,
        }
    }

    pub(super) fn exec() -> Self {
        Self::of(Op::Exec(Exec {
            args: ["sh", "-c", "make"].map(str::to_owned).to_vec(),
            env: vec![
                ("A".to_owned(), "1".to_owned()),
                ("TOKEN".to_owned(), "x".to_owned()),
            ],
            unkeyed_env: vec![("http_proxy".to_owned(), "p".to_owned())],
            cwd: "/w".to_owned(),
            user: "u".to_owned(),
            network: Network::Default,
            files: vec![InlineFile {
                path: "/f".to_owned(),
                mode: 0o644,
                content: "c".to_owned(),
            }],
            mounts: mounts(),
            security: Security::Sandbox,
        }))
    }

    pub(super) fn copy() -> Self {
        Self::of(Op::Copy(Copy {
            sources: vec![
                CopySource::Path {
                    input: 1,
                    path: "/d".to_owned(),
                    unpack: false,
                },
                CopySource::Inline(InlineFile {
                    path: "i".to_owned(),
                    mode: 0o644,
                    content: "c".to_owned(),
                }),
            ],
            destination: "/x/".to_owned(),
            owner: None,
            mode: None,
            link: false,
            parents: false,
            exclude: vec!["no".to_owned()],
        }))
    }

    pub(super) fn make_dir() -> Self {
        Self::of(Op::MakeDir(MakeDir {
            path: "/m".to_owned(),
            mode: 0o755,
            user: "u".to_owned(),
        }))
    }

    pub(super) fn exec_op(&mut self) -> &mut Exec {
        match &mut self.op {
            Op::Exec(op) => op,
            op => panic!("{op:?}"),
        }
    }

    pub(super) fn copy_op(&mut self) -> &mut Copy {
        match &mut self.op {
            Op::Copy(op) => op,
            op => panic!("{op:?}"),
        }
    }

    pub(super) fn make_dir_op(&mut self) -> &mut MakeDir {
        match &mut self.op {
            Op::MakeDir(op) => op,
            op => panic!("{op:?}"),
        }
    }

    pub(super) fn mount(&mut self, at: usize) -> &mut MountKind {
        &mut self.exec_op().mounts[at].kind
    }

    /// Returns a file that is read.
    pub(super) fn file(&mut self, path: &str) -> &mut Entry {
        let mut files = self.files.iter_mut();
        files.find(|entry| entry.path == path.as_bytes()).unwrap()
    }
}

/// Returns the path of the first source.
pub(super) fn first_path(op: &mut Copy) -> &mut String {
    match &mut op.sources[0] {
        CopySource::Path { path, .. } => path,
        CopySource::Inline(file) => panic!("{file:?}"),
    }
}

impl Keys {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            store: Store::open(dir.path()).unwrap(),
            runtime: tokio::runtime::Runtime::new().unwrap(),
            _dir: dir,
        }
    }

    /// Returns the key of a bench's vertex, and what it is made of.
    pub(super) fn of(&self, bench: &Bench) -> (Digest, Record) {
        let inputs = [&bench.base, &bench.files].map(|entries| {
            let layer = layer(&self.store, entries);
            Some(Value::Snapshot(Snapshot::default().with_layer(layer, 0)))
        });
        let mut graph = Graph::new();
        let id = graph.add(bench.op.clone(), Vec::new(), Meta::default());
        let vertex = graph.vertex(id).clone();
        let _entered = self.runtime.enter();
        let worker = worker(self.store.clone(), &graph, bench.settings.clone());
        self.runtime.block_on(key(&worker, &vertex, &inputs))
    }
}

async fn key(worker: &LocalWorker, vertex: &Vertex, inputs: &[Option<Value>]) -> (Digest, Record) {
    let task = Reporter::silent().task("key", None);
    let key = worker.key(vertex, inputs, &task).await.unwrap().unwrap();
    let encoder = Encoder::recording(domain_of(&vertex.op).unwrap());
    let encoder = worker.encode(encoder, vertex, inputs, &task).await;
    let (recorded, record) = encoder.unwrap().finish_with_record();
    assert_eq!(recorded, key);
    (key, record)
}

/// Puts a layer of a list into the store; nobody reads its files.
fn layer(store: &Store, entries: &[Entry]) -> Digest {
    let mut entries = entries.to_vec();
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    let list = Arc::new(FileList::new(entries));
    let id = list.content_id();
    let staging = store.stage_layer().unwrap();
    fs::create_dir(staging.fs_dir().join("d")).unwrap();
    staging.commit(&id, &list).unwrap();
    id
}

fn worker(store: Store, graph: &Graph, settings: StepSettings) -> LocalWorker {
    let client = Client::new(Config::default()).unwrap();
    let privilege = Privilege {
        kind: PrivilegeKind::SingleId,
        warnings: Vec::new(),
    };
    let sandbox = LazySandbox::new(&store.root().join("sandbox"), &privilege);
    let parts = Parts {
        images: Images::new(store.clone(), client.clone()),
        sources: Sources::new(store.clone(), client, GitSettings::default()),
        store,
        sandbox: Arc::new(sandbox),
        settings,
        resolved: HashMap::new(),
        contexts: HashMap::new(),
        reuse: Reuse::default(),
        caches: Vec::new(),
    };
    LocalWorker::new(parts, graph)
}
