//! Writing a plan: the one place where a COPY touches the disk.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use kiln_cache::{Content, Context, DirWriter, Kind, Layer, Node, Staging, StoreError, Tree};

use crate::error::WorkerError;
use crate::plan::{Bytes, Planned};

/// A tree that files are copied from, and where their bytes are.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) tree: Tree,
    pub(crate) bytes: SourceBytes,
}

/// Where the bytes of a tree are.
#[derive(Debug, Clone)]
pub(crate) enum SourceBytes {
    /// In a folder of this machine, which may change under our hands.
    Context(Arc<Context>),
    /// In unpacked layers, which never change; none where only names are asked for.
    Layers(Arc<[Layer]>),
}

impl Source {
    /// Opens a file of the tree.
    pub(crate) fn open(&self, node: Node<'_>) -> io::Result<File> {
        let file = self.tree.file_of(node);
        self.open_at(file.layer, &file.entry.path)
    }

    fn open_at(&self, layer: usize, path: &[u8]) -> io::Result<File> {
        match &self.bytes {
            SourceBytes::Context(context) => context.open_file(path),
            SourceBytes::Layers(layers) => layers[layer].open(path),
        }
    }
}

/// Writes all planned entries into a staged layer.
pub(crate) fn write_plan(
    staging: &Staging,
    planned: &[Planned],
    sources: &[Source],
) -> Result<(), WorkerError> {
    let dir = staging.fs_dir();
    let failed = |what, path: &[u8]| {
        let path = dir.join(String::from_utf8_lossy(path).as_ref());
        move |source| WorkerError::Io { what, path, source }
    };
    let mut writer = DirWriter::new(&dir).map_err(failed("open", b""))?;
    for planned in planned {
        let path = &planned.entry.path;
        let written = write_one(&mut writer, planned, sources).map_err(failed("write", path))?;
        let Some((size, digest)) = written else {
            continue;
        };
        if planned.entry.kind != (Kind::File { size, digest }) {
            let path = path_of(planned, sources);
            return Err(WorkerError::Context(StoreError::Changed { path }));
        }
    }
    writer.finish().map_err(failed("write", b""))
}

fn write_one(
    writer: &mut DirWriter,
    planned: &Planned,
    sources: &[Source],
) -> io::Result<Option<(u64, kiln_graph::Digest)>> {
    let entry = &planned.entry;
    match &planned.bytes {
        Bytes::None => writer.put(entry, Content::None),
        Bytes::Inline(text) => writer.put(entry, Content::Stream(&mut text.as_bytes())),
        Bytes::Spooled(path) => writer.put(entry, Content::Move(path)),
        Bytes::Source {
            source,
            layer,
            path,
        } => {
            let source = &sources[*source];
            if matches!(entry.kind, Kind::File { size: 0, .. }) {
                // There is nothing to read, and in a context it may be a socket.
                return writer.put(entry, Content::Stream(&mut io::empty()));
            }
            let mut file = source.open_at(*layer, path)?;
            match &source.bytes {
                // What is written is hashed: the file may have changed since it was selected.
                SourceBytes::Context(_) => {
                    let stream: &mut dyn Read = &mut file;
                    writer.put(entry, Content::Stream(stream))
                }
                SourceBytes::Layers(_) => writer.put(entry, Content::Clone(&file)),
            }
        }
    }
}

fn path_of(planned: &Planned, sources: &[Source]) -> std::path::PathBuf {
    let name = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    match &planned.bytes {
        Bytes::Source { source, path, .. } => match &sources[*source].bytes {
            SourceBytes::Context(context) => context.dir().join(name(path)),
            SourceBytes::Layers(_) => name(path).into(),
        },
        _ => name(&planned.entry.path).into(),
    }
}
