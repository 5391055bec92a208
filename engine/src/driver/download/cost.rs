//! What a download has cost so far: time by kind, latency of each piece, bytes on the wire.
//!
//! Invariant: the memory it takes is bounded however long a download lasts. A histogram grows with its largest value only,
//! and values are cut at `LATENCY_MAX_US`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

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

    /// Where the time went, of the phases that `phase_times` counts.
    pub(super) fn time_shares(&self, phase_times: PhaseTimes) -> TimeShares {
        TimeShares {
            phase_times,
            hashing_us: self.hashing_us.load(Ordering::Relaxed),
            writing_us: self.writing_us.load(Ordering::Relaxed),
            workers: self.latency.workers(),
        }
    }
}

/// How long a download was in the phases in which it could have received bytes, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PhaseTimes {
    pub(super) transferring_us: u64,
    pub(super) waiting_for_peers_us: u64,
    pub(super) waiting_for_disk_us: u64,
}

/// Where the time of a download went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimeShares {
    pub(super) phase_times: PhaseTimes,
    /// Summed over the workers.
    pub(super) hashing_us: u64,
    /// One worker at a time writes a file, so this is at most the time that has passed.
    pub(super) writing_us: u64,
    /// Workers that verified a piece.
    pub(super) workers: u64,
}

impl TimeShares {
    /// What held the download back most. A part of the node does so only when it has hardly a pause: a disk that is busy for
    /// half of the time keeps up with a network that brings no more.
    pub(super) fn bottleneck(self) -> Bottleneck {
        let PhaseTimes { transferring_us, waiting_for_peers_us, waiting_for_disk_us } = self.phase_times;
        let all_us = transferring_us + waiting_for_peers_us + waiting_for_disk_us;
        let disk_us = self.writing_us + waiting_for_disk_us;
        let active_us = transferring_us + waiting_for_disk_us;
        if all_us == 0 {
            Bottleneck::Network
        } else if waiting_for_peers_us > all_us / 2 {
            Bottleneck::Peers
        } else if disk_us >= active_us / 5 * 4 {
            Bottleneck::Disk
        } else if self.hashing_us >= active_us * self.workers.max(1) / 2 {
            Bottleneck::Hashing
        } else {
            Bottleneck::Network
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

    /// Workers that have recorded a value.
    fn workers(&self) -> u64 {
        self.slots.iter().filter(|slot| lock(slot).is_some()).count() as u64
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
    use std::time::Duration;

    use super::*;

    /// Two workers that transferred for ten seconds.
    fn shares(hashing_ms: u64, writing_ms: u64) -> TimeShares {
        let phase_times = PhaseTimes { transferring_us: 10_000_000, ..PhaseTimes::default() };
        TimeShares { phase_times, hashing_us: hashing_ms * 1_000, writing_us: writing_ms * 1_000, workers: 2 }
    }

    #[test]
    fn a_part_of_the_node_limits_a_download_only_when_it_has_hardly_a_pause() {
        for (hashing_ms, writing_ms, limit) in [
            (500, 500, Bottleneck::Network),
            // At line rate, onto a disk that could take half as much again.
            (2_000, 6_600, Bottleneck::Network),
            (9_000, 2_000, Bottleneck::Network),
            (1_000, 9_000, Bottleneck::Disk),
            (12_000, 6_000, Bottleneck::Hashing),
        ] {
            assert_eq!(shares(hashing_ms, writing_ms).bottleneck(), limit, "{hashing_ms} {writing_ms}");
        }
    }

    #[test]
    fn waiting_counts_for_what_is_waited_for() {
        let waiting = |waiting_for_peers_us, waiting_for_disk_us| {
            let times = PhaseTimes { transferring_us: 1_000_000, waiting_for_peers_us, waiting_for_disk_us };
            TimeShares { phase_times: times, ..shares(100, 100) }.bottleneck()
        };
        assert_eq!(waiting(2_000_000, 0), Bottleneck::Peers);
        assert_eq!(waiting(500_000, 0), Bottleneck::Network);
        assert_eq!(waiting(0, 9_000_000), Bottleneck::Disk);
        let nothing = TimeShares { phase_times: PhaseTimes::default(), ..shares(0, 0) };
        assert_eq!(nothing.bottleneck(), Bottleneck::Network);
    }

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
