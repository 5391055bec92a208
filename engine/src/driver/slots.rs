//! Bounds the connections of one kind over all workers of a node.
//!
//! Invariant: at most `max` slots are taken; a slot is free again when its [`ConnectionSlotGuard`] is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The slots of one kind of connection.
#[derive(Debug)]
pub(crate) struct ConnectionSlots {
    max: usize,
    taken: Arc<AtomicUsize>,
}

/// A taken slot.
#[derive(Debug)]
pub(crate) struct ConnectionSlotGuard(Arc<AtomicUsize>);

impl ConnectionSlots {
    /// `max` free slots.
    pub(crate) fn new(max: usize) -> ConnectionSlots {
        ConnectionSlots { max, taken: Arc::default() }
    }

    /// Takes a slot; `None` when all are taken.
    pub(crate) fn take(&self) -> Option<ConnectionSlotGuard> {
        self.take_below(self.max)
    }

    /// Takes a slot while fewer than half are taken: the other half is left to peers without a connection.
    pub(crate) fn take_from_first_half(&self) -> Option<ConnectionSlotGuard> {
        self.take_below(self.max / 2)
    }

    fn take_below(&self, limit: usize) -> Option<ConnectionSlotGuard> {
        let one_more = |taken| (taken < limit).then_some(taken + 1);
        let result = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        result.is_ok().then(|| ConnectionSlotGuard(Arc::clone(&self.taken)))
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
    fn additional_connections_leave_half_of_the_slots() {
        let slots = ConnectionSlots::new(4);
        let _taken = (slots.take_from_first_half().unwrap(), slots.take_from_first_half().unwrap());
        assert!(slots.take_from_first_half().is_none());
        assert!(slots.take().is_some());
    }

    #[test]
    fn a_dropped_slot_is_free_again() {
        let slots = ConnectionSlots::new(2);
        let (first, _second) = (slots.take().unwrap(), slots.take().unwrap());
        assert!(slots.take().is_none());
        drop(first);
        assert!(slots.take().is_some());
    }
}
