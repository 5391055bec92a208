//! Resuming downloads: the record beside the partial file, which says after a kill or crash which pieces are
//! there.
//!
//! ```text
//!   piece verified ─► note_begun ─► write_piece ─► note_written     NAME.<8 hex>.part
//!                         │                                         NAME.<8 hex>.record      record │ notes
//!                         ▼                                         NAME.<8 hex>.record.new  next record, until its rename
//!                       note behind the record: may be there
//!   periodically:       Target::sync ─► new record, flushed ─► rename ─► flush of the directory
//!
//!   open:  no record, record of a copy ──────────► check every piece
//!          the file is as the record says ───────► trust its pieces, check the noted ones
//!          the file was written to since then ───► check the pieces in the record and the noted ones
//! ```
//!
//! Writes never wait for a record. After a kill or a crash of the machine the file differs from its record,
//! since pieces were written after it; a node that stops, and a download that is paused or waits, leaves both
//! in agreement. Another program that writes to the file makes it differ too. A piece that was only noted and
//! hashes right is written again, because a page that the kernel failed to write may still read right.
//!
//! Invariants:
//! * A record claims a piece only if it was written completely before a flush that succeeded before the
//!   record was written, with no failed flush in between.
//! * A new partial file has no record: an old one is removed before the file is created
//!   ([`remove_orphaned_record`]).
//! * A record counts only for the partial file it was written for, not for a copy, and only while that file
//!   is in the state that the record names.
//! * Only the holder of the partial file's lock writes its record.
//! * A removed record never reappears.

mod notes;
mod record;
mod recovery;

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Mutex;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use self::notes::PieceNotes;
use self::record::{ContentIdentity, NOTE_BYTES, ResumeRecord};
use super::destination::{remove_name, sibling_name, sync_directory};
use super::error::{StorageError, StorageErrorKind, StorageOperation, add_space_details, to_storage_error};
use super::file_identity::FileIdentity;
use super::file_state::FileState;
use super::limits::RECORD_DUE_PIECES;
use super::target::Target;
use crate::lock::lock;
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

/// What a record claims besides the pieces. The values must be read after the flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordClaim {
    /// Whether the links of all pieces held so far hold.
    pub links_hold: bool,
    /// Exact length of the file in bytes, if known.
    pub exact_length: Option<u64>,
    /// State of the partial file after this program's last write; `None` while it is being written.
    pub file_state: Option<FileState>,
}

/// Writes the record of one partial file, and the notes behind it. Share it by `Arc`; every method takes
/// `&self`, from any thread.
#[derive(Debug)]
pub struct ResumeJournal {
    directory: OwnedFd,
    name: OsString,
    next_name: OsString,
    path: PathBuf,
    identity: ContentIdentity,
    partial_file: FileIdentity,
    /// Held while a record is made, so that only one is made at a time.
    record_lock: Mutex<()>,
    notes: Mutex<PieceNotes>,
}

impl ResumeJournal {
    /// Reads the record of a target's partial file, and starts a new record for this attempt. A damaged
    /// record is renamed, with a warning.
    ///
    /// # Errors
    /// [`StorageError`]: the record cannot be read or written, or the manifest's SHA-1 values cannot be read.
    pub fn open(
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
        // With unreadable digests the existing record would look like one of another file and be replaced.
        if let Some(place) = manifest.unreadable_at() {
            return Err(StorageError::hashes_lost(place));
        }
        let partial_file = target.identity()?;
        let record = if target.is_new() {
            None
        } else {
            recovery::read_record(&directory, &name, &path, &sibling(".damaged"), partial_file)?
        };
        let RecoveredState { progress, durable, noted } =
            recovery::recover_state(record.as_ref(), &identity, manifest, target);
        let has_claims = durable.count().0 > 0;
        let journal = ResumeJournal {
            directory,
            name,
            next_name: sibling(".new"),
            path,
            identity,
            partial_file,
            record_lock: Mutex::default(),
            notes: Mutex::new(PieceNotes::new(durable, &noted, progress.is_complete)),
        };
        let claim = RecordClaim {
            links_hold: progress.held.links_match,
            exact_length: progress.held.length,
            file_state: if has_claims { target.settled_state() } else { None },
        };
        // A record without claims need not be durable.
        journal.publish(&[], claim, has_claims)?;
        Ok((journal, progress))
    }

    /// Notes that a verified piece is about to be written.
    ///
    /// # Errors
    /// [`StorageError`]: the note cannot be written. The piece must not be written then.
    pub fn note_begun(&self, index: PieceIndex) -> Result<(), StorageError> {
        lock(&self.notes)
            .mark_begun(index)
            .map_err(|error| self.error(StorageOperation::Write, NOTE_BYTES, error))
    }

    /// Notes that a piece was written completely, or was found in the file. The next record claims it.
    pub fn note_written(&self, index: PieceIndex) {
        lock(&self.notes).mark_written(index);
    }

    /// Notes that a piece is not in the file.
    pub fn note_missing(&self, index: PieceIndex) {
        lock(&self.notes).mark_missing(index);
    }

    /// Whether a piece that hashes right must be written again, since it was noted as begun.
    #[must_use]
    pub fn is_begun(&self, index: PieceIndex) -> bool {
        lock(&self.notes).is_begun(index)
    }

