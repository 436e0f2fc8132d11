//! The commands, one file each.

pub(crate) mod build;
pub(crate) mod call;
pub(crate) mod images;
pub(crate) mod inspect;
