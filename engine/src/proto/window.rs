//! How much to have on its way from one connection: requests follow the rate that was measured.
//!
//! Too few requests leave a long link idle between them; too many tie pieces to a peer that turns slow, and fill the queues
//! on the way. The window is what the connection brings in `WINDOW_MS`, or in two round trips where those are longer, but
//! never in more than `WINDOW_MAX_MS`; it is never under [`WINDOW_MIN_PIECES`] nor over [`OUTSTANDING_MAX_PIECES`].
//! As long as it is the window that limits the rate, it doubles within a round trip or two: by what is answered until the
//! first measurement closes, by the rate from then on.
//!
//! Invariant: the wait for the first byte after a pause is the link's round trip, and no part of its rate.

use super::limits::{OUTSTANDING_MAX_PIECES, WINDOW_MIN_PIECES};
use super::rate::RateMeter;
use super::time::Moment;
use super::units::PIECE_BYTES;

/// The window holds what arrives in this time: several round trips of most links …
const WINDOW_MS: u64 = 500;

/// … and in this at most: what is queued on the way to a node is never older.
const WINDOW_MAX_MS: u64 = 1_000;

/// Before the first measurement: enough to measure by.
const START_PIECES: u32 = 8;

/// A first byte that takes longer than this is no round trip: the rate has sunk.
const FIRST_BYTE_MS: u64 = 1_000;

/// The requests in flight on one connection.
#[derive(Clone, Debug)]
pub struct RequestWindow {
    meter: RateMeter,
    in_flight: u32,
    answered: u32,
    last_byte: Moment,
    /// When something was asked for after a pause, until anything of it comes.
    requested_at: Option<Moment>,
    /// The shortest wait for a first byte so far.
    round_trip_ms: Option<u64>,
}

impl RequestWindow {
    /// Nothing in flight.
    #[must_use]
    pub fn new(now: Moment) -> RequestWindow {
        RequestWindow {
            meter: RateMeter::new(now),
            in_flight: 0,
            answered: 0,
            last_byte: now,
            requested_at: None,
            round_trip_ms: None,
        }
    }

    /// How many more pieces to ask for now.
    pub fn free_pieces(&mut self, now: Moment) -> u32 {
        self.size_pieces(now).saturating_sub(self.in_flight)
    }

    fn size_pieces(&mut self, now: Moment) -> u32 {
        let Some(rate) = self.measured_rate(now) else {
            // Each answer makes room for its own next and one more.
            return START_PIECES.saturating_add(self.answered).min(OUTSTANDING_MAX_PIECES);
        };
        let holds_ms = (2 * self.round_trip_ms.unwrap_or(0)).clamp(WINDOW_MS, WINDOW_MAX_MS);
        let pieces = rate.saturating_mul(holds_ms) / 1_000 / u64::from(PIECE_BYTES);
        u32::try_from(pieces).unwrap_or(u32::MAX).clamp(WINDOW_MIN_PIECES, OUTSTANDING_MAX_PIECES)
    }

    /// Counts pieces that were asked for.
    pub fn requested(&mut self, now: Moment, pieces: u32) {
        if self.in_flight == 0 && pieces > 0 {
            self.meter.restart(now);
            self.last_byte = now;
            self.requested_at = Some(now);
        }
        self.in_flight += pieces;
    }

    /// Counts a request that was answered.
    pub fn answered(&mut self) {
        self.in_flight = self.in_flight.checked_sub(1).expect("an answer is matched with its request first");
        self.answered = self.answered.saturating_add(1);
    }

    /// Counts bytes of pieces that arrived.
    pub fn received(&mut self, now: Moment, bytes: u64) {
        if let Some(asked) = self.requested_at.take() {
            let waited_ms = now.ms_since(asked);
            let round_trip_ms = self.round_trip_ms.unwrap_or(waited_ms).min(waited_ms);
            self.round_trip_ms = Some(round_trip_ms);
            self.meter.restart(now);
            self.meter.set_burst_interval(round_trip_ms);
        }
        self.meter.add(now, bytes);
        self.last_byte = now;
    }

