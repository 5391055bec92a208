//! After a failed flush: verifies suspect pieces and writes them again, so that the next flush covers them.
//!
//! The page cache may still show pages that the disk never got, so every page is made dirty again. Pieces that the cache has
//! lost as well are reported. Invariant: a suspect stays one until it was verified and written again.

use super::limits::VERIFY_BATCH;
use crate::hash::{Hasher, PieceJob};
use crate::proto::geometry::Geometry;
use crate::proto::manifest::Manifest;
use crate::proto::units::{PIECE_BYTES, PieceIndex};
use crate::storage::error::StorageError;
use crate::storage::resume::ResumeJournal;
use crate::storage::target::Target;

#[cfg(test)]
mod tests;

/// A piece, and the index at which its bytes are to be read.
pub(crate) type PiecePlace = (PieceIndex, PieceIndex);

/// Verifies and writes again what a failed flush may have lost; returns the pieces that it did lose. Blocks.
///
/// # Errors
/// [`StorageError`]: a piece cannot be written; the rest stay suspects.
pub(crate) fn rewrite_suspects(
    target: &Target,
    journal: &ResumeJournal,
    manifest: &Manifest,
    geometry: Geometry,
    hasher: Hasher,
) -> Result<Vec<PieceIndex>, StorageError> {
    let mut buffers = vec![vec![0; PIECE_BYTES as usize]; VERIFY_BATCH];
    let mut lost = Vec::new();
    for batch in journal.suspect_pieces().chunks(VERIFY_BATCH) {
        let places: Vec<PiecePlace> = batch.iter().map(|index| (*index, *index)).collect();
        read_places(target, geometry, &places, &mut buffers);
        let bytes: Vec<&[u8]> = batch
            .iter()
            .zip(&buffers)
            .map(|(index, buffer)| &buffer[..geometry.piece_len(*index) as usize])
            .collect();
        let jobs: Vec<PieceJob<'_>> = batch
            .iter()
            .zip(&bytes)
            .map(|(index, bytes)| PieceJob { bytes, digest: manifest.digest(*index), link: None })
            .collect();
        for ((index, verdict), bytes) in batch.iter().zip(hasher.verify(&jobs)).zip(bytes) {
            if verdict.digest_holds {
                journal.note_begun(*index)?;
                target.write_piece(geometry.offset(*index), bytes)?;
                journal.note_written(*index);
            } else {
                lost.push(*index);
            }
        }
    }
    Ok(lost)
}

/// Reads the bytes at these places. A place that cannot be read gives zeros, which match no piece that is fetched.
pub(crate) fn read_places(
    target: &Target,
    geometry: Geometry,
    places: &[PiecePlace],
    buffers: &mut [Vec<u8>],
) {
    for ((index, from), buffer) in places.iter().zip(buffers) {
        let bytes = &mut buffer[..geometry.piece_len(*index) as usize];
        if let Err(error) = target.read_piece(geometry.offset(*from), bytes) {
            bytes.fill(0);
            tracing::warn!(%error, piece = %index, "cannot read a piece of the partial file; fetching it");
        }
    }
}
