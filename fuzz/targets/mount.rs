//! Fuzzes the options of `RUN --mount`.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| kiln_frontend::fuzzing::mount(text));
