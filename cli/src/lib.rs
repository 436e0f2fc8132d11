//! kiln on the command line: arguments, environment, progress, exit codes.
//!
//! The only crate that prints, reads the environment, or decides how the process ends. A command
//! is: resolve what was typed (`plan`), call the libraries, report.

mod args;
mod commands;
mod context_names;
mod docker_flags;
mod environment;
mod epoch;
mod excerpt;
mod export;
mod fetch;
mod image;
mod local;
mod plan;
mod progress;
mod report;
mod run;
mod session;
mod stop;
mod writable;

pub use crate::run::main;
