//! Memory does not grow with what is built: layers and files are streamed.

use std::fs;

use crate::support::{Build, Context, Kiln, Lab, noise};

/// Bytes that a build may have more when its files are 150 MB larger.
const MARGIN: u64 = 30 << 20;

/// Runs a build and returns the largest resident set that kiln had, in bytes.
fn peak(build: Build<'_>) -> u64 {
    let mut running = build.start();
    let mut peak = 0;
    while !running.has_ended() {
        let status = fs::read_to_string(format!("/proc/{}/status", running.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        peak = peak.max(kib.unwrap_or(0_u64) << 10);
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    running.wait().succeeded();
    peak
}

/// Copies a file, pushes it, pulls it elsewhere and runs on it; returns the peaks.
fn peaks(lab: &Lab, name: &str, n_megabytes: usize) -> [u64; 2] {
    let context = Context::new("ARG BASE\nFROM $BASE\nCOPY large /large\n");
    let block = noise(1 << 20);
    context.write("large", block.repeat(n_megabytes));
    let name = lab.registry.name(name);
    let pushed = peak(lab.build(&context).args(["--push", "-t", &name]));
    let context = Context::new("ARG BASE\nFROM $BASE\nRUN ls -l /large\n");
    let kiln = Kiln::new();
    let pulled = peak(kiln.build(&context).base(&name));
    [pushed, pulled]
}

#[test]
fn large_layers_need_no_more_memory() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let small = peaks(&lab, "small:1", 10);
    let large = peaks(&lab, "large:1", 160);
    for (small, large) in small.into_iter().zip(large) {
        assert!(small > 0, "nothing was measured");
        assert!(large < small + MARGIN, "{large} bytes, against {small}");
    }
}
