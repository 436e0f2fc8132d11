//! Fuzzes physical and logical lines, heredocs and directives.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| kiln_frontend::fuzzing::lexer(text));
