//! kiln from outside: the built program against real registries, real kernels, other tools.
//!
//! Everything a test needs is made by the test: see `tests/support`. What the machine does not
//! have is skipped, and fails where `CI` is set.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests end where they cannot go on, and say what they skip"
)]

#[path = "../support/lib.rs"]
mod support;

mod bases;
mod cache_mounts;
mod caching;
mod checks;
mod collecting;
mod contexts;
mod copying;
mod crashing;
mod damaged;
mod devices;
mod differential;
mod errors;
mod every_option;
mod explaining;
mod fixtures;
mod graph;
mod interrupted;
mod isolation;
mod killed;
mod language;
mod limits;
mod login;
mod memory;
mod mounts;
mod ordinary_user;
mod outputs;
mod parallel;
mod peers;
mod pushing;
mod registries;
mod remote;
mod screen;
mod secrets;
mod sharing;
mod single_flight;
mod ssh;
mod store;
mod traps;
mod traps_more;
