//! Which pieces to request from which peer.
//!
//! From a partial holder: the rarest pieces first, so that none is lost to the swarm. From a complete holder: runs, which a
//! disk reads well. A run starts at a random piece that no partial holder has, so that leechers get different pieces, and
//! avoids pieces that a complete holder deferred since it sends them to another peer.
//!
//! A piece that is not held is in exactly one place: needed, or in flight on at least one connection, or in flight and
//! arrived (being verified and written).

use std::collections::BTreeMap;

use super::bitfield::Bitfield;
use super::limits::{ENDGAME_MIN_PIECES, ENDGAME_SHARE};
use super::units::{PieceCount, PieceIndex, PieceRange};

/// A connection of one transfer. Ids are not reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Pieces compared to find the rarest: exact for files up to 2 GiB, a sample at a random place in larger ones.
const RAREST_SAMPLE: usize = 4_096;

/// Pieces tried to find one that no partial holder has.
const START_SAMPLE: usize = 256;

/// The pieces of one file on their way from missing to held.
#[derive(Debug)]
pub struct PiecePicker {
    needed: Bitfield,
    all_pieces: Bitfield,
    partial_holders: Vec<u16>,
    /// Pieces that a complete holder deferred, since it sends them to another peer.
    deferred: Bitfield,
    in_flight_pieces: BTreeMap<PieceIndex, InFlightPiece>,
    duplicates_left: u32,
    random: fastrand::Rng,
}

#[derive(Debug, Default)]
struct InFlightPiece {
    /// The connections that were asked: one, or two near the end.
    asked: Vec<ConnectionId>,
    has_arrived: bool,
}

/// Whether a piece that arrived is of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PieceArrival {
    /// The piece was missing: it is to be verified.
    Wanted,
    /// The piece is held or being verified already.
    Duplicate,
}

