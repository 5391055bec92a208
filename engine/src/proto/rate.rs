//! Bytes a second: measured ([`RateMeter`]) and limited ([`RateLimit`]); and events a second with bursts ([`BurstLimit`]).

use std::num::NonZeroU64;
use std::time::Duration;

use super::time::Moment;

const MICROS_PER_S: u64 = 1_000_000;

/// Default length of a measurement: short enough to follow changes of a link, long enough to hold several pieces.
const BUCKET_MICROS: u64 = 200_000;

/// Longest measurement.
const BUCKET_MAX_MICROS: u64 = 500_000;

const _: () = assert!(BUCKET_MICROS <= BUCKET_MAX_MICROS);

/// Measures a rate in bytes a second, as an average in which the last second counts most.
#[derive(Clone, Copy, Debug)]
pub struct RateMeter {
    bucket_micros: u64,
    bucket_start: Moment,
    bucket_bytes: u64,
    rate: Option<u64>,
}

impl RateMeter {
    /// A meter without a measurement.
    #[must_use]
    pub fn new(now: Moment) -> RateMeter {
        RateMeter { bucket_micros: BUCKET_MICROS, bucket_start: now, bucket_bytes: 0, rate: None }
    }

    /// Counts received bytes.
    pub fn add(&mut self, now: Moment, bytes: u64) {
        self.bucket_bytes += bytes;
        self.close_bucket(now);
    }

    /// Starts a new measurement after a pause, in which the link was not used.
    pub fn restart(&mut self, now: Moment) {
        self.bucket_start = now;
        self.bucket_bytes = 0;
    }

    /// Bytes arrive in bursts of this interval: measurements are made as long, within limits.
    pub fn set_burst_interval(&mut self, apart_ms: u64) {
        self.bucket_micros = apart_ms.saturating_mul(1_000).clamp(BUCKET_MICROS, BUCKET_MAX_MICROS);
    }

    /// Rate in bytes a second; `None` until the first measurement is complete.
    pub fn rate(&mut self, now: Moment) -> Option<u64> {
        self.close_bucket(now);
        self.rate
    }

    /// The last complete measurement, however old.
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
            // A longer silence weighs like the buckets that it spans. Two buckets leave a quarter of the past.
            Some(_) if micros >= 4 * self.bucket_micros => measured,
            Some(rate) => rate.midpoint(measured),
        });
        self.restart(now);
    }
}

/// At most `rate` bytes a second: each reservation delays the next. Unused capacity is not saved up.
#[derive(Clone, Copy, Debug)]
pub struct RateLimit {
    rate: NonZeroU64,
    free_at: Moment,
}

impl RateLimit {
    /// A limit that was not used yet.
    #[must_use]
    pub fn new(rate: NonZeroU64, now: Moment) -> RateLimit {
        RateLimit { rate, free_at: now }
    }

    /// The limit, in bytes a second.
    #[must_use]
    pub fn rate(&self) -> NonZeroU64 {
        self.rate
    }

    /// Reserves `bytes`. Returns how long to wait before they may be sent, in milliseconds. Reservations queue in order.
    pub fn reserve(&mut self, now: Moment, bytes: u64) -> u64 {
        let wait_ms = self.free_at.ms_since(now);
        let start = self.free_at.max(now);
        self.free_at = Moment::at(start.since(Moment::default()) + self.cost(bytes));
        wait_ms
    }

    /// Returns a reservation of `bytes` that was not used, which shortens the next wait.
    pub fn refund(&mut self, now: Moment, bytes: u64) {
        let free_at = self.free_at.since(Moment::default()).saturating_sub(self.cost(bytes));
        self.free_at = Moment::at(free_at).max(now);
    }

    fn cost(&self, bytes: u64) -> Duration {
        Duration::from_micros(bytes.saturating_mul(MICROS_PER_S) / self.rate.get())
    }
}

/// At most one event in each interval, and bursts of so many events that were saved up.
#[derive(Clone, Copy, Debug)]
pub struct BurstLimit {
    interval_micros: u64,
    burst: u64,
    /// When the whole burst is saved up again.
    full_at: Moment,
}

impl BurstLimit {
    /// A limit with a whole burst saved up.
    #[must_use]
    pub fn new(interval: Duration, burst: u32) -> BurstLimit {
        let interval_micros = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX);
        BurstLimit { interval_micros, burst: burst.into(), full_at: Moment::default() }
    }

    /// Takes one event. Returns how long to wait before it is within the limit, in milliseconds.
    pub fn reserve(&mut self, now: Moment) -> u64 {
        let start = self.full_at.max(now);
        self.full_at =
            Moment::at(start.since(Moment::default()) + Duration::from_micros(self.interval_micros));
        let saved_micros = self.interval_micros.saturating_mul(self.burst);
        self.full_at.micros_since(now).saturating_sub(saved_micros).div_ceil(1_000)
    }

    /// Whether the whole burst is saved up.
    #[must_use]
    pub fn is_full(&self, now: Moment) -> bool {
        self.full_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_saved_up_again() {
        let start = Moment::default().plus_ms(1_000);
        let mut limit = BurstLimit::new(Duration::from_millis(100), 3);
        assert_eq!([limit.reserve(start), limit.reserve(start), limit.reserve(start)], [0, 0, 0]);
        assert_eq!([limit.reserve(start), limit.reserve(start)], [100, 200]);
        assert!(!limit.is_full(start.plus_ms(499)) && limit.is_full(start.plus_ms(500)));
        assert_eq!(limit.reserve(start.plus_ms(500)), 0);
    }

    #[test]
    fn a_steady_stream_is_measured_exactly() {
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
        assert_eq!(limit.reserve(start.plus_ms(10_000), 1), 0, "unused capacity is not saved up");
    }

    #[test]
    fn an_unused_reservation_is_returned() {
        let start = Moment::default().plus_ms(1_000);
        let mut limit = RateLimit::new(NonZeroU64::new(1_000_000).unwrap(), start);
        assert_eq!([limit.reserve(start, 500_000), limit.reserve(start, 500_000)], [0, 500]);
        limit.refund(start, 500_000);
        assert_eq!(limit.reserve(start, 1), 500);
        limit.refund(start, 1 << 40);
        assert_eq!(limit.reserve(start, 1_000), 0, "a refund saves nothing up");
        assert_eq!(limit.reserve(start, 1), 1);
    }
}
