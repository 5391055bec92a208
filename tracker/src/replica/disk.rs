//! The log's file as the database uses it: positioned reads and writes, one lock, and counters.
//!
//! Invariants: one process holds the file at a time, until the database closes it. Every sync of the database reaches the
//! file and is counted.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::StorageBackend;

use super::fault::ReplicaFault;

/// Counters of one opening of the log, shared between threads.
#[derive(Debug, Default)]
pub(super) struct LogGauges {
    /// Syncs that reached the file.
    pub(super) fsyncs: AtomicU64,
    /// Entries appended.
    pub(super) entries: AtomicU64,
    /// Commands applied.
    pub(super) commands: AtomicU64,
    /// Index of the entry that was applied last; 0 before the first.
    pub(super) applied: AtomicU64,
    /// Offset of the last read, in bytes.
    last_read: AtomicU64,
}

impl LogGauges {
    /// Offset of the last read, in bytes. After an error it is the place of the damage.
    pub(super) fn last_read(&self) -> u64 {
        self.last_read.load(Ordering::Relaxed)
    }
}

/// A file with an exclusive lock.
#[derive(Debug)]
pub(super) struct LockedFile {
    file: File,
}

impl LockedFile {
    /// Opens a file and locks it. A new file is readable by its owner only, since it will hold password hashes.
    ///
    /// # Errors
    /// [`ReplicaFault::InUse`] when another process holds the lock, else [`ReplicaFault::Io`].
    pub(super) fn open(path: &Path, create: bool) -> Result<LockedFile, ReplicaFault> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(create)
            .mode(0o600)
            .open(path)
            .map_err(|source| ReplicaFault::io(path, "open the log", source))?;
        match file.try_lock() {
            Ok(()) => Ok(LockedFile { file }),
            Err(TryLockError::WouldBlock) => Err(ReplicaFault::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(ReplicaFault::io(path, "lock the log", source)),
        }
    }
}

/// Makes the names in a directory durable.
///
/// # Errors
/// The system's. A filesystem that cannot sync directories, or is read-only, needs no sync and gives no error.
pub(super) fn sync_directory(dir: &Path) -> io::Result<()> {
    match File::open(dir)?.sync_all() {
        Err(error) if needs_no_sync(&error) => Ok(()),
        synced => synced,
    }
}

fn needs_no_sync(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, ReadOnlyFilesystem, Unsupported};
    matches!(error.kind(), InvalidInput | Unsupported | ReadOnlyFilesystem)
}

impl StorageBackend for LockedFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn close(&self) -> io::Result<()> {
        self.file.unlock()
    }
}

/// Any storage with several owners: the overlay of the check, then the database. Counts syncs and records the last read.
#[derive(Clone, Debug)]
pub(super) struct CountedStorage {
    inner: Arc<dyn StorageBackend>,
    gauges: Arc<LogGauges>,
}

impl CountedStorage {
    pub(super) fn new(inner: impl StorageBackend) -> CountedStorage {
        CountedStorage { inner: Arc::new(inner), gauges: Arc::default() }
    }

    pub(super) fn gauges(&self) -> &Arc<LogGauges> {
        &self.gauges
    }
}

impl StorageBackend for CountedStorage {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.gauges.last_read.store(offset, Ordering::Relaxed);
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()?;
        self.gauges.fsyncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.inner.write(offset, bytes)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_directory_that_cannot_be_synced_is_no_error_and_a_failed_disk_is() {
        let needs_none = |errno: Errno| needs_no_sync(&errno.into());
        assert!([Errno::INVAL, Errno::NOTSUP, Errno::ROFS].into_iter().all(needs_none));
        assert!(![Errno::IO, Errno::NOSPC, Errno::ACCESS].into_iter().any(needs_none));
    }
}