    /// What may have come was not taken: a silence begins anew.
    pub fn reset_silence(&mut self, now: Moment) {
        self.last_byte = now;
    }

    /// Pieces asked for and not answered.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Bytes a second; 0 before the first measurement.
    pub fn rate(&mut self, now: Moment) -> u64 {
        self.measured_rate(now).unwrap_or(0)
    }

    /// Bytes a second; `None` before the first measurement. While nothing was asked for, or what was is still on its way, nothing
    /// can come: what was measured before still stands.
    pub fn measured_rate(&mut self, now: Moment) -> Option<u64> {
        let on_its_way = self.requested_at.is_some_and(|asked| now.ms_since(asked) < FIRST_BYTE_MS);
        if self.in_flight == 0 || on_its_way { self.meter.last_rate() } else { self.meter.rate(now) }
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

    const MIB: u64 = 1 << 20;

    /// Bytes in a millisecond, of a link of 1 Gbit/s.
    const GIGABIT: u64 = 125_000;

    /// Reads for one piece.
    const PARTS: u64 = 8;

    /// A link that several connections share evenly.
    struct Link {
        round_trip_ms: u64,
        bytes_per_ms: u64,
        connections: usize,
    }

    /// One of them.
    struct End {
        window: RequestWindow,
        /// Requests, by when the first of their bytes can be here, with how many parts are left.
        coming: std::collections::VecDeque<(u64, u64)>,
    }

    /// How a transfer over a link went.
    struct Used {
        /// Of the time that it took, how much it had to take, in percent.
        percent: u64,
        /// Most bytes that were asked for and had not come, in the second half of it.
        peak_bytes: u64,
    }

    impl End {
        fn ask(&mut self, now: Moment, ready_ms: u64, to_ask: &mut u64) {
            let room = u64::from(self.window.free_pieces(now)).min(*to_ask);
            self.window.requested(now, u32::try_from(room).unwrap());
            self.coming.extend((0..room).map(|_| (ready_ms, PARTS)));
            *to_ask -= room;
        }

        /// Takes one part, if there is one; whether it was the last of its piece.
        fn take_part(&mut self, now: Moment) -> Option<bool> {
            let (_, parts) = self.coming.front_mut().filter(|(ready_ms, _)| *ready_ms <= now.ms())?;
            *parts -= 1;
            let is_last = *parts == 0;
            self.window.received(now, u64::from(PIECE_BYTES) / PARTS);
            if is_last {
                self.coming.pop_front();
                self.window.answered();
            }
            Some(is_last)
        }
    }

    impl Link {
        fn fetch(&self, total_bytes: u64) -> Used {
            let start = Moment::default();
            let end =
                |_| End { window: RequestWindow::new(start), coming: std::collections::VecDeque::new() };
            let mut ends: Vec<End> = (0..self.connections).map(end).collect();
            let pieces = total_bytes / u64::from(PIECE_BYTES);
            let (mut to_ask, mut to_come) = (pieces, pieces);
            let (mut credit, mut turn, mut peak_bytes, mut ms) = (0, 0, 0, 0);
            while to_come > 0 {
                let now = start.plus_ms(ms);
                ends.iter_mut().for_each(|end| end.ask(now, ms + self.round_trip_ms, &mut to_ask));
                let in_flight: u64 = ends.iter().map(|end| u64::from(end.window.in_flight())).sum();
                if to_come < pieces / 2 {
                    peak_bytes = peak_bytes.max(in_flight * u64::from(PIECE_BYTES));
                }
                credit += self.bytes_per_ms;
                let mut idle = 0;
                while credit >= u64::from(PIECE_BYTES) / PARTS && idle < ends.len() {
                    turn = (turn + 1) % ends.len();
                    match ends[turn].take_part(now) {
                        Some(is_last) => {
                            to_come -= u64::from(is_last);
                            credit -= u64::from(PIECE_BYTES) / PARTS;
                            idle = 0;
                        }
                        None => idle += 1,
                    }
                }
                // A link saves up no time in which it had nothing to carry.
                credit = if idle == ends.len() { 0 } else { credit };
                ms += 1;
                assert!(ms < 1_000_000, "it never ends");
            }
            let least_ms = self.round_trip_ms + total_bytes / self.bytes_per_ms;
            Used { percent: least_ms * 100 / ms, peak_bytes }
        }
    }

    #[test]
    fn a_long_link_is_full_from_the_start() {
        for (round_trip_ms, connections, mib) in [
            (0, 1, 64),
            (1, 1, 64),
            // From one end of a continent to the other, by one connection or as many as a lone peer gets.
            (50, 1, 128),
            (50, 4, 64),
            // Over an ocean.
            (100, 1, 256),
            (200, 4, 256),
            (200, 1, 1_024),
            // By a satellite, nearly.
            (400, 4, 1_024),
        ] {
            let used = Link { round_trip_ms, bytes_per_ms: GIGABIT, connections }.fetch(mib * MIB);
            let said = format!("{} % with {connections} over {round_trip_ms} ms, {mib} MiB", used.percent);
            assert!(used.percent >= 90, "{said}");
        }
    }

    #[test]
    fn what_is_queued_on_the_way_is_bounded_by_time() {
        for bytes_per_ms in [GIGABIT / 10, GIGABIT] {
            for (round_trip_ms, connections) in [(1, 1), (1, 4), (50, 1), (50, 4), (200, 4)] {
                let used = Link { round_trip_ms, bytes_per_ms, connections }.fetch(bytes_per_ms * 10_000);
                let most = bytes_per_ms * (WINDOW_MAX_MS + round_trip_ms);
                let said = format!("{} bytes by {connections} over {round_trip_ms} ms", used.peak_bytes);
                assert!(used.peak_bytes <= most, "{said}, {bytes_per_ms} in each");
            }
        }
    }

    #[test]
    fn the_wait_for_a_first_byte_is_no_part_of_the_rate() {
        let start = Moment::default();
        let mut window = RequestWindow::new(start);
        window.requested(start, START_PIECES);
        assert_eq!(
            window.size_pieces(start.plus_ms(FIRST_BYTE_MS - 1)),
            START_PIECES,
            "nothing can have come yet"
        );
        window.received(start.plus_ms(400), 0);
        window.received(start.plus_ms(800), 4 * MIB);
        assert_eq!(window.rate(start.plus_ms(800)), 10 * MIB);
        window.requested(start.plus_ms(900), 1);
        assert_eq!(window.rate(start.plus_ms(1_300)), 5 * MIB, "silence amid a stream counts");
    }

    #[test]
    fn a_first_byte_that_never_comes_is_no_round_trip() {
        let start = Moment::default();
        let mut window = RequestWindow::new(start);
        window.requested(start, START_PIECES);
        assert_eq!(window.size_pieces(start.plus_ms(FIRST_BYTE_MS)), WINDOW_MIN_PIECES);
    }

    #[test]
    fn a_slow_peer_holds_few_pieces() {
        let start = Moment::default();
        let mut window = RequestWindow::new(start);
        window.requested(start, START_PIECES);
        window.received(start.plus_ms(100), 0);
        window.received(start.plus_ms(1_000), 100_000);
        assert_eq!(window.free_pieces(start.plus_ms(1_000)), 0);
        assert_eq!(window.size_pieces(start.plus_ms(1_000)), WINDOW_MIN_PIECES);
        assert_eq!(window.silent_ms(start.plus_ms(4_000)), 3_000);
    }

    #[test]
    fn an_idle_connection_keeps_its_rate() {
        let start = Moment::default();
        let mut window = RequestWindow::new(start);
        window.requested(start, 1);
        window.received(start.plus_ms(100), 0);
        window.received(start.plus_ms(400), 1 << 20);
        window.answered();
        let rate = window.rate(start.plus_ms(400));
        assert!(rate > 0);
        assert_eq!(window.rate(start.plus_ms(10_000)), rate);
    }

    #[test]
    fn a_fast_peer_stays_within_the_protocol() {
        let start = Moment::default();
        let mut window = RequestWindow::new(start);
        window.received(start.plus_ms(200), 1 << 40);
        assert_eq!(window.free_pieces(start.plus_ms(200)), OUTSTANDING_MAX_PIECES);
    }
}
