//! The tracker's clocks: the only code of the tracker that reads the time.

#![allow(clippy::disallowed_methods, reason = "all other code gets the time as an argument from here")]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// One reading of both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClockReading {
    /// Milliseconds since the start of the tracker; never goes back.
    pub(super) ms: u64,
    /// Seconds since the Unix epoch; sent to clients.
    pub(super) unix_s: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct ServerClock {
    origin: Instant,
}

impl ServerClock {
    pub(super) fn new() -> ServerClock {
        ServerClock { origin: Instant::now() }
    }

    pub(super) fn now(&self) -> ClockReading {
        let ms = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        ClockReading { ms, unix_s }
    }
}
