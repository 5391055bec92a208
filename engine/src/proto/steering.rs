//! How a complete provider spreads its pieces over several consumers: each piece leaves it once before any leaves it twice.
//!
//! Consumers choose for themselves, and learn of each other's pieces only when those have come. What is under way to one is
//! asked for by another in good faith, and then leaves the one uplink that all wait for a second time. Only the provider
//! knows; so it says `BusySpan` to who asks for such a piece, who chooses another and leaves this one for later.
//!
//! Invariants: nothing is refused to a lone consumer; whoever insists on a piece gets it; a consumer that has nothing else to
//! ask for is not put off more than [`DEFERRED_MAX`] times.

use std::collections::VecDeque;

use super::limits::DEFERRED_MAX;
use super::units::{PieceCount, PieceIndex};

/// What a provider has sent of a file, over all connections.
#[derive(Clone, Copy, Debug)]
pub struct UploadHistory<F> {
    sent: F,
    sent_in_all: u64,
    pieces: PieceCount,
    consumers: usize,
}

impl<F: Fn(PieceIndex) -> u32> UploadHistory<F> {
    /// Of the file's `pieces`, `sent` tells how often one was sent; together they are `sent_in_all`. There are `consumers` now.
    pub fn new(pieces: PieceCount, sent: F, sent_in_all: u64, consumers: usize) -> UploadHistory<F> {
        UploadHistory { sent, sent_in_all, pieces, consumers }
    }

    /// How often a piece was sent.
    pub(super) fn times_sent(&self, index: PieceIndex) -> u32 {
        (self.sent)(index)
    }

    /// Whether a piece was sent more often than pieces are on average: then there is another that was sent less.
    fn is_above_average(&self, index: PieceIndex) -> bool {
        u64::from(self.times_sent(index)) * u64::from(self.pieces.0) > self.sent_in_all
    }
}

/// What one consumer was turned away from.
#[derive(Debug, Default)]
pub(super) struct RequestSteering {
    /// The last pieces, the latest at the end.
    turned_away: VecDeque<PieceIndex>,
    /// How many since it was given one that was not ahead.
    deferred_in_a_row: usize,
}

impl RequestSteering {
    /// Whether this consumer should better ask for another piece.
    pub(super) fn should_defer<F: Fn(PieceIndex) -> u32>(
        &self,
        index: PieceIndex,
        spread: &UploadHistory<F>,
    ) -> bool {
        spread.consumers > 1
            && self.deferred_in_a_row < DEFERRED_MAX
            && spread.is_above_average(index)
            && !self.turned_away.contains(&index)
    }

    /// It was told so.
    pub(super) fn turned_away(&mut self, index: PieceIndex) {
        self.deferred_in_a_row += 1;
        if self.turned_away.len() == DEFERRED_MAX {
            self.turned_away.pop_front();
        }
        self.turned_away.push_back(index);
    }

    /// It is given a piece.
    pub(super) fn piece_sent<F: Fn(PieceIndex) -> u32>(
        &mut self,
        index: PieceIndex,
        spread: &UploadHistory<F>,
    ) {
        if !spread.is_above_average(index) {
            self.deferred_in_a_row = 0;
        }
    }
}
