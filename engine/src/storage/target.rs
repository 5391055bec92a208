//! Where a download is written: a partial file, locked and reserved, that gets its final name when it is whole and
//! durable.
//!
//! ```text
//!   open:                          any order, any thread:     finish:
//!   create ─► lock ─► reserve ───► write_piece, writeback ──► flush file ─► rename ─► flush directory
//!   NAME.<8 hex>.part              sync                       NAME
//! ```
//!
//! Invariants:
//! * One target at a time writes a partial file: the lock says so, to this process and to others.
//! * Space for all wanted ranges is reserved before the first piece, where the filesystem can without writing; the rest stays
//!   holes.
//! * The final name is taken once, by a rename of flushed bytes, and over nothing unless told to.
//! * A partial file that this target made and could not reserve is removed again.
//! * After a failed flush no flush of this target succeeds until what was written is said to be written again: the kernel
//!   drops what it could not write, reports it once, and would call the next flush a success. For the same reason one
//!   flush at a time runs: of two, one alone would hear of the failure.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Advice, AtFlags, FallocateFlags, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::destination::{Destination, DestinationEntry, partial_name};
use super::error::{StorageError, StorageErrorKind, StorageOperation, to_storage_error};
use super::file_identity::FileIdentity;
use super::limits::{OPEN_ATTEMPTS_MAX, TMPFS_MAGIC};
use super::source::{Source, non_regular_kind};
use crate::mem::writeback;
use crate::proto::units::{Digest, PIECE_BYTES};

#[cfg(test)]
mod tests;

/// What a download will write.
#[derive(Clone, Copy, Debug)]
pub struct TargetLayout<'a> {
    /// Of the whole file, in bytes; the longest possible while only the number of pieces is known.
    pub length: u64,
    /// Ranges to reserve, in bytes, ascending: all but the pieces of zeros.
    pub reserved_ranges: &'a [Range<u64>],
}

impl TargetLayout<'_> {
    fn reserved_bytes(&self) -> u64 {
        self.reserved_ranges.iter().map(|range| range.end - range.start).sum()
    }
}

/// A download's file on disk. Share it by `Arc`; every method takes `&self`, from any thread.
#[derive(Debug)]
pub struct Target {
    destination: Destination,
    partial_name: OsString,
    file: File,
    length: Arc<AtomicU64>,
    reserved_bytes: u64,
    /// In bytes, before it was set; `None` when there was no file.
    initial_length: Option<u64>,
    /// Held while a flush runs.
    flush_failed: Mutex<bool>,
}

/// The steps of [`Target::finish_download`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FinishStep {
    FlushFile,
    Rename,
    FlushDirectory,
}

/// The crash order of the end: after a crash between any two steps, the final name has nothing, what it had, or all
/// of it.
const FINISH_ORDER: [FinishStep; 3] = [FinishStep::FlushFile, FinishStep::Rename, FinishStep::FlushDirectory];

impl Target {
    /// Opens or makes the partial file of `content` in `group` beside the destination, takes its lock, sets its length
    /// and reserves the wanted ranges. Bytes that are there already stay.
    ///
    /// # Errors
    /// [`StorageError`]: no space (and then no new file is left), locked by another download, read-only, not permitted,
    /// or something else has the partial file's name.
    pub fn open(
        destination: Destination,
        group: &str,
        content: Digest,
        plan: TargetLayout<'_>,
    ) -> Result<Target, StorageError> {
        let partial = partial_name(destination.name(), group, content);
        let (file, found_length) = open_locked(&destination, &partial, plan)?;
        let target = Target {
            destination,
            partial_name: partial,
            file,
            length: Arc::new(AtomicU64::new(plan.length)),
            reserved_bytes: plan.reserved_bytes(),
            initial_length: found_length,
            flush_failed: Mutex::new(false),
        };
        if let Err(error) = target.reserve(plan) {
            if target.is_new() {
                // The cause matters more than what may go wrong in cleaning up.
                let _ = target.discard();
            }
            return Err(error);
        }
        Ok(target)
    }

