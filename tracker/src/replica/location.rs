//! Where a log lives, as far as whoever runs it needs to know: how to open it, to look at it, and how much room is left.

use std::path::PathBuf;

use super::fault::ReplicaFault;
use super::store::ReplicaStore;

/// The place of a log. Tests put one on storages that fail.
pub trait LogLocation: Send + 'static {
    /// Opens the log.
    ///
    /// # Errors
    /// [`ReplicaFault`].
    fn open(&mut self) -> Result<ReplicaStore, ReplicaFault>;

    /// Opens it so that nothing of it is changed: what is written stays in memory.
    ///
    /// # Errors
    /// [`ReplicaFault`].
    fn open_overlaid(&mut self) -> Result<ReplicaStore, ReplicaFault>;

    /// Free space there, in bytes; `None` where nobody can say.
    fn free_bytes(&self) -> Option<u64>;

    /// Its name, for messages.
    fn name(&self) -> String;
}

/// A directory.
#[derive(Clone, Debug)]
pub struct LogDirectory(pub PathBuf);

impl LogLocation for LogDirectory {
    fn open(&mut self) -> Result<ReplicaStore, ReplicaFault> {
        ReplicaStore::open(&self.0)
    }

    fn open_overlaid(&mut self) -> Result<ReplicaStore, ReplicaFault> {
        ReplicaStore::open_overlaid(&self.0)
    }

    fn free_bytes(&self) -> Option<u64> {
        let known = rustix::fs::statvfs(&self.0).ok()?;
        Some(known.f_bavail.saturating_mul(known.f_frsize))
    }

    fn name(&self) -> String {
        self.0.display().to_string()
    }
}
