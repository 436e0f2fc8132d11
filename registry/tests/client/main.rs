//! The client against a registry that fails on request, and against Debian's docker-registry.

#![expect(clippy::unwrap_used, reason = "what tests share may fail as tests do")]

mod auth;
mod faults;
mod mirrors;
mod pull;
mod push;
mod real;
mod support;
