//! `kiln store`: looking after the store itself.

use std::io::Write;
use std::path::Path;

use kiln_cache::{DATABASE, Store, Verified};

use crate::args::VerifyArgs;
use crate::report::Failure;

/// Reads everything in the store and says what is damaged.
pub(crate) fn verify(args: &VerifyArgs, store: Store, out: &mut impl Write) -> Result<(), Failure> {
    let root = store.root().to_owned();
    let mut found = store.verify(args.repair).map_err(Failure::user)?;
    if args.repair && found.faults.iter().any(|fault| fault.id == DATABASE) {
        let renewed = store.renew_database().map_err(Failure::user)?;
        let rest = renewed.verify(true).map_err(Failure::user)?;
        found.n_read = rest.n_read;
        found.faults.extend(rest.faults);
    }
    for fault in &found.faults {
        writeln!(out, "{}: {}", fault.id, fault.what).map_err(Failure::user)?;
    }
    say(&found, args.repair, &root, out)
}

fn say(found: &Verified, repair: bool, root: &Path, out: &mut impl Write) -> Result<(), Failure> {
    let (n_read, n_bad) = (found.n_read, found.faults.len());
    let told = match (n_bad, repair) {
        (0, _) => format!("{n_read} layers and blobs read, nothing is damaged"),
        (_, true) => format!(
            "{n_read} layers and blobs read, {n_bad} damaged and taken out unless a build uses them"
        ),
        (_, false) => {
            let what = format!("{n_bad} damaged, {n_read} layers and blobs read");
            let hint = format!(
                "`kiln --root {} store verify --repair` takes them out; builds make or fetch \
                 them again",
                root.display()
            );
            return Err(Failure::user(anyhow::Error::msg(what)).with_hint(hint));
        }
    };
    writeln!(out, "{told}").map_err(Failure::user)
}
