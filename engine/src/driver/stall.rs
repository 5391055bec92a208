//! Detects workers and files that are busy with one operation for long.
//!
//! A stalled worker reads none of its sockets, which makes peers look silent. A stalled write shows that the disk is what a
//! download waits for. Invariant: a marker covers one operation at a time; a file is written by one worker at a time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::lock::lock;
use crate::proto::time::Moment;
use crate::proto::transfer::LOCAL_STALL_MS;

/// The start of no operation: later than any moment.
const IDLE: u64 = u64::MAX;

/// The markers of all workers.
#[derive(Debug, Default)]
pub(crate) struct WorkerStalls(Mutex<Vec<Arc<AtomicU64>>>);

/// The start of one worker's or file's operation, in milliseconds of the clock's moments.
#[derive(Debug)]
pub(crate) struct BusyMarker(Arc<AtomicU64>);

/// An operation, until it is dropped.
#[derive(Debug)]
pub(crate) struct BusySpan<'a>(&'a AtomicU64);

impl WorkerStalls {
    /// The marker of another worker.
    pub(crate) fn add_worker(&self) -> BusyMarker {
        let marker = BusyMarker::default();
        lock(&self.0).push(Arc::clone(&marker.0));
        marker
    }

    /// Whether a worker has been busy for more than [`LOCAL_STALL_MS`]: then no peer is to blame for silence.
    pub(crate) fn is_any_stalled(&self, now: Moment) -> bool {
        lock(&self.0).iter().any(|start| busy_ms_of(start, now) > LOCAL_STALL_MS)
    }
}

impl Default for BusyMarker {
    fn default() -> BusyMarker {
        BusyMarker(Arc::new(AtomicU64::new(IDLE)))
    }
}

fn busy_ms_of(start: &AtomicU64, now: Moment) -> u64 {
    now.ms().saturating_sub(start.load(Ordering::Relaxed))
}

impl BusyMarker {
    /// Milliseconds busy; 0 when idle.
    pub(crate) fn busy_ms(&self, now: Moment) -> u64 {
        busy_ms_of(&self.0, now)
    }

    /// Starts an operation.
    pub(crate) fn mark_busy(&self, now: Moment) -> BusySpan<'_> {
        self.0.store(now.ms(), Ordering::Relaxed);
        BusySpan(&self.0)
    }
}

impl Drop for BusySpan<'_> {
    fn drop(&mut self) {
        self.0.store(IDLE, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_is_busy_for_long_is_stalled() {
        let (detector, start) = (WorkerStalls::default(), Moment::default());
        let workers = [detector.add_worker(), detector.add_worker()];
        let later = start.plus_ms(LOCAL_STALL_MS + 1);
        assert!(!detector.is_any_stalled(later));
        let busy = workers[1].mark_busy(start);
        assert!(!detector.is_any_stalled(start.plus_ms(LOCAL_STALL_MS)));
        assert!(detector.is_any_stalled(later));
        drop(busy);
        assert!(!detector.is_any_stalled(later));
    }
}
