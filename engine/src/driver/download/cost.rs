//! What a download has cost so far: time by kind, latency of each piece, bytes on the wire.
//!
//! Invariant: the memory it takes is bounded however long a download lasts. A histogram grows with its largest value only,
//! and values are cut at `LATENCY_MAX_US`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::super::limits::{LATENCY_DIGITS, LATENCY_MAX_US, LATENCY_SLOTS};
use crate::lock::lock;
use crate::proto::time::Moment;
use crate::stats::Bottleneck;

/// Costs of one download, summed over all workers.
#[derive(Debug, Default)]
pub(crate) struct DownloadCost {
    /// Microseconds spent hashing pieces.
    pub(crate) hashing_us: AtomicU64,
    /// Microseconds spent writing pieces.
    pub(crate) writing_us: AtomicU64,
    /// Bytes moved in either direction: pieces, frame heads, handshakes, requests.
    pub(crate) wire_bytes: AtomicU64,
    first_verified: OnceLock<Moment>,
    latency: LatencyHistograms,
}

impl DownloadCost {
    /// A piece that was requested at `requested_at` is verified now, on this worker.
    pub(crate) fn piece_verified(&self, worker: usize, now: Moment, requested_at: Moment) {
        self.first_verified.get_or_init(|| now);
        self.latency.record(worker, now.micros_since(requested_at));
    }

    /// When the first piece from a peer was verified.
    pub(super) fn first_verified(&self) -> Option<Moment> {
        self.first_verified.get().copied()
    }

    /// Microseconds from request to verification, one value for each piece.
    pub(crate) fn latency(&self) -> Histogram<u32> {
        self.latency.merged()
    }

    /// What held the download back for most of the time `elapsed`.
    pub(super) fn bottleneck(&self, elapsed: Duration, waited_for_peers_ms: u64) -> Bottleneck {
        let half_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX) / 2;
        let hashing_us = self.hashing_us.load(Ordering::Relaxed);
        let writing_us = self.writing_us.load(Ordering::Relaxed);
        if waited_for_peers_ms * 1_000 > half_us {
            Bottleneck::Peers
        } else if hashing_us.max(writing_us) < half_us {
            Bottleneck::Network
        } else if hashing_us >= writing_us {
            Bottleneck::Hashing
        } else {
            Bottleneck::Disk
        }
    }
}

/// A histogram for each worker, so that workers do not contend for one lock.
#[derive(Debug, Default)]
struct LatencyHistograms {
    slots: [Mutex<Option<Histogram<u32>>>; LATENCY_SLOTS],
}

impl LatencyHistograms {
    fn record(&self, worker: usize, micros: u64) {
        let mut slot = lock(&self.slots[worker % LATENCY_SLOTS]);
        // Not `saturating_record`, which cuts at the present size instead of growing. It fails only for values beyond the
        // counters, and none is.
        let _ = slot.get_or_insert_with(empty_histogram).record(micros.min(LATENCY_MAX_US));
    }

    fn merged(&self) -> Histogram<u32> {
        let mut merged = empty_histogram();
        for slot in &self.slots {
            if let Some(histogram) = &*lock(slot) {
                // The sum resizes itself, so every value fits.
                let _ = merged.add(histogram);
            }
        }
        merged
    }
}

fn empty_histogram() -> Histogram<u32> {
    let mut histogram = Histogram::new(LATENCY_DIGITS).expect("a histogram keeps up to five digits");
    histogram.auto(true);
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_of_all_workers_are_merged_and_cut() {
        let spent = DownloadCost::default();
        let requested_at = Moment::default();
        let at = |micros| Moment::at(Duration::from_micros(micros));
        // Workers 0 and LATENCY_SLOTS share a slot.
        for (worker, micros) in [(0, 100), (1, 200), (LATENCY_SLOTS, 300), (2, u64::MAX)] {
            spent.piece_verified(worker, at(micros), requested_at);
        }
        let latency = spent.latency();
        assert_eq!(latency.len(), 4);
        assert_eq!(latency.min(), 100);
        assert!(latency.max() >= LATENCY_MAX_US && latency.max() < LATENCY_MAX_US / 50 * 51);
        assert_eq!(latency.value_at_quantile(0.5), 200);
        assert_eq!(spent.first_verified(), Some(at(100)));
    }
}
