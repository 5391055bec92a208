//! How many connections of one kind a node has, over all its workers.
//!
//! Invariant: never more places are taken than there are; a place is free again when its [`Place`] is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So many connections may be of this kind.
#[derive(Debug)]
pub(crate) struct Places {
    most: usize,
    taken: Arc<AtomicUsize>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl Places {
    /// `most` free places.
    pub(crate) fn new(most: usize) -> Places {
        Places { most, taken: Arc::default() }
    }

    /// Takes a place; `None` when there is none.
    pub(crate) fn enter(&self) -> Option<Place> {
        self.enter_among(self.most)
    }

    /// Takes a place of the first half, so that the other is left to who needs one more.
    pub(crate) fn enter_first_half(&self) -> Option<Place> {
        self.enter_among(self.most / 2)
    }

    fn enter_among(&self, first: usize) -> Option<Place> {
        let one_more = |taken| (taken < first).then_some(taken + 1);
        let entered = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        entered.is_ok().then(|| Place(Arc::clone(&self.taken)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_is_left_to_who_needs_one() {
        let places = Places::new(4);
        let _taken = (places.enter_first_half().unwrap(), places.enter_first_half().unwrap());
        assert!(places.enter_first_half().is_none());
        assert!(places.enter().is_some());
    }

    #[test]
    fn a_place_that_was_left_is_free_again() {
        let places = Places::new(2);
        let (first, _second) = (places.enter().unwrap(), places.enter().unwrap());
        assert!(places.enter().is_none());
        drop(first);
        assert!(places.enter().is_some());
    }
}
