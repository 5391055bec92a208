//! All shares of a node, by the tracker's names of the files; and what wakes the thread that watches them.
//!
//! Invariant: a share that leaves the table is closed; no file is looked at under the lock of the table, since a filesystem
//! that does not answer would stop every connection.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::time::Duration;

use super::shares::Share;
use crate::lock::{lock, read, write};
use crate::proto::manifest::FileKey;
use crate::stats::ShareStatus;
use crate::storage::filesystem_threads::FilesystemThreads;
use crate::storage::limits::SOURCE_CHECK_MS;

#[cfg(test)]
mod tests;

/// All shares of a node.
#[derive(Debug, Default)]
pub(crate) struct ShareTable {
    by_key: RwLock<BTreeMap<FileKey, Arc<Share>>>,
}

impl ShareTable {
    /// Adds a share; one under the same key is closed.
    pub(crate) fn insert(&self, share: Arc<Share>) {
        let before = write(&self.by_key).insert(share.key().clone(), share);
        if let Some(before) = before {
            before.close();
        }
    }

    /// Adds a share, unless the whole of the same content is served under its key already. Whether it was added.
    pub(crate) fn insert_unless_whole(&self, share: Arc<Share>, threads: &FilesystemThreads) -> bool {
        let content_id = share.content_id();
        self.insert_unless(share, |found| found.is_whole_unchanged(content_id, threads))
    }

    /// Adds a share, unless the one under its key `stays`. It is called without the lock, and again when another share has
    /// come meanwhile.
    fn insert_unless(&self, share: Arc<Share>, stays: impl Fn(&Arc<Share>) -> bool) -> bool {
        loop {
            let found = self.find(share.key());
            if found.as_ref().is_some_and(&stays) {
                return false;
            }
            let mut by_key = write(&self.by_key);
            if by_key.get(share.key()).map(Arc::as_ptr) == found.as_ref().map(Arc::as_ptr) {
                by_key.insert(share.key().clone(), share);
                drop(by_key);
                found.inspect(|before| before.close());
                return true;
            }
        }
    }

    /// Closes the share under a key; whether there was one.
    pub(crate) fn remove(&self, key: &FileKey) -> bool {
        let share = write(&self.by_key).remove(key);
        share.map(|share| share.close()).is_some()
    }

    /// Closes this share, and removes it if it is the one under its key.
    pub(crate) fn remove_if_current(&self, share: &Arc<Share>) {
        let mut by_key = write(&self.by_key);
        if by_key.get(share.key()).is_some_and(|found| Arc::ptr_eq(found, share)) {
            by_key.remove(share.key());
        }
        share.close();
    }

    /// Whether this share is the one under its key.
    pub(crate) fn is_current(&self, share: &Arc<Share>) -> bool {
        self.find(share.key()).is_some_and(|found| Arc::ptr_eq(&found, share))
    }

    /// The share under a key.
    pub(crate) fn find(&self, key: &FileKey) -> Option<Arc<Share>> {
        read(&self.by_key).get(key).cloned()
    }

    /// The status of each share, by what is known of its file.
    pub(crate) fn statuses(&self, now_ms: u64) -> Vec<ShareStatus> {
        self.all().iter().map(|share| share.status(now_ms)).collect()
    }

    /// All shares.
    pub(crate) fn all(&self) -> Vec<Arc<Share>> {
        read(&self.by_key).values().cloned().collect()
    }

    /// Closes and removes all shares.
    pub(crate) fn close_all(&self) {
        let all = std::mem::take(&mut *write(&self.by_key));
        all.values().for_each(|share| share.close());
    }
}

/// Wakes or ends the thread that watches.
#[derive(Debug, Default)]
pub(crate) struct WatchSignal {
    state: Mutex<WatchRequest>,
    changed: Condvar,
}

/// What is asked of the thread that watches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum WatchRequest {
    #[default]
    Wait,
    /// A share has something to do now.
    Look,
    Stop,
}

impl WatchSignal {
    /// A share has something to do now.
    pub(crate) fn wake(&self) {
        self.set(WatchRequest::Look);
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        self.set(WatchRequest::Stop);
    }

    fn set(&self, request: WatchRequest) {
        let mut state = lock(&self.state);
        if *state != WatchRequest::Stop {
            *state = request;
        }
        self.changed.notify_one();
    }

    /// Waits for at most [`SOURCE_CHECK_MS`]; whether the thread goes on.
    pub(crate) fn wait(&self) -> bool {
        let pause = Duration::from_millis(SOURCE_CHECK_MS);
        let is_waiting = |request: &mut WatchRequest| *request == WatchRequest::Wait;
        let waited = self.changed.wait_timeout_while(lock(&self.state), pause, is_waiting);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        if *state == WatchRequest::Look {
            *state = WatchRequest::Wait;
        }
        *state != WatchRequest::Stop
    }
}
