//! `kiln du`: what the store has on disk, by kind and by image.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::io::Write;

use kiln_cache::{Inventory, Item, NamedImage, Store, StoreError};
use kiln_solver::age;
use serde::Serialize;

use crate::args::{DuArgs, TextOrJson};
use crate::commands::why::now;
use crate::filters::Filters;
use crate::progress::clean_line;
use crate::report::Failure;
use crate::size::human;

/// What `kiln du --format=json` prints.
#[derive(Debug, Serialize)]
struct Usage<'a> {
    items: Vec<Row<'a>>,
    images: Vec<ImageUsage>,
    kinds: BTreeMap<&'static str, u64>,
    internal: u64,
    reclaimable: u64,
    total: u64,
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    size: u64,
    created: i64,
    last_used: i64,
    in_use: bool,
    mutable: bool,
    reclaimable: bool,
    description: &'a str,
}

/// Room that the blobs of an image take.
#[derive(Debug, Serialize)]
struct ImageUsage {
    name: String,
    size: u64,
    /// Of that, blobs that other images need, too.
    shared: u64,
}

/// Prints what the store has on disk.
pub(crate) fn run(args: &DuArgs, store: &Store, out: &mut impl Write) -> Result<(), Failure> {
    let filters = Filters::parse(&args.filter)?;
    let inventory = store.inventory().map_err(Failure::user)?;
    let images = store
        .references()
        .and_then(|images| by_image(store, &inventory, &images))
        .map_err(Failure::user)?;
    let usage = usage(&inventory, images, &filters);
    let text = match args.format {
        TextOrJson::Json => serde_json::to_string_pretty(&usage).expect("plain data") + "\n",
        TextOrJson::Text => text_of(&usage, args.verbose, now()),
    };
    out.write_all(text.as_bytes()).map_err(Failure::user)
}

fn usage<'a>(inventory: &'a Inventory, images: Vec<ImageUsage>, filters: &Filters) -> Usage<'a> {
    let mut kinds = BTreeMap::new();
    let mut items: Vec<&Item> = inventory.items.iter().collect();
    items.retain(|item| filters.accept(item) && filters.is_old(item, now()));
    items.sort_by(|a, b| (b.bytes, &a.id).cmp(&(a.bytes, &b.id)));
    for item in &items {
        *kinds.entry(item.kind.label()).or_default() += item.bytes;
    }
    let reclaimable = items.iter().filter(|item| item.is_reclaimable());
    let reclaimable = reclaimable.map(|item| item.bytes).sum();
    let internal = if filters.is_empty() {
        inventory.internal
    } else {
        0
    };
    let row = |item: &&'a Item| Row {
        id: &item.id,
        kind: item.kind.name(),
        size: item.bytes,
        created: item.created,
        last_used: item.used,
        in_use: item.in_use,
        mutable: item.is_mutable(),
        reclaimable: item.is_reclaimable(),
        description: &item.note,
    };
    Usage {
        total: internal + items.iter().map(|item| item.bytes).sum::<u64>(),
        items: items.iter().map(row).collect(),
        images,
        kinds,
        internal,
        reclaimable,
    }
}

/// Adds up the blobs of each image that are here.
fn by_image(
    store: &Store,
    inventory: &Inventory,
    images: &[NamedImage],
) -> Result<Vec<ImageUsage>, StoreError> {
    let sizes: HashMap<&str, u64> = inventory
        .items
        .iter()
        .map(|item| (item.id.as_str(), item.bytes))
        .collect();
    let mut users: HashMap<_, usize> = HashMap::new();
    let mut blobs = Vec::new();
    for image in images {
        let found: HashSet<_> = store.blobs_of(&image.descriptor)?.into_iter().collect();
        for digest in &found {
            *users.entry(*digest).or_default() += 1;
        }
        blobs.push(found);
    }
    let of = |digest: &kiln_graph::Digest| {
        let name = format!("blobs/{}/{}", digest.algorithm().name(), digest.hex());
        sizes.get(name.as_str()).copied().unwrap_or(0)
    };
    let usage = |(image, blobs): (&NamedImage, &HashSet<_>)| ImageUsage {
        name: image.name.clone(),
        size: blobs.iter().map(of).sum(),
        shared: blobs.iter().filter(|one| users[one] > 1).map(of).sum(),
    };
    Ok(images.iter().zip(&blobs).map(usage).collect())
}

fn text_of(usage: &Usage<'_>, verbose: bool, now: i64) -> String {
    let mut text = String::new();
    if verbose {
        for row in &usage.items {
            push(&mut text, format_args!("ID:\t\t{}", row.id));
            push(&mut text, format_args!("Type:\t\t{}", row.kind));
            push(&mut text, format_args!("Size:\t\t{}", human(row.size)));
            push(
                &mut text,
                format_args!("Created at:\t{}", age(now - row.created)),
            );
            push(
                &mut text,
                format_args!("Last used:\t{}", age(now - row.last_used)),
            );
            push(&mut text, format_args!("Mutable:\t{}", row.mutable));
            push(&mut text, format_args!("In use:\t\t{}", row.in_use));
            push(&mut text, format_args!("Reclaimable:\t{}", row.reclaimable));
            if !row.description.is_empty() {
                let note = clean_line(row.description);
                push(&mut text, format_args!("Description:\t{note}"));
            }
            text.push('\n');
        }
    } else {
        let width = usage.items.iter().map(|row| short(row.id).len()).max();
        let width = width.unwrap_or(2).max(2);
        push(
            &mut text,
            format_args!(
                "{:width$}  {:11}  {:>9}  {:15}  DESCRIPTION",
                "ID", "RECLAIMABLE", "SIZE", "LAST USED"
            ),
        );
        for row in &usage.items {
            let (id, size) = (short(row.id), human(row.size));
            let (used, note) = (age(now - row.last_used), clean_line(row.description));
            let line = format!(
                "{id:width$}  {:11}  {size:>9}  {used:15}  {note}",
                row.reclaimable
            );
            push(&mut text, format_args!("{}", line.trim_end()));
        }
        text.push('\n');
    }
    for image in &usage.images {
        let (size, shared) = (human(image.size), human(image.shared));
        push(
            &mut text,
            format_args!("Image {}:\t{size}, of it shared {shared}", image.name),
        );
    }
    for (kind, bytes) in &usage.kinds {
        let (first, rest) = kind.split_at(1);
        let kind = first.to_uppercase() + rest;
        push(&mut text, format_args!("{kind}:\t{}", human(*bytes)));
    }
    if usage.internal > 0 {
        push(
            &mut text,
            format_args!("Database and records:\t{}", human(usage.internal)),
        );
    }
    push(
        &mut text,
        format_args!("Reclaimable:\t{}", human(usage.reclaimable)),
    );
    push(&mut text, format_args!("Total:\t{}", human(usage.total)));
    text
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("writing to a String");
}

/// Returns the id with its digest cut short, as long as others can be told from it.
pub(crate) fn short(id: &str) -> String {
    const DIGITS: usize = 12;
    let part = |part: &str| match part.rsplit_once('-') {
        Some((kind, hex)) if hex.len() == 64 => format!("{kind}-{}", &hex[..DIGITS]),
        None if part.len() == 64 => part[..DIGITS].to_owned(),
        _ => part.to_owned(),
    };
    let parts: Vec<String> = id.split('/').map(part).collect();
    parts.join("/")
}
