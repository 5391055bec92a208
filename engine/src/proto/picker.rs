//! Which piece to ask whom for next.
//!
//! From peers that have a part of the file: the rarest first, so that no piece dies out. From peers that have all of it:
//! runs, which a disk reads well, that start at a random piece which no partial holder has, so that leechers come by
//! different pieces and have something to trade. Nor is such a start or run to meet what a complete peer has said that it
//! gives to somebody else.
//!
//! Invariant: a piece that is not held yet is in exactly one place: needed, or in flight with at least one holder, or in
//! flight and landed (being verified and written).

use std::collections::BTreeMap;

use super::bitfield::Bitfield;
use super::limits::{ENDGAME_MIN_PIECES, ENDGAME_SHARE};
use super::units::{PieceCount, PieceIndex, PieceRange};

/// One connection of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Candidates that are looked at for the rarest: exact for files up to 2 GiB, a sample at a random place in larger ones.
const RAREST_SAMPLE: usize = 4_096;

/// Candidates that are looked at for one that no partial holder has.
const START_SAMPLE: usize = 256;

/// The pieces of one file on their way from missing to held.
#[derive(Debug)]
pub struct PiecePicker {
    needed: Bitfield,
    all_pieces: Bitfield,
    partial_holders: Vec<u16>,
    /// Pieces that somebody else is being sent: a complete holder has said so.
    deferred: Bitfield,
    in_flight_pieces: BTreeMap<PieceIndex, InFlightPiece>,
    duplicates_left: u32,
    random: fastrand::Rng,
}

#[derive(Debug, Default)]
struct InFlightPiece {
    /// Who was asked: one connection, or two at the end.
    asked: Vec<ConnectionId>,
    has_arrived: bool,
}

/// What a piece that arrived is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PieceArrival {
    /// It was missing: verify it.
    Wanted,
    /// It is here already, or being verified.
    Duplicate,
}

impl PiecePicker {
    /// All of `needed` is missing. The same seed makes the same choices.
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

    /// Counts a piece that a partial holder announced.
    pub fn add_partial_holder(&mut self, index: PieceIndex) {
        let holders = &mut self.partial_holders[index.as_usize()];
        *holders = holders.saturating_add(1);
    }

    /// Forgets pieces of a partial holder who has left, or is no longer a partial one.
    pub fn remove_partial_holder(&mut self, had: impl IntoIterator<Item = PieceIndex>) {
        for index in had {
            let holders = &mut self.partial_holders[index.as_usize()];
            *holders = holders.saturating_sub(1);
        }
    }

    /// Pieces that nobody has been asked for.
    #[must_use]
    pub fn needed(&self) -> PieceCount {
        self.needed.count()
    }

    /// Pieces that were asked for or are being verified.
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

    /// Whether `has` holds a piece that nobody has been asked for.
    #[must_use]
    pub fn needs_from(&self, has: &Bitfield) -> bool {
        self.needed.next_common(has, PieceIndex(0)).is_some()
    }

    /// Whether `has` holds a piece that has not arrived, whoever was asked for it.
    #[must_use]
    pub fn lacks_any_of(&self, has: &Bitfield) -> bool {
        let under_way =
            |(index, flight): (&PieceIndex, &InFlightPiece)| !flight.has_arrived && has.has(*index);
        self.needs_from(has) || self.in_flight_pieces.iter().any(under_way)
    }

    /// Takes up to `count` pieces for a connection whose peer has `has`. `cursor` is where its last run ended; `avoid` is
    /// a piece that this peer should not be asked for. Ascending where they are a run.
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
            self.in_flight_pieces.entry(*index).or_default().asked.push(connection);
        }
        if let Some(index) = spared {
            self.needed.insert(index);
        }
        picked
    }

    fn pick_runs(&mut self, has: &Bitfield, cursor: &mut Option<PieceIndex>, count: u32) -> Vec<PieceIndex> {
        let mut picked = Vec::new();
        while picked.len() < count as usize {
            // A run ends where a partial holder has been: what it has is not to leave the complete ones twice.
            let run = cursor.filter(|index| self.needed.has(*index));
            let next = run.filter(|index| self.is_new(*index)).or_else(|| self.find_run_start(has, run));
            let Some(index) = next else { break };
            self.needed.remove(index);
            picked.push(index);
            *cursor = index.0.checked_add(1).map(PieceIndex);
        }
        picked
    }

    /// Whether no partial holder has a piece, and nobody else is known to be sent it.
    fn is_new(&self, index: PieceIndex) -> bool {
        self.partial_holders[index.as_usize()] == 0 && !self.deferred.has(index)
    }

    /// Where a run starts: at a random needed piece, if possible one that no partial holder has. Otherwise the `run` goes on.
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

    /// Near the end: a piece that a connection owes which `lags`, and that this one may bring sooner. It costs one of the
    /// few duplicates that a transfer may have. `avoid` as for [`PiecePicker::pick_pieces`].
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

    /// The connection will not bring the piece: it is needed again, unless another connection owes it too.
    pub fn abandon(&mut self, connection: ConnectionId, index: PieceIndex) {
        let Some(flight) = self.in_flight_pieces.get_mut(&index) else { return };
        flight.asked.retain(|asked| *asked != connection);
        if flight.asked.is_empty() && !flight.has_arrived {
            self.in_flight_pieces.remove(&index);
            self.needed.insert(index);
        }
    }

    /// A complete holder gives the piece to somebody else first: it is needed again, and asked of complete ones last.
    pub fn defer(&mut self, connection: ConnectionId, index: PieceIndex) {
        self.deferred.insert(index);
        self.abandon(connection, index);
    }

    /// A piece has arrived whole.
    pub fn piece_arrived(&mut self, connection: ConnectionId, index: PieceIndex) -> PieceArrival {
        // A piece may come late, after the connection fell silent and the piece became needed again.
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

    /// A landed piece was not what it should be, or could not be written: it is needed again.
    pub fn retry_piece(&mut self, index: PieceIndex) {
        if self.in_flight_pieces.remove(&index).is_some() {
            self.needed.insert(index);
        }
    }

    /// The piece is verified and written. Returns the connections that still owe it.
    pub fn complete_piece(&mut self, index: PieceIndex) -> Vec<ConnectionId> {
        self.needed.remove(index);
        self.in_flight_pieces.remove(&index).map(|flight| flight.asked).unwrap_or_default()
    }
}

/// The pieces in both sets, once round the file from a random place.
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

/// Joins picked pieces into the fewest requests of at most `most` pieces each.
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
