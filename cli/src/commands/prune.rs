//! `kiln prune`: takes away what the store could do without.

use std::io::{self, BufRead as _, Write};
use std::time::Duration;

use kiln_cache::{Goal, Item, Store};

use crate::args::PruneArgs;
use crate::commands::du::short;
use crate::filters::Filters;
use crate::progress::clean_line;
use crate::report::Failure;
use crate::size::human;

/// Takes away what may go, and says what went.
pub(crate) fn run(args: &PruneArgs, store: &Store, out: &mut impl Write) -> Result<(), Failure> {
    let filters = Filters::parse(&args.filter)?;
    if !args.force {
        match answer(out).map_err(Failure::user)? {
            Some(true) => {}
            Some(false) => return Ok(()),
            None => {
                let failure = Failure::usage("nobody answers");
                return Err(failure.with_hint("--force does not ask"));
            }
        }
    }
    let goal = Goal {
        max_used: args.max_used_space,
        reserved: args.reserved_space,
        min_free: args.min_free_space,
    };
    let unused_for = filters.unused_for.or(args.keep_duration);
    let may_go = |item: &Item| filters.accept(item);
    let collected = store
        .collect(goal, unused_for.unwrap_or(Duration::ZERO), may_go)
        .map_err(Failure::user)?;
    let mut freed = collected.bytes();
    for item in &collected.items {
        let note = clean_line(&item.note);
        let id = match args.verbose {
            true => item.id.clone(),
            false => short(&item.id),
        };
        writeln!(out, "{id}\t{}\t{note}", human(item.bytes)).map_err(Failure::user)?;
    }
    if args.all {
        freed += store.forget_logs().map_err(Failure::user)?;
    }
    writeln!(out, "Total:\t{}", human(freed)).map_err(Failure::user)
}

/// Asks, and returns the answer; `None` if there is nobody.
fn answer(out: &mut impl Write) -> io::Result<Option<bool>> {
    write!(
        out,
        "This takes away everything in the cache that no build uses just now and no image built \
         here needs.\nContinue? [y/N] "
    )?;
    out.flush()?;
    let mut line = String::new();
    if io::stdin().lock().read_line(&mut line)? == 0 {
        writeln!(out)?;
        return Ok(None);
    }
    Ok(Some(matches!(line.trim(), "y" | "Y" | "yes")))
}
