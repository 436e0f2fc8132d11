//! `kiln cache mounts`: the folders of cache mounts, listed and taken away.

mod registry;
mod transfer;

use std::fmt::Write as _;
use std::io::Write;
use std::time::Duration;

use kiln_cache::{Goal, Item, ItemKind, Store};
use kiln_solver::age;
use serde::Serialize;

use crate::args::TextOrJson;
use crate::commands::du::short;
use crate::commands::why::now;
use crate::environment::Environment;
use crate::mount_args::{MountsCommand, MountsLsArgs, MountsRmArgs};
use crate::progress::clean_line;
use crate::report::Failure;
use crate::size::human;

/// Fewest digits by which a name is known.
const MIN_DIGITS: usize = 6;
const LIST: &str = "`kiln cache mounts ls` lists what is there";

/// A folder of a cache mount.
#[derive(Debug, Clone)]
struct Folder {
    item: Item,
    /// Its name: a digest.
    hex: String,
    /// Which of the folders of this name it is.
    number: u64,
}

#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    name: &'a str,
    number: u64,
    size: u64,
    last_used: i64,
    in_use: bool,
}

/// Does what was asked for.
pub(crate) fn run(
    command: &MountsCommand,
    store: &Store,
    env: &Environment,
    out: &mut impl Write,
) -> Result<(), Failure> {
    match command {
        MountsCommand::Ls(args) => list(args, store, out),
        MountsCommand::Rm(args) => remove(args, store, out),
        MountsCommand::Export(args) => transfer::export(args, store, env, out),
        MountsCommand::Import(args) => transfer::import(args, store, env),
    }
}

fn list(args: &MountsLsArgs, store: &Store, out: &mut impl Write) -> Result<(), Failure> {
    let folders = folders(store)?;
    let text = match args.format {
        TextOrJson::Json => {
            let rows: Vec<Row<'_>> = folders.iter().map(Folder::row).collect();
            serde_json::to_string_pretty(&rows).expect("plain data") + "\n"
        }
        TextOrJson::Text => text_of(&folders, now()),
    };
    out.write_all(text.as_bytes()).map_err(Failure::user)
}

fn remove(args: &MountsRmArgs, store: &Store, out: &mut impl Write) -> Result<(), Failure> {
    let all = folders(store)?;
    let mut chosen = Vec::new();
    for id in &args.ids {
        chosen.extend(choose(&all, id)?);
    }
    if args.all {
        chosen = all.iter().collect();
    }
    let may_go = |item: &Item| chosen.iter().any(|folder| folder.item.id == item.id);
    let collected = store
        .collect(Goal::default(), Duration::ZERO, may_go)
        .map_err(Failure::user)?;
    for item in &collected.items {
        let (id, size) = (clean_line(&item.note), human(item.bytes));
        writeln!(out, "{}\t{size}\t{id}", short(&item.id)).map_err(Failure::user)?;
    }
    writeln!(out, "Total:\t{}", human(collected.bytes())).map_err(Failure::user)?;
    let stays = |folder: &&&Folder| store.root().join(&folder.item.id).exists();
    let mut left: Vec<String> = chosen.iter().filter(stays).map(|f| f.to_string()).collect();
    left.dedup();
    match &left[..] {
        [] => Ok(()),
        left => Err(in_use(&left.join(", "))),
    }
}

/// Returns the failure of what somebody else uses.
fn in_use(folders: &str) -> Failure {
    let error = anyhow::anyhow!("in use by a build or by another command: cache mount {folders}");
    Failure::user(error).with_hint("try again when that has ended")
}

/// Returns all folders, those of an id together.
fn folders(store: &Store) -> Result<Vec<Folder>, Failure> {
    let items = store.inventory().map_err(Failure::user)?.items;
    let mut folders: Vec<Folder> = items.into_iter().filter_map(Folder::of).collect();
    let order = |f: &Folder| (f.item.note.clone(), f.hex.clone(), f.number);
    folders.sort_by_key(order);
    Ok(folders)
}

