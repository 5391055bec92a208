//! Pieces that were received by one worker and wait to be verified, then to be written.

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

/// A piece that was received whole.
pub(crate) struct BufferedPiece {
    pub(crate) download: Arc<ActiveDownload>,
    /// Its indices, and what to verify at each.
    pub(crate) received: ReceivedPiece,
    /// Its bytes, from the start of the buffer.
    pub(crate) buffer: PooledBuf,
    /// Length in bytes.
    pub(crate) length: usize,
    /// Has to be dropped after the buffer.
    pub(crate) permit: BufferPermit,
}

/// A piece whose digest matches.
pub(crate) struct VerifiedPiece {
    pub(crate) piece: BufferedPiece,
}

/// A queue of one worker's pieces. The number of receive buffers bounds it.
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
    /// Adds a piece at the end.
    pub(crate) fn push(&self, piece: T) {
        self.waiting.borrow_mut().push_back(piece);
        self.wake.notify_one();
    }

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

    /// The next piece, if there is one and `is_wanted` accepts it.
    pub(crate) fn take_next_if(&self, is_wanted: impl FnOnce(&T) -> bool) -> Option<T> {
        let mut waiting = self.waiting.borrow_mut();
        waiting.front().is_some_and(is_wanted).then(|| waiting.pop_front()).flatten()
    }

    /// Waits for up to [`VERIFY_BATCH`] pieces. A batch costs the same however many lanes it fills, so fewer pieces wait
    /// [`VERIFY_WAIT_MS`] for more.
    pub(crate) async fn take_batch(&self) -> Vec<T> {
        while self.waiting.borrow().is_empty() {
            self.wake.notified().await;
        }
        let is_full = async {
            while self.waiting.borrow().len() < VERIFY_BATCH {
                self.wake.notified().await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(VERIFY_WAIT_MS), is_full).await;
        let mut waiting = self.waiting.borrow_mut();
        let count = waiting.len().min(VERIFY_BATCH);
        waiting.drain(..count).collect()
    }
}
