//! What a killed download leaves behind, and how the next attempt finds it: the record beside the partial file.
//!
//! ```text
//!   piece verified ─► begin ─► write_piece ─► wrote        NAME.<8 hex>.part
//!                       │                       │          NAME.<8 hex>.record      record │ notes
//!                       ▼                       ▼          NAME.<8 hex>.record.new  the next record, for a moment
//!                     notes behind the record: begun, done
//!   now and then:     Target::sync ─► new record, flushed ─► rename ─► flush of the directory
//!
//!   open:  no record ─► check everything
//!          record of a copy ─► the same
//!          record ────► trust what it claims;  done in the same page cache ─► trust;  other notes ─► check
//! ```
//!
//! Nothing waits for a record: notes run ahead of it as far as the page cache does. A kill costs the hashing of the pieces
//! that were being written, since the kernel still has what was written before (`cache`). After a crash of the machine
//! what was noted and not recorded is hashed: the last seconds. What is found by a note to be right is written again,
//! because a page that the kernel failed to write may still read right.
//!
//! Invariants:
//! * A record claims a piece only if the piece was written whole before a flush that succeeded before the record was
//!   written, with no failed flush between.
//! * A partial file that is new has no record: an old one is removed before the file is made ([`remove_orphaned_record`]).
//! * A record is trusted of the partial file that it was written for, and of no copy.
//! * Only the holder of the partial file's lock writes its record.
//! * Once removed, a record does not come back.

mod notes;
mod page_cache;
mod record;
mod recovery;

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use self::notes::PieceNotes;
use self::page_cache::PageCacheId;
use self::record::{ContentIdentity, NOTE_BYTES, ResumeRecord};
use super::destination::{remove_name, sibling_name};
use super::error::{StorageError, StorageErrorKind, StorageOperation, to_storage_error};
use super::file_identity::FileIdentity;
use super::limits::RECORD_DUE_PIECES;
use super::target::{Target, add_space_details};
use crate::proto::manifest::Manifest;
use crate::proto::units::PieceIndex;

use recovery::RecoveredState;
pub use recovery::{PriorProgress, remove_orphaned_record};

/// For fuzzing: whether these bytes are a record with notes.
///
/// # Panics
/// If an accepted record does not survive encoding.
#[doc(hidden)]
#[must_use]
pub fn accepts_record(bytes: &[u8]) -> bool {
    let Ok((record, _)) = ResumeRecord::parse(bytes) else { return false };
    let (encoded, _) = record.to_bytes();
    assert_eq!(ResumeRecord::parse(&encoded).map(|(record, _)| record), Ok(record));
    true
}

#[cfg(test)]
mod tests;

/// What can be claimed beside the pieces themselves. Asked for after the flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordClaim {
    /// The links of all pieces held so far.
    pub links_hold: bool,
    /// The file's exact length in bytes, if it is known.
    pub exact_length: Option<u64>,
}

/// The record of one partial file, and what is to be recorded next. Share it by `Arc`; every method takes `&self`, from
/// any thread.
#[derive(Debug)]
pub struct ResumeJournal {
    directory: OwnedFd,
    name: OsString,
    next_name: OsString,
    path: PathBuf,
    identity: ContentIdentity,
    page_cache: Option<PageCacheId>,
    /// The partial file.
    partial_file: FileIdentity,
    /// Held while a record is made: one after the other.
    record_lock: Mutex<()>,
    notes: Mutex<PieceNotes>,
}

impl ResumeJournal {
    /// Reads what the record beside a target's partial file says, and begins a record of this attempt. A damaged record is
    /// set aside, with a warning.
    ///
    /// # Errors
    /// [`StorageError`]: the record cannot be read or written, or the manifest's hashes cannot be read.
    pub fn open(
        target: &Target,
        group: &str,
        manifest: &Manifest,
    ) -> Result<(ResumeJournal, PriorProgress), StorageError> {
        let cache = PageCacheId::of(&target.destination().directory);
        ResumeJournal::open_in(cache, target, group, manifest)
    }

