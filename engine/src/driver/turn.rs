//! Whose turn it is to write a file.
//!
//! The kernel lets one thread at a time write a file, and has others that would spin until it is done. A worker that must
//! wait for its turn goes back to its sockets and hashes instead.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// The turn to write one file.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    taken: AtomicBool,
    free: Notify,
}

impl Turn {
    /// Waits for it. Whoever comes first when it is free has it: a worker that has more to do at once does not wait for
    /// one that is in the middle of something else.
    pub(crate) async fn take(&self) -> Taken<'_> {
        loop {
            if !self.taken.swap(true, Ordering::Acquire) {
                return Taken(self);
            }
            // A turn that ended since is remembered here.
            self.free.notified().await;
        }
    }
}

/// The turn, until this is dropped.
#[derive(Debug)]
pub(crate) struct Taken<'a>(&'a Turn);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.taken.store(false, Ordering::Release);
        self.0.free.notify_one();
    }
}
