//! How a complete provider distributes its pieces over several consumers: each piece is sent once before any is sent twice.
//!
//! A consumer learns of another consumer's pieces only when they have arrived, so it requests pieces that are on their way
//! to another. Those would use the provider's uplink, for which all wait, a second time. The provider answers such a request
//! with `Busy`, and the consumer requests another piece first.
//!
//! A single consumer is never deferred. The same piece requested again is sent. A consumer that has nothing else to request
//! is deferred at most [`DEFERRED_MAX`] times.

use std::collections::VecDeque;

use super::limits::DEFERRED_MAX;
use super::units::{PieceCount, PieceIndex};

/// How often a provider has sent each piece of a file, over all connections.
#[derive(Clone, Copy, Debug)]
pub struct UploadHistory<F> {
    sent: F,
    sent_in_all: u64,
    pieces: PieceCount,
    consumers: usize,
}

impl<F: Fn(PieceIndex) -> u32> UploadHistory<F> {
    /// `sent` returns how often a piece was sent, and `sent_in_all` is the total. There are `consumers` at the moment.
    pub fn new(pieces: PieceCount, sent: F, sent_in_all: u64, consumers: usize) -> UploadHistory<F> {
        UploadHistory { sent, sent_in_all, pieces, consumers }
    }

    pub(super) fn times_sent(&self, index: PieceIndex) -> u32 {
        (self.sent)(index)
    }

    /// Whether a piece was sent more often than the average piece: then another one was sent less often.
    fn is_above_average(&self, index: PieceIndex) -> bool {
        u64::from(self.times_sent(index)) * u64::from(self.pieces.0) > self.sent_in_all
    }
}

/// The pieces for which one consumer was deferred.
#[derive(Debug, Default)]
pub(super) struct RequestSteering {
    /// The last deferred pieces, the latest at the end.
    turned_away: VecDeque<PieceIndex>,
    /// Number of deferrals since a piece was sent that was not above average.
    deferred_in_a_row: usize,
}

impl RequestSteering {
    /// Whether the consumer should request another piece first.
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

    /// Notes a deferral.
    pub(super) fn turned_away(&mut self, index: PieceIndex) {
        self.deferred_in_a_row += 1;
        assert!(self.deferred_in_a_row <= DEFERRED_MAX, "a consumer is deferred a limited number of times");
        if self.turned_away.len() == DEFERRED_MAX {
            self.turned_away.pop_front();
        }
        self.turned_away.push_back(index);
    }

    /// Notes a piece that is sent.
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