/// Returns the folders that a user means: by id, or by the beginning of a name, with or without a
/// number.
fn choose<'a>(folders: &'a [Folder], wanted: &str) -> Result<Vec<&'a Folder>, Failure> {
    let by_id = folders.iter().filter(|folder| folder.item.note == wanted);
    let mut found: Vec<&Folder> = by_id.collect();
    if found.is_empty() {
        found = folders.iter().filter(|f| f.is_named(wanted)).collect();
    }
    if found.is_empty() {
        let error = anyhow::anyhow!("there is no cache mount `{}`", clean_line(wanted));
        return Err(Failure::user(error).with_hint(LIST));
    }
    Ok(found)
}

impl Folder {
    fn of(item: Item) -> Option<Self> {
        if item.kind != ItemKind::CacheMount {
            return None;
        }
        let (hex, number) = item.id.strip_prefix("mounts/")?.split_once('/')?;
        Some(Self {
            hex: hex.to_owned(),
            number: number.parse().ok()?,
            item,
        })
    }

    fn is_named(&self, wanted: &str) -> bool {
        let (hex, number) = match wanted.split_once('/') {
            Some((hex, number)) => (hex, Some(number)),
            None => (wanted, None),
        };
        hex.len() >= MIN_DIGITS
            && self.hex.starts_with(hex)
            && number.is_none_or(|number| number == self.number.to_string())
    }

    /// Returns the name as people see it.
    fn short_name(&self) -> String {
        short(&format!("{}/{}", self.hex, self.number))
    }

    fn row(&self) -> Row<'_> {
        Row {
            id: &self.item.note,
            name: &self.hex,
            number: self.number,
            size: self.item.bytes,
            last_used: self.item.used,
            in_use: self.item.in_use,
        }
    }
}

impl std::fmt::Display for Folder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "`{}` ({})",
            clean_line(&self.item.note),
            self.short_name()
        )
    }
}

fn text_of(folders: &[Folder], now: i64) -> String {
    let header = ["ID", "NAME", "SIZE", "LAST USED", "IN USE"].map(str::to_owned);
    let row = |folder: &Folder| {
        [
            clean_line(&folder.item.note),
            folder.short_name(),
            human(folder.item.bytes),
            age(now - folder.item.used),
            if folder.item.in_use { "yes" } else { "no" }.to_owned(),
        ]
    };
    let rows: Vec<[String; 5]> = std::iter::once(header)
        .chain(folders.iter().map(row))
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let width = |column| width(column).unwrap_or(0);
    let (ids, names, sizes, ages) = (width(0), width(1), width(2), width(3));
    let mut text = String::new();
    for [id, name, size, used, in_use] in &rows {
        writeln!(
            text,
            "{id:ids$}  {name:names$}  {size:>sizes$}  {used:ages$}  {in_use}"
        )
        .expect("writing to a String");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(id: &str, digit: char, number: u64) -> Folder {
        let hex: String = std::iter::repeat_n(digit, 64).collect();
        Folder::of(Item {
            id: format!("mounts/{hex}/{number}"),
            kind: ItemKind::CacheMount,
            bytes: 4096,
            created: 0,
            used: 0,
            in_use: number == 1,
            is_pinned: false,
            note: id.to_owned(),
        })
        .unwrap()
    }

    #[test]
    fn folders_are_known_by_id_and_by_name() {
        let all = [
            folder("go", 'a', 0),
            folder("go", 'b', 0),
            folder("go", 'b', 1),
            folder("aaaaaaaa", 'c', 0),
        ];
        let found = |wanted| choose(&all, wanted).map_or(0, |found| found.len());
        for (wanted, expected) in [
            ("go", 3),
            ("bbbbbb", 2),
            ("bbbbbbbbbbbb/1", 1),
            ("bbbbbb/2", 0),
            ("bbbbb", 0),
            ("aaaaaa", 1),
            ("aaaaaaaa", 1),
            ("", 0),
        ] {
            assert_eq!(found(wanted), expected, "{wanted}");
        }
        let failure = choose(&all, "gone").unwrap_err().render();
        assert!(
            failure.contains("`gone`") && failure.contains(LIST),
            "{failure}"
        );
    }

    #[test]
    fn columns_stand_below_each_other() {
        let text = text_of(&[folder("a-long-id", 'a', 0), folder("b", 'b', 1)], 0);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("ID         NAME"), "{text}");
        assert!(lines[1].starts_with("a-long-id  aaaaaaaaaaaa/0"), "{text}");
        assert!(lines[2].ends_with("yes"), "{text}");
    }
}
