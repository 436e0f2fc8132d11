//! kiln on the command line: arguments, environment, progress, exit codes.
//!
//! The only crate that prints, reads the environment, or decides how the process ends. A command
//! is: resolve what was typed (`plan`), call the libraries, report.

mod args;
mod commands;
mod config;
mod context_names;
mod docker_flags;
mod duration;
mod environment;
mod epoch;
mod excerpt;
mod export;
mod fetch;
mod filters;
mod image;
mod local;
mod mount_args;
mod plan;
mod progress;
mod prompt;
mod registries;
mod registry_args;
mod report;
mod run;
mod session;
mod show;
mod size;
mod stop;
mod writable;

pub use crate::run::main;
