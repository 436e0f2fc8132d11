//! Fuzzes the whole parser, printing and parsing again, and the compiler.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| kiln_frontend::fuzzing::parser(text));
