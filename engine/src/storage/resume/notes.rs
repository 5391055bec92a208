//! State of the pieces since the last record: in memory, and in notes behind that record.
//!
//! ```text
//!              mark_begun       mark_written         in a record
//!   (nothing) ───────────► Begun ───────────► Written ───────────► durable
//!                            │                   │
//!             a flush failed ▼                   ▼ a flush failed
//!          BegunBeforeFailedFlush ───────────► Suspect
//!                            mark_written
//!   BegunBeforeFailedFlush, Suspect ── mark_begun, since the piece is written again ──► Begun
//! ```
//!
//! Invariants:
//! * A suspect piece is never recorded. It has to be written again first, since the kernel may have dropped a
//!   page that it could not write while memory still shows it.
//! * Every unrecorded piece that was written has a note, which says only that it may be there.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::record::{NOTE_BYTES, NotedPieces, note_to_bytes};
use crate::proto::bitfield::Bitfield;
use crate::proto::units::PieceIndex;

/// State of a piece that is not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PieceWriteState {
    /// It is about to be written, or may be there.
    Begun,
    /// It was `Begun` when a flush failed.
    BegunBeforeFailedFlush,
    /// It was written, or was found in the file.
    Written,
    /// It was written before a flush that failed.
    Suspect,
}

/// Pieces since the last record, and the record's file.
#[derive(Debug)]
pub(super) struct PieceNotes {
    /// The record's file; `None` before the first record.
    file: Option<File>,
    seal: u32,
    /// Offset of the next note, in bytes.
    notes_end: u64,
    durable: Bitfield,
    states: BTreeMap<PieceIndex, PieceWriteState>,
    /// Number of pieces in state `Written`.
    written_count: usize,
    /// Number of pieces in state `Suspect`.
    suspect_count: usize,
    /// Whether pieces neither durable nor listed here are known to be missing.
    pub(super) is_complete: bool,
    /// `is_complete` of the last record.
    is_recorded_complete: bool,
    /// Whether the record was removed for good.
    pub(super) is_removed: bool,
}

impl PieceNotes {
    /// The initial state, from what was found when the file was opened.
    pub(super) fn new(durable: Bitfield, found: &NotedPieces, is_complete: bool) -> PieceNotes {
        let mut notes = PieceNotes {
            file: None,
            seal: 0,
            notes_end: 0,
            durable,
            states: BTreeMap::new(),
            written_count: 0,
            suspect_count: 0,
            is_complete,
            is_recorded_complete: is_complete,
            is_removed: false,
        };
        for index in found {
            notes.set_state(*index, Some(PieceWriteState::Begun));
        }
        notes
    }

    /// Pieces that the last record claims.
    pub(super) fn durable(&self) -> &Bitfield {
        &self.durable
    }

    pub(super) fn mark_begun(&mut self, index: PieceIndex) -> io::Result<()> {
        if self.is_removed || self.durable.has(index) {
            return Ok(());
        }
        match self.states.get(&index) {
            Some(PieceWriteState::Begun | PieceWriteState::Written) => return Ok(()),
            // The file already has a note that the piece is begun.
            Some(PieceWriteState::BegunBeforeFailedFlush | PieceWriteState::Suspect) => {}
            None => self.append(index)?,
        }
        self.set_state(index, Some(PieceWriteState::Begun));
        Ok(())
    }

    pub(super) fn mark_written(&mut self, index: PieceIndex) {
        if self.is_removed || self.durable.has(index) {
            return;
        }
        let state = match self.states.get(&index) {
            Some(PieceWriteState::BegunBeforeFailedFlush | PieceWriteState::Suspect) => {
                PieceWriteState::Suspect
            }
            Some(PieceWriteState::Begun | PieceWriteState::Written) | None => PieceWriteState::Written,
        };
        self.set_state(index, Some(state));
    }

    /// Forgets a piece that is not in the file.
    pub(super) fn mark_missing(&mut self, index: PieceIndex) {
        self.set_state(index, None);
    }

