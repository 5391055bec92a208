//! Where the time of a download goes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::stats::Limit;

/// Microseconds of all workers together.
#[derive(Debug, Default)]
pub(crate) struct Spent {
    /// Proving pieces.
    pub(crate) hashing: AtomicU64,
    /// Writing them.
    pub(crate) writing: AtomicU64,
}

impl Spent {
    /// What held a download back most of the time that has `elapsed`.
    pub(crate) fn limit(&self, elapsed: Duration, waited_for_peers_ms: u64) -> Limit {
        let half = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX) / 2;
        let hashing = self.hashing.load(Ordering::Relaxed);
        let writing = self.writing.load(Ordering::Relaxed);
        if waited_for_peers_ms * 1_000 > half {
            Limit::Peers
        } else if hashing.max(writing) < half {
            Limit::Network
        } else if hashing >= writing {
            Limit::Hashing
        } else {
            Limit::Disk
        }
    }
}
