//! Pieces that have landed on one worker, and wait to be verified and then to be written.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::buffers::BufferPermit;
use super::download::ActiveDownload;
use super::limits::{VERIFY_BATCH, VERIFY_WAIT_MS};
use crate::mem::pool::PooledBuf;
use crate::proto::transfer::ReceivedPiece;

/// A piece that has arrived whole.
pub(crate) struct BufferedPiece {
    /// Of which download.
    pub(crate) download: Arc<ActiveDownload>,
    /// What to verify.
    pub(crate) received: ReceivedPiece,
    /// Its bytes, from the start of the buffer.
    pub(crate) buffer: PooledBuf,
    /// How many.
    pub(crate) length: usize,
    /// Goes after the buffer.
    pub(crate) permit: BufferPermit,
}

/// A piece that has been verified.
pub(crate) struct VerifiedPiece {
    /// The piece.
    pub(crate) piece: BufferedPiece,
    /// Its link was checked, and holds.
    pub(crate) link_matches: bool,
}

/// Pieces of one worker that wait for the same thing. Bounded by the receive buffers.
pub(crate) struct PieceQueue<T> {
    waiting: RefCell<VecDeque<T>>,
    wake: Notify,
}

impl<T> Default for PieceQueue<T> {
    fn default() -> PieceQueue<T> {
        PieceQueue { waiting: RefCell::default(), wake: Notify::new() }
    }
}

impl<T> PieceQueue<T> {
    /// Adds a piece.
    pub(crate) fn push(&self, piece: T) {
        self.waiting.borrow_mut().push_back(piece);
        self.wake.notify_one();
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// Waits for a piece.
    pub(crate) async fn take_next(&self) -> T {
        loop {
            if let Some(piece) = self.take_next_if(|_| true) {
                return piece;
            }
            self.wake.notified().await;
        }
    }

    /// The next piece, if there is one that will do.
    pub(crate) fn take_next_if(&self, will_do: impl FnOnce(&T) -> bool) -> Option<T> {
        let mut waiting = self.waiting.borrow_mut();
        waiting.front().is_some_and(will_do).then(|| waiting.pop_front()).flatten()
    }

    /// Waits for pieces; takes up to a full set of lanes. Fewer wait a moment for more, since a set of lanes costs the
    /// same however full it is.
    pub(crate) async fn take_batch(&self) -> Vec<T> {
        while self.waiting.borrow().is_empty() {
            self.wake.notified().await;
        }
        let enough = async {
            while self.waiting.borrow().len() < VERIFY_BATCH {
                self.wake.notified().await;
            }
        };
        // Time over: then what is there has to do.
        let _ = tokio::time::timeout(Duration::from_millis(VERIFY_WAIT_MS), enough).await;
        let mut waiting = self.waiting.borrow_mut();
        let count = waiting.len().min(VERIFY_BATCH);
        waiting.drain(..count).collect()
    }
}
