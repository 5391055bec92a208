//! The only place of the tracker that reads a clock.

#![allow(
    clippy::disallowed_methods,
    reason = "this is the clock that hands time to everything else as an argument"
)]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// One moment, by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClockReading {
    /// Since the start of the tracker, in milliseconds; never goes back.
    pub(super) ms: u64,
    /// Since the Unix epoch, in seconds; what clients are told.
    pub(super) unix_s: u64,
}

/// Hands out the time.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServerClock {
    origin: Instant,
}

impl ServerClock {
    /// A clock that starts now.
    pub(super) fn new() -> ServerClock {
        ServerClock { origin: Instant::now() }
    }

    /// The time.
    pub(super) fn now(&self) -> ClockReading {
        let ms = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        ClockReading { ms, unix_s }
    }
}
