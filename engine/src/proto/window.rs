//! How many pieces to request at once on one connection, from the rate that was measured.
//!
//! Too few requests leave a long link idle; too many tie pieces to a peer that becomes slow, and fill the queues of the
//! network. The window holds what the connection brings in `WINDOW_MS`, or in two round trips if those are longer, but at
//! most in `WINDOW_MAX_MS`; it stays between [`WINDOW_MIN_PIECES`] and [`OUTSTANDING_MAX_PIECES`]. While the window limits
//! the rate, it doubles within one or two round trips: until the first measurement by the answers, then by the rate.
//!
//! The wait for the first byte after a pause is the round trip of the link, and not part of its rate.

use super::limits::{OUTSTANDING_MAX_PIECES, WINDOW_MIN_PIECES};
use super::rate::RateMeter;
use super::time::Moment;
use super::units::PIECE_BYTES;

/// The window holds what arrives in this time: several round trips of most links.
const WINDOW_MS: u64 = 500;

/// The window never holds more than arrives in this time, however long the round trip.
const WINDOW_MAX_MS: u64 = 1_000;

/// Window before the first measurement.
const START_PIECES: u32 = 8;

/// A longer wait for the first byte is not a round trip: the rate has dropped.
const FIRST_BYTE_MS: u64 = 1_000;

const _: () = assert!(WINDOW_MS <= WINDOW_MAX_MS);
const _: () = assert!(WINDOW_MIN_PIECES <= START_PIECES && START_PIECES <= OUTSTANDING_MAX_PIECES);

/// The window of one connection, and the requests in flight.
#[derive(Clone, Debug)]
pub struct RequestWindow {
    meter: RateMeter,
    in_flight: u32,
    answered: u32,
    last_byte: Moment,
    /// When the first request after a pause was sent, until its first byte arrives.
    requested_at: Option<Moment>,
    /// Shortest wait for a first byte so far.
    round_trip_ms: Option<u64>,
}

impl RequestWindow {
    /// A window without requests in flight.
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

    /// Number of further pieces to request now.
    pub fn free_pieces(&mut self, now: Moment) -> u32 {
        self.size_pieces(now).saturating_sub(self.in_flight)
    }

    fn size_pieces(&mut self, now: Moment) -> u32 {
        let Some(rate) = self.measured_rate(now) else {
            // Each answer makes room for two requests.
            return START_PIECES.saturating_add(self.answered).min(OUTSTANDING_MAX_PIECES);
        };
        let holds_ms = (2 * self.round_trip_ms.unwrap_or(0)).clamp(WINDOW_MS, WINDOW_MAX_MS);
        let pieces = rate.saturating_mul(holds_ms) / 1_000 / u64::from(PIECE_BYTES);
        u32::try_from(pieces).unwrap_or(u32::MAX).clamp(WINDOW_MIN_PIECES, OUTSTANDING_MAX_PIECES)
    }

    /// Counts pieces that were requested.
    pub fn requested(&mut self, now: Moment, pieces: u32) {
        if self.in_flight == 0 && pieces > 0 {
            self.meter.restart(now);
            self.last_byte = now;
            self.requested_at = Some(now);
        }
        self.in_flight += pieces;
        assert!(self.in_flight <= OUTSTANDING_MAX_PIECES, "requests stay within the protocol's limit");
    }

    /// Counts a request that was answered.
    pub fn answered(&mut self) {
        self.in_flight = self.in_flight.checked_sub(1).expect("an answer is matched with its request first");
        self.answered = self.answered.saturating_add(1);
    }

    /// Counts bytes of pieces that were received.
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

    /// Restarts the measurement of silence, after this node did not read for a while.
    pub fn reset_silence(&mut self, now: Moment) {
        self.last_byte = now;
    }

    /// Pieces requested and not answered.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Rate in bytes a second; 0 before the first measurement.
    pub fn rate(&mut self, now: Moment) -> u64 {
        self.measured_rate(now).unwrap_or(0)
    }

