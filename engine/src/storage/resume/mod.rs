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
//! * A partial file that is new has no record: an old one is removed before the file is made ([`forget_orphan`]).
//! * A record is trusted of the partial file that it was written for, and of no copy.
//! * Only the holder of the partial file's lock writes its record.
//! * Once removed, a record does not come back.

mod cache;
mod left;
mod notes;
mod record;

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use self::cache::PageCache;
use self::notes::Notes;
use self::record::{Identity, NOTE_BYTES, Record};
use super::destination::{remove, sibling_name};
use super::error::{Operation, StorageError, StorageErrorKind, failed};
use super::limits::RECORD_DUE_PIECES;
use super::origin::Origin;
use super::target::{Target, with_space};
use crate::proto::manifest::Manifest;
use crate::proto::units::PieceIndex;

use left::Found;
pub use left::{Left, forget_orphan};

#[cfg(test)]
mod tests;

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
    cache: Option<PageCache>,
    /// The partial file.
    part: Origin,
    /// Held while a record is made: one after the other.
    turn: Mutex<()>,
    notes: Mutex<Notes>,
}

impl Ledger {
    /// Reads what the record beside a target's partial file says, and begins a record of this attempt. A damaged record is
    /// set aside, with a warning.
    ///
    /// # Errors
    /// [`StorageError`]: the record cannot be read or written, or the manifest's hashes cannot be read.
    pub fn open(target: &Target, group: &str, manifest: &Manifest) -> Result<(Ledger, Left), StorageError> {
        let cache = PageCache::of(&target.destination().directory);
        Ledger::open_in(cache, target, group, manifest)
    }

    /// As [`Ledger::open`], in this page cache.
    fn open_in(
        cache: Option<PageCache>,
        target: &Target,
        group: &str,
        manifest: &Manifest,
    ) -> Result<(Ledger, Left), StorageError> {
        let destination = target.destination();
        let sibling = |ending| {
            sibling_name(destination.name(), group, manifest.proof().id(), &format!(".record{ending}"))
        };
        let name = sibling("");
        let path = destination.path().with_file_name(&name);
        let directory =
            destination.directory.try_clone().map_err(failed(Operation::Open, &destination.path()))?;
        let identity = Identity::of(manifest);
        // By what is left of lost hashes, the record that is there would be one of other pieces, and be replaced.
        if let Some(place) = manifest.lost() {
            return Err(StorageError::hashes_lost(place));
        }
        let part = target.origin()?;
        let found = if target.is_new() {
            None
        } else {
            left::read(&directory, &name, &path, &sibling(".damaged"), part)?
        };
        let Found { left, durable, noted } = left::find(found.as_ref(), &identity, cache, manifest, target);
        let has_claims = durable.count().0 > 0;
        let ledger = Ledger {
            directory,
            name,
            next_name: sibling(".new"),
            path,
            identity,
            cache,
            part,
            turn: Mutex::default(),
            notes: Mutex::new(Notes::new(durable, &noted, left.complete)),
        };
        let claim = Claim { links_hold: left.held.links_hold, exact_length: left.held.length };
        // A record that claims nothing is lost without loss.
        ledger.publish(&[], claim, has_claims)?;
        Ok((ledger, left))
    }

    /// Notes that a verified piece is about to be written.
    ///
    /// # Errors
    /// [`StorageError`]: the note cannot be written; the piece must not be.
    pub fn begin(&self, index: PieceIndex) -> Result<(), StorageError> {
        lock(&self.notes).begin(index).map_err(|error| self.failure(Operation::Write, NOTE_BYTES, error))
    }

    /// A piece is written whole, or was found to be there. The next record will claim it. `link_holds`: it was proven
    /// that its link holds under the manifest's chain.
    pub fn wrote(&self, index: PieceIndex, link_holds: bool) {
        // Without this note the piece is hashed after a kill, and no more.
        if let Err(error) = lock(&self.notes).wrote(index, link_holds) {
            tracing::debug!(%error, path = %self.path.display(), "a note is not written");
        }
    }

    /// A noted piece was found not to be there.
    pub fn missed(&self, index: PieceIndex) {
        lock(&self.notes).missed(index);
    }

    /// Whether a piece that is found to be right has to be written again: a note says that it was about to be written.
    #[must_use]
    pub fn is_begun(&self, index: PieceIndex) -> bool {
        lock(&self.notes).is_begun(index)
    }

    /// Everything that was to be checked has been: from the next record on, what is neither recorded nor noted is not
    /// there.
    pub fn all_checked(&self) {
        lock(&self.notes).complete = true;
    }