impl PiecePicker {
    /// A picker for the pieces `needed`. The same seed makes the same choices.
    #[must_use]
    pub fn new(needed: Bitfield, seed: u64) -> PiecePicker {
        let pieces = needed.pieces();
        PiecePicker {
            duplicates_left: (needed.count().0 / ENDGAME_SHARE).max(ENDGAME_MIN_PIECES),
            partial_holders: vec![0; pieces.as_usize()],
            all_pieces: Bitfield::full(pieces),
            deferred: Bitfield::empty(pieces),
            needed,
            in_flight_pieces: BTreeMap::new(),
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// Counts a partial holder of the piece.
    pub fn add_partial_holder(&mut self, index: PieceIndex) {
        let holders = &mut self.partial_holders[index.as_usize()];
        *holders = holders.saturating_add(1);
    }

    /// Removes the pieces of a partial holder that has left, or has become complete.
    pub fn remove_partial_holder(&mut self, had: impl IntoIterator<Item = PieceIndex>) {
        for index in had {
            let holders = &mut self.partial_holders[index.as_usize()];
            *holders = holders.saturating_sub(1);
        }
    }

    /// Number of pieces that were not requested from any peer.
    #[must_use]
    pub fn needed(&self) -> PieceCount {
        self.needed.count()
    }

    /// Number of pieces that were requested or are being verified.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight_pieces.len()
    }

    /// Whether a piece has arrived and is being verified or written.
    #[must_use]
    pub fn any_arrived(&self) -> bool {
        self.in_flight_pieces.values().any(|flight| flight.has_arrived)
    }

    /// The first piece that is needed or in flight.
    #[must_use]
    pub fn first_missing(&self) -> Option<PieceIndex> {
        let needed = self.needed.next_common(&self.all_pieces, PieceIndex(0));
        needed.into_iter().chain(self.in_flight_pieces.keys().next().copied()).min()
    }

    /// Whether `has` has a piece that was not requested from any peer.
    #[must_use]
    pub fn needs_from(&self, has: &Bitfield) -> bool {
        self.needed.next_common(has, PieceIndex(0)).is_some()
    }

    /// Whether `has` has a piece that has not arrived, requested or not.
    #[must_use]
    pub fn lacks_any_of(&self, has: &Bitfield) -> bool {
        let under_way =
            |(index, flight): (&PieceIndex, &InFlightPiece)| !flight.has_arrived && has.has(*index);
        self.needs_from(has) || self.in_flight_pieces.iter().any(under_way)
    }

    /// Takes up to `count` pieces to request on a connection whose peer has `has`. `cursor` is where its last run ended;
    /// `avoid` is a piece not to request from this peer.
    pub fn pick(
        &mut self,
        connection: ConnectionId,
        has: &Bitfield,
        cursor: &mut Option<PieceIndex>,
        avoid: Option<PieceIndex>,
        count: u32,
    ) -> Vec<PieceIndex> {
        let spared = avoid.filter(|index| self.needed.remove(*index));
        let picked =
            if has.is_full() { self.pick_runs(has, cursor, count) } else { self.pick_rarest(has, count) };
        for index in &picked {
            let asked = &mut self.in_flight_pieces.entry(*index).or_default().asked;
            assert!(asked.is_empty(), "piece {index} was needed and in flight at once");
            asked.push(connection);
        }
        if let Some(index) = spared {
            self.needed.insert(index);
        }
        assert!(picked.len() <= count as usize, "no more pieces are picked than the window has room for");
        picked
    }

    fn pick_runs(&mut self, has: &Bitfield, cursor: &mut Option<PieceIndex>, count: u32) -> Vec<PieceIndex> {
        let mut picked = Vec::new();
        while picked.len() < count as usize {
            // A run ends at a piece that a partial holder has: that piece need not use a complete holder's uplink again.
            let run = cursor.filter(|index| self.needed.has(*index));
            let next = run.filter(|index| self.is_new(*index)).or_else(|| self.find_run_start(has, run));
            let Some(index) = next else { break };
            self.needed.remove(index);
            picked.push(index);
            *cursor = index.0.checked_add(1).map(PieceIndex);
        }
        picked
    }

    /// Whether no partial holder has the piece, and no other peer is known to get it.
    fn is_new(&self, index: PieceIndex) -> bool {
        self.partial_holders[index.as_usize()] == 0 && !self.deferred.has(index)
    }

    /// Where the next run starts: at a random needed piece, if possible one that no partial holder has. Otherwise `run`, the
    /// current run, goes on.
    fn find_run_start(&mut self, has: &Bitfield, run: Option<PieceIndex>) -> Option<PieceIndex> {
        let mut fallback = run;
        for index in random_candidates(&self.needed, has, &mut self.random).take(START_SAMPLE) {
            if self.is_new(index) {
                return Some(index);
            }
            fallback = fallback.or(Some(index));
        }
        fallback
    }

    fn pick_rarest(&mut self, has: &Bitfield, count: u32) -> Vec<PieceIndex> {
        let mut sample: Vec<(u16, usize, PieceIndex)> =
            random_candidates(&self.needed, has, &mut self.random)
                .take(RAREST_SAMPLE)
                .enumerate()
                .map(|(order, index)| (self.partial_holders[index.as_usize()], order, index))
                .collect();
        sample.sort_unstable();
        sample.truncate(count as usize);
        let mut picked: Vec<PieceIndex> = sample.into_iter().map(|(_, _, index)| index).collect();
        picked.iter().for_each(|index| {
            self.needed.remove(*index);
        });
        picked.sort_unstable();
        picked
    }

    /// Near the end: a piece that was requested on a connection that `lags`, to request on this one too. It uses up one of
    /// the few duplicates of a transfer. `avoid` as for [`PiecePicker::pick`].
    pub fn pick_duplicate(
        &mut self,
        connection: ConnectionId,
        has: &Bitfield,
        avoid: Option<PieceIndex>,
        lags: impl Fn(ConnectionId) -> bool,
    ) -> Option<PieceIndex> {
        if self.duplicates_left == 0 || self.needed.count().0 != 0 {
            return None;
        }
        let (index, flight) = self.in_flight_pieces.iter_mut().find(|(index, flight)| {
            let wanted = !flight.has_arrived && flight.asked.len() == 1 && Some(**index) != avoid;
            wanted && lags(flight.asked[0]) && has.has(**index)
        })?;
        flight.asked.push(connection);
        self.duplicates_left -= 1;
        Some(*index)
    }

    /// The connection will not bring the piece: it is needed again, unless it was requested on another connection too.
    pub fn abandon(&mut self, connection: ConnectionId, index: PieceIndex) {
        let Some(flight) = self.in_flight_pieces.get_mut(&index) else { return };
        flight.asked.retain(|asked| *asked != connection);
        if flight.asked.is_empty() && !flight.has_arrived {
            self.in_flight_pieces.remove(&index);
            self.need_again(index);
        }
    }

    /// A complete holder deferred the piece: it is needed again, and requested from complete holders last.
    pub fn defer(&mut self, connection: ConnectionId, index: PieceIndex) {
        self.deferred.insert(index);
        self.abandon(connection, index);
    }

    /// A piece has arrived whole.
    pub fn piece_arrived(&mut self, connection: ConnectionId, index: PieceIndex) -> PieceArrival {
        // A piece may arrive late, when the connection had fallen silent and the piece was needed again.
        if self.needed.remove(index) {
            self.in_flight_pieces.insert(index, InFlightPiece { asked: vec![connection], has_arrived: true });
            return PieceArrival::Wanted;
        }
        match self.in_flight_pieces.get_mut(&index) {
            Some(flight) if !flight.has_arrived => {
                flight.has_arrived = true;
                PieceArrival::Wanted
            }
            _ => PieceArrival::Duplicate,
        }
    }

    /// A piece that arrived was wrong or could not be written: it is needed again.
    pub fn retry_piece(&mut self, index: PieceIndex) {
        if self.in_flight_pieces.remove(&index).is_some() {
            self.need_again(index);
        }
    }

    fn need_again(&mut self, index: PieceIndex) {
        let was_in_flight = self.needed.insert(index);
        assert!(was_in_flight, "piece {index} was needed and in flight at once");
    }

    /// The piece is verified and written. Returns the connections on which it was requested.
    pub fn complete_piece(&mut self, index: PieceIndex) -> Vec<ConnectionId> {
        self.needed.remove(index);
        self.in_flight_pieces.remove(&index).map(|flight| flight.asked).unwrap_or_default()
    }
}

/// The pieces in both sets, in order from a random place and around the end of the file.
fn random_candidates<'a>(
    needed: &'a Bitfield,
    has: &'a Bitfield,
    random: &mut fastrand::Rng,
) -> impl Iterator<Item = PieceIndex> + 'a {
    let pieces = needed.pieces().0;
    let start = if pieces == 0 { 0 } else { random.u32(0..pieces) };
    let after = common_from(needed, has, PieceIndex(start));
    let before = common_from(needed, has, PieceIndex(0)).take_while(move |index| index.0 < start);
    after.chain(before)
}

fn common_from<'a>(
    a: &'a Bitfield,
    b: &'a Bitfield,
    from: PieceIndex,
) -> impl Iterator<Item = PieceIndex> + 'a {
    let next = |from: PieceIndex| a.next_common(b, from);
    std::iter::successors(next(from), move |index| {
        index.0.checked_add(1).and_then(|from| next(PieceIndex(from)))
    })
}

/// Joins pieces into the fewest requests of at most `most` pieces each.
#[must_use]
pub fn join_requests(picked: &[PieceIndex], most: u32) -> Vec<(PieceIndex, PieceCount)> {
    let runs = PieceRange::from_ascending(picked.iter().copied());
    let cut = |run: PieceRange| {
        let (first, last) = (run.first().0, run.last().0);
        (first..=last)
            .step_by(most as usize)
            .map(move |start| (PieceIndex(start), PieceCount((last - start).min(most - 1) + 1)))
    };
    runs.into_iter().flat_map(cut).collect()
}

#[cfg(test)]
#[path = "picker_tests.rs"]
mod tests;
