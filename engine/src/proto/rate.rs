//! Bytes a second: measured ([`RateMeter`]) and limited ([`RateLimit`]).

use std::num::NonZeroU64;
use std::time::Duration;

use super::time::Moment;

const MICROS_PER_S: u64 = 1_000_000;

/// A measurement closes after this long unless told otherwise: short enough to follow a link, long enough to hold several
/// pieces.
const BUCKET_MICROS: u64 = 200_000;

/// No measurement takes longer than this, whatever was told.
const BUCKET_MAX_MICROS: u64 = 500_000;

/// Bytes a second, as an average in which a second ago counts little.
#[derive(Clone, Copy, Debug)]
pub struct RateMeter {
    bucket_micros: u64,
    bucket_start: Moment,
    bucket_bytes: u64,
    rate: Option<u64>,
}

impl RateMeter {
    /// Nothing measured yet.
    #[must_use]
    pub fn new(now: Moment) -> RateMeter {
        RateMeter { bucket_micros: BUCKET_MICROS, bucket_start: now, bucket_bytes: 0, rate: None }
    }

    /// Counts bytes that arrived.
    pub fn add(&mut self, now: Moment, bytes: u64) {
        self.bucket_bytes += bytes;
        self.close_bucket(now);
    }

    /// Starts afresh after a pause, which says nothing about the link.
    pub fn restart(&mut self, now: Moment) {
        self.bucket_start = now;
        self.bucket_bytes = 0;
    }

    /// What arrives comes in bursts that are so far apart: from now on a measurement spans one, as far as may be.
    pub fn set_burst_interval(&mut self, apart_ms: u64) {
        self.bucket_micros = apart_ms.saturating_mul(1_000).clamp(BUCKET_MICROS, BUCKET_MAX_MICROS);
    }

    /// Bytes a second; `None` until the first measurement closes.
    pub fn rate(&mut self, now: Moment) -> Option<u64> {
        self.close_bucket(now);
        self.rate
    }

    /// The last measurement that closed, however long ago.
    #[must_use]
    pub fn last_rate(&self) -> Option<u64> {
        self.rate
    }

    fn close_bucket(&mut self, now: Moment) {
        let micros = now.micros_since(self.bucket_start);
        if micros < self.bucket_micros {
            return;
        }
        let measured = self.bucket_bytes.saturating_mul(MICROS_PER_S) / micros;
        self.rate = Some(match self.rate {
            None => measured,
            // A longer silence weighs as the buckets that it spans; two buckets leave a quarter of the past.
            Some(_) if micros >= 4 * self.bucket_micros => measured,
            Some(rate) => rate.midpoint(measured),
        });
        self.restart(now);
    }
}

/// At most `rate` bytes a second: each booking moves the moment at which the next may start. Nothing is saved up.
#[derive(Clone, Copy, Debug)]
pub struct RateLimit {
    rate: NonZeroU64,
    free_at: Moment,
}

impl RateLimit {
    /// A limit that nobody has used yet.
    #[must_use]
    pub fn new(rate: NonZeroU64, now: Moment) -> RateLimit {
        RateLimit { rate, free_at: now }
    }

    /// Bytes a second.
    #[must_use]
    pub fn rate(&self) -> NonZeroU64 {
        self.rate
    }

    /// Books `bytes` and tells how long to wait, in milliseconds, before they may move. Bookings queue in order.
    pub fn reserve(&mut self, now: Moment, bytes: u64) -> u64 {
        let wait_ms = self.free_at.ms_since(now);
        let start = self.free_at.max(now);
        self.free_at = Moment::at(start.since(Moment::default()) + self.cost(bytes));
        wait_ms
    }

    /// Gives back a booking of `bytes` that was not used: who comes next waits that much less.
    pub fn refund(&mut self, now: Moment, bytes: u64) {
        let free_at = self.free_at.since(Moment::default()).saturating_sub(self.cost(bytes));
        self.free_at = Moment::at(free_at).max(now);
    }

    fn cost(&self, bytes: u64) -> Duration {
        Duration::from_micros(bytes.saturating_mul(MICROS_PER_S) / self.rate.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_stream_measures_as_what_it_is() {
        let start = Moment::default();
        let mut meter = RateMeter::new(start);
        assert_eq!(meter.rate(start.plus_ms(100)), None);
        for ms in 1..=1_000 {
            meter.add(start.plus_ms(ms), 1_000);
        }
        assert_eq!(meter.rate(start.plus_ms(1_000)), Some(1_000_000));
        assert_eq!(meter.rate(start.plus_ms(5_000)), Some(0), "silence");
    }

    #[test]
    fn a_limit_holds_over_time() {
        let rate = NonZeroU64::new(1_000_000).unwrap();
        let start = Moment::default();
        let mut limit = RateLimit::new(rate, start);
        assert_eq!(limit.reserve(start, 500_000), 0);
        assert_eq!(limit.reserve(start, 500_000), 500);
        assert_eq!(limit.reserve(start.plus_ms(500), 1), 500);
        assert_eq!(limit.reserve(start.plus_ms(10_000), 1), 0, "what was not used is not saved up");
    }

    #[test]
    fn a_booking_that_was_not_used_goes_back() {
        let start = Moment::default().plus_ms(1_000);
        let mut limit = RateLimit::new(NonZeroU64::new(1_000_000).unwrap(), start);
        assert_eq!([limit.reserve(start, 500_000), limit.reserve(start, 500_000)], [0, 500]);
        limit.refund(start, 500_000);
        assert_eq!(limit.reserve(start, 1), 500);
        limit.refund(start, 1 << 40);
        assert_eq!(limit.reserve(start, 1_000), 0, "nothing is saved up by it");
        assert_eq!(limit.reserve(start, 1), 1);
    }
}
