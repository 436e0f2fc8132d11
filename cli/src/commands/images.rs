//! `kiln images`: what is in the local store.

use std::fmt::Write as _;
use std::io::Write;

use kiln_cache::Store;
use serde_json::json;

use crate::args::ImagesArgs;
use crate::report::Failure;

/// Prints all names and what they stand for.
pub(crate) fn run(args: &ImagesArgs, store: &Store, out: &mut impl Write) -> Result<(), Failure> {
    let images = store.references().map_err(Failure::user)?;
    let text = if args.json {
        let rows: Vec<_> = images
            .iter()
            .map(|(name, descriptor)| json!({ "name": name, "descriptor": descriptor }))
            .collect();
        serde_json::to_string_pretty(&rows).expect("plain data") + "\n"
    } else {
        let width = images
            .iter()
            .map(|(name, _)| name.len())
            .max()
            .unwrap_or(4)
            .max(4);
        let mut text = format!("{:width$}  DIGEST\n", "NAME");
        for (name, descriptor) in &images {
            writeln!(text, "{name:width$}  {}", descriptor.digest).expect("writing to a String");
        }
        text
    };
    out.write_all(text.as_bytes()).map_err(Failure::user)
}