    /// Forgets all pieces: any of them may be in the file or not.
    pub fn forget_pieces(&self) {
        // Not while a record is made that claims them.
        let _no_record = lock(&self.record_lock);
        lock(&self.notes).forget_all();
    }

    /// Notes that everything to be checked was checked: from the next record on, pieces neither recorded nor
    /// noted are known to be missing.
    pub fn mark_all_checked(&self) {
        lock(&self.notes).is_complete = true;
    }

    /// Whether a new record would claim more than the last.
    #[must_use]
    pub fn has_new_claims(&self) -> bool {
        lock(&self.notes).has_new_claims()
    }

    /// Whether enough pieces are unrecorded for a record to be due.
    #[must_use]
    pub fn is_record_due(&self) -> bool {
        lock(&self.notes).written_count() >= RECORD_DUE_PIECES
    }

    /// Whether pieces of a failed flush still have to be written again.
    #[must_use]
    pub fn has_suspect_pieces(&self) -> bool {
        lock(&self.notes).has_suspect_pieces()
    }

    /// Pieces that a failed flush may have lost, ascending. Each has to be proven, noted as begun and written
    /// again, or noted as missing.
    #[must_use]
    pub fn suspect_pieces(&self) -> Vec<PieceIndex> {
        lock(&self.notes).suspect_pieces()
    }

    /// Flushes by `flush`, and then writes a record that claims what was written before. Returns the newly
    /// recorded pieces, ascending. `claim` is called after the flush. Blocks.
    ///
    /// # Errors
    /// That of `flush`, after which everything unrecorded is suspect; or [`StorageError`] of the record.
    /// Nothing new is claimed then.
    pub fn write_record(
        &self,
        flush: impl FnOnce() -> Result<(), StorageError>,
        claim: impl FnOnce() -> RecordClaim,
    ) -> Result<Vec<PieceIndex>, StorageError> {
        let _one_at_a_time = lock(&self.record_lock);
        // The flush covers nothing that is written from here on.
        let written = lock(&self.notes).written_pieces();
        flush().inspect_err(|_| self.mark_suspect())?;
        self.publish(&written, claim(), true)?;
        Ok(written)
    }

    fn mark_suspect(&self) {
        let mut notes = lock(&self.notes);
        if !notes.is_removed {
            notes.mark_all_suspect();
        }
    }

    /// Removes the record for good: called before the partial file is removed, or after it has got its final name.
    ///
    /// # Errors
    /// [`StorageError`] when it exists and cannot be removed.
    pub fn remove(&self) -> Result<(), StorageError> {
        let mut notes = lock(&self.notes);
        notes.is_removed = true;
        for name in [&self.next_name, &self.name] {
            remove_name(&self.directory, name)
                .map_err(to_storage_error(StorageOperation::Remove, &self.path))?;
        }
        Ok(())
    }

    /// Writes the next record and renames it over the last one.
    fn publish(&self, flushed: &[PieceIndex], claim: RecordClaim, durably: bool) -> Result<(), StorageError> {
        let (mut durable, is_complete) = {
            let notes = lock(&self.notes);
            (notes.durable().clone(), notes.is_complete)
        };
        for index in flushed {
            durable.insert(*index);
        }
        let Some(mut file) = self.create_next()? else { return Ok(()) };
        let record_file =
            FileIdentity::of(&file).map_err(|error| self.error(StorageOperation::Create, 0, error))?;
        let record = ResumeRecord {
            partial_file: self.partial_file,
            record_file,
            file_state: claim.file_state,
            identity: self.identity.clone(),
            exact_length: claim.exact_length,
            links_hold: claim.links_hold,
            is_complete,
            durable,
        };
        let (bytes, seal) = record.to_bytes();
        let write_error = |error| self.error(StorageOperation::Write, bytes.len(), error);
        file.write_all(&bytes).map_err(write_error)?;
        if durably {
            file.sync_data().map_err(write_error)?;
        }
        self.rename_into_place(file, bytes.len() as u64, seal, record)?;
        match sync_directory(&self.directory) {
            Err(errno) if durably => Err(self.error(StorageOperation::Sync, 0, errno)),
            _ => Ok(()),
        }
    }

    /// Appends the notes that still count to the next record of `length` bytes, and renames it. The notes
    /// stay locked, so none is added in between.
    fn rename_into_place(
        &self,
        file: File,
        length: u64,
        seal: u32,
        record: ResumeRecord,
    ) -> Result<(), StorageError> {
        let ResumeRecord { durable, is_complete, .. } = record;
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
        notes.adopt_record(durable, is_complete, file, end, seal);
        Ok(())
    }

    /// Creates the file of the next record; `None` once the record was removed for good. Decided under the
    /// notes' lock, as in [`ResumeJournal::remove`], so that none is created afterwards.
    fn create_next(&self) -> Result<Option<File>, StorageError> {
        let notes = lock(&self.notes);
        if notes.is_removed {
            return Ok(None);
        }
        let create_error = |errno: Errno| self.error(StorageOperation::Create, 0, errno);
        // A killed process may have left the file.
        remove_name(&self.directory, &self.next_name).map_err(create_error)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::openat(&self.directory, &self.next_name, flags, mode)
            .map(|file| Some(File::from(file)))
            .map_err(create_error)
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
