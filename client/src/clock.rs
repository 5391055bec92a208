//! The only place where the client reads a clock; everything else takes the time as an argument or asks here.
#![allow(clippy::disallowed_methods, reason = "this is the clock that the rule points to")]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Now, for measuring spans.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Seconds since the Unix epoch by this machine's clock; 0 when the clock stands before it.
pub(crate) fn unix_time_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
