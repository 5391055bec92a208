//! The log's file as the database uses it: positioned reads and writes, one lock, and counters.
//!
//! Invariants: one process holds the file at a time, until the database closes it. Every sync of the database reaches the
//! file and is counted.

use std::collections::hash_map::RandomState;
use std::fs::{File, OpenOptions, TryLockError};
use std::hash::BuildHasher as _;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use super::fault::ReplicaFault;
use super::limits::BLOCK_BYTES;

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

/// Any storage with several owners: the overlay of the check, then the database. Counts syncs, records the last read, and
/// refuses a block that is not as it was read first or written last.
///
/// The database checks its pages when it is opened. The blocks that are read then are known, so damage in a file that is
/// open is noticed, too.
#[derive(Clone, Debug)]
pub(super) struct CountedStorage {
    inner: Arc<dyn StorageBackend>,
    gauges: Arc<LogGauges>,
    blocks: Arc<Mutex<BlockSums>>,
}

/// Checksums of the blocks of a storage, by number; 0 where a block is not known.
#[derive(Debug, Default)]
struct BlockSums {
    sums: Vec<u64>,
    /// Keyed by the process, so that no damage is made to fit.
    hasher: RandomState,
}

impl BlockSums {
    fn sum(&self, block: &[u8]) -> u64 {
        self.hasher.hash_one(block).max(1)
    }

    /// The numbers and bytes of the blocks that lie in a range as a whole. Of a block that is only partly read nothing is
    /// known.
    fn whole_blocks(offset: u64, bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
        let first = offset.div_ceil(BLOCK_BYTES as u64);
        let before = first * BLOCK_BYTES as u64 - offset;
        let skipped = usize::try_from(before).expect("less than a block").min(bytes.len());
        let first = usize::try_from(first).expect("a file's blocks can be counted");
        bytes[skipped..]
            .chunks_exact(BLOCK_BYTES)
            .enumerate()
            .map(move |(index, block)| (first + index, block))
    }

    /// Compares the blocks that were read. Returns the offset of one that has changed.
    fn check_read(&mut self, offset: u64, bytes: &[u8]) -> Result<(), u64> {
        for (number, block) in BlockSums::whole_blocks(offset, bytes) {
            let sum = self.sum(block);
            match self.sums.get(number).copied().unwrap_or(0) {
                0 => self.set(number, sum),
                known if known == sum => {}
                _ => return Err(number as u64 * BLOCK_BYTES as u64),
            }
        }
        Ok(())
    }

    fn note_written(&mut self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let block_of =
            |at: u64| usize::try_from(at / BLOCK_BYTES as u64).expect("a file's blocks can be counted");
        for partial in [block_of(offset), block_of(offset + bytes.len() as u64 - 1)] {
            self.set(partial, 0);
        }
        for (number, block) in BlockSums::whole_blocks(offset, bytes) {
            let sum = self.sum(block);
            self.set(number, sum);
        }
    }

    fn set(&mut self, number: usize, sum: u64) {
        if number >= self.sums.len() {
            self.sums.resize(number + 1, 0);
        }
        self.sums[number] = sum;
    }

    /// Forgets what lies behind a new end of the storage, and the block that has the end in it.
    fn cut(&mut self, length: u64) {
        let kept = usize::try_from(length / BLOCK_BYTES as u64).expect("a file's blocks can be counted");
        self.sums.truncate(kept);
    }
}

impl CountedStorage {
    pub(super) fn new(inner: impl StorageBackend) -> CountedStorage {
        CountedStorage { inner: Arc::new(inner), gauges: Arc::default(), blocks: Arc::default() }
    }

    fn blocks(&self) -> MutexGuard<'_, BlockSums> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.inner.read(offset, out)?;
        self.blocks().check_read(offset, out).map_err(|at| {
            self.gauges.last_read.store(at, Ordering::Relaxed);
            io::Error::new(
                io::ErrorKind::InvalidData,
                "a page was changed by something else than this tracker",
            )
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.blocks().cut(len);
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()?;
        self.gauges.fsyncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.inner.write(offset, bytes)?;
        self.blocks().note_written(offset, bytes);
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_directory_that_cannot_be_synced_is_no_error_and_a_failed_disk_is() {
        let needs_none = |errno: Errno| needs_no_sync(&errno.into());
        assert!([Errno::INVAL, Errno::NOTSUP, Errno::ROFS].into_iter().all(needs_none));
        assert!(![Errno::IO, Errno::NOSPC, Errno::ACCESS].into_iter().any(needs_none));
    }

    #[test]
    fn a_block_that_changed_under_an_open_storage_is_refused_and_a_written_one_is_not() {
        let below = Arc::new(InMemoryBackend::new());
        below.set_len(3 * BLOCK_BYTES as u64).unwrap();
        let storage =
            CountedStorage { inner: Arc::clone(&below) as _, gauges: Arc::default(), blocks: Arc::default() };
        let read = |block: usize| {
            storage
                .read((block * BLOCK_BYTES) as u64, &mut vec![0; BLOCK_BYTES])
                .map_err(|error| error.kind())
        };
        storage.write(BLOCK_BYTES as u64, &[1; 2 * BLOCK_BYTES]).unwrap();
        assert_eq!([read(0), read(1), read(2)], [Ok(()); 3]);
        for block in [0, 1] {
            below.write((block * BLOCK_BYTES + 77) as u64, &[9]).unwrap();
            assert_eq!(read(block), Err(io::ErrorKind::InvalidData), "block {block}");
        }
        assert_eq!(storage.gauges.last_read(), BLOCK_BYTES as u64);
        assert_eq!(read(2), Ok(()));
        // A write of a part makes its block unknown until it is read.
        storage.write(BLOCK_BYTES as u64 + 5, &[3]).unwrap();
        assert_eq!(read(1), Ok(()));
        storage.set_len(2 * BLOCK_BYTES as u64).unwrap();
        below.set_len(3 * BLOCK_BYTES as u64).unwrap();
        assert_eq!(read(2), Ok(()), "a new block behind the end is not an old one");
    }
}
