//! The signals that end a build.

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::report::{Failure, FailureKind};

/// SIGHUP, SIGINT and SIGTERM.
const SIGNALS: [u8; 3] = [1, 2, 15];

/// Ends the build when a signal asks for it: dropping it kills its steps and removes its files.
pub(crate) async fn until_stopped<T>(
    build: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut signals = listen().map_err(Failure::user)?;
    let mut arrivals: FuturesUnordered<_> = signals
        .iter_mut()
        .map(|(number, signal)| async {
            signal.recv().await;
            *number
        })
        .collect();
    tokio::select! {
        result = build => result,
        Some(number) = arrivals.next() => {
            let error = anyhow::anyhow!("the build was stopped");
            Err(Failure::new(FailureKind::Stopped(number), error))
        }
    }
}

/// A signal that whoever started kiln had it ignore stays ignored: `nohup kiln build …`.
fn listen() -> std::io::Result<Vec<(u8, Signal)>> {
    // Without /proc nothing is known to be ignored.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = ignored_signals(&status);
    let heeded = SIGNALS
        .iter()
        .filter(|number| ignored & (1 << (**number - 1)) == 0);
    heeded
        .map(|&number| Ok((number, signal(SignalKind::from_raw(number.into()))?)))
        .collect()
}

/// Returns the mask of a process's ignored signals (proc_pid_status(5), `SigIgn`).
fn ignored_signals(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_status() {
        let status = "Name:\tkiln\nSigBlk:\t0000000000000002\nSigIgn:\t0000000000001001\n";
        assert_eq!(ignored_signals(status), 0x1001);
        assert_eq!(ignored_signals(""), 0);
    }

    #[test]
    fn signals_end_a_build() {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        if ignored_signals(&status) & 1 != 0 {
            eprintln!("skipped: hangups are ignored here, so they must not end a build");
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let build = async {
            let (own, hangup) = (rustix::process::getpid(), rustix::process::Signal::HUP);
            rustix::process::kill_process(own, hangup).unwrap();
            std::future::pending::<Result<(), Failure>>().await
        };
        let failure = runtime.block_on(until_stopped(build)).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Stopped(1));
    }
}
