//! How long a test waits for what must come, and how late a slow link is: the one place of the rig that reads a clock.
//!
//! Invariant: it decides nothing but when a hang is called one, and when bytes that are delayed go on.
#![allow(dead_code, reason = "each test program needs another part of it")]
#![allow(clippy::disallowed_methods, reason = "this is the tests' clock")]

use std::time::{Duration, Instant};

/// Longer than any of these transfers takes on the slowest machine: only a hang reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Patience that is used up when nothing happens for so long.
pub(crate) struct Patience(Instant);

impl Patience {
    /// All of it.
    pub(crate) fn new() -> Patience {
        Patience(Instant::now())
    }

    /// Whether there is any left.
    pub(crate) fn is_left(&self) -> bool {
        self.0.elapsed() < PATIENCE
    }
}

/// Time since it was started, for what has to come late.
#[derive(Clone, Copy)]
pub(crate) struct Timer(Instant);

impl Timer {
    pub(crate) fn start() -> Timer {
        Timer(Instant::now())
    }

    pub(crate) fn now(&self) -> Duration {
        self.0.elapsed()
    }

    /// Lets the time until `due` pass.
    pub(crate) fn wait_until(&self, due: Duration) {
        std::thread::sleep(due.saturating_sub(self.now()));
    }
}
