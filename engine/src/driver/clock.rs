//! The engine's clock. No other file of the engine reads one.
#![allow(clippy::disallowed_methods, reason = "the only place that reads a clock")]

use std::time::Instant;

use crate::proto::time::Moment;

/// Monotonic time since the engine's start.
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
}

/// Seconds since the boot of this machine. Time in suspension counts; setting the time of day changes nothing.
pub(crate) fn boot_time_s() -> u64 {
    u64::try_from(rustix::system::sysinfo().uptime).unwrap_or(0)
}
