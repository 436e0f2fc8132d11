//! A switch that ends running steps from another thread.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

use crate::error::RunError;

/// Cancels the steps it was given to; clones are the same switch, and it stays thrown.
///
/// Dropping it does nothing.
#[derive(Debug, Clone)]
pub struct Cancel {
    event: Arc<OwnedFd>,
}

impl Cancel {
    /// Returns a switch that is not thrown.
    pub fn new() -> Result<Self, RunError> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| RunError::supervise("create an event")(error.into()))?;
        Ok(Self {
            event: Arc::new(event),
        })
    }

    /// Kills every step that runs with this switch, at once, and every later one.
    pub fn cancel(&self) {
        // The only possible failure is a counter that is full, and so already not zero.
        let _thrown: Result<usize, io::Error> =
            rustix::io::write(&*self.event, &1u64.to_ne_bytes()).map_err(io::Error::from);
    }

    /// Readable once the switch is thrown; nobody reads it, so it stays so.
    pub(crate) fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
