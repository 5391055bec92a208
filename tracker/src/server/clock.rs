//! The tracker's clocks: the only code of the tracker that reads the time.

#![allow(clippy::disallowed_methods, reason = "all other code gets the time as an argument from here")]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::limits::{CLOCK_LEAP_S, CLOCK_LEAP_TRUSTED_MS};

/// One reading of both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClockReading {
    /// Milliseconds since the start of the tracker; never goes back.
    pub(super) ms: u64,
    /// Seconds since the Unix epoch; sent to clients. From [`ServerClock`] by the wall clock, from [`SteadyTime`]
    /// without its leaps.
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

/// The time by which the tracker works: the wall clock's at the start, advanced by the monotonic clock.
///
/// It follows small corrections of the wall clock at once. A leap is logged and not followed, so that a wrong clock ends
/// no session, until the wall clock has kept it for [`CLOCK_LEAP_TRUSTED_MS`] or the tracker is started again.
#[derive(Clone, Copy, Debug)]
pub(super) struct SteadyTime {
    /// A pair of readings from which the time advances.
    base: ClockReading,
    /// The wall clock's difference, while it is a leap, and since when, in milliseconds.
    leap: Option<(i64, u64)>,
}

impl SteadyTime {
    pub(super) fn new(start: ClockReading) -> SteadyTime {
        SteadyTime { base: start, leap: None }
    }

    /// The steady time at a reading of the clocks.
    pub(super) fn advance(&mut self, read: ClockReading) -> ClockReading {
        let unix_s = self.base.unix_s.saturating_add(read.ms.saturating_sub(self.base.ms) / 1_000);
        let offset_s = read.unix_s.cast_signed().saturating_sub(unix_s.cast_signed());
        if offset_s.unsigned_abs() <= CLOCK_LEAP_S {
            if self.leap.take().is_some() {
                tracing::info!("the system's clock is back");
            }
            if offset_s != 0 {
                self.base = read;
            }
            return read;
        }
        match self.leap {
            Some((seen_s, since_ms)) if seen_s.abs_diff(offset_s) <= CLOCK_LEAP_S => {
                if read.ms.saturating_sub(since_ms) >= CLOCK_LEAP_TRUSTED_MS {
                    tracing::warn!(offset_s, "the system's clock has kept its leap, which is followed now");
                    *self = SteadyTime::new(read);
                    return read;
                }
            }
            _ => {
                tracing::warn!(
                    offset_s,
                    "the system's clock has leapt; the tracker goes on by its own time. Set the clock right; if it \
                     is right now, start the tracker again"
                );
                self.leap = Some((offset_s, read.ms));
            }
        }
        ClockReading { ms: read.ms, unix_s }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: ClockReading = ClockReading { ms: 5_000, unix_s: 1_000_000 };
    const DAY_S: u64 = 24 * 3_600;

    /// A reading some milliseconds after the start, with the wall clock so many seconds off.
    fn reading(after_ms: u64, off_s: i64) -> ClockReading {
        let unix_s = (START.unix_s + after_ms / 1_000).checked_add_signed(off_s).unwrap();
        ClockReading { ms: START.ms + after_ms, unix_s }
    }

    #[test]
    fn a_leap_is_not_followed_until_the_clock_has_kept_it() {
        for off_s in [31 * DAY_S.cast_signed(), -31 * DAY_S.cast_signed() / 4, CLOCK_LEAP_S.cast_signed() + 1]
        {
            let mut time = SteadyTime::new(START);
            for after_ms in [1_000, 40_000, CLOCK_LEAP_TRUSTED_MS] {
                assert_eq!(time.advance(reading(after_ms, off_s)).unix_s, START.unix_s + after_ms / 1_000);
            }
            let kept = reading(CLOCK_LEAP_TRUSTED_MS + 1_000, off_s);
            assert_eq!(time.advance(kept).unix_s, kept.unix_s, "it was kept long enough");
        }
    }

    #[test]
    fn a_clock_that_leaps_to_and_fro_is_never_followed_and_a_correction_is_at_once() {
        let mut time = SteadyTime::new(START);
        for hour in 0..400_u64 {
            let off_s = if hour % 20 == 19 { 0 } else { 31 * DAY_S.cast_signed() };
            let after_ms = hour * 3_600_000;
            assert_eq!(time.advance(reading(after_ms, off_s)).unix_s, START.unix_s + after_ms / 1_000);
        }
        let corrected = reading(400 * 3_600_000, -7);
        assert_eq!(time.advance(corrected).unix_s, corrected.unix_s);
    }
}
