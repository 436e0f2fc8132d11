//! Pauses between two looks at something that somebody else holds.

use std::time::Duration;

const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(100);

/// The next pause; each is twice as long as the one before, up to a limit.
#[derive(Debug)]
pub(crate) struct Pause(Duration);

impl Pause {
    /// Returns the first pause.
    pub(crate) fn first() -> Self {
        Self(SHORTEST)
    }

    /// Returns how long the next pause is.
    pub(crate) fn length(&self) -> Duration {
        self.0
    }

    /// Waits.
    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(LONGEST);
    }
}