    /// As [`ResumeJournal::open`], in this page cache.
    fn open_in(
        cache: Option<PageCacheId>,
        target: &Target,
        group: &str,
        manifest: &Manifest,
    ) -> Result<(ResumeJournal, PriorProgress), StorageError> {
        let destination = target.destination();
        let sibling = |ending| {
            sibling_name(destination.name(), group, manifest.proof().id(), &format!(".record{ending}"))
        };
        let name = sibling("");
        let path = destination.path().with_file_name(&name);
        let directory = destination
            .directory
            .try_clone()
            .map_err(to_storage_error(StorageOperation::Open, &destination.path()))?;
        let identity = ContentIdentity::of(manifest);
        // By what is left of lost hashes, the record that is there would be one of other pieces, and be replaced.
        if let Some(place) = manifest.unreadable_at() {
            return Err(StorageError::hashes_lost(place));
        }
        let part = target.identity()?;
        let found = if target.is_new() {
            None
        } else {
            recovery::read_record(&directory, &name, &path, &sibling(".damaged"), part)?
        };
        let RecoveredState { progress: left, durable, noted } =
            recovery::recover_state(found.as_ref(), &identity, cache, manifest, target);
        let has_claims = durable.count().0 > 0;
        let ledger = ResumeJournal {
            directory,
            name,
            next_name: sibling(".new"),
            path,
            identity,
            page_cache: cache,
            partial_file: part,
            record_lock: Mutex::default(),
            notes: Mutex::new(PieceNotes::new(durable, &noted, left.is_complete)),
        };
        let claim = RecordClaim { links_hold: left.held.links_match, exact_length: left.held.length };
        // A record that claims nothing is lost without loss.
        ledger.publish(&[], claim, has_claims)?;
        Ok((ledger, left))
    }

    /// Notes that a verified piece is about to be written.
    ///
    /// # Errors
    /// [`StorageError`]: the note cannot be written; the piece must not be.
    pub fn note_begun(&self, index: PieceIndex) -> Result<(), StorageError> {
        lock(&self.notes)
            .mark_begun(index)
            .map_err(|error| self.error(StorageOperation::Write, NOTE_BYTES, error))
    }

    /// A piece is written whole, or was found to be there. The next record will claim it. `link_holds`: it was proven
    /// that its link holds under the manifest's chain.
    pub fn note_written(&self, index: PieceIndex, link_holds: bool) {
        // Without this note the piece is hashed after a kill, and no more.
        if let Err(error) = lock(&self.notes).mark_written(index, link_holds) {
            tracing::debug!(%error, path = %self.path.display(), "a note is not written");
        }
    }

    /// A noted piece was found not to be there.
    pub fn note_missing(&self, index: PieceIndex) {
        lock(&self.notes).mark_missing(index);
    }

    /// Whether a piece that is found to be right has to be written again: a note says that it was about to be written.
    #[must_use]
    pub fn is_begun(&self, index: PieceIndex) -> bool {
        lock(&self.notes).is_begun(index)
    }

    /// Everything that was to be checked has been: from the next record on, what is neither recorded nor noted is not
    /// there.
    pub fn mark_all_checked(&self) {
        lock(&self.notes).is_complete = true;
    }

    /// Whether a record has something new to claim.
    #[must_use]
    pub fn has_new_claims(&self) -> bool {
        lock(&self.notes).has_new_claims()
    }

    /// Whether so much is unrecorded that a record is due.
    #[must_use]
    pub fn is_record_due(&self) -> bool {
        lock(&self.notes).written_count() >= RECORD_DUE_PIECES
    }

    /// Whether a flush failed and what it may have lost has not been written again yet.
    #[must_use]
    pub fn has_suspects(&self) -> bool {
        lock(&self.notes).has_suspects()
    }

    /// What a failed flush may have lost, ascending: each is to be proven, begun, and written again, or was missed.
    #[must_use]
    pub fn suspects(&self) -> Vec<PieceIndex> {
        lock(&self.notes).suspects()
    }

    /// Makes what was written durable by `flush`, and then records it; which pieces are new in the record, ascending.
    /// `claim` is asked after the flush. Blocks.
    ///
    /// # Errors
    /// That of `flush`, and then all that is not recorded is doubted; or [`StorageError`] of the record. Nothing new is
    /// claimed then.
    pub fn write_record(
        &self,
        flush: impl FnOnce() -> Result<(), StorageError>,
        claim: impl FnOnce() -> RecordClaim,
    ) -> Result<Vec<PieceIndex>, StorageError> {
        let _turn = lock(&self.record_lock);
        // What is written from here on, even before the flush ends, may not be part of it.
        let done = lock(&self.notes).written_pieces();
        flush().inspect_err(|_| self.mark_suspect())?;
        self.publish(&done, claim(), true)?;
        Ok(done)
    }

