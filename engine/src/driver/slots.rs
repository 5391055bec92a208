//! How many connections of one kind a node has, over all its workers.
//!
//! Invariant: never more places are taken than there are; a place is free again when its [`ConnectionSlotGuard`] is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So many connections may be of this kind.
#[derive(Debug)]
pub(crate) struct ConnectionSlots {
    max: usize,
    taken: Arc<AtomicUsize>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionSlotGuard(Arc<AtomicUsize>);

impl ConnectionSlots {
    /// `most` free places.
    pub(crate) fn new(max: usize) -> ConnectionSlots {
        ConnectionSlots { max, taken: Arc::default() }
    }

    /// Takes a place; `None` when there is none.
    pub(crate) fn take(&self) -> Option<ConnectionSlotGuard> {
        self.take_below(self.max)
    }

    /// Takes a place of the first half, so that the other is left to who needs one more.
    pub(crate) fn take_from_first_half(&self) -> Option<ConnectionSlotGuard> {
        self.take_below(self.max / 2)
    }

    fn take_below(&self, first: usize) -> Option<ConnectionSlotGuard> {
        let one_more = |taken| (taken < first).then_some(taken + 1);
        let entered = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        entered.is_ok().then(|| ConnectionSlotGuard(Arc::clone(&self.taken)))
    }
}

impl Drop for ConnectionSlotGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_is_left_to_who_needs_one() {
        let places = ConnectionSlots::new(4);
        let _taken = (places.take_from_first_half().unwrap(), places.take_from_first_half().unwrap());
        assert!(places.take_from_first_half().is_none());
        assert!(places.take().is_some());
    }

    #[test]
    fn a_place_that_was_left_is_free_again() {
        let places = ConnectionSlots::new(2);
        let (first, _second) = (places.take().unwrap(), places.take().unwrap());
        assert!(places.take().is_none());
        drop(first);
        assert!(places.take().is_some());
    }
}
