//! `BUILDKIT_MULTI_PLATFORM`: an index even of one image.

use crate::args::switch;
use crate::report::Failure;

const NAME: &str = "BUILDKIT_MULTI_PLATFORM";

/// Returns whether images are put into an index, as several are anyway.
pub(super) fn makes_index(
    build_args: &[(String, String)],
    n_platforms: usize,
) -> Result<bool, Failure> {
    let given = build_args.iter().rev().find(|(name, _)| name == NAME);
    let Some((_, value)) = given.filter(|(_, value)| !value.is_empty()) else {
        return Ok(n_platforms > 1);
    };
    let is_wanted = switch(value)
        .map_err(|why| Failure::usage(format!("build argument {NAME}={value}: {why}")))?;
    if !is_wanted && n_platforms > 1 {
        let message = format!("{NAME}={value}, and there are {n_platforms} platforms");
        return Err(Failure::usage(message).with_hint("build one --platform, or leave it out"));
    }
    Ok(is_wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_image_has_an_index_if_that_is_asked_for() {
        let is = |value: &str, n_platforms| {
            let args = [(NAME.to_owned(), value.to_owned())];
            makes_index(&args, n_platforms).ok()
        };
        assert_eq!(makes_index(&[], 1).ok(), Some(false));
        assert_eq!(makes_index(&[], 2).ok(), Some(true));
        assert_eq!((is("1", 1), is("true", 2)), (Some(true), Some(true)));
        assert_eq!((is("0", 1), is("", 1)), (Some(false), Some(false)));
        assert_eq!((is("0", 2), is("maybe", 1)), (None, None));
    }
}
