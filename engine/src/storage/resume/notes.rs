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
//! * A suspect piece is never recorded and has no note that says it is written. It has to be written again
//!   first, since the kernel may have dropped a page that it could not write while memory still shows it.
//! * A note is written completely or is overwritten by the next one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::record::{NOTE_BYTES, NotedPieces, PieceNote};
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
    Written { link_holds: bool },
    /// It was written before a flush that failed.
    Suspect,
}

impl PieceWriteState {
    fn note(self) -> PieceNote {
        match self {
            PieceWriteState::Written { link_holds } => PieceNote::Written { link_holds },
            PieceWriteState::Begun | PieceWriteState::BegunBeforeFailedFlush | PieceWriteState::Suspect => {
                PieceNote::Begun
            }
        }
    }
}

/// Pieces since the last record, and the record's file.
#[derive(Debug)]
pub(super) struct PieceNotes {
    /// The record's file; `None` before the first record.
    file: Option<File>,
    seal: u32,
    /// Offset of the first note in the file, in bytes.
    notes_start: u64,
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
            notes_start: 0,
            notes_end: 0,
            durable,
            states: BTreeMap::new(),
            written_count: 0,
            suspect_count: 0,
            is_complete,
            is_recorded_complete: is_complete,
            is_removed: false,
        };
        for (index, note) in found {
            let state = match *note {
                PieceNote::Begun => PieceWriteState::Begun,
                PieceNote::Written { link_holds } => PieceWriteState::Written { link_holds },
            };
            notes.set_state(*index, Some(state));
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
            Some(PieceWriteState::Begun | PieceWriteState::Written { .. }) => return Ok(()),
            // The file already has a note that the piece is begun.
            Some(PieceWriteState::BegunBeforeFailedFlush | PieceWriteState::Suspect) => {}
            None => self.append(index, PieceNote::Begun)?,
        }
        self.set_state(index, Some(PieceWriteState::Begun));
        Ok(())
    }

    pub(super) fn mark_written(&mut self, index: PieceIndex, link_holds: bool) -> io::Result<()> {
        if self.is_removed || self.durable.has(index) {
            return Ok(());
        }
        match self.states.get(&index) {
            Some(PieceWriteState::Written { .. } | PieceWriteState::Suspect) => Ok(()),
            Some(PieceWriteState::BegunBeforeFailedFlush) => {
                self.set_state(index, Some(PieceWriteState::Suspect));
                Ok(())
            }
            Some(PieceWriteState::Begun) | None => {
                self.set_state(index, Some(PieceWriteState::Written { link_holds }));
                self.append(index, PieceNote::Written { link_holds })
            }
        }
    }

    /// Forgets a piece that is not in the file.
    pub(super) fn mark_missing(&mut self, index: PieceIndex) {
        self.set_state(index, None);
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
        self.pieces_where(|state| matches!(state, PieceWriteState::Written { .. }))
    }

    /// Pieces that have to be written again.
    pub(super) fn suspect_pieces(&self) -> Vec<PieceIndex> {
        self.pieces_where(|state| state == PieceWriteState::Suspect)
    }

    /// After a failed flush: nothing unrecorded can be trusted any more.
    pub(super) fn mark_all_suspect(&mut self) -> io::Result<()> {
        for index in self.states.keys().copied().collect::<Vec<_>>() {
            let state = match self.states[&index] {
                PieceWriteState::Begun | PieceWriteState::BegunBeforeFailedFlush => {
                    PieceWriteState::BegunBeforeFailedFlush
                }
                PieceWriteState::Written { .. } | PieceWriteState::Suspect => PieceWriteState::Suspect,
            };
            self.set_state(index, Some(state));
        }
        let Some(file) = &self.file else { return Ok(()) };
        // First remove the wrong notes, even if there is no room for new ones.
        file.set_len(self.notes_start)?;
        self.notes_end = self.notes_start;
        let bytes = self.to_bytes();
        file.write_all_at(&bytes, self.notes_end)?;
        self.notes_end += bytes.len() as u64;
        Ok(())
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
        let remaining = self.states.iter().filter(|(index, _)| !durable.has(**index));
        let bytes: Vec<u8> =
            remaining.flat_map(|(index, state)| state.note().to_bytes(*index, seal)).collect();
        file.write_all_at(&bytes, start)?;
        Ok(start + bytes.len() as u64)
    }

    /// Continues behind a new record in `file`, whose notes reach from `start` to `end`.
    pub(super) fn adopt_record(
        &mut self,
        durable: Bitfield,
        is_complete: bool,
        file: File,
        (start, end): (u64, u64),
        seal: u32,
    ) {
        for index in self.pieces_where(|_| true).into_iter().filter(|index| durable.has(*index)) {
            self.set_state(index, None);
        }
        self.durable = durable;
        self.is_recorded_complete = is_complete;
        self.file = Some(file);
        (self.notes_start, self.notes_end, self.seal) = (start, end, seal);
    }

    fn pieces_where(&self, chosen: impl Fn(PieceWriteState) -> bool) -> Vec<PieceIndex> {
        let pieces = self.states.iter().filter(|(_, state)| chosen(**state));
        pieces.map(|(index, _)| *index).collect()
    }

    fn to_bytes(&self) -> Vec<u8> {
        let note = |(index, state): (&PieceIndex, &PieceWriteState)| state.note().to_bytes(*index, self.seal);
        self.states.iter().flat_map(note).collect()
    }

    fn append(&mut self, index: PieceIndex, note: PieceNote) -> io::Result<()> {
        if let Some(file) = &self.file {
            file.write_all_at(&note.to_bytes(index, self.seal), self.notes_end)?;
            self.notes_end += NOTE_BYTES as u64;
        }
        Ok(())
    }

    fn set_state(&mut self, index: PieceIndex, state: Option<PieceWriteState>) {
        let count = |state: Option<PieceWriteState>| match state {
            Some(PieceWriteState::Written { .. }) => (1, 0),
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
