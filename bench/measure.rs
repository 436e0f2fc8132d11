//! Runs a command and prints how long it took and how much memory it had.
//!
//! `measure [--also NAME]... COMMAND...` prints `MILLISECONDS KIBIBYTES STATUS`. The memory is the
//! highest sum of resident sets of the command and all its descendants, and of the processes named
//! with `--also` (daemons that work for the command), sampled every few milliseconds. Output of
//! the command goes to standard error.

use std::collections::HashMap;
use std::env;
use std::fs;
use std::io;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(4);

/// What is known of a process.
struct Process {
    parent: u32,
    name: String,
    resident_kib: u64,
}

fn main() -> ExitCode {
    let (also, command) = arguments();
    let start = Instant::now();
    let mut child = match start_command(&command) {
        Ok(child) => child,
        Err(error) => {
            eprintln!("{command:?}: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = AtomicBool::new(false);
    let id = child.id();
    let (elapsed, status, peak) = thread::scope(|scope| {
        let sampler = scope.spawn(|| sample(id, &also, &ended));
        let status = child.wait();
        let elapsed = start.elapsed();
        ended.store(true, Ordering::Relaxed);
        (elapsed, status, sampler.join().unwrap_or(0))
    });
    let code = status.ok().and_then(|status| status.code()).unwrap_or(-1);
    println!("{:.1} {peak} {code}", elapsed.as_secs_f64() * 1000.0);
    ExitCode::SUCCESS
}

/// Returns the names after `--also`, and the command.
fn arguments() -> (Vec<String>, Vec<String>) {
    let mut rest: Vec<String> = env::args().skip(1).collect();
    let mut also = Vec::new();
    while rest.len() > 1 && rest[0] == "--also" {
        also.push(rest.remove(1));
        rest.remove(0);
    }
    (also, rest)
}

fn start_command(command: &[String]) -> io::Result<Child> {
    let (program, args) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let output = Stdio::from(io::stderr());
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(output)
        .spawn()
}

/// Returns the highest sum that was seen.
fn sample(root: u32, also: &[String], ended: &AtomicBool) -> u64 {
    let mut peak = 0;
    while !ended.load(Ordering::Relaxed) {
        peak = peak.max(sum(root, also));
        thread::sleep(INTERVAL);
    }
    peak
}

fn sum(root: u32, also: &[String]) -> u64 {
    let processes = processes();
    let counts = |id: u32| {
        let named = processes
            .get(&id)
            .is_some_and(|process| also.contains(&process.name));
        named || descends(id, root, &processes)
    };
    let counted = processes.iter().filter(|(id, _)| counts(**id));
    counted.map(|(_, process)| process.resident_kib).sum()
}

fn descends(id: u32, root: u32, processes: &HashMap<u32, Process>) -> bool {
    let mut id = id;
    while id != root {
        match processes.get(&id) {
            Some(process) if process.parent != 0 => id = process.parent,
            _ => return false,
        }
    }
    true
}

fn processes() -> HashMap<u32, Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return HashMap::new();
    };
    let ids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter_map(|id: u32| Some((id, read(id)?))).collect()
}

/// Reads what proc(5) says of `/proc/PID/stat`: the name may hold anything but ends with `)`.
fn read(id: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (start, rest) = stat.rsplit_once(')')?;
    let name = start.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let n_pages: u64 = fields.get(21)?.parse().ok()?;
    Some(Process {
        parent: fields.get(1)?.parse().ok()?,
        name,
        resident_kib: n_pages * 4,
    })
}
