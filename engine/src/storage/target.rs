//! The file that a download writes: a partial file, locked and reserved, which gets its final name when it is
//! complete and durable.
//!
//! ```text
//!   open:                          any order, any thread:     finish:
//!   create ─► lock ─► reserve ───► write_piece, writeback ──► flush file ─► rename ─► flush directory
//!   NAME.<8 hex>.part              sync                       NAME
//! ```
//!
//! Invariants:
//! * Space for all wanted ranges is reserved before the first piece, on filesystems that can do so without
//!   writing. Other ranges stay holes.
//! * The final name is taken once, by a rename of flushed bytes, and replaces an existing file only if asked to.
//! * Every change of the file goes through `Target::change_file`, so what another program wrote is noticed at
//!   the next change, flush or look, and before the rename.
//! * After a failed flush, flushes keep failing until [`Target::clear_flush_failure`]. The kernel drops pages
//!   that it could not write, reports that once, and would let the next flush succeed. Flushes run one at a
//!   time for the same reason: of two concurrent ones only one would get the error.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rustix::fs::{Advice, FallocateFlags};
use rustix::io::Errno;

use self::partial::PartialFile;
pub use self::partial::TargetLayout;
use super::destination::{Destination, sync_directory};
use super::error::{StorageError, StorageErrorKind, StorageOperation};
use super::file_identity::FileIdentity;
use super::file_state::{FileState, settled_state};
use super::filesystem_threads::FilesystemId;
use super::source::Source;
use crate::lock::lock;
use crate::mem::writeback;
use crate::proto::units::{Digest, PIECE_BYTES};

mod partial;
#[cfg(test)]
mod tests;

/// A download's file on disk. Share it by `Arc`; every method takes `&self`, from any thread.
#[derive(Debug)]
pub struct Target {
    partial: PartialFile,
    /// Length in bytes that readers may rely on.
    length: Arc<AtomicU64>,
    own_changes: Mutex<OwnChanges>,
    /// Locked for the duration of a flush.
    flush_failed: Mutex<bool>,
}

/// What this program did to the file.
#[derive(Debug)]
struct OwnChanges {
    /// Number of changes.
    count: u64,
    /// State of the file after the last change; `None` where only a flush makes it last.
    state_after: Option<FileState>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FinishStep {
    FlushFile,
    Rename,
    FlushDirectory,
}

/// The crash order of [`Target::finish`]. After a crash between any two steps, the final name is absent, names
/// the file that was there before, or names the complete file.
const FINISH_ORDER: [FinishStep; 3] = [FinishStep::FlushFile, FinishStep::Rename, FinishStep::FlushDirectory];

impl Target {
    /// Opens or creates the partial file of `content` in `group` beside the destination, takes its lock, sets
    /// its length and reserves the wanted ranges. Existing bytes stay.
    ///
    /// # Errors
    /// [`StorageError`]: no space (a new file is removed then), locked by another download, read-only, not
    /// permitted, or something else has the partial file's name.
    pub fn open(
        destination: Destination,
        group: &str,
        content: Digest,
        layout: TargetLayout<'_>,
    ) -> Result<Target, StorageError> {
        let partial = PartialFile::open(destination, group, content, layout)?;
        let length = Arc::new(AtomicU64::new(layout.length));
        let own_changes = Mutex::new(OwnChanges { count: 0, state_after: partial.exact_state() });
        Ok(Target { partial, length, own_changes, flush_failed: Mutex::new(false) })
    }

    /// The final path, absolute.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.partial.destination.path()
    }

    /// The partial file's path, absolute.
    #[must_use]
    pub fn partial_path(&self) -> PathBuf {
        self.partial.path()
    }

    /// The filesystem of the partial file.
    #[must_use]
    pub fn filesystem(&self) -> FilesystemId {
        self.partial.filesystem
    }

