//! How a complete provider spreads its pieces over several consumers: each piece leaves it once before any leaves it twice.
//!
//! Consumers choose for themselves, and learn of each other's pieces only when those have come. What is under way to one is
//! asked for by another in good faith, and then leaves the one uplink that all wait for a second time. Only the provider
//! knows; so it says `Busy` to who asks for such a piece, who chooses another and leaves this one for later.
//!
//! Invariants: nothing is refused to a lone consumer; whoever insists on a piece gets it; a consumer that has nothing else to
//! ask for is not put off more than [`TURNED_AWAY_MAX`] times.

use std::collections::VecDeque;

use super::limits::TURNED_AWAY_MAX;
use super::units::{PieceCount, PieceIndex};

/// What a provider has sent of a file, over all connections.
#[derive(Clone, Copy, Debug)]
pub struct Spread<F> {
    sent: F,
    sent_in_all: u64,
    pieces: PieceCount,
    consumers: usize,
}

impl<F: Fn(PieceIndex) -> u32> Spread<F> {
    /// Of the file's `pieces`, `sent` tells how often one was sent; together they are `sent_in_all`. There are `consumers` now.
    pub fn new(pieces: PieceCount, sent: F, sent_in_all: u64, consumers: usize) -> Spread<F> {
        Spread { sent, sent_in_all, pieces, consumers }
    }

    /// How often a piece was sent.
    pub(super) fn sent(&self, index: PieceIndex) -> u32 {
        (self.sent)(index)
    }

    /// Whether a piece was sent more often than pieces are on average: then there is another that was sent less.
    fn is_ahead(&self, index: PieceIndex) -> bool {
        u64::from(self.sent(index)) * u64::from(self.pieces.0) > self.sent_in_all
    }
}

/// What one consumer was turned away from.
#[derive(Debug, Default)]
pub(super) struct Steering {
    /// The last pieces, the latest at the end.
    turned_away: VecDeque<PieceIndex>,
    /// How many since it was given one that was not ahead.
    in_vain: usize,
}

impl Steering {
    /// Whether this consumer should better ask for another piece.
    pub(super) fn turns_away<F: Fn(PieceIndex) -> u32>(&self, index: PieceIndex, spread: &Spread<F>) -> bool {
        spread.consumers > 1
            && self.in_vain < TURNED_AWAY_MAX
            && spread.is_ahead(index)
            && !self.turned_away.contains(&index)
    }

    /// It was told so.
    pub(super) fn turned_away(&mut self, index: PieceIndex) {
        self.in_vain += 1;
        if self.turned_away.len() == TURNED_AWAY_MAX {
            self.turned_away.pop_front();
        }
        self.turned_away.push_back(index);
    }

    /// It is given a piece.
    pub(super) fn gave<F: Fn(PieceIndex) -> u32>(&mut self, index: PieceIndex, spread: &Spread<F>) {
        if !spread.is_ahead(index) {
            self.in_vain = 0;
        }
    }
}
