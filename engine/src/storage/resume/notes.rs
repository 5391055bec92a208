//! What is known of the pieces since the last record: in memory, and in notes behind that record.
//!
//! ```text
//!              begin            wrote            in a record
//!   (nothing) ──────► Begun ──────────► Done ─────────────────► durable
//!                       │ ▲              │
//!        a flush failed ▼ │ begin        ▼ a flush failed
//!                 Overtaken ──────► Doubted ──► begin, as it is written again
//!                           wrote
//! ```
//!
//! Invariants:
//! * What is doubted is never recorded, and no note says that it is done: it has to be written again first, since the kernel
//!   drops what it could not write, while its memory may still show it.
//! * A note is written whole or is written over by the next.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::record::{NOTE_BYTES, NotedPieces, PieceNote};
use crate::proto::bitfield::Bitfield;
use crate::proto::units::PieceIndex;

/// What became of a piece that is not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PieceWriteState {
    /// It is about to be written, or may be there.
    Begun,
    /// It was, when a flush failed.
    BegunBeforeFailedFlush,
    /// It is written, or was found to be there.
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

/// Pieces since the last record, and the file that it is in.
#[derive(Debug)]
pub(super) struct PieceNotes {
    /// The record's file; `None` before the first.
    file: Option<File>,
    seal: u32,
    /// Where the notes begin in the file, in bytes.
    notes_start: u64,
    /// Where the next note goes, in bytes.
    notes_end: u64,
    durable: Bitfield,
    states: BTreeMap<PieceIndex, PieceWriteState>,
    /// How many are done.
    written_count: usize,
    /// How many are doubted.
    suspect_count: usize,
    /// What is neither durable nor here is not there; else it may be.
    pub(super) is_complete: bool,
    /// What the record at rest says of that.
    is_recorded_complete: bool,
    /// The record was removed for good.
    pub(super) is_removed: bool,
}

impl PieceNotes {
    /// Those that were found at the start.
    pub(super) fn new(durable: Bitfield, found: &NotedPieces, complete: bool) -> PieceNotes {
        let mut notes = PieceNotes {
            file: None,
            seal: 0,
            notes_start: 0,
            notes_end: 0,
            durable,
            states: BTreeMap::new(),
            written_count: 0,
            suspect_count: 0,
            is_complete: complete,
            is_recorded_complete: complete,
            is_removed: false,
        };
        for (index, note) in found {
            let standing = match *note {
                PieceNote::Begun => PieceWriteState::Begun,
                PieceNote::Written { link_holds } => PieceWriteState::Written { link_holds },
            };
            notes.set_state(*index, Some(standing));
        }
        notes
    }

    /// What the last record claims.
    pub(super) fn durable(&self) -> &Bitfield {
        &self.durable
    }

    /// Notes that a piece is about to be written.
    pub(super) fn mark_begun(&mut self, index: PieceIndex) -> io::Result<()> {
        if self.is_removed || self.durable.has(index) {
            return Ok(());
        }
        match self.states.get(&index) {
            Some(PieceWriteState::Begun | PieceWriteState::Written { .. }) => return Ok(()),
            // The file says already that it is begun.
            Some(PieceWriteState::BegunBeforeFailedFlush | PieceWriteState::Suspect) => {}
            None => self.append(index, PieceNote::Begun)?,
        }
        self.set_state(index, Some(PieceWriteState::Begun));
        Ok(())
    }

    /// Notes that a piece is written whole.
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

    /// A piece is not there.
    pub(super) fn mark_missing(&mut self, index: PieceIndex) {
        self.set_state(index, None);
    }

    /// Whether a piece was begun and nothing has been said of it since.
    pub(super) fn is_begun(&self, index: PieceIndex) -> bool {
        matches!(
            self.states.get(&index),
            Some(PieceWriteState::Begun | PieceWriteState::BegunBeforeFailedFlush)
        )
    }

    /// How many pieces the next record can claim.
    pub(super) fn written_count(&self) -> usize {
        self.written_count
    }

    /// Whether a record has something new to claim.
    pub(super) fn has_new_claims(&self) -> bool {
        self.written_count > 0 || self.is_complete != self.is_recorded_complete
    }

