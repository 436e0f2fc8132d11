//! The commands, one file each.

pub(crate) mod build;
pub(crate) mod call;
pub(crate) mod du;
pub(crate) mod images;
pub(crate) mod inspect;
pub(crate) mod login;
pub(crate) mod mounts;
pub(crate) mod prune;
pub(crate) mod push;
pub(crate) mod store;
pub(crate) mod why;
