//! The only place where the client reads a clock.
#![allow(clippy::disallowed_methods, reason = "this is the clock that the rule points to")]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Monotonic time, for measuring durations.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Wall-clock seconds since the Unix epoch; 0 if the clock is set before it.
pub(crate) fn unix_time_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
