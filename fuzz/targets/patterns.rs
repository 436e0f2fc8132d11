//! Fuzzes `.dockerignore` files and wildcards. The first line is a path, the rest the patterns.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let end = input.iter().position(|b| *b == b'\n').unwrap_or(0);
    let (path, patterns) = input.split_at(end);
    let patterns = patterns.strip_prefix(b"\n").unwrap_or(patterns);
    kiln_cache::fuzzing::any_bytes(patterns, path);
    if let (Ok(path), Ok(patterns)) = (str::from_utf8(path), str::from_utf8(patterns)) {
        kiln_cache::fuzzing::ignore_file(patterns, path);
        for pattern in patterns.split('\n') {
            kiln_cache::fuzzing::wildcard(pattern, path);
        }
    }
});
