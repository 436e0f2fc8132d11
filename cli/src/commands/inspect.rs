//! `kiln inspect`: what an image of the local store is.

use std::fmt::Write as _;
use std::io::Write;

use kiln_cache::{Kind, Layer, Store, StoreError};
use kiln_graph::{Digest, Platform};
use serde_json::json;

use crate::args::InspectArgs;
use crate::image::merged_entries;
use crate::local::{self, LocalImage};
use crate::report::Failure;

/// Prints an image as JSON, or its files.
pub(crate) fn run(args: &InspectArgs, store: &Store, out: &mut impl Write) -> Result<(), Failure> {
    let platform = match &args.platform {
        None => Platform::host(),
        Some(text) => text
            .parse()
            .map_err(|e| Failure::usage(format!("--platform: {e}")))?,
    };
    let image = local::find(store, &args.name, &platform)?;
    let text = if args.files {
        files(store, &image)?
    } else {
        document(&image)
    };
    out.write_all(text.as_bytes()).map_err(Failure::user)
}

fn document(image: &LocalImage) -> String {
    let document = json!({
        "name": image.name.to_string(),
        "id": image.manifest.config.digest,
        "digest": image.descriptor.digest,
        "created": image.config.created,
        "os": image.config.os,
        "architecture": image.config.architecture,
        "config": image.config.config,
        "history": image.config.history,
        "layers": image.manifest.layers,
        "diff_ids": image.config.rootfs.diff_ids,
    });
    let mut text = serde_json::to_string_pretty(&document).expect("plain data");
    text.push('\n');
    text
}

/// One file a line: mode, owner, size, path.
fn files(store: &Store, image: &LocalImage) -> Result<String, Failure> {
    let diff_ids = image.config.rootfs.diff_ids.iter();
    let layers: Vec<Layer> = diff_ids
        .map(|id| layer(store, id))
        .collect::<Result<_, _>>()?;
    let mut text = String::new();
    for (entry, _) in merged_entries(&layers) {
        let (letter, size, target) = match &entry.kind {
            Kind::File { size, .. } => ('-', *size, None),
            Kind::Dir { .. } => ('d', 0, None),
            Kind::Symlink { target } => ('l', 0, Some((" -> ", target))),
            Kind::Hardlink { target } => ('h', 0, Some((" = /", target))),
            Kind::CharDevice { .. } => ('c', 0, None),
            Kind::BlockDevice { .. } => ('b', 0, None),
            Kind::Fifo | Kind::Whiteout => ('p', 0, None),
        };
        let path = String::from_utf8_lossy(&entry.path);
        let target = target.map(|(arrow, t)| format!("{arrow}{}", String::from_utf8_lossy(t)));
        let (owner, mode) = (format!("{}:{}", entry.uid, entry.gid), entry.mode);
        let target = target.unwrap_or_default();
        writeln!(
            text,
            "{letter}{mode:04o} {owner:>7} {size:>10} /{path}{target}"
        )
        .expect("writing to a String");
    }
    Ok(text)
}

fn layer(store: &Store, diff_id: &Digest) -> Result<Layer, Failure> {
    let found = (|| -> Result<Option<Layer>, StoreError> {
        if let Some(layer) = store.layer(diff_id)? {
            return Ok(Some(layer));
        }
        match store.layer_of_diff_id(diff_id)? {
            Some(id) => store.layer(&id),
            None => Ok(None),
        }
    })();
    found.map_err(Failure::user)?.ok_or_else(|| {
        let error = anyhow::anyhow!("the files of layer {diff_id} are not in the local store");
        Failure::user(error).with_hint("build an image from this one: its layers are fetched then")
    })
}
