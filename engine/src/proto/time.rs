//! Time, which the pure core gets as an argument: microseconds since the start of the driver's clock.

use std::time::Duration;

/// A point in time within one process, by a clock that never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    micros: u64,
}

impl Moment {
    /// The moment `since_start` after the start of the clock.
    #[must_use]
    pub fn at(since_start: Duration) -> Moment {
        Moment { micros: u64::try_from(since_start.as_micros()).unwrap_or(u64::MAX) }
    }

    /// The moment `ms` milliseconds later.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Moment {
        Moment { micros: self.micros.saturating_add(ms.saturating_mul(1_000)) }
    }

    /// Whole milliseconds since the start of the clock.
    #[must_use]
    pub fn ms(self) -> u64 {
        self.micros / 1_000
    }

    /// Microseconds since `earlier`; 0 when it is later.
    #[must_use]
    pub fn micros_since(self, earlier: Moment) -> u64 {
        self.micros.saturating_sub(earlier.micros)
    }

    /// Whole milliseconds since `earlier`; 0 when it is later.
    #[must_use]
    pub fn ms_since(self, earlier: Moment) -> u64 {
        self.micros_since(earlier) / 1_000
    }

    /// Time since `earlier`; zero when it is later.
    #[must_use]
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_micros(self.micros_since(earlier))
    }
}
