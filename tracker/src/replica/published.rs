//! State shared by a replica's handle and its thread: the options, and what the thread publishes.
//!
//! Invariant: reads use the store published last, or none while the log is being reopened.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::limits::SPACE_FLOOR_BYTES;
use super::store::ReplicaStore;

/// How a replica runs.
#[derive(Clone, Debug)]
pub struct ReplicaOptions {
    /// Address at which clients reach this tracker, `IP:PORT`. Other trackers are told it.
    pub address: String,
    /// Id of the cluster.
    pub cluster: String,
    /// Writes are refused while the filesystem has fewer free bytes than this.
    pub space_floor_bytes: u64,
}

impl ReplicaOptions {
    /// The default options of a tracker at an address, in a cluster.
    #[must_use]
    pub fn at(address: &str, cluster: &str) -> ReplicaOptions {
        let (address, cluster) = (address.to_owned(), cluster.to_owned());
        ReplicaOptions { address, cluster, space_floor_bytes: SPACE_FLOOR_BYTES }
    }
}

/// What the thread publishes for the handle.
#[derive(Debug, Default)]
pub(super) struct PublishedState {
    store: Mutex<Option<Arc<ReplicaStore>>>,
    epoch: AtomicU64,
    /// Why changes are refused at the moment.
    write_trouble: Mutex<Option<String>>,
    /// Number of published stores.
    generation: AtomicU64,
}

impl PublishedState {
    /// The store for reads.
    pub(super) fn store(&self) -> Option<Arc<ReplicaStore>> {
        self.lock().clone()
    }

    /// Sets the store for reads; `None` while the log is being reopened.
    pub(super) fn publish(&self, store: Option<Arc<ReplicaStore>>) {
        *self.lock() = store;
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Records why changes are refused, or that they are not, and logs each change of that.
    pub(super) fn set_write_trouble(&self, trouble: Option<String>) {
        let mut noted = self.write_trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*noted, &trouble) {
            (None, Some(why)) => tracing::error!("changes are refused: {why}"),
            (Some(_), None) => tracing::info!("changes are accepted again"),
            (Some(_), Some(_)) | (None, None) => {}
        }
        *noted = trouble;
    }

    pub(super) fn write_trouble(&self) -> Option<String> {
        self.write_trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
