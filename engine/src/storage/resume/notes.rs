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

use super::record::{NOTE_BYTES, Note, NotedPieces};
use crate::proto::bitfield::Bitfield;
use crate::proto::units::PieceIndex;

/// What became of a piece that is not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It is about to be written, or may be there.
    Begun,
    /// It was, when a flush failed.
    Overtaken,
    /// It is written, or was found to be there.
    Done { link_holds: bool },
    /// It was written before a flush that failed.
    Doubted,
}

impl Standing {
    fn note(self) -> Note {
        match self {
            Standing::Done { link_holds } => Note::Done { link_holds },
            Standing::Begun | Standing::Overtaken | Standing::Doubted => Note::Begun,
        }
    }
}

/// Pieces since the last record, and the file that it is in.
#[derive(Debug)]
pub(super) struct Notes {
    /// The record's file; `None` before the first.
    file: Option<File>,
    seal: u32,
    /// Where the notes begin in the file, in bytes.
    start: u64,
    /// Where the next note goes, in bytes.
    end: u64,
    durable: Bitfield,
    standings: BTreeMap<PieceIndex, Standing>,
    /// How many are done.
    done: usize,
    /// How many are doubted.
    doubted: usize,
    /// What is neither durable nor here is not there; else it may be.
    pub(super) complete: bool,
    /// What the record at rest says of that.
    recorded_complete: bool,
    /// The record was removed for good.
    pub(super) removed: bool,
}

impl Notes {
    /// Those that were found at the start.
    pub(super) fn new(durable: Bitfield, found: &NotedPieces, complete: bool) -> Notes {
        let mut notes = Notes {
            file: None,
            seal: 0,
            start: 0,
            end: 0,
            durable,
            standings: BTreeMap::new(),
            done: 0,
            doubted: 0,
            complete,
            recorded_complete: complete,
            removed: false,
        };
        for (index, note) in found {
            let standing = match *note {
                Note::Begun => Standing::Begun,
                Note::Done { link_holds } => Standing::Done { link_holds },
            };
            notes.stand(*index, Some(standing));
        }
        notes
    }

    /// What the last record claims.
    pub(super) fn durable(&self) -> &Bitfield {
        &self.durable
    }

    /// Notes that a piece is about to be written.
    pub(super) fn begin(&mut self, index: PieceIndex) -> io::Result<()> {
        if self.removed || self.durable.has(index) {
            return Ok(());
        }
        match self.standings.get(&index) {
            Some(Standing::Begun | Standing::Done { .. }) => return Ok(()),
            // The file says already that it is begun.
            Some(Standing::Overtaken | Standing::Doubted) => {}
            None => self.append(index, Note::Begun)?,
        }
        self.stand(index, Some(Standing::Begun));
        Ok(())
    }

    /// Notes that a piece is written whole.
    pub(super) fn wrote(&mut self, index: PieceIndex, link_holds: bool) -> io::Result<()> {
        if self.removed || self.durable.has(index) {
            return Ok(());
        }
        match self.standings.get(&index) {
            Some(Standing::Done { .. } | Standing::Doubted) => Ok(()),
            Some(Standing::Overtaken) => {
                self.stand(index, Some(Standing::Doubted));
                Ok(())
            }
            Some(Standing::Begun) | None => {
                self.stand(index, Some(Standing::Done { link_holds }));
                self.append(index, Note::Done { link_holds })
            }
        }
    }

    /// A piece is not there.
    pub(super) fn missed(&mut self, index: PieceIndex) {
        self.stand(index, None);
    }

    /// Whether a piece was begun and nothing has been said of it since.
    pub(super) fn is_begun(&self, index: PieceIndex) -> bool {
        matches!(self.standings.get(&index), Some(Standing::Begun | Standing::Overtaken))
    }

    /// How many pieces the next record can claim.
    pub(super) fn done_count(&self) -> usize {
        self.done
    }

    /// Whether a record has something new to claim.
    pub(super) fn has_news(&self) -> bool {
        self.done > 0 || self.complete != self.recorded_complete
    }

    /// Whether pieces have to be written again.
    pub(super) fn has_doubts(&self) -> bool {
        self.doubted > 0
    }

    /// What the next record can claim, once it is flushed.
    pub(super) fn done(&self) -> Vec<PieceIndex> {
        self.which(|standing| matches!(standing, Standing::Done { .. }))
    }

    /// What has to be written again.
    pub(super) fn doubted(&self) -> Vec<PieceIndex> {
        self.which(|standing| standing == Standing::Doubted)
    }

    /// A flush failed: nothing that is not recorded can be trusted any more.
    pub(super) fn doubt(&mut self) -> io::Result<()> {
        for index in self.standings.keys().copied().collect::<Vec<_>>() {
            let standing = match self.standings[&index] {
                Standing::Begun | Standing::Overtaken => Standing::Overtaken,
                Standing::Done { .. } | Standing::Doubted => Standing::Doubted,
            };
            self.stand(index, Some(standing));
        }
        let Some(file) = &self.file else { return Ok(()) };
        // First those that must not be believed go, whether there is room for others or not.
        file.set_len(self.start)?;
        self.end = self.start;
        let bytes = self.to_bytes();
        file.write_all_at(&bytes, self.end)?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Writes the notes that a record of these pieces leaves behind it into its file, where they begin at `start`.
    pub(super) fn write_behind(
        &self,
        durable: &Bitfield,
        file: &File,
        start: u64,
        seal: u32,
    ) -> io::Result<u64> {
        let still = self.standings.iter().filter(|(index, _)| !durable.has(**index));
        let bytes: Vec<u8> =
            still.flat_map(|(index, standing)| standing.note().to_bytes(*index, seal)).collect();
        file.write_all_at(&bytes, start)?;
        Ok(start + bytes.len() as u64)
    }

    /// A new record is in place, in this file, with notes from `start` to `end`.
    pub(super) fn follow(
        &mut self,
        durable: Bitfield,
        complete: bool,
        file: File,
        (start, end): (u64, u64),
        seal: u32,
    ) {
        for index in self.which(|_| true).into_iter().filter(|index| durable.has(*index)) {
            self.stand(index, None);
        }
        self.durable = durable;
        self.recorded_complete = complete;
        self.file = Some(file);
        (self.start, self.end, self.seal) = (start, end, seal);
    }

    fn which(&self, chosen: impl Fn(Standing) -> bool) -> Vec<PieceIndex> {
        let pieces = self.standings.iter().filter(|(_, standing)| chosen(**standing));
        pieces.map(|(index, _)| *index).collect()
    }

    fn to_bytes(&self) -> Vec<u8> {
        let note = |(index, standing): (&PieceIndex, &Standing)| standing.note().to_bytes(*index, self.seal);
        self.standings.iter().flat_map(note).collect()
    }

    fn append(&mut self, index: PieceIndex, note: Note) -> io::Result<()> {
        if let Some(file) = &self.file {
            file.write_all_at(&note.to_bytes(index, self.seal), self.end)?;
            self.end += NOTE_BYTES as u64;
        }
        Ok(())
    }

    fn stand(&mut self, index: PieceIndex, standing: Option<Standing>) {
        let count = |standing: Option<Standing>| match standing {
            Some(Standing::Done { .. }) => (1, 0),
            Some(Standing::Doubted) => (0, 1),
            _ => (0, 0),
        };
        let before = match standing {
            Some(standing) => self.standings.insert(index, standing),
            None => self.standings.remove(&index),
        };
        let (gone, come) = (count(before), count(standing));
        self.done = self.done + come.0 - gone.0;
        self.doubted = self.doubted + come.1 - gone.1;
    }
}
