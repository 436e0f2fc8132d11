//! `kiln cache mounts export` and `import`: between the store and a folder, archive or registry.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use kiln_cache::{CacheFolder, CacheSlot, Staging, Store};
use kiln_exporter::{
    Destination, ExportError, MountInfo, MountPlace, MountUnpacker, export_mount_dir,
    export_mount_tar, open_mount_dir, open_mount_tar,
};

use crate::commands::mounts::registry::{self, Registry};
use crate::commands::mounts::{Folder, choose, folders, in_use};
use crate::environment::Environment;
use crate::mount_args::{MountsExportArgs, MountsImportArgs};
use crate::progress::clean_line;
use crate::report::Failure;
use crate::size::human;

/// Copies a folder out of the store.
pub(super) fn export(
    args: &MountsExportArgs,
    store: &Store,
    env: &Environment,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let place = parse(&args.to)?;
    if matches!(&place, MountPlace::Registry(name) if name.digest().is_some()) {
        return Err(Failure::usage(
            "an export needs a name with a tag, without a digest",
        ));
    }
    let all = folders(store)?;
    let chosen = only_one(&choose(&all, &args.id)?)?.clone();
    let folder = store.read_cache_folder(&chosen.item);
    let folder = folder.map_err(Failure::user)?;
    let folder = folder.ok_or_else(|| in_use(&chosen.to_string()))?;
    let did = match &place {
        MountPlace::Dir(dir) => to_dir(&folder, dir)?,
        MountPlace::Tar(path) => to_tar(&folder, path)?,
        MountPlace::Registry(name) => {
            let registry = Registry::new(&args.registry, env)?;
            let sent = registry.push(store, folder, name)?;
            writeln!(out, "{}", sent.digest).map_err(Failure::user)?;
            sent.to_string()
        }
    };
    tell(&format!("exported cache mount {chosen}: {did}"))
}

/// Puts what was exported in the place of the folder of its name.
pub(super) fn import(
    args: &MountsImportArgs,
    store: &Store,
    env: &Environment,
) -> Result<(), Failure> {
    match parse(&args.from)? {
        MountPlace::Dir(dir) => {
            let info = open_mount_dir(&dir).map_err(Failure::user)?;
            replace(store, &info, |unpacker| unpacker.folder(&dir))
        }
        MountPlace::Tar(path) => {
            let (info, mut rest) = open_mount_tar(open(&path)?).map_err(Failure::user)?;
            replace(store, &info, |unpacker| unpacker.tar(&mut rest))
        }
        MountPlace::Registry(name) => {
            let registry = Registry::new(&args.registry, env)?;
            let found = registry.find(&name)?;
            let slot = slot(store, &found.info)?;
            let staging = store.stage_layer().map_err(Failure::user)?;
            let unpacker = MountUnpacker::new(&staging.fs_dir()).map_err(Failure::user)?;
            let unpacker = registry.pull(store, &found, unpacker)?;
            finish(&found.info, slot, &staging, unpacker)
        }
    }
}

fn parse(text: &str) -> Result<MountPlace, Failure> {
    MountPlace::parse(text).map_err(|error| Failure::new(crate::report::FailureKind::Usage, error))
}

fn only_one<'a>(chosen: &[&'a Folder]) -> Result<&'a Folder, Failure> {
    if let [one] = chosen {
        return Ok(one);
    }
    let names: Vec<String> = chosen.iter().map(|folder| folder.short_name()).collect();
    let id = clean_line(&chosen[0].item.note);
    let error = anyhow::anyhow!("`{id}` stands for {} folders", chosen.len());
    Err(Failure::user(error).with_hint(format!("name one of them: {}", names.join(", "))))
}

fn to_dir(folder: &CacheFolder, dir: &Path) -> Result<String, Failure> {
    let name = folder.name().map_err(Failure::user)?;
    let synced = export_mount_dir(&name, &folder.fs_dir(), dir).map_err(Failure::user)?;
    let bytes = human(synced.bytes_written);
    let (n_written, n_kept) = (synced.n_written, synced.n_kept);
    Ok(format!(
        "{n_written} files written ({bytes}), {n_kept} unchanged"
    ))
}

fn to_tar(folder: &CacheFolder, path: &Path) -> Result<String, Failure> {
    let name = folder.name().map_err(Failure::user)?;
    let mut stdout = io::stdout();
    let destination = match path.as_os_str() == "-" {
        true => Destination::Stream(&mut stdout),
        false => Destination::Path(path),
    };
    let exported = export_mount_tar(&name, &folder.fs_dir(), destination);
    Ok(format!("{} entries", exported.map_err(Failure::user)?))
}

fn open(path: &Path) -> Result<Box<dyn Read + Send>, Failure> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(io::stdin()));
    }
    let file = File::open(path).map_err(|error| {
        let context = format!("cannot read `{}`", path.display());
        Failure::user(anyhow::Error::new(error).context(context))
    })?;
    Ok(Box::new(file))
}

/// Fills a staged folder, and puts it in the place of the one of its name.
fn replace(
    store: &Store,
    info: &MountInfo,
    fill: impl FnOnce(&mut MountUnpacker) -> Result<(), ExportError>,
) -> Result<(), Failure> {
    let slot = slot(store, info)?;
    let staging = store.stage_layer().map_err(Failure::user)?;
    let mut unpacker = MountUnpacker::new(&staging.fs_dir()).map_err(Failure::user)?;
    fill(&mut unpacker).map_err(Failure::user)?;
    finish(info, slot, &staging, unpacker)
}

/// Takes the folder of this name, so that no build uses it meanwhile.
fn slot(store: &Store, info: &MountInfo) -> Result<CacheSlot, Failure> {
    match store
        .first_cache_folder(&info.name)
        .map_err(Failure::user)?
    {
        CacheSlot::Busy => Err(in_use(&format!("`{}`", id_of(info)))),
        slot => Ok(slot),
    }
}

fn finish(
    info: &MountInfo,
    slot: CacheSlot,
    staging: &Staging,
    unpacker: MountUnpacker,
) -> Result<(), Failure> {
    let n_entries = unpacker.finish(info).map_err(Failure::user)?;
    match slot {
        CacheSlot::Ready(folder) => folder.replace(staging),
        CacheSlot::Absent(place) => place.create(staging).map(drop),
        CacheSlot::Busy => return Err(in_use(&format!("`{}`", id_of(info)))),
    }
    .map_err(Failure::user)?;
    tell(&format!(
        "imported cache mount `{}`: {n_entries} entries",
        id_of(info)
    ))
}

fn id_of(info: &MountInfo) -> String {
    let id = &info.name.id;
    clean_line(id.strip_prefix('/').unwrap_or(id))
}

fn tell(text: &str) -> Result<(), Failure> {
    writeln!(io::stderr(), "{text}").map_err(Failure::user)
}

impl std::fmt::Display for registry::Sent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (n_sent, n_layers) = (self.n_sent, self.n_layers);
        let (sent, bytes) = (human(self.bytes_sent), human(self.bytes));
        write!(f, "{n_sent} of {n_layers} layers sent, {sent} of {bytes}")
    }
}
