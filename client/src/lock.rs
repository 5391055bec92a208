//! Taking a mutex whose holder may have panicked.
//!
//! Invariant: nothing in this crate leaves a half-changed value behind a lock (each change under one is a single
//! assignment, insertion or removal), so the value is sound even when its last holder panicked.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes the lock.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
