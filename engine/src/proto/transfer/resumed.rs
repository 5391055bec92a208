//! Transfers that begin with the pieces of an earlier attempt, or lose pieces that they had.
//!
//! A restored piece counts like one that arrived: it is held and gained, and its link can discard the chain.

use std::sync::Arc;

use super::super::bitfield::Bitfield;
use super::super::geometry::Geometry;
use super::super::manifest::Manifest;
use super::super::picker::PiecePicker;
use super::super::time::Moment;
use super::super::units::PieceIndex;
use super::{ChainCheck, Transfer};

/// The pieces with which a transfer starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumedPieces {
    /// Pieces that are verified and written.
    pub pieces: Bitfield,
    /// Whether the link of each of them held under the manifest's chain.
    pub links_match: bool,
    /// The file's exact length in bytes, where the last piece is held and the manifest does not give it.
    pub length: Option<u64>,
}

impl Transfer {
    /// As [`Transfer::new`], with pieces that are held from the start and count as gained.
    #[must_use]
    pub fn resumed(manifest: Arc<Manifest>, start: &ResumedPieces, seed: u64, now: Moment) -> Transfer {
        let mut transfer = Transfer::new(manifest, seed, now);
        if let Some(geometry) = start.length.and_then(|length| Geometry::new(length).ok()) {
            transfer.geometry = geometry;
        }
        start.pieces.iter().for_each(|index| transfer.restore_piece(index, start.links_match));
        transfer.finish_restore();
        transfer
    }

    /// A piece is on the disk already. Only before anything is requested: see [`Transfer::finish_restore`].
    pub fn restore_piece(&mut self, index: PieceIndex, link_matches: bool) {
        self.add_held_piece(index, link_matches);
    }

    /// Missing pieces whose content is held elsewhere in the file: each with the index to copy it from.
    #[must_use]
    pub fn pieces_to_copy(&self) -> Vec<(PieceIndex, PieceIndex)> {
        self.equal.to_copy(&self.held)
    }

    /// No more pieces will be restored: those that are missing now are fetched.
    ///
    /// # Panics
    /// When pieces were requested already.
    pub fn finish_restore(&mut self) {
        let wanted = self.equal.to_fetch(&self.held);
        self.scheduler.replace_picker(PiecePicker::new(wanted, self.seed));
    }

    /// Removes held pieces that are no longer on the disk, so that they are fetched again. Returns `false`, and does
    /// nothing, unless the transfer is on hold and no piece is being verified or written.
    pub fn discard_pieces(&mut self, pieces: &[PieceIndex]) -> bool {
        if !self.scheduler.is_suspended || self.scheduler.picker.in_flight() > 0 {
            return false;
        }
        for index in pieces {
            if self.held.remove(*index) {
                self.counts.verified_bytes -= u64::from(self.geometry.piece_len(*index));
            }
        }
        self.finish_restore();
        true
    }

    /// Whether the link of every held piece holds, so that the links of further pieces are to be checked.
    #[must_use]
    pub fn is_chain_intact(&self) -> bool {
        self.chain == ChainCheck::Intact
    }

    /// The exact length in bytes, once it is known.
    #[must_use]
    pub fn exact_length(&self) -> Option<u64> {
        let is_last_held = self.geometry.last().is_none_or(|last| self.held.has(last));
        (self.manifest.is_length_known() || is_last_held).then(|| self.geometry.length())
    }
}
