//! What wakes the thread that brings shares and downloads back: something to do came up.
//!
//! Invariant: a ring that comes while nobody waits is not lost; many are as one.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use engine::lock::lock;

/// The bell.
#[derive(Debug, Default)]
pub(super) struct WakeupFlag {
    is_set: Mutex<bool>,
    changed: Condvar,
}

impl WakeupFlag {
    /// Rings.
    pub(super) fn set(&self) {
        *lock(&self.is_set) = true;
        self.changed.notify_all();
    }

    /// Waits until it rings, at most `pause`; for ever without one. Whether it rang.
    pub(super) fn wait(&self, pause: Option<Duration>) -> bool {
        let rung = lock(&self.is_set);
        let mut rung = match pause {
            None => self.changed.wait_while(rung, |rung| !*rung).unwrap_or_else(PoisonError::into_inner),
            Some(pause) => {
                let waited = self.changed.wait_timeout_while(rung, pause, |rung| !*rung);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        std::mem::take(&mut *rung)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_is_not_lost_and_counts_once() {
        let bell = WakeupFlag::default();
        bell.set();
        bell.set();
        assert!(bell.wait(None));
        assert!(!bell.wait(Some(Duration::ZERO)));
    }
}