    fn mark_suspect(&self) {
        let mut notes = lock(&self.notes);
        if notes.is_removed {
            return;
        }
        if let Err(error) = notes.mark_all_suspect() {
            tracing::warn!(%error, path = %self.path.display(), "a record is given up, since its notes cannot be taken back");
            // Better none than one whose notes are believed; there is nothing else to try.
            let _ = remove_name(&self.directory, &self.name);
        }
    }

    /// Removes the record for good: before its partial file goes, or after that has its final name.
    ///
    /// # Errors
    /// [`StorageError`] when it is there and cannot be removed.
    pub fn remove(&self) -> Result<(), StorageError> {
        let mut notes = lock(&self.notes);
        notes.is_removed = true;
        for name in [&self.next_name, &self.name] {
            remove_name(&self.directory, name)
                .map_err(to_storage_error(StorageOperation::Remove, &self.path))?;
        }
        Ok(())
    }

    /// Writes the next record and puts it in the place of the last one.
    fn publish(&self, flushed: &[PieceIndex], claim: RecordClaim, durably: bool) -> Result<(), StorageError> {
        let (mut durable, complete) = {
            let notes = lock(&self.notes);
            (notes.durable().clone(), notes.is_complete)
        };
        for index in flushed {
            durable.insert(*index);
        }
        let Some(mut file) = self.create_next()? else { return Ok(()) };
        let own = FileIdentity::of(&file).map_err(|error| self.error(StorageOperation::Create, 0, error))?;
        let record = ResumeRecord {
            page_cache: self.page_cache,
            partial_file: self.partial_file,
            record_file: own,
            identity: self.identity.clone(),
            exact_length: claim.exact_length,
            links_hold: claim.links_hold,
            is_complete: complete,
            durable,
        };
        let (bytes, seal) = record.to_bytes();
        let failure = |error| self.error(StorageOperation::Write, bytes.len(), error);
        file.write_all(&bytes).map_err(failure)?;
        if durably {
            file.sync_data().map_err(failure)?;
        }
        self.rename_into_place(file, bytes.len() as u64, seal, record)?;
        match rustix::fs::fsync(&self.directory) {
            _ if !durably => Ok(()),
            // Some network filesystems cannot flush directories, and need not.
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(errno) => Err(self.error(StorageOperation::Sync, 0, errno)),
        }
    }

    /// Renames the next record, with the notes that still count behind its `length` bytes. No note can come in between.
    fn rename_into_place(
        &self,
        file: File,
        length: u64,
        seal: u32,
        record: ResumeRecord,
    ) -> Result<(), StorageError> {
        let ResumeRecord { durable, is_complete: complete, .. } = record;
        let mut notes = lock(&self.notes);
        if notes.is_removed {
            return remove_name(&self.directory, &self.next_name)
                .map_err(to_storage_error(StorageOperation::Remove, &self.path));
        }
        let end = notes
            .write_remaining(&durable, &file, length, seal)
            .map_err(|error| self.error(StorageOperation::Write, NOTE_BYTES, error))?;
        rustix::fs::renameat(&self.directory, &self.next_name, &self.directory, &self.name)
            .map_err(|errno| self.error(StorageOperation::Write, 0, errno))?;
        notes.adopt_record(durable, complete, file, (length, end), seal);
        Ok(())
    }

    /// The file of the next record; `None` once the record was removed for good. That is decided under the notes' lock, as
    /// in [`ResumeJournal::remove_name`], so that none is made after it.
    fn create_next(&self) -> Result<Option<File>, StorageError> {
        let notes = lock(&self.notes);
        if notes.is_removed {
            return Ok(None);
        }
        let failure = |errno: Errno| self.error(StorageOperation::Create, 0, errno);
        // One that a kill left behind.
        remove_name(&self.directory, &self.next_name).map_err(failure)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::openat(&self.directory, &self.next_name, flags, mode)
            .map(|file| Some(File::from(file)))
            .map_err(failure)
    }

    fn error(
        &self,
        operation: StorageOperation,
        needed_bytes: usize,
        cause: impl Into<StorageErrorKind>,
    ) -> StorageError {
        let kind = add_space_details(cause.into(), self.directory.as_fd(), needed_bytes as u64);
        to_storage_error(operation, &self.path)(kind)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
