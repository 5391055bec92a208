//! What a replica's handle and its thread both know: how it runs, and what it came to.
//!
//! Invariant: reads come from the store published last, or from none while the log is being opened anew.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::limits::SPACE_FLOOR_BYTES;
use super::store::ReplicaStore;

/// How a replica runs.
#[derive(Clone, Debug)]
pub struct ReplicaOptions {
    /// Where clients reach this tracker, `IP:PORT`; the other trackers are told.
    pub address: String,
    /// The id of the cluster whose key is at hand.
    pub cluster: String,
    /// Writes are refused while less than this is free, in bytes.
    pub space_floor_bytes: u64,
}

impl ReplicaOptions {
    /// The usual options of a tracker at an address, in a cluster.
    #[must_use]
    pub fn at(address: &str, cluster: &str) -> ReplicaOptions {
        let (address, cluster) = (address.to_owned(), cluster.to_owned());
        ReplicaOptions { address, cluster, space_floor_bytes: SPACE_FLOOR_BYTES }
    }
}

/// What the thread tells the handle.
#[derive(Debug, Default)]
pub(super) struct PublishedState {
    store: Mutex<Option<Arc<ReplicaStore>>>,
    epoch: AtomicU64,
    /// How often another store was published.
    generation: AtomicU64,
}

impl PublishedState {
    /// The store that reads come from.
    pub(super) fn store(&self) -> Option<Arc<ReplicaStore>> {
        self.lock().clone()
    }

    /// From now on reads come from this store; from none while there is none.
    pub(super) fn publish(&self, store: Option<Arc<ReplicaStore>>) {
        *self.lock() = store;
        self.generation.fetch_add(1, Ordering::Release);
    }

    pub(super) fn set_epoch(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::Release);
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<ReplicaStore>>> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
