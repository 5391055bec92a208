//! Pieces that have landed on one worker and wait to be verified.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::buffers::Permit;
use super::download::DownloadState;
use super::limits::{VERIFY_BATCH, VERIFY_WAIT_MS};
use crate::mem::pool::PooledBuf;
use crate::proto::transfer::Job;

/// A piece that has arrived whole.
pub(crate) struct Landed {
    /// Of which download.
    pub(crate) download: Arc<DownloadState>,
    /// What to verify.
    pub(crate) job: Job,
    /// Its bytes, from the start of the buffer.
    pub(crate) buffer: PooledBuf,
    /// How many.
    pub(crate) length: usize,
    /// Goes after the buffer.
    pub(crate) permit: Permit,
}

/// The landed pieces of one worker. Bounded by the receive buffers.
#[derive(Default)]
pub(crate) struct LandedQueue {
    landed: RefCell<VecDeque<Landed>>,
    wake: Notify,
}

impl LandedQueue {
    /// Adds a piece.
    pub(crate) fn push(&self, landed: Landed) {
        self.landed.borrow_mut().push_back(landed);
        self.wake.notify_one();
    }

    /// Waits for pieces; takes up to a full set of lanes. Fewer wait a moment for more, since a set of lanes costs the
    /// same however full it is.
    pub(crate) async fn take(&self) -> Vec<Landed> {
        while self.landed.borrow().is_empty() {
            self.wake.notified().await;
        }
        let enough = async {
            while self.landed.borrow().len() < VERIFY_BATCH {
                self.wake.notified().await;
            }
        };
        // Time over: then what is there has to do.
        let _ = tokio::time::timeout(Duration::from_millis(VERIFY_WAIT_MS), enough).await;
        let mut landed = self.landed.borrow_mut();
        let count = landed.len().min(VERIFY_BATCH);
        landed.drain(..count).collect()
    }
}