    /// The final path, absolute.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.destination.path()
    }

    /// The partial file's path, absolute.
    #[must_use]
    pub fn partial_path(&self) -> PathBuf {
        self.destination.path().with_file_name(&self.partial_name)
    }

    /// Whether there was no partial file before, and so nothing to resume from.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.initial_length.is_none()
    }

    /// How long the partial file was when it was found, in bytes; what lies behind was not written by anybody.
    #[must_use]
    pub fn initial_length(&self) -> u64 {
        self.initial_length.unwrap_or(0)
    }

    /// Which file it is, whatever its name.
    pub(super) fn identity(&self) -> Result<FileIdentity, StorageError> {
        FileIdentity::of(&self.file).map_err(|error| self.error(StorageOperation::Open, error))
    }

    /// Where it will be.
    #[must_use]
    pub fn destination(&self) -> &Destination {
        &self.destination
    }

    /// Writes verified bytes at `offset`.
    ///
    /// # Errors
    /// [`StorageError`]; part of the bytes may have been written.
    pub fn write_piece(&self, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        self.file.write_all_at(bytes, offset).map_err(|error| self.error(StorageOperation::Write, error))
    }

    /// Reads what is at `offset` into all of `bytes`, to be verified.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn read_piece(&self, offset: u64, bytes: &mut [u8]) -> Result<(), StorageError> {
        self.file.read_exact_at(bytes, offset).map_err(|error| self.error(StorageOperation::Read, error))
    }

    /// Makes a range, in bytes, read as zeros, whatever was written there; a hole where the filesystem has holes.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn zero_range(&self, range: Range<u64>) -> Result<(), StorageError> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let len = range.end - range.start;
        match rustix::io::retry_on_intr(|| rustix::fs::fallocate(&self.file, flags, range.start, len)) {
            Ok(()) => Ok(()),
            Err(Errno::NOTSUP | Errno::NOSYS) => {
                let zeros = vec![0; PIECE_BYTES as usize];
                let mut start = range.start;
                while start < range.end {
                    let length = zeros.len().min(usize::try_from(range.end - start).unwrap_or(usize::MAX));
                    self.write_piece(start, &zeros[..length])?;
                    start += length as u64;
                }
                Ok(())
            }
            Err(errno) => Err(self.error(StorageOperation::Write, errno)),
        }
    }

    /// Sets the exact length, learnt when only the number of pieces was known.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn set_length(&self, length: u64) -> Result<(), StorageError> {
        // Readers must learn the new length before the file has it, lest they take it for a loss.
        self.length.fetch_min(length, Ordering::AcqRel);
        self.file.set_len(length).map_err(|error| self.error(StorageOperation::Resize, error))?;
        self.length.store(length, Ordering::Release);
        Ok(())
    }

    /// Starts to write a range, in bytes, to disk without waiting, so that the last flush is short.
    ///
    /// # Errors
    /// [`StorageError`] when the disk fails.
    pub fn start_writeback(&self, range: Range<u64>) -> Result<(), StorageError> {
        writeback::start_writeback(self.file.as_fd(), range.start, range.end - range.start)
            .map_err(|error| self.error(StorageOperation::Sync, error))
    }

    /// Lets go of what the page cache has of a range, in bytes: what is on the disk already, and mapped by nobody.
    ///
    /// # Errors
    /// [`StorageError`] when the system refuses; advice that is not taken harms nothing.
    pub fn drop_cached(&self, range: Range<u64>) -> Result<(), StorageError> {
        let length = NonZeroU64::new(range.end - range.start);
        rustix::fs::fadvise(&self.file, range.start, length, Advice::DontNeed)
            .map_err(|errno| self.error(StorageOperation::Sync, errno))
    }

    /// Flushes all that was written: afterwards, and not before, a record may claim it. Blocks.
    ///
    /// # Errors
    /// [`StorageError`], also after it until [`Target::clear_flush_failure`]: what was written since the last success may be lost;
    /// it must not be claimed.
    pub fn sync(&self) -> Result<(), StorageError> {
        self.flush(File::sync_data)
    }

    /// Lets flushes succeed again after one failed. From here on all that was written since the last success is doubted by
    /// the caller, and claimed only after it was written again: see [`ResumeJournal::doubted`].
    ///
    /// [`ResumeJournal::doubted`]: super::resume::Ledger::doubted
    pub fn clear_flush_failure(&self) {
        *self.lock_flush() = false;
    }

    /// What flushes say between one that failed and [`Target::clear_flush_failure`].
    pub(crate) fn flush_failed_error(&self) -> StorageError {
        self.error(StorageOperation::Sync, StorageErrorKind::FlushFailed)
    }

    /// As if the disk had just failed at a flush.
    #[cfg(test)]
    pub(crate) fn simulate_flush_failure(&self) -> StorageError {
        self.flush(|_| Err(Errno::IO.into())).expect_err("it fails")
    }

    /// A source over the partial file. Only verified ranges of it mean anything. It keeps working after
    /// [`Target::finish_download`] and does not hold the lock.
    ///
    /// # Errors
    /// [`StorageError`]: the file was removed or replaced, or cannot be mapped.
    pub fn reader(&self) -> Result<Source, StorageError> {
        let length = self.length.load(Ordering::Acquire);
        let file = self.reopen_for_reading()?;
        Source::over_partial(file, self.path(), length, Arc::clone(&self.length))
    }

    /// A source over the whole file that [`Target::finish_download`] has named, and over no other that has its name by now.
    ///
    /// # Errors
    /// [`StorageError`]: the file was removed or replaced, or cannot be mapped.
    pub fn open_finished(&self) -> Result<Source, StorageError> {
        Source::from_file(self.reopen_for_reading()?, self.path())
    }

    /// Makes the file durable under its final name: flush, rename, flush of the directory. Returns the final path.
    /// After an error of the rename or of the directory it may be called again. Blocks.
    ///
    /// # Errors
    /// [`StorageError`]: the final name is taken (`overwrite` replaces a regular file, and nothing else ever), the
    /// partial file is not ours any more, or the disk fails.
    pub fn finish(&self, overwrite: bool) -> Result<PathBuf, StorageError> {
        FINISH_ORDER.into_iter().try_for_each(|step| self.run_step(step, overwrite))?;
        Ok(self.path())
    }

    /// Removes the partial file, when it is still this one.
    ///
    /// # Errors
    /// [`StorageError`] when it is there and cannot be removed.
    pub fn discard(&self) -> Result<(), StorageError> {
        if !self.is_file_named(&self.partial_name)? {
            return Ok(());
        }
        rustix::fs::unlinkat(&self.destination.directory, &self.partial_name, AtFlags::empty())
            .map_err(to_storage_error(StorageOperation::Remove, &self.partial_path()))
    }

    fn run_step(&self, step: FinishStep, overwrite: bool) -> Result<(), StorageError> {
        match step {
            FinishStep::FlushFile => self.flush(File::sync_all),
            FinishStep::Rename => self.rename_to_final(overwrite),
            FinishStep::FlushDirectory => match rustix::fs::fsync(&self.destination.directory) {
                // Some network filesystems cannot flush directories, and need not.
                Ok(()) | Err(Errno::INVAL) => Ok(()),
                Err(errno) => Err(self.error(StorageOperation::Sync, errno)),
            },
        }
    }

    fn flush(&self, flush: impl FnOnce(&File) -> io::Result<()>) -> Result<(), StorageError> {
        let mut flush_failed = self.lock_flush();
        if *flush_failed {
            return Err(self.flush_failed_error());
        }
        flush(&self.file).map_err(|error| {
            *flush_failed = true;
            self.error(StorageOperation::Sync, error)
        })
    }

    fn lock_flush(&self) -> MutexGuard<'_, bool> {
        self.flush_failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rename_to_final(&self, overwrite: bool) -> Result<(), StorageError> {
        if !self.is_file_named(&self.partial_name)? {
            // A finish that failed after its rename is being repeated.
            let done = self.is_file_named(self.destination.name())?;
            return if done {
                Ok(())
            } else {
                Err(self.error(StorageOperation::Rename, StorageErrorKind::Replaced))
            };
        }
        if let DestinationEntry::Other(what) = self.destination.existing_entry()? {
            return Err(self.error(StorageOperation::Rename, StorageErrorKind::NotAFile(what)));
        }
        let directory = &self.destination.directory;
        let (from, to) = (&self.partial_name, self.destination.name());
        let flags = if overwrite { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        let result = match rustix::fs::renameat_with(directory, from, directory, to, flags) {
            // Filesystems that cannot refuse to replace can still refuse to link.
            Err(Errno::INVAL | Errno::NOSYS) if !overwrite => {
                rustix::fs::linkat(directory, from, directory, to, AtFlags::empty())
                    .and_then(|()| rustix::fs::unlinkat(directory, from, AtFlags::empty()))
            }
            other => other,
        };
        result.map_err(|errno| self.error(StorageOperation::Rename, errno))
    }

    /// Sets the length and reserves what is wanted.
    fn reserve(&self, plan: TargetLayout<'_>) -> Result<(), StorageError> {
        self.file.set_len(plan.length).map_err(|error| self.error(StorageOperation::Resize, error))?;
        if is_on_tmpfs(&self.file) {
            return self.check_free_space();
        }
        for range in plan.reserved_ranges {
            let len = range.end - range.start;
            let reserved = rustix::io::retry_on_intr(|| {
                rustix::fs::fallocate(&self.file, FallocateFlags::empty(), range.start, len)
            });
            match reserved {
                Ok(()) => {}
                // The filesystem cannot reserve: the length alone must do, and a full disk shows at a write.
                Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(()),
                Err(errno) => return Err(self.error(StorageOperation::Reserve, errno)),
            }
        }
        Ok(())
    }

    /// Fails where what is missing could not be written now. Nothing keeps the room free until then: a filesystem that fills
    /// meanwhile shows at a write.
    fn check_free_space(&self) -> Result<(), StorageError> {
        let stat =
            rustix::fs::fstatvfs(&self.file).map_err(|errno| self.error(StorageOperation::Reserve, errno))?;
        let is_unlimited = stat.f_blocks == 0;
        let missing = self.reserved_bytes.saturating_sub(self.allocated_bytes());
        if is_unlimited || missing <= stat.f_bavail.saturating_mul(stat.f_frsize) {
            return Ok(());
        }
        Err(self.error(StorageOperation::Reserve, Errno::NOSPC))
    }

    fn allocated_bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.blocks() * BLOCK_BYTES)
    }

    /// Whether a name of the directory is this very file.
    fn is_file_named(&self, name: &std::ffi::OsStr) -> Result<bool, StorageError> {
        let ours = self.file.metadata().map_err(|error| self.error(StorageOperation::Open, error))?;
        let named =
            self.destination.stat_name(name).map_err(|errno| self.error(StorageOperation::Open, errno))?;
        Ok(named.is_some_and(|named| (named.st_dev, named.st_ino) == (ours.dev(), ours.ino())))
    }

    /// This file, opened once more for reading alone, by whichever name it has now.
    fn reopen_for_reading(&self) -> Result<File, StorageError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let ours = self.file.metadata().map_err(|error| self.error(StorageOperation::Open, error))?;
        for name in [self.partial_name.as_os_str(), self.destination.name()] {
            let file = match rustix::fs::openat(&self.destination.directory, name, flags, Mode::empty()) {
                Ok(descriptor) => File::from(descriptor),
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(self.error(StorageOperation::Open, errno)),
            };
            let theirs = file.metadata().map_err(|error| self.error(StorageOperation::Open, error))?;
            if (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()) {
                return Ok(file);
            }
        }
        Err(self.error(StorageOperation::Open, StorageErrorKind::Replaced))
    }

    fn error(&self, operation: StorageOperation, cause: impl Into<StorageErrorKind>) -> StorageError {
        let needed = self.reserved_bytes.saturating_sub(self.allocated_bytes());
        let path = if operation == StorageOperation::Rename { self.path() } else { self.partial_path() };
        to_storage_error(operation, &path)(add_space_details(cause.into(), self.file.as_fd(), needed))
    }
}