    /// Forgets all pieces, recorded ones too: the file was changed.
    pub(super) fn forget_all(&mut self) {
        self.durable = Bitfield::empty(self.durable.pieces());
        self.states.clear();
        (self.written_count, self.suspect_count) = (0, 0);
        self.is_complete = false;
    }

    /// Whether a piece was begun and not yet noted as written.
    pub(super) fn is_begun(&self, index: PieceIndex) -> bool {
        matches!(
            self.states.get(&index),
            Some(PieceWriteState::Begun | PieceWriteState::BegunBeforeFailedFlush)
        )
    }

    pub(super) fn written_count(&self) -> usize {
        self.written_count
    }

    /// Whether a new record would claim more than the last.
    pub(super) fn has_new_claims(&self) -> bool {
        self.written_count > 0 || self.is_complete != self.is_recorded_complete
    }

    pub(super) fn has_suspect_pieces(&self) -> bool {
        self.suspect_count > 0
    }

    /// Pieces that the next record can claim once they are flushed.
    pub(super) fn written_pieces(&self) -> Vec<PieceIndex> {
        self.pieces_where(|state| matches!(state, PieceWriteState::Written))
    }

    /// Pieces that have to be written again.
    pub(super) fn suspect_pieces(&self) -> Vec<PieceIndex> {
        self.pieces_where(|state| state == PieceWriteState::Suspect)
    }

    /// After a failed flush: nothing unrecorded can be trusted any more. Their notes already have them checked.
    pub(super) fn mark_all_suspect(&mut self) {
        for index in self.states.keys().copied().collect::<Vec<_>>() {
            let state = match self.states[&index] {
                PieceWriteState::Begun | PieceWriteState::BegunBeforeFailedFlush => {
                    PieceWriteState::BegunBeforeFailedFlush
                }
                PieceWriteState::Written | PieceWriteState::Suspect => PieceWriteState::Suspect,
            };
            self.set_state(index, Some(state));
        }
    }

    /// Writes the notes on pieces that are not in `durable` to a new record's file, from offset `start` on.
    /// Returns the offset of their end.
    pub(super) fn write_remaining(
        &self,
        durable: &Bitfield,
        file: &File,
        start: u64,
        seal: u32,
    ) -> io::Result<u64> {
        let remaining = self.states.keys().filter(|index| !durable.has(**index));
        let bytes: Vec<u8> = remaining.flat_map(|index| note_to_bytes(*index, seal)).collect();
        file.write_all_at(&bytes, start)?;
        Ok(start + bytes.len() as u64)
    }

    /// Continues behind a new record in `file`, whose notes end at offset `end`.
    pub(super) fn adopt_record(
        &mut self,
        durable: Bitfield,
        is_complete: bool,
        file: File,
        end: u64,
        seal: u32,
    ) {
        for index in self.pieces_where(|_| true).into_iter().filter(|index| durable.has(*index)) {
            self.set_state(index, None);
        }
        self.durable = durable;
        self.is_recorded_complete = is_complete;
        self.file = Some(file);
        (self.notes_end, self.seal) = (end, seal);
    }

    fn pieces_where(&self, chosen: impl Fn(PieceWriteState) -> bool) -> Vec<PieceIndex> {
        let pieces = self.states.iter().filter(|(_, state)| chosen(**state));
        pieces.map(|(index, _)| *index).collect()
    }

    fn append(&mut self, index: PieceIndex) -> io::Result<()> {
        if let Some(file) = &self.file {
            file.write_all_at(&note_to_bytes(index, self.seal), self.notes_end)?;
            self.notes_end += NOTE_BYTES as u64;
        }
        Ok(())
    }

    fn set_state(&mut self, index: PieceIndex, state: Option<PieceWriteState>) {
        let count = |state: Option<PieceWriteState>| match state {
            Some(PieceWriteState::Written) => (1, 0),
            Some(PieceWriteState::Suspect) => (0, 1),
            _ => (0, 0),
        };
        let before = match state {
            Some(state) => self.states.insert(index, state),
            None => self.states.remove(&index),
        };
        let (removed, added) = (count(before), count(state));
        self.written_count = self.written_count + added.0 - removed.0;
        self.suspect_count = self.suspect_count + added.1 - removed.1;
    }
}
