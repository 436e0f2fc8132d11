//! Work with progress beside it: which form it has, and how both end together.

use std::io;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use kiln_solver::{Reporter, blocking};

use crate::args::Progress;
use crate::environment::Environment;
use crate::progress::{Mode, TerminalSize, drive};
use crate::report::{Failure, FailureKind};

/// How long work that was stopped waits for what cannot be stopped.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// Returns how progress is shown, if it is.
pub(crate) fn mode_of(progress: Progress, env: &Environment) -> Option<Mode> {
    match progress {
        Progress::Quiet => None,
        Progress::Plain => Some(Mode::Plain),
        Progress::Rawjson => Some(Mode::RawJson),
        Progress::Auto if !env.is_terminal => Some(Mode::Plain),
        Progress::Auto | Progress::Tty => Some(Mode::Tty {
            color: !env.no_color,
        }),
    }
}

/// Does something, and shows its progress on a thread of its own.
pub(crate) async fn with_progress<T, F>(
    mode: Option<Mode>,
    work: impl FnOnce(Reporter) -> F,
) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let (reporter, events) = match mode {
        Some(mode) => {
            let (reporter, events) = Reporter::new();
            (reporter, Some((mode, events)))
        }
        None => (Reporter::silent(), None),
    };
    let shown = async {
        if let Some((mode, events)) = events {
            // Nobody looks any more when standard error is closed; the work goes on.
            let _unseen = blocking(move || drive(events, mode, io::stderr(), terminal_size)).await;
        }
    };
    // The work holds the last sender: what shows progress ends with it.
    let (mut shown, mut work) = (pin!(shown), pin!(work(reporter)));
    match select(shown.as_mut(), work.as_mut()).await {
        Either::Left(((), work)) => work.await,
        Either::Right((result, shown)) => {
            let _late = tokio::time::timeout(patience_after(&result), shown).await;
            result
        }
    }
}

/// How long the end of the work waits for the last progress to be shown: not long when stopped.
fn patience_after<T>(result: &Result<T, Failure>) -> Duration {
    match result {
        Err(Failure {
            kind: FailureKind::Stopped(_),
            ..
        }) => PATIENCE,
        _ => Duration::MAX,
    }
}

fn terminal_size() -> TerminalSize {
    match rustix::termios::tcgetwinsize(io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => TerminalSize {
            columns: size.ws_col.into(),
            rows: size.ws_row.into(),
        },
        _ => TerminalSize {
            columns: 80,
            rows: 24,
        },
    }
}