/// Whether the file lies in a tmpfs, which reserves by filling memory with zeros: as dear as writing the file once more, and
/// all of it before the first piece is asked for.
fn is_on_tmpfs(file: &File) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|stat| stat.f_type == TMPFS_MAGIC)
}

/// Unit of `st_blocks`, in bytes (stat(2)).
const BLOCK_BYTES: u64 = 512;

/// Makes a full disk, or an exhausted quota, a cause of its own, with numbers.
pub(super) fn add_space_details(
    kind: StorageErrorKind,
    place: BorrowedFd<'_>,
    needed: u64,
) -> StorageErrorKind {
    let StorageErrorKind::Io(error) = &kind else { return kind };
    if !matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return kind;
    }
    let free = rustix::fs::fstatvfs(place).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    StorageErrorKind::NoSpace { needed, free }
}

/// Opens the partial file, making it if need be, and takes its lock; says how long it was, if it was there. Between opening and
/// locking another download may finish or discard that file: then it starts over.
fn open_locked(
    destination: &Destination,
    partial: &OsString,
    plan: TargetLayout<'_>,
) -> Result<(File, Option<u64>), StorageError> {
    let path = destination.path().with_file_name(partial);
    for _ in 0..OPEN_ATTEMPTS_MAX {
        let opened = open_or_create(destination, partial).map_err(|errno| {
            let kind = add_space_details(errno.into(), destination.directory.as_fd(), plan.reserved_bytes());
            to_storage_error(StorageOperation::Create, &path)(kind)
        })?;
        let Some((file, created)) = opened else { continue };
        let metadata = file.metadata().map_err(to_storage_error(StorageOperation::Open, &path))?;
        if let Some(what) = non_regular_kind(metadata.file_type()) {
            return Err(to_storage_error(StorageOperation::Open, &path)(StorageErrorKind::NotAFile(what)));
        }
        if metadata.uid() != rustix::process::geteuid().as_raw() && !created {
            // Its owner could change what was verified.
            return Err(to_storage_error(StorageOperation::Open, &path)(StorageErrorKind::WrongOwner));
        }
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => break,
            Err(errno) => return Err(to_storage_error(StorageOperation::Lock, &path)(errno)),
        }
        let named =
            destination.stat_name(partial).map_err(to_storage_error(StorageOperation::Open, &path))?;
        if named.is_some_and(|named| (named.st_dev, named.st_ino) == (metadata.dev(), metadata.ino())) {
            return Ok((file, (!created).then_some(metadata.len())));
        }
    }
    Err(to_storage_error(StorageOperation::Lock, &path)(StorageErrorKind::Locked))
}

/// `None` when it was there, and is gone.
fn open_or_create(destination: &Destination, partial: &OsString) -> rustix::io::Result<Option<(File, bool)>> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP | Mode::ROTH | Mode::WOTH;
    let open = |flags| rustix::fs::openat(&destination.directory, partial, flags, mode).map(File::from);
    match open(flags | OFlags::CREATE | OFlags::EXCL) {
        Ok(file) => Ok(Some((file, true))),
        Err(Errno::EXIST) => match open(flags) {
            Ok(file) => Ok(Some((file, false))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        },
        Err(errno) => Err(errno),
    }
}
