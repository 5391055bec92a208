//! What a killed download leaves behind, and how the next attempt finds it: the record beside the partial file.
//!
//! ```text
//!   piece verified ─► note ─► write_piece ─► wrote         NAME.<8 hex>.part
//!                      │                       │           NAME.<8 hex>.record      record │ notes
//!                      ▼                       ▼           NAME.<8 hex>.record.new  the next record, for a moment
//!                 end of the record    Target::sync ─► new record, flushed ─► rename ─► flush of the directory
//!
//!   open:  no record ─► check everything     record ─► trust what it claims, check what was noted
//! ```
//!
//! After a kill the kernel still has every byte that was written, so that what was noted and not recorded yet needs only
//! to be hashed: at most [`UNRECORDED_MAX_PIECES`], since further pieces have to wait for the next record. After a crash
//! of the machine notes mean nothing, and the same hashing finds that out.
//!
//! Invariants:
//! * A record claims a piece only if the piece was written whole before a flush that succeeded before the record was
//!   written.
//! * A partial file that is new has no record: an old one is removed before the file is made ([`forget_orphan`]).
//! * Only the holder of the partial file's lock writes its record.
//! * Once removed, a record does not come back.

mod left;
mod record;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use self::record::{Identity, NOTE_BYTES, Record};
use super::destination::{remove, sibling_name};
use super::error::{Operation, StorageError, StorageErrorKind, failed};
use super::limits::{RECORD_DUE_PIECES, UNRECORDED_MAX_PIECES};
use super::target::{Target, with_space};
use crate::proto::bitfield::Bitfield;
use crate::proto::manifest::Manifest;
use crate::proto::units::PieceIndex;

pub use left::{Left, forget_orphan};

#[cfg(test)]
mod tests;

/// What became of a wish to write a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// Write it.
    Yes,
    /// Too much is unrecorded: first a record must be written.
    NoRoom,
}

/// What can be claimed beside the pieces themselves. Asked for after the flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The links of all pieces held so far.
    pub links_hold: bool,
    /// The file's exact length in bytes, if it is known.
    pub exact_length: Option<u64>,
}

/// The record of one partial file, and what is to be recorded next. Share it by `Arc`; every method takes `&self`, from
/// any thread.
#[derive(Debug)]
pub struct Ledger {
    directory: OwnedFd,
    name: OsString,
    next_name: OsString,
    path: PathBuf,
    identity: Identity,
    /// Held while a record is made: one after the other.
    turn: Mutex<()>,
    notes: Mutex<Notes>,
}

#[derive(Debug)]
struct Notes {
    /// The record's file, open for more notes; `None` before the first.
    file: Option<File>,
    seal: u32,
    /// Notes behind the record.
    count: usize,
    durable: Bitfield,
    /// See [`Record::complete`].
    complete: bool,
    /// What the record at rest says of that.
    recorded_complete: bool,
    /// Written, and not recorded yet.
    written: Bitfield,
    /// About to be written, or written, and not recorded yet.
    noted: BTreeSet<PieceIndex>,
    removed: bool,
}

impl Ledger {
    /// Reads what the record beside a target's partial file says, and begins a record of this attempt. A damaged record is
    /// set aside, with a warning.
    ///
    /// # Errors
    /// [`StorageError`]: the record cannot be read or written.
    pub fn open(target: &Target, group: &str, manifest: &Manifest) -> Result<(Ledger, Left), StorageError> {
        let destination = target.destination();
        let sibling = |ending| {
            sibling_name(destination.name(), group, manifest.proof().id(), &format!(".record{ending}"))
        };
        let name = sibling("");
        let path = destination.path().with_file_name(&name);
        let directory =
            destination.directory.try_clone().map_err(failed(Operation::Open, &destination.path()))?;
        let identity = Identity::of(manifest);
        let found =
            if target.is_new() { None } else { left::read(&directory, &name, &path, &sibling(".damaged"))? };
        let left = left::find(found.as_ref(), &identity, manifest, target);
        let notes = Notes {
            file: None,
            seal: 0,
            count: 0,
            durable: left.held.pieces.clone(),
            complete: left.complete,
            recorded_complete: left.complete,
            written: Bitfield::empty(manifest.pieces()),
            noted: if left.complete { left.to_check.iter().copied().collect() } else { BTreeSet::new() },
            removed: false,
        };
        let next_name = sibling(".new");
        let ledger = Ledger {
            directory,
            name,
            next_name,
            path,
            identity,
            turn: Mutex::default(),
            notes: Mutex::new(notes),
        };
        let claim = Claim { links_hold: left.held.links_hold, exact_length: left.held.length };
        let nothing = Bitfield::empty(manifest.pieces());
        // A record that claims nothing is lost without loss.
        ledger.publish(&nothing, claim, left.held.pieces.count().0 > 0)?;
        Ok((ledger, left))
    }

    /// Notes that a verified piece is about to be written.
    ///
    /// # Errors
    /// [`StorageError`]: the note cannot be written; the piece must not be.
    pub fn note(&self, index: PieceIndex) -> Result<Noted, StorageError> {
        let mut notes = lock(&self.notes);
        if notes.removed || notes.durable.has(index) || notes.noted.contains(&index) {
            return Ok(Noted::Yes);
        }
        if notes.count >= UNRECORDED_MAX_PIECES {
            return Ok(Noted::NoRoom);
        }
        let note = record::note(index, notes.seal);
        if let Some(file) = &mut notes.file {
            file.write_all(&note).map_err(|error| self.failure(Operation::Write, NOTE_BYTES, error))?;
        }
        notes.count += 1;
        notes.noted.insert(index);
        Ok(Noted::Yes)
    }

