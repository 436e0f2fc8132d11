//! Measures what a step costs beyond its program: `/bin/true` on 1 and on 10 layers.
//!
//! `cargo run --release -p kiln-runtime --example overhead`; needs `/bin/busybox` linked
//! statically.
#![expect(clippy::print_stdout, reason = "a measurement is for reading")]

use std::error::Error;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kiln_runtime::{Cancel, Network, Sandbox, Security, Step};

const N_RUNS: usize = 200;

fn main() -> Result<(), Box<dyn Error>> {
    kiln_runtime::intercept();
    let privilege = kiln_runtime::enter_user_namespace()?;
    let dir = std::env::temp_dir().join(format!("kiln-overhead-{}", std::process::id()));
    fs::create_dir(&dir)?;
    let started = Instant::now();
    let sandbox = Sandbox::new(&dir.join("scratch"), &privilege)?;
    println!(
        "{:?}; sandbox made in {:.1?}",
        privilege.kind,
        started.elapsed()
    );
    for warning in privilege.warnings.iter().chain(sandbox.warnings()) {
        println!("warning: {warning}");
    }
    for n_layers in [1, 10] {
        for network in [Network::Host, Network::None] {
            let mut times = measure(&sandbox, &dir, n_layers, network)?;
            times.sort();
            println!(
                "{n_layers:2} layers, network {network:?}: median {:.2?}, best {:.2?}, worst {:.2?}",
                times[N_RUNS / 2],
                times[0],
                times[N_RUNS - 1]
            );
        }
    }
    fs::remove_dir_all(&dir)?;
    Ok(())
}

fn measure(
    sandbox: &Sandbox,
    dir: &Path,
    n_layers: usize,
    network: Network,
) -> Result<Vec<Duration>, Box<dyn Error>> {
    let dir = dir.join(format!("{n_layers}-{network:?}"));
    let lowers = layers(&dir, n_layers)?;
    let cancel = Cancel::new()?;
    let mut times = Vec::with_capacity(N_RUNS);
    for run in 0..N_RUNS {
        let (upper, work) = (
            dir.join(format!("upper-{run}")),
            dir.join(format!("work-{run}")),
        );
        fs::create_dir(&upper)?;
        fs::create_dir(&work)?;
        let step = Step {
            lowers: lowers.clone(),
            upper,
            work,
            args: vec!["/bin/true".to_owned()],
            env: Vec::new(),
            cwd: "/".to_owned(),
            user: String::new(),
            network,
            hostname: "overhead".to_owned(),
            extra_hosts: Vec::new(),
            files: Vec::new(),
            shm_size: None,
            mounts: Vec::new(),
            security: Security::Sandbox,
        };
        let started = Instant::now();
        sandbox.run(&step, &cancel, &mut |_, _| {})?;
        times.push(started.elapsed());
    }
    Ok(times)
}

fn layers(dir: &Path, n_layers: usize) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut layers = Vec::new();
    for n in 0..n_layers {
        let layer = dir.join(format!("layer-{n}"));
        fs::create_dir_all(layer.join("etc"))?;
        layers.push(layer);
    }
    fs::create_dir(layers[0].join("bin"))?;
    fs::copy("/bin/busybox", layers[0].join("bin/busybox"))?;
    symlink("busybox", layers[0].join("bin/true"))?;
    Ok(layers)
}
