//! How much to have on its way from one connection: requests follow the rate that was measured.
//!
//! Too few requests leave a long link idle between them; too many tie pieces to a peer that turns slow. The window is
//! what the connection brings in `WINDOW_MS`, never under [`WINDOW_MIN_PIECES`] nor over [`OUTSTANDING_MAX_PIECES`].
//! As long as it is the window that limits the rate, a round trip below `WINDOW_MS` makes the next window larger.

use super::limits::{OUTSTANDING_MAX_PIECES, WINDOW_MIN_PIECES};
use super::rate::RateMeter;
use super::time::Moment;
use super::units::PIECE_BYTES;

/// The window holds what arrives in this time: several round trips of any link on earth.
const WINDOW_MS: u64 = 500;

/// Before the first measurement: enough to measure by.
const START_PIECES: u32 = 8;

/// The requests in flight on one connection.
#[derive(Clone, Debug)]
pub struct Window {
    meter: RateMeter,
    in_flight: u32,
    last_byte: Moment,
}

impl Window {
    /// Nothing in flight.
    #[must_use]
    pub fn new(now: Moment) -> Window {
        Window { meter: RateMeter::new(now), in_flight: 0, last_byte: now }
    }

    /// How many more pieces to ask for now.
    pub fn room(&mut self, now: Moment) -> u32 {
        self.size(now).saturating_sub(self.in_flight)
    }

    fn size(&mut self, now: Moment) -> u32 {
        let Some(rate) = self.measured(now) else { return START_PIECES };
        let pieces = rate.saturating_mul(WINDOW_MS) / 1_000 / u64::from(PIECE_BYTES);
        u32::try_from(pieces).unwrap_or(u32::MAX).clamp(WINDOW_MIN_PIECES, OUTSTANDING_MAX_PIECES)
    }

    /// Counts pieces that were asked for.
    pub fn requested(&mut self, now: Moment, pieces: u32) {
        if self.in_flight == 0 {
            self.meter.restart(now);
            self.last_byte = now;
        }
        self.in_flight += pieces;
    }

    /// Counts a request that was answered.
    pub fn answered(&mut self) {
        self.in_flight = self.in_flight.checked_sub(1).expect("an answer is matched with its request first");
    }

    /// Counts bytes of pieces that arrived.
    pub fn received(&mut self, now: Moment, bytes: u64) {
        self.meter.add(now, bytes);
        self.last_byte = now;
    }

    /// Pieces asked for and not answered.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Bytes a second; 0 before the first measurement.
    pub fn rate(&mut self, now: Moment) -> u64 {
        self.measured(now).unwrap_or(0)
    }

    /// Bytes a second; `None` before the first measurement. While nothing was asked for, nothing can come: what was
    /// measured before still stands.
    pub fn measured(&mut self, now: Moment) -> Option<u64> {
        if self.in_flight == 0 { self.meter.last() } else { self.meter.rate(now) }
    }

    /// For how long requests have been open without a byte, in milliseconds.
    #[must_use]
    pub fn silent_ms(&self, now: Moment) -> u64 {
        if self.in_flight == 0 { 0 } else { now.ms_since(self.last_byte) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link with a delay and a bandwidth, served first come, first served; returns bytes a second at the end.
    fn rate_over_link(round_trip_ms: u64, bytes_per_ms: u64, total_ms: u64) -> u64 {
        let start = Moment::default();
        let mut window = Window::new(start);
        let mut arrivals = std::collections::VecDeque::new();
        let mut link_free_ms = 0;
        let mut tail_bytes = 0;
        for ms in 0..total_ms {
            let now = start.plus_ms(ms);
            while arrivals.front().is_some_and(|at| *at <= ms) {
                arrivals.pop_front();
                window.received(now, u64::from(PIECE_BYTES));
                window.answered();
                tail_bytes += if ms >= total_ms / 2 { u64::from(PIECE_BYTES) } else { 0 };
            }
            let room = window.room(now);
            window.requested(now, room);
            for _ in 0..room {
                link_free_ms = link_free_ms.max(ms + round_trip_ms) + u64::from(PIECE_BYTES) / bytes_per_ms;
                arrivals.push_back(link_free_ms);
            }
        }
        tail_bytes * 1_000 / (total_ms / 2)
    }

    #[test]
    fn it_fills_a_long_link() {
        let gigabit = 125_000;
        for round_trip_ms in [0, 1, 50, 200] {
            let rate = rate_over_link(round_trip_ms, gigabit, 20_000);
            assert!(rate > gigabit * 1_000 * 9 / 10, "{rate} bytes a second at {round_trip_ms} ms");
        }
    }

    #[test]
    fn a_slow_peer_holds_few_pieces() {
        let start = Moment::default();
        let mut window = Window::new(start);
        window.requested(start, START_PIECES);
        window.received(start.plus_ms(1_000), 100_000);
        assert_eq!(window.room(start.plus_ms(1_000)), 0);
        assert_eq!(window.size(start.plus_ms(1_000)), WINDOW_MIN_PIECES);
        assert_eq!(window.silent_ms(start.plus_ms(4_000)), 3_000);
    }

    #[test]
    fn an_idle_connection_keeps_its_rate() {
        let start = Moment::default();
        let mut window = Window::new(start);
        window.requested(start, 1);
        window.received(start.plus_ms(400), 1 << 20);
        window.answered();
        let rate = window.rate(start.plus_ms(400));
        assert!(rate > 0);
        assert_eq!(window.rate(start.plus_ms(10_000)), rate);
    }

    #[test]
    fn a_fast_peer_stays_within_the_protocol() {
        let start = Moment::default();
        let mut window = Window::new(start);
        window.received(start.plus_ms(200), 1 << 40);
        assert_eq!(window.room(start.plus_ms(200)), OUTSTANDING_MAX_PIECES);
    }
}