    /// Rate in bytes a second; `None` before the first measurement. While no request is in flight, or the first byte is
    /// still due, the last measurement counts.
    pub fn measured_rate(&mut self, now: Moment) -> Option<u64> {
        let on_its_way = self.requested_at.is_some_and(|asked| now.ms_since(asked) < FIRST_BYTE_MS);
        if self.in_flight == 0 || on_its_way { self.meter.last_rate() } else { self.meter.rate(now) }
    }

    /// Milliseconds without a byte while requests are in flight; 0 when none is.
    #[must_use]
    pub fn silent_ms(&self, now: Moment) -> u64 {
        if self.in_flight == 0 { 0 } else { now.ms_since(self.last_byte) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Bytes a millisecond of a link of 1 Gbit/s.
    const GIGABIT: u64 = 125_000;

    /// Reads that one piece takes.
    const PARTS: u64 = 8;

    /// A link that its connections share evenly.
    struct Link {
        round_trip_ms: u64,
        bytes_per_ms: u64,
        connections: usize,
    }

    /// The receiving end of one connection.
    struct End {
        window: RequestWindow,
        /// For each request when its first byte can arrive, and the parts that are left.
        coming: std::collections::VecDeque<(u64, u64)>,
    }

    /// Result of a transfer over a link.
    struct Used {
        /// Shortest possible time in percent of the time taken.
        percent: u64,
        /// Most bytes requested and not received, in the second half of the transfer.
        peak_bytes: u64,
    }

    impl End {
        fn ask(&mut self, now: Moment, ready_ms: u64, to_ask: &mut u64) {
            let room = u64::from(self.window.free_pieces(now)).min(*to_ask);
            self.window.requested(now, u32::try_from(room).unwrap());
            self.coming.extend((0..room).map(|_| (ready_ms, PARTS)));
            *to_ask -= room;
        }

        /// Receives one part, if there is one. Returns whether it was the last of its piece.
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
                // Capacity that was not used is lost.
                credit = if idle == ends.len() { 0 } else { credit };
                ms += 1;
                assert!(ms < 1_000_000, "the transfer does not end");
            }
            let least_ms = self.round_trip_ms + total_bytes / self.bytes_per_ms;
            Used { percent: least_ms * 100 / ms, peak_bytes }
        }
    }

    #[test]
    fn a_long_link_is_used_fully_from_the_start() {
        for (round_trip_ms, connections, mib) in [
            (0, 1, 64),
            (1, 1, 64),
            // Across a continent, with one connection or as many as a single peer gets.
            (50, 1, 128),
            (50, 4, 64),
            // Across an ocean.
            (100, 1, 256),
            (200, 4, 256),
            (200, 1, 1_024),
            // Almost a satellite link.
            (400, 4, 1_024),
        ] {
            let used = Link { round_trip_ms, bytes_per_ms: GIGABIT, connections }.fetch(mib * MIB);
            let said = format!("{} % with {connections} over {round_trip_ms} ms, {mib} MiB", used.percent);
            assert!(used.percent >= 90, "{said}");
        }
    }

    #[test]
    fn the_bytes_queued_on_the_way_are_bounded_by_time() {
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
    fn the_wait_for_the_first_byte_is_not_part_of_the_rate() {
        let start = Moment::default();
        let mut window = RequestWindow::new(start);
        window.requested(start, START_PIECES);
        assert_eq!(
            window.size_pieces(start.plus_ms(FIRST_BYTE_MS - 1)),
            START_PIECES,
            "no byte can have arrived yet"
        );
        window.received(start.plus_ms(400), 0);
        window.received(start.plus_ms(800), 4 * MIB);
        assert_eq!(window.rate(start.plus_ms(800)), 10 * MIB);
        window.requested(start.plus_ms(900), 1);
        assert_eq!(window.rate(start.plus_ms(1_300)), 5 * MIB, "silence within a stream counts");
    }

    #[test]
    fn a_first_byte_that_never_arrives_is_not_a_round_trip() {
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