    /// Whether this target created the partial file, so that there is nothing to resume.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.partial.initial_length.is_none()
    }

    /// Length of the partial file when it was opened, in bytes. Nothing was ever written beyond it.
    #[must_use]
    pub fn initial_length(&self) -> u64 {
        self.partial.initial_length.unwrap_or(0)
    }

    /// State of the partial file when it was opened; `None` for a new file.
    pub(super) fn initial_state(&self) -> Option<FileState> {
        self.partial.initial_state
    }

    /// State of the partial file after this program's last change, if every later one will give it another.
    /// Blocks for milliseconds.
    #[must_use]
    pub fn settled_state(&self) -> Option<FileState> {
        settled_state(|| lock(&self.own_changes).state_after)
    }

    /// Whether the partial file is where it was created and nothing but this program has changed it. Blocks.
    ///
    /// # Errors
    /// [`StorageError`]: its name or directory is lost, or it was changed.
    pub fn examine(&self) -> Result<(), StorageError> {
        // Locked for all of it, so that no change and no rename of this program comes in between.
        let own_changes = lock(&self.own_changes);
        if self.partial.has_final_name()? {
            return Ok(());
        }
        self.partial.check_name()?;
        self.check_state(&own_changes)
    }

    /// Takes the file as it is now, with its full length: everything in it has to be hashed again.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn accept_changes(&self) -> Result<(), StorageError> {
        lock(&self.own_changes).state_after = None;
        let length = self.length.load(Ordering::Acquire);
        self.change_file(StorageOperation::Resize, |file| file.set_len(length))
    }

    /// Whether nothing but this program has changed the file since it was opened.
    ///
    /// # Errors
    /// [`StorageErrorKind::ChangedOutside`], until [`Target::accept_changes`]; its name or directory is lost; or it
    /// cannot be examined.
    pub fn check_unchanged(&self) -> Result<(), StorageError> {
        self.check_state(&lock(&self.own_changes))
    }

    fn check_state(&self, own_changes: &OwnChanges) -> Result<(), StorageError> {
        let Some(expected) = own_changes.state_after else { return Ok(()) };
        let now = FileState::of(&self.partial.file)
            .map_err(|error| self.partial.error(StorageOperation::Open, error))?;
        if now == expected {
            return Ok(());
        }
        // Moving and deleting a file change its state too.
        self.partial.check_name()?;
        Err(self.partial.error(StorageOperation::Write, StorageErrorKind::ChangedOutside))
    }

    /// Changes the file, unless another program has changed it since this program's last change.
    fn change_file(
        &self,
        operation: StorageOperation,
        change: impl FnOnce(&File) -> io::Result<()>,
    ) -> Result<(), StorageError> {
        let mut own_changes = lock(&self.own_changes);
        self.check_state(&own_changes)?;
        let result = change(&self.partial.file);
        own_changes.count += 1;
        own_changes.state_after = self.partial.exact_state();
        result.map_err(|error| self.partial.error(operation, error))
    }

    pub(super) fn identity(&self) -> Result<FileIdentity, StorageError> {
        FileIdentity::of(&self.partial.file)
            .map_err(|error| self.partial.error(StorageOperation::Open, error))
    }

    /// The directory and final name.
    #[must_use]
    pub fn destination(&self) -> &Destination {
        &self.partial.destination
    }

    /// Writes verified bytes at `offset`.
    ///
    /// # Errors
    /// [`StorageError`]; part of the bytes may have been written.
    pub fn write_piece(&self, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        self.change_file(StorageOperation::Write, |file| file.write_all_at(bytes, offset))
    }

    /// Fills `bytes` with the file's bytes from `offset` on.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn read_piece(&self, offset: u64, bytes: &mut [u8]) -> Result<(), StorageError> {
        self.partial
            .file
            .read_exact_at(bytes, offset)
            .map_err(|error| self.partial.error(StorageOperation::Read, error))
    }

    /// Makes a range, in bytes, read as zeros: punches a hole, or writes zeros where the filesystem has no
    /// holes.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn zero_range(&self, range: Range<u64>) -> Result<(), StorageError> {
        self.change_file(StorageOperation::Write, |file| match punch_hole(file, &range) {
            Err(Errno::NOTSUP | Errno::NOSYS) => write_zeros(file, &range),
            other => Ok(other?),
        })
    }

    /// Sets the exact length, once the last piece has proven it.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn set_length(&self, length: u64) -> Result<(), StorageError> {
        // Lower the readers' minimum before the file shrinks, or they would report a truncated file.
        self.length.fetch_min(length, Ordering::AcqRel);
        self.change_file(StorageOperation::Resize, |file| file.set_len(length))?;
        self.length.store(length, Ordering::Release);
        Ok(())
    }

    /// Starts to write a range, in bytes, to the disk without waiting, so that the last flush is short.
    ///
    /// # Errors
    /// [`StorageError`] when the disk fails.
    pub fn start_writeback(&self, range: Range<u64>) -> Result<(), StorageError> {
        writeback::start_writeback(self.partial.file.as_fd(), range.start, range.end - range.start)
            .map_err(|error| self.partial.error(StorageOperation::Sync, error))
    }

    /// Drops a range, in bytes, from the page cache. The range must be on the disk and must not be mapped.
    ///
    /// # Errors
    /// [`StorageError`] when the system refuses. It may also ignore the request without an error.
    pub fn drop_cached(&self, range: Range<u64>) -> Result<(), StorageError> {
        let length = NonZeroU64::new(range.end - range.start);
        rustix::fs::fadvise(&self.partial.file, range.start, length, Advice::DontNeed)
            .map_err(|errno| self.partial.error(StorageOperation::Sync, errno))
    }

    /// Flushes everything written. Only afterwards may a record list it. Blocks.
    ///
    /// # Errors
    /// [`StorageError`], and again until [`Target::clear_flush_failure`]: everything written since the last
    /// success may be lost and must not be claimed.
    pub fn sync(&self) -> Result<(), StorageError> {
        self.flush(File::sync_data)
    }

    /// Lets flushes succeed again after a failure. The caller must write everything since the last success
    /// again before claiming it: see [`ResumeJournal::suspect_pieces`].
    ///
    /// [`ResumeJournal::suspect_pieces`]: super::resume::ResumeJournal::suspect_pieces
    pub fn clear_flush_failure(&self) {
        *lock(&self.flush_failed) = false;
    }

    /// The error that flushes return after a failure, until [`Target::clear_flush_failure`].
    pub(crate) fn flush_failed_error(&self) -> StorageError {
        self.partial.error(StorageOperation::Sync, StorageErrorKind::FlushFailed)
    }

    /// Fails a flush as a broken disk would.
    #[cfg(test)]
    pub(crate) fn simulate_flush_failure(&self) -> StorageError {
        self.flush(|_| Err(Errno::IO.into())).expect_err("it fails")
    }

    /// A source over the partial file, of which only verified ranges may be read. It stays valid after
    /// [`Target::finish`] and does not hold the lock.
    ///
    /// # Errors
    /// [`StorageError`]: the file was removed or replaced.
    pub fn reader(&self) -> Result<Source, StorageError> {
        let length = self.length.load(Ordering::Acquire);
        let file = self.partial.reopen_for_reading()?;
        Source::over_partial(file, self.path(), length, Arc::clone(&self.length))
    }

    /// A source over the complete file, after [`Target::finish`].
    ///
    /// # Errors
    /// [`StorageError`]: the file was removed, replaced or changed.
    pub fn open_finished(&self) -> Result<Source, StorageError> {
        let file = self.partial.reopen_for_reading()?;
        let source = Source::from_file(file, self.path())?;
        // The source's fingerprint is of the open file, so nothing was written before it was taken.
        self.check_unchanged()?;
        Ok(source)
    }

    /// Makes the file durable under its final name: flush, rename, flush of the directory. Returns the final
    /// path. It may be called again after a failed rename or directory flush. Blocks.
    ///
    /// # Errors
    /// [`StorageError`]: the final name is taken (`overwrite` permits replacing a regular file, and nothing
    /// else), the partial file was removed, replaced or changed, or the disk fails.
    pub fn finish(&self, overwrite: bool) -> Result<PathBuf, StorageError> {
        FINISH_ORDER.into_iter().try_for_each(|step| self.run_step(step, overwrite))?;
        if let Err(error) = self.partial.destination.update_path() {
            tracing::warn!(%error, "the finished file has no path any more");
        }
        Ok(self.path())
    }

    /// Removes the partial file, unless its name belongs to another file by now.
    ///
    /// # Errors
    /// [`StorageError`] when it exists and cannot be removed.
    pub fn discard(&self) -> Result<(), StorageError> {
        self.partial.remove()
    }

    /// Lets another download have the partial file and the final path. Nothing more is written.
    pub fn release(&self) {
        self.partial.unlock();
    }

    fn run_step(&self, step: FinishStep, overwrite: bool) -> Result<(), StorageError> {
        match step {
            FinishStep::FlushFile => self.flush(File::sync_all),
            // A repeated call, after the rename and before the directory's flush.
            FinishStep::Rename if self.partial.has_final_name()? => Ok(()),
            FinishStep::Rename => {
                let mut own_changes = lock(&self.own_changes);
                self.check_state(&own_changes)?;
                self.partial.rename_to_final(overwrite)?;
                // Renaming changes the status.
                let states = own_changes.state_after.zip(self.partial.exact_state());
                own_changes.state_after = states.map(|(written, renamed)| written.with_status_of(renamed));
                Ok(())
            }
            FinishStep::FlushDirectory => sync_directory(&self.partial.destination.directory)
                .map_err(|errno| self.partial.error(StorageOperation::Sync, errno)),
        }
    }

    fn flush(&self, flush: impl FnOnce(&File) -> io::Result<()>) -> Result<(), StorageError> {
        let mut flush_failed = lock(&self.flush_failed);
        if *flush_failed {
            return Err(self.flush_failed_error());
        }
        let changes_before = lock(&self.own_changes).count;
        flush(&self.partial.file).map_err(|error| {
            *flush_failed = true;
            self.partial.error(StorageOperation::Sync, error)
        })?;
        let mut own_changes = lock(&self.own_changes);
        if own_changes.state_after.is_none() && own_changes.count == changes_before {
            own_changes.state_after = FileState::of(&self.partial.file).ok();
        }
        Ok(())
    }
}

fn punch_hole(file: &File, range: &Range<u64>) -> rustix::io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::io::retry_on_intr(|| rustix::fs::fallocate(file, flags, range.start, range.end - range.start))
}

fn write_zeros(file: &File, range: &Range<u64>) -> io::Result<()> {
    let zeros = vec![0; PIECE_BYTES as usize];
    let mut start = range.start;
    while start < range.end {
        let count = zeros.len().min(usize::try_from(range.end - start).unwrap_or(usize::MAX));
        file.write_all_at(&zeros[..count], start)?;
        start += count as u64;
    }
    Ok(())
}
