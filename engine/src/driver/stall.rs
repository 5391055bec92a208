//! What each worker has been at, and for how long: one that stands still takes nothing from its sockets, and so makes peers look
//! silent. The same for each file that is written: a disk that does not take a piece is to be named.
//!
//! Invariant: a worker is at one thing at a time, and a file is written by one worker at a time; each says so before and after.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::proto::time::Moment;
use crate::proto::transfer::LOCAL_STALL_MS;

/// At nothing that takes long.
const IDLE: u64 = u64::MAX;

/// Of all workers.
#[derive(Debug, Default)]
pub(crate) struct StallDetector(Mutex<Vec<Arc<AtomicU64>>>);

/// Of one worker or file: since when it has been at one thing, in milliseconds of the clock's moments.
#[derive(Debug)]
pub(crate) struct BusyMarker(Arc<AtomicU64>);

/// It is at something, until this is dropped.
#[derive(Debug)]
pub(crate) struct BusySpan<'a>(&'a AtomicU64);

impl StallDetector {
    /// One more worker.
    pub(crate) fn add_worker(&self) -> BusyMarker {
        let pulse = BusyMarker::default();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&pulse.0));
        pulse
    }

    /// Whether a worker has been at one thing for so long that its silence is no peer's.
    pub(crate) fn is_any_stalled(&self, now: Moment) -> bool {
        let workers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        workers.iter().any(|since| busy_ms_of(since, now) > LOCAL_STALL_MS)
    }
}

impl Default for BusyMarker {
    fn default() -> BusyMarker {
        BusyMarker(Arc::new(AtomicU64::new(IDLE)))
    }
}

/// For how long; 0 when it is at nothing.
fn busy_ms_of(since: &AtomicU64, now: Moment) -> u64 {
    let since = since.load(Ordering::Relaxed);
    // Free is later than any moment.
    now.ms().saturating_sub(since)
}

impl BusyMarker {
    /// For how long it has been at what it is at; 0 when that is nothing.
    pub(crate) fn busy_ms(&self, now: Moment) -> u64 {
        busy_ms_of(&self.0, now)
    }

    /// It begins something.
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
    fn a_worker_that_is_long_at_one_thing_stands_still() {
        let (pulses, start) = (StallDetector::default(), Moment::default());
        let workers = [pulses.add_worker(), pulses.add_worker()];
        let later = start.plus_ms(LOCAL_STALL_MS + 1);
        assert!(!pulses.is_any_stalled(later));
        let busy = workers[1].mark_busy(start);
        assert!(!pulses.is_any_stalled(start.plus_ms(LOCAL_STALL_MS)));
        assert!(pulses.is_any_stalled(later));
        drop(busy);
        assert!(!pulses.is_any_stalled(later));
    }
}
