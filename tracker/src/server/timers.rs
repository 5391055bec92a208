//! A queue of deadlines, one per key.

use std::collections::{BTreeMap, BTreeSet};

/// Deadlines in milliseconds of the loop's clock.
#[derive(Debug)]
pub(super) struct TimerQueue<K> {
    by_time: BTreeSet<(u64, K)>,
    by_key: BTreeMap<K, u64>,
}

impl<K: Ord + Copy> TimerQueue<K> {
    pub(super) fn new() -> TimerQueue<K> {
        TimerQueue { by_time: BTreeSet::new(), by_key: BTreeMap::new() }
    }

    pub(super) fn set(&mut self, key: K, at_ms: u64) {
        self.cancel(key);
        self.by_key.insert(key, at_ms);
        self.by_time.insert((at_ms, key));
    }

    pub(super) fn is_set(&self, key: K) -> bool {
        self.by_key.contains_key(&key)
    }

    pub(super) fn deadline_ms(&self, key: K) -> Option<u64> {
        self.by_key.get(&key).copied()
    }

    pub(super) fn cancel(&mut self, key: K) {
        if let Some(at_ms) = self.by_key.remove(&key) {
            self.by_time.remove(&(at_ms, key));
        }
    }

    pub(super) fn next_ms(&self) -> Option<u64> {
        self.by_time.first().map(|(at_ms, _)| *at_ms)
    }

    /// Removes the key with the earliest deadline, if that is at or before `now_ms`.
    pub(super) fn pop(&mut self, now_ms: u64) -> Option<K> {
        let (_, key) = *self.by_time.first().filter(|(at_ms, _)| *at_ms <= now_ms)?;
        self.cancel(key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_expire_in_order_and_once() {
        let mut timers = TimerQueue::new();
        timers.set('a', 30);
        timers.set('b', 10);
        timers.set('c', 20);
        timers.set('a', 5);
        timers.cancel('c');
        assert_eq!(timers.next_ms(), Some(5));
        assert_eq!(
            [timers.pop(4), timers.pop(10), timers.pop(10), timers.pop(99)],
            [None, Some('a'), Some('b'), None]
        );
        assert!(!timers.is_set('a') && timers.next_ms().is_none());
    }
}
