//! The engine's clock. No other file of the engine reads one.
#![allow(clippy::disallowed_methods, reason = "the only place that reads a clock")]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::proto::ticket::UnixSeconds;
use crate::proto::time::Moment;

/// Monotonic time since the engine's start, and the time of day.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EngineClock {
    start: Instant,
}

impl EngineClock {
    /// A clock that starts now.
    pub(crate) fn start() -> EngineClock {
        EngineClock { start: Instant::now() }
    }

    /// The current moment.
    pub(crate) fn now(self) -> Moment {
        Moment::at(self.start.elapsed())
    }

    /// The time of day by a clock that is `offset_s` seconds ahead of this machine's.
    pub(crate) fn unix_time(self, offset_s: i64) -> UnixSeconds {
        let own_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        UnixSeconds(own_s.saturating_add_signed(offset_s))
    }
}
