//! Fuzzes the expansion of words. The first line has the variables, as `a=b|c=d`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &str| {
    let (variables, text) = input.split_once('\n').unwrap_or(("", input));
    let pairs = variables.split('|').filter_map(|pair| pair.split_once('='));
    let variables: Vec<_> = pairs.map(|(a, b)| (a.to_owned(), b.to_owned())).collect();
    kiln_frontend::fuzzing::expansion(text, &variables);
});
