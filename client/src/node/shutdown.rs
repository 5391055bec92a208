//! Flags that threads sleep on: the node's shutdown, and the wake-up of its recovery thread.

use std::time::Duration;

use super::sync::{Condvar, Mutex, PoisonError, lock};

/// A flag that is set once and stays set. A node's shutdown is one.
#[derive(Debug, Default)]
pub(crate) struct Latch {
    is_set: Mutex<bool>,
    changed: Condvar,
}

impl Latch {
    /// Sets it, and wakes all threads that wait for it.
    pub(crate) fn set(&self) {
        *lock(&self.is_set) = true;
        self.changed.notify_all();
    }

    /// Whether it is set.
    pub(crate) fn is_set(&self) -> bool {
        *lock(&self.is_set)
    }

    /// Waits until it is set.
    pub(crate) fn wait(&self) {
        let is_set = lock(&self.is_set);
        drop(self.changed.wait_while(is_set, |is_set| !*is_set).unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until it is set, at most `pause`; whether it is.
    pub(crate) fn wait_timeout(&self, pause: Duration) -> bool {
        let is_set = lock(&self.is_set);
        let (is_set, _) = self
            .changed
            .wait_timeout_while(is_set, pause, |is_set| !*is_set)
            .unwrap_or_else(PoisonError::into_inner);
        *is_set
    }
}

/// A flag that one thread waits for and resets. To set it before the thread waits, or several times, counts
/// once.
#[derive(Debug, Default)]
pub(super) struct WakeupFlag {
    is_set: Mutex<bool>,
    changed: Condvar,
}

impl WakeupFlag {
    /// Sets it, and wakes the thread that waits for it.
    pub(super) fn set(&self) {
        *lock(&self.is_set) = true;
        self.changed.notify_all();
    }

    /// Waits until it is set, at most `pause` (`None`: without a limit), and resets it; whether it was set.
    pub(super) fn wait(&self, pause: Option<Duration>) -> bool {
        let is_set = lock(&self.is_set);
        let mut is_set = match pause {
            None => {
                self.changed.wait_while(is_set, |is_set| !*is_set).unwrap_or_else(PoisonError::into_inner)
            }
            Some(pause) => {
                let waited = self.changed.wait_timeout_while(is_set, pause, |is_set| !*is_set);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        std::mem::take(&mut *is_set)
    }
}
