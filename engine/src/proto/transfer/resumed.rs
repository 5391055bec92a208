//! Transfers that begin with what an earlier one left, or lose what they had.
//!
//! Invariant: what is found counts as what arrives: held, gained, and able to discard the chain.

use std::sync::Arc;

use super::super::bitfield::Bitfield;
use super::super::geometry::Geometry;
use super::super::manifest::Manifest;
use super::super::picker::PiecePicker;
use super::super::time::Moment;
use super::super::units::PieceIndex;
use super::{ChainCheck, Transfer};

/// What a transfer starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumedPieces {
    /// Pieces that are verified and written.
    pub pieces: Bitfield,
    /// Whether the link of each of them held under the manifest's chain.
    pub links_match: bool,
    /// The file's exact length in bytes, where the last piece is held and the manifest does not say it.
    pub length: Option<u64>,
}

impl Transfer {
    /// As [`Transfer::new`], with what is held from the start, which counts as gained.
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

    /// A piece was there when the transfer began. Only before anything is asked for: see [`Transfer::finish_restore`].
    pub fn restore_piece(&mut self, index: PieceIndex, link_holds: bool) {
        self.hole_verified(index, link_holds);
    }

    /// Missing pieces whose content is held elsewhere in the file: each with an index to copy it from.
    #[must_use]
    pub fn pieces_to_copy(&self) -> Vec<(PieceIndex, PieceIndex)> {
        self.copies.to_copy(&self.held)
    }

    /// Nothing more will be found: what is missing now is to be fetched. Nothing may have been asked for before.
    pub fn finish_restore(&mut self) {
        assert!(self.picker.in_flight() == 0, "what was there is looked for before anything is asked for");
        let wanted = self.copies.to_fetch(&self.held);
        self.picker = PiecePicker::new(wanted, self.seed);
    }

    /// Pieces that were held are there no more, and are to be fetched again; whether that could be done: the transfer has to
    /// be on hold, with nothing arrived that is not written yet.
    pub fn discard_pieces(&mut self, pieces: &[PieceIndex]) -> bool {
        if !self.is_on_hold || self.picker.in_flight() > 0 {
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

    /// Whether the link of every piece held so far held, and so links are to be checked.
    #[must_use]
    pub fn is_chain_intact(&self) -> bool {
        self.chain == ChainCheck::Intact
    }

    /// The exact length in bytes, as far as it is known yet.
    #[must_use]
    pub fn exact_length(&self) -> Option<u64> {
        let proven = self.geometry.last().is_none_or(|last| self.held.has(last));
        (self.manifest.is_length_known() || proven).then(|| self.geometry.length())
    }
}