    /// A noted piece is written whole, or was found to be there. The next record will claim it.
    pub fn wrote(&self, index: PieceIndex) {
        let mut notes = lock(&self.notes);
        if !notes.durable.has(index) {
            notes.written.insert(index);
        }
    }

    /// A noted piece could not be written, or was found not to be there.
    pub fn missed(&self, index: PieceIndex) {
        lock(&self.notes).noted.remove(&index);
    }

    /// Everything that was to be checked has been: from the next record on, what is neither recorded nor noted is not
    /// there.
    pub fn all_checked(&self) {
        lock(&self.notes).complete = true;
    }

    /// Whether another piece can be noted now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let notes = lock(&self.notes);
        notes.removed || notes.count < UNRECORDED_MAX_PIECES
    }

    /// Whether a record has something new to claim.
    #[must_use]
    pub fn has_news(&self) -> bool {
        let notes = lock(&self.notes);
        notes.written.count().0 > 0 || notes.complete != notes.recorded_complete
    }

    /// Whether so much is unrecorded that a record is due.
    #[must_use]
    pub fn is_due(&self) -> bool {
        let notes = lock(&self.notes);
        notes.written.count().0 >= RECORD_DUE_PIECES || notes.count >= UNRECORDED_MAX_PIECES
    }

    /// Makes what was written durable by `flush`, and then records it. `claim` is asked after the flush. Blocks.
    ///
    /// # Errors
    /// That of `flush`, or [`StorageError`] of the record; nothing new is claimed then.
    pub fn record(
        &self,
        flush: impl FnOnce() -> Result<(), StorageError>,
        claim: impl FnOnce() -> Claim,
    ) -> Result<(), StorageError> {
        let _turn = lock(&self.turn);
        // What is written from here on, even before the flush ends, may not be part of it.
        let written = lock(&self.notes).written.clone();
        flush()?;
        self.publish(&written, claim(), true)
    }

    /// Removes the record for good: before its partial file goes, or after that has its final name.
    ///
    /// # Errors
    /// [`StorageError`] when it is there and cannot be removed.
    pub fn remove(&self) -> Result<(), StorageError> {
        let mut notes = lock(&self.notes);
        notes.removed = true;
        for name in [&self.next_name, &self.name] {
            remove(&self.directory, name).map_err(failed(Operation::Remove, &self.path))?;
        }
        Ok(())
    }

    /// Writes the next record and puts it in the place of the last one.
    fn publish(&self, flushed: &Bitfield, claim: Claim, durably: bool) -> Result<(), StorageError> {
        let (mut durable, complete) = {
            let notes = lock(&self.notes);
            (notes.durable.clone(), notes.complete)
        };
        for index in flushed.iter() {
            durable.insert(index);
        }
        let record = Record {
            identity: self.identity.clone(),
            exact_length: claim.exact_length,
            links_hold: claim.links_hold,
            complete,
            durable,
        };
        let (bytes, seal) = record.to_bytes();
        let failure = |error| self.failure(Operation::Write, bytes.len(), error);
        let mut file = self.make_next()?;
        file.write_all(&bytes).map_err(failure)?;
        if durably {
            file.sync_data().map_err(failure)?;
        }
        self.put_in_place(file, seal, record)?;
        match rustix::fs::fsync(&self.directory) {
            _ if !durably => Ok(()),
            // Some network filesystems cannot flush directories, and need not.
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(errno) => Err(self.failure(Operation::Sync, 0, errno)),
        }
    }

    /// Renames the next record, after the notes that still count. No note can come in between.
    fn put_in_place(&self, mut file: File, seal: u32, record: Record) -> Result<(), StorageError> {
        let Record { durable, complete, .. } = record;
        let mut notes = lock(&self.notes);
        if notes.removed {
            return remove(&self.directory, &self.next_name).map_err(failed(Operation::Remove, &self.path));
        }
        let still: BTreeSet<PieceIndex> =
            notes.noted.iter().copied().filter(|index| !durable.has(*index)).collect();
        let bytes: Vec<u8> = still.iter().flat_map(|index| record::note(*index, seal)).collect();
        file.write_all(&bytes).map_err(|error| self.failure(Operation::Write, bytes.len(), error))?;
        rustix::fs::renameat(&self.directory, &self.next_name, &self.directory, &self.name)
            .map_err(|errno| self.failure(Operation::Write, 0, errno))?;
        for index in durable.iter() {
            notes.written.remove(index);
        }
        notes.count = still.len();
        notes.noted = still;
        notes.durable = durable;
        notes.recorded_complete = complete;
        notes.seal = seal;
        notes.file = Some(file);
        Ok(())
    }

    fn make_next(&self) -> Result<File, StorageError> {
        let failure = |errno: Errno| self.failure(Operation::Create, 0, errno);
        // One that a kill left behind.
        remove(&self.directory, &self.next_name).map_err(failure)?;
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::openat(&self.directory, &self.next_name, flags, mode).map(File::from).map_err(failure)
    }

    fn failure(
        &self,
        operation: Operation,
        needed_bytes: usize,
        cause: impl Into<StorageErrorKind>,
    ) -> StorageError {
        let kind = with_space(cause.into(), self.directory.as_fd(), needed_bytes as u64);
        failed(operation, &self.path)(kind)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
