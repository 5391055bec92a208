//! What a download has cost so far: time by kind, the wait for each piece, bytes on the wire.
//!
//! Invariant: what is counted is bounded, however long a download takes: histograms grow with the largest value only, and
//! that is cut at `LATENCY_MAX_US`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::limits::{LATENCY_DIGITS, LATENCY_MAX_US, LATENCY_SLOTS};
use crate::proto::time::Moment;
use crate::stats::Bottleneck;

/// Microseconds of all workers together, and counts.
#[derive(Debug, Default)]
pub(crate) struct DownloadCost {
    /// Proving pieces.
    pub(crate) hashing_us: AtomicU64,
    /// Writing them.
    pub(crate) writing_us: AtomicU64,
    /// Bytes in both directions on the connections that fetch: pieces, their frames' heads, handshakes, requests.
    pub(crate) wire_bytes: AtomicU64,
    first_verified: OnceLock<Moment>,
    latency: LatencyHistograms,
}

impl DownloadCost {
    /// A piece that was asked for at `asked` is proven now, on this worker.
    pub(crate) fn piece_verified(&self, worker: usize, now: Moment, asked: Moment) {
        self.first_verified.get_or_init(|| now);
        self.latency.record(worker, now.micros_since(asked));
    }

    /// When the first piece from a peer was proven.
    pub(crate) fn first_verified(&self) -> Option<Moment> {
        self.first_verified.get().copied()
    }

    /// From the request for a piece to its proof, in microseconds, over all workers.
    pub(crate) fn latency(&self) -> Histogram<u32> {
        self.latency.merged()
    }

    /// What held a download back most of the time that has `elapsed`.
    pub(crate) fn bottleneck(&self, elapsed: Duration, waited_for_peers_ms: u64) -> Bottleneck {
        let half = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX) / 2;
        let hashing = self.hashing_us.load(Ordering::Relaxed);
        let writing = self.writing_us.load(Ordering::Relaxed);
        if waited_for_peers_ms * 1_000 > half {
            Bottleneck::Peers
        } else if hashing.max(writing) < half {
            Bottleneck::Network
        } else if hashing >= writing {
            Bottleneck::Hashing
        } else {
            Bottleneck::Disk
        }
    }
}

/// One histogram a worker, so that none waits for another; merged when somebody asks.
#[derive(Debug, Default)]
struct LatencyHistograms {
    slots: [Mutex<Option<Histogram<u32>>>; LATENCY_SLOTS],
}

impl LatencyHistograms {
    fn record(&self, worker: usize, micros: u64) {
        let mut slot = self.slots[worker % LATENCY_SLOTS].lock().unwrap_or_else(PoisonError::into_inner);
        // Not `saturating_record`, which would cut at the present size instead of growing. It fails for values beyond the
        // counters only, and none is.
        let _ = slot.get_or_insert_with(empty_histogram).record(micros.min(LATENCY_MAX_US));
    }

    fn merged(&self) -> Histogram<u32> {
        let mut merged = empty_histogram();
        for slot in &self.slots {
            if let Some(histogram) = &*slot.lock().unwrap_or_else(PoisonError::into_inner) {
                // It resizes itself, so every value fits.
                let _ = merged.add(histogram);
            }
        }
        merged
    }
}

/// One that grows as far as its values do.
fn empty_histogram() -> Histogram<u32> {
    let mut histogram = Histogram::new(LATENCY_DIGITS).expect("a histogram keeps up to five digits");
    histogram.auto(true);
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_workers_recorded_is_merged_and_cut() {
        let spent = DownloadCost::default();
        let asked = Moment::default();
        let at = |micros| Moment::at(Duration::from_micros(micros));
        // Workers 0 and LATENCY_SLOTS share a slot.
        for (worker, micros) in [(0, 100), (1, 200), (LATENCY_SLOTS, 300), (2, u64::MAX)] {
            spent.piece_verified(worker, at(micros), asked);
        }
        let latency = spent.latency();
        assert_eq!(latency.len(), 4);
        assert_eq!(latency.min(), 100);
        assert!(latency.max() >= LATENCY_MAX_US && latency.max() < LATENCY_MAX_US / 50 * 51);
        assert_eq!(latency.value_at_quantile(0.5), 200);
        assert_eq!(spent.first_verified(), Some(at(100)));
    }
}