    /// Whether pieces have to be written again.
    pub(super) fn has_suspects(&self) -> bool {
        self.suspect_count > 0
    }

    /// What the next record can claim, once it is flushed.
    pub(super) fn written_pieces(&self) -> Vec<PieceIndex> {
        self.pieces_where(|standing| matches!(standing, PieceWriteState::Written { .. }))
    }

    /// What has to be written again.
    pub(super) fn suspects(&self) -> Vec<PieceIndex> {
        self.pieces_where(|standing| standing == PieceWriteState::Suspect)
    }

    /// A flush failed: nothing that is not recorded can be trusted any more.
    pub(super) fn mark_all_suspect(&mut self) -> io::Result<()> {
        for index in self.states.keys().copied().collect::<Vec<_>>() {
            let standing = match self.states[&index] {
                PieceWriteState::Begun | PieceWriteState::BegunBeforeFailedFlush => {
                    PieceWriteState::BegunBeforeFailedFlush
                }
                PieceWriteState::Written { .. } | PieceWriteState::Suspect => PieceWriteState::Suspect,
            };
            self.set_state(index, Some(standing));
        }
        let Some(file) = &self.file else { return Ok(()) };
        // First those that must not be believed go, whether there is room for others or not.
        file.set_len(self.notes_start)?;
        self.notes_end = self.notes_start;
        let bytes = self.to_bytes();
        file.write_all_at(&bytes, self.notes_end)?;
        self.notes_end += bytes.len() as u64;
        Ok(())
    }

    /// Writes the notes that a record of these pieces leaves behind it into its file, where they begin at `start`.
    pub(super) fn write_remaining(
        &self,
        durable: &Bitfield,
        file: &File,
        start: u64,
        seal: u32,
    ) -> io::Result<u64> {
        let still = self.states.iter().filter(|(index, _)| !durable.has(**index));
        let bytes: Vec<u8> =
            still.flat_map(|(index, standing)| standing.note().to_bytes(*index, seal)).collect();
        file.write_all_at(&bytes, start)?;
        Ok(start + bytes.len() as u64)
    }

    /// A new record is in place, in this file, with notes from `start` to `end`.
    pub(super) fn adopt_record(
        &mut self,
        durable: Bitfield,
        complete: bool,
        file: File,
        (start, end): (u64, u64),
        seal: u32,
    ) {
        for index in self.pieces_where(|_| true).into_iter().filter(|index| durable.has(*index)) {
            self.set_state(index, None);
        }
        self.durable = durable;
        self.is_recorded_complete = complete;
        self.file = Some(file);
        (self.notes_start, self.notes_end, self.seal) = (start, end, seal);
    }

    fn pieces_where(&self, chosen: impl Fn(PieceWriteState) -> bool) -> Vec<PieceIndex> {
        let pieces = self.states.iter().filter(|(_, standing)| chosen(**standing));
        pieces.map(|(index, _)| *index).collect()
    }

    fn to_bytes(&self) -> Vec<u8> {
        let note =
            |(index, standing): (&PieceIndex, &PieceWriteState)| standing.note().to_bytes(*index, self.seal);
        self.states.iter().flat_map(note).collect()
    }

    fn append(&mut self, index: PieceIndex, note: PieceNote) -> io::Result<()> {
        if let Some(file) = &self.file {
            file.write_all_at(&note.to_bytes(index, self.seal), self.notes_end)?;
            self.notes_end += NOTE_BYTES as u64;
        }
        Ok(())
    }

    fn set_state(&mut self, index: PieceIndex, standing: Option<PieceWriteState>) {
        let count = |standing: Option<PieceWriteState>| match standing {
            Some(PieceWriteState::Written { .. }) => (1, 0),
            Some(PieceWriteState::Suspect) => (0, 1),
            _ => (0, 0),
        };
        let before = match standing {
            Some(standing) => self.states.insert(index, standing),
            None => self.states.remove(&index),
        };
        let (gone, come) = (count(before), count(standing));
        self.written_count = self.written_count + come.0 - gone.0;
        self.suspect_count = self.suspect_count + come.1 - gone.1;
    }
}
