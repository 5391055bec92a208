//! What each worker has been at, and for how long: one that stands still takes nothing from its sockets, and so makes peers look
//! silent. The same for each file that is written: a disk that does not take a piece is to be named.
//!
//! Invariant: a worker is at one thing at a time, and a file is written by one worker at a time; each says so before and after.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::proto::time::Moment;
use crate::proto::transfer::OWN_STALL_MS;

/// At nothing that takes long.
const FREE: u64 = u64::MAX;

/// Of all workers.
#[derive(Debug, Default)]
pub(crate) struct Pulses(Mutex<Vec<Arc<AtomicU64>>>);

/// Of one worker or file: since when it has been at one thing, in milliseconds of the clock's moments.
#[derive(Debug)]
pub(crate) struct Pulse(Arc<AtomicU64>);

/// It is at something, until this is dropped.
#[derive(Debug)]
pub(crate) struct Busy<'a>(&'a AtomicU64);

impl Pulses {
    /// One more worker.
    pub(crate) fn add(&self) -> Pulse {
        let pulse = Pulse::default();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&pulse.0));
        pulse
    }

    /// Whether a worker has been at one thing for so long that its silence is no peer's.
    pub(crate) fn stand_still(&self, now: Moment) -> bool {
        let workers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        workers.iter().any(|since| at_it_ms(since, now) > OWN_STALL_MS)
    }
}

impl Default for Pulse {
    fn default() -> Pulse {
        Pulse(Arc::new(AtomicU64::new(FREE)))
    }
}

/// For how long; 0 when it is at nothing.
fn at_it_ms(since: &AtomicU64, now: Moment) -> u64 {
    let since = since.load(Ordering::Relaxed);
    // Free is later than any moment.
    now.ms().saturating_sub(since)
}

impl Pulse {
    /// For how long it has been at what it is at; 0 when that is nothing.
    pub(crate) fn at_it_ms(&self, now: Moment) -> u64 {
        at_it_ms(&self.0, now)
    }

    /// It begins something.
    pub(crate) fn begin(&self, now: Moment) -> Busy<'_> {
        self.0.store(now.ms(), Ordering::Relaxed);
        Busy(&self.0)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.store(FREE, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_is_long_at_one_thing_stands_still() {
        let (pulses, start) = (Pulses::default(), Moment::default());
        let workers = [pulses.add(), pulses.add()];
        let later = start.plus_ms(OWN_STALL_MS + 1);
        assert!(!pulses.stand_still(later));
        let busy = workers[1].begin(start);
        assert!(!pulses.stand_still(start.plus_ms(OWN_STALL_MS)));
        assert!(pulses.stand_still(later));
        drop(busy);
        assert!(!pulses.stand_still(later));
    }
}
