//! The end of a node, or of a part of its work, as something to wait for: threads that pause do it here, and so wake
//! at once when it comes.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use engine::lock::lock;

/// Whether it has come.
#[derive(Debug, Default)]
pub(crate) struct ShutdownLatch {
    is_set: Mutex<bool>,
    changed: Condvar,
}

impl ShutdownLatch {
    /// Ends it.
    pub(crate) fn set(&self) {
        *lock(&self.is_set) = true;
        self.changed.notify_all();
    }

    /// Whether it has ended.
    pub(crate) fn is_set(&self) -> bool {
        *lock(&self.is_set)
    }

    /// Waits for the end.
    pub(crate) fn wait(&self) {
        let over = lock(&self.is_set);
        drop(self.changed.wait_while(over, |over| !*over).unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits for the end, at most `pause`; whether it came.
    pub(crate) fn wait_timeout(&self, pause: Duration) -> bool {
        let over = lock(&self.is_set);
        let (over, _) = self
            .changed
            .wait_timeout_while(over, pause, |over| !*over)
            .unwrap_or_else(PoisonError::into_inner);
        *over
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_end_wakes_whoever_waits() {
        let ending = Arc::new(ShutdownLatch::default());
        assert!(!ending.wait_timeout(Duration::ZERO));
        let waiter = std::thread::spawn({
            let ending = Arc::clone(&ending);
            move || ending.wait()
        });
        ending.set();
        waiter.join().unwrap();
        assert!(ending.is_set() && ending.wait_timeout(Duration::MAX));
    }
}
