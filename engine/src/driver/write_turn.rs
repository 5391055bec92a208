//! Whose turn it is to write a file.
//!
//! The kernel lets one thread at a time write a file, and has others that would spin until it is done. A worker that must
//! wait for its turn goes back to its sockets and hashes instead.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// The turn to write one file.
#[derive(Debug, Default)]
pub(crate) struct WriteTurn {
    is_taken: AtomicBool,
    free: Notify,
}

impl WriteTurn {
    /// Waits for it. Whoever comes first when it is free has it: a worker that has more to do at once does not wait for
    /// one that is in the middle of something else.
    pub(crate) async fn acquire(&self) -> WriteTurnGuard<'_> {
        loop {
            if !self.is_taken.swap(true, Ordering::Acquire) {
                return WriteTurnGuard(self);
            }
            // A turn that ended since is remembered here.
            self.free.notified().await;
        }
    }
}

/// The turn, until this is dropped.
#[derive(Debug)]
pub(crate) struct WriteTurnGuard<'a>(&'a WriteTurn);

impl Drop for WriteTurnGuard<'_> {
    fn drop(&mut self) {
        self.0.is_taken.store(false, Ordering::Release);
        self.0.free.notify_one();
    }
}
