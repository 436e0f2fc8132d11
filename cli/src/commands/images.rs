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
            .map(|image| json!({ "name": image.name, "descriptor": image.descriptor }))
            .collect();
        serde_json::to_string_pretty(&rows).expect("plain data") + "\n"
    } else {
        let width = images
            .iter()
            .map(|image| image.name.len())
            .max()
            .unwrap_or(4)
            .max(4);
        let mut text = format!("{:width$}  DIGEST\n", "NAME");
        for image in &images {
            let (name, digest) = (&image.name, image.descriptor.digest);
            writeln!(text, "{name:width$}  {digest}").expect("writing to a String");
        }
        text
    };
    out.write_all(text.as_bytes()).map_err(Failure::user)
}
