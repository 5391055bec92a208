//! After a failed flush: what it may have lost is proven and written once more, so that the next flush means something.
//!
//! Memory may still show what the disk never got, hence every page is made dirty again. What memory has lost, too, is named.
//!
//! Invariant: a piece that is doubted stays so until it was proven and written.

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

/// A piece to look for, and the index where its bytes are.
pub(crate) type PiecePlace = (PieceIndex, PieceIndex);

/// Proves and writes once more what a failed flush may have lost, and returns what it did lose. Blocks.
///
/// # Errors
/// [`StorageError`]: it cannot be written; what is left is still doubted.
pub(crate) fn rewrite_suspects(
    target: &Target,
    ledger: &ResumeJournal,
    manifest: &Manifest,
    geometry: Geometry,
    hasher: Hasher,
) -> Result<Vec<PieceIndex>, StorageError> {
    let mut buffers = vec![vec![0; PIECE_BYTES as usize]; VERIFY_BATCH];
    let mut lost = Vec::new();
    for some in ledger.suspects().chunks(VERIFY_BATCH) {
        let places: Vec<PiecePlace> = some.iter().map(|index| (*index, *index)).collect();
        read_places(target, geometry, &places, &mut buffers);
        let bytes: Vec<&[u8]> = some
            .iter()
            .zip(&buffers)
            .map(|(index, buffer)| &buffer[..geometry.piece_len(*index) as usize])
            .collect();
        let jobs: Vec<PieceJob<'_>> = some
            .iter()
            .zip(&bytes)
            .map(|(index, bytes)| PieceJob { bytes, digest: manifest.digest(*index), link: None })
            .collect();
        for ((index, verdict), bytes) in some.iter().zip(hasher.verify(&jobs)).zip(bytes) {
            if verdict.digest_holds {
                ledger.note_begun(*index)?;
                target.write_piece(geometry.offset(*index), bytes)?;
                ledger.note_written(*index, false);
            } else {
                lost.push(*index);
            }
        }
    }
    Ok(lost)
}

/// Reads what is at these places; zeros, which are no piece that is looked for, where it cannot.
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
            tracing::warn!(%error, piece = %index, "it is fetched again");
        }
    }
}
