//! The clock of the tests: time limits for hangs, and delays of slow links. No other file of the rig reads a clock.
#![allow(dead_code, reason = "each test program uses its own part")]
#![allow(clippy::disallowed_methods, reason = "this is the tests' clock")]

use std::time::{Duration, Instant};

/// Longer than any of these transfers takes on the slowest machine, so only a hang reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A time limit of [`PATIENCE`].
pub(crate) struct Patience(Instant);

impl Patience {
    /// Starts the time.
    pub(crate) fn new() -> Patience {
        Patience(Instant::now())
    }

    /// Whether time is left.
    pub(crate) fn is_left(&self) -> bool {
        self.0.elapsed() < PATIENCE
    }
}

/// Time since its start.
#[derive(Clone, Copy)]
pub(crate) struct Timer(Instant);

impl Timer {
    pub(crate) fn start() -> Timer {
        Timer(Instant::now())
    }

    pub(crate) fn now(&self) -> Duration {
        self.0.elapsed()
    }

    /// Blocks until `due`.
    pub(crate) fn wait_until(&self, due: Duration) {
        std::thread::sleep(due.saturating_sub(self.now()));
    }
}