    /// Whether a record has something new to claim.
    #[must_use]
    pub fn has_news(&self) -> bool {
        lock(&self.notes).has_news()
    }

    /// Whether so much is unrecorded that a record is due.
    #[must_use]
    pub fn is_due(&self) -> bool {
        lock(&self.notes).done_count() >= RECORD_DUE_PIECES
    }

    /// Whether a flush failed and what it may have lost has not been written again yet.
    #[must_use]
    pub fn has_doubts(&self) -> bool {
        lock(&self.notes).has_doubts()
    }

    /// What a failed flush may have lost, ascending: each is to be proven, begun, and written again, or was missed.
    #[must_use]
    pub fn doubted(&self) -> Vec<PieceIndex> {
        lock(&self.notes).doubted()
    }

    /// Makes what was written durable by `flush`, and then records it; which pieces are new in the record, ascending.
    /// `claim` is asked after the flush. Blocks.
    ///
    /// # Errors
    /// That of `flush`, and then all that is not recorded is doubted; or [`StorageError`] of the record. Nothing new is
    /// claimed then.
    pub fn record(
        &self,
        flush: impl FnOnce() -> Result<(), StorageError>,
        claim: impl FnOnce() -> Claim,
    ) -> Result<Vec<PieceIndex>, StorageError> {
        let _turn = lock(&self.turn);
        // What is written from here on, even before the flush ends, may not be part of it.
        let done = lock(&self.notes).done();
        flush().inspect_err(|_| self.doubt())?;
        self.publish(&done, claim(), true)?;
        Ok(done)
    }

    fn doubt(&self) {
        let mut notes = lock(&self.notes);
        if notes.removed {
            return;
        }
        if let Err(error) = notes.doubt() {
            tracing::warn!(%error, path = %self.path.display(), "a record is given up, since its notes cannot be taken back");
            // Better none than one whose notes are believed; there is nothing else to try.
            let _ = remove(&self.directory, &self.name);
        }
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
    fn publish(&self, flushed: &[PieceIndex], claim: Claim, durably: bool) -> Result<(), StorageError> {
        let (mut durable, complete) = {
            let notes = lock(&self.notes);
            (notes.durable().clone(), notes.complete)
        };
        for index in flushed {
            durable.insert(*index);
        }
        let Some(mut file) = self.make_next()? else { return Ok(()) };
        let own = Origin::of(&file).map_err(|error| self.failure(Operation::Create, 0, error))?;
        let record = Record {
            cache: self.cache,
            part: self.part,
            own,
            identity: self.identity.clone(),
            exact_length: claim.exact_length,
            links_hold: claim.links_hold,
            complete,
            durable,
        };
        let (bytes, seal) = record.to_bytes();
        let failure = |error| self.failure(Operation::Write, bytes.len(), error);
        file.write_all(&bytes).map_err(failure)?;
        if durably {
            file.sync_data().map_err(failure)?;
        }
        self.put_in_place(file, bytes.len() as u64, seal, record)?;
        match rustix::fs::fsync(&self.directory) {
            _ if !durably => Ok(()),
            // Some network filesystems cannot flush directories, and need not.
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(errno) => Err(self.failure(Operation::Sync, 0, errno)),
        }
    }

    /// Renames the next record, with the notes that still count behind its `length` bytes. No note can come in between.
    fn put_in_place(&self, file: File, length: u64, seal: u32, record: Record) -> Result<(), StorageError> {
        let Record { durable, complete, .. } = record;
        let mut notes = lock(&self.notes);
        if notes.removed {
            return remove(&self.directory, &self.next_name).map_err(failed(Operation::Remove, &self.path));
        }
        let end = notes
            .write_behind(&durable, &file, length, seal)
            .map_err(|error| self.failure(Operation::Write, NOTE_BYTES, error))?;
        rustix::fs::renameat(&self.directory, &self.next_name, &self.directory, &self.name)
            .map_err(|errno| self.failure(Operation::Write, 0, errno))?;
        notes.follow(durable, complete, file, (length, end), seal);
        Ok(())
    }

    /// The file of the next record; `None` once the record was removed for good. That is decided under the notes' lock, as
    /// in [`Ledger::remove`], so that none is made after it.
    fn make_next(&self) -> Result<Option<File>, StorageError> {
        let notes = lock(&self.notes);
        if notes.removed {
            return Ok(None);
        }
        let failure = |errno: Errno| self.failure(Operation::Create, 0, errno);
        // One that a kill left behind.
        remove(&self.directory, &self.next_name).map_err(failure)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::openat(&self.directory, &self.next_name, flags, mode)
            .map(|file| Some(File::from(file)))
            .map_err(failure)
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
