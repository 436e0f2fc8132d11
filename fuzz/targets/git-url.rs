//! Fuzzes Git URLs.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| kiln_frontend::fuzzing::git_url(text));
