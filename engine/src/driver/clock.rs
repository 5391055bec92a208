//! The engine's clocks: the only file of the engine that reads one.
#![allow(clippy::disallowed_methods, reason = "the place where time comes in")]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::proto::ticket::UnixSeconds;
use crate::proto::time::Moment;

/// Time since the engine's start, and the time of day.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EngineClock {
    start: Instant,
}

impl EngineClock {
    /// A clock that starts now.
    pub(crate) fn start() -> EngineClock {
        EngineClock { start: Instant::now() }
    }

    /// The moment.
    pub(crate) fn now(self) -> Moment {
        Moment::at(self.start.elapsed())
    }

    /// The time of day, `offset_s` ahead of this machine's clock.
    pub(crate) fn unix_time(self, offset_s: i64) -> UnixSeconds {
        let own = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        UnixSeconds(own.saturating_add_signed(offset_s))
    }
}
