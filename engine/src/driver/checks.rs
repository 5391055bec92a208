//! Hashing for downloads off the workers: pieces that an earlier attempt left on the disk, and pieces of zeros.
//!
//! Invariant: nothing counts as held unless it was verified here, or its record says that it was verified and is durable.

use std::io;
use std::sync::Arc;

use super::download::ActiveDownload;
use super::limits::VERIFY_BATCH;
use super::rewrite::{PiecePlace, read_places};
use super::threads::{WorkKind, WorkThreads};
use super::verify::link_check;
use crate::hash::{HashVerdict, Hasher, PieceJob};
use crate::proto::units::{PIECE_BYTES, PieceIndex};
use crate::storage::error::StorageError;

/// Starts the check of what an earlier attempt left. The download fetches nothing before the check
/// has ended.
pub(crate) fn start_check(
    download: &Arc<ActiveDownload>,
    to_check: Vec<PieceIndex>,
    hasher: Hasher,
    threads: &WorkThreads,
) -> io::Result<()> {
    let download = Arc::clone(download);
    let work = move || {
        check_pieces(&download, &to_check, hasher);
        download.finish_check();
    };
    threads.submit(WorkKind::Check, work)
}

fn check_pieces(download: &ActiveDownload, to_check: &[PieceIndex], hasher: Hasher) {
    if download.is_over() {
        return;
    }
    let mut buffers = vec![vec![0; PIECE_BYTES as usize]; VERIFY_BATCH];
    for batch in to_check.chunks(VERIFY_BATCH) {
        // Each piece is read at its own index.
        let places: Vec<PiecePlace> = batch.iter().map(|index| (*index, *index)).collect();
        let mut found = Vec::new();
        let mut checked_bytes = 0;
        let verdicts = verify_places(download, &places, &mut buffers, hasher);
        if !download.can_verify() {
            return;
        }
        for ((index, verdict), bytes) in verdicts.into_iter().zip(&buffers) {
            let length = download.manifest.geometry().piece_len(index);
            checked_bytes += u64::from(length);
            // For the transfer a link that was not checked counts as matching; the record claims only checked links.
            if verdict.digest_holds && keep_found(download, index, &bytes[..length as usize], verdict) {
                found.push((index, verdict.link_holds != Some(false)));
            } else {
                download.journal.note_missing(index);
            }
        }
        download.pieces_found(&found, checked_bytes);
        if download.is_over() {
            return;
        }
    }
    download.journal.mark_all_checked();
    for batch in download.with_transfer(|transfer, _| transfer.pieces_to_copy()).chunks(VERIFY_BATCH) {
        if let Err(error) = copy_pieces(download, batch, &mut buffers, hasher) {
            tracing::warn!(%error, "cannot copy pieces that are held at another index; fetching them instead");
            return;
        }
        if download.is_over() {
            return;
        }
    }
}

/// Keeps a piece that matches; `false` when it could not be written. A piece that the journal notes as begun is written
/// again, because it may be right in the page cache only.
fn keep_found(download: &ActiveDownload, index: PieceIndex, bytes: &[u8], verdict: HashVerdict) -> bool {
    if download.journal.is_begun(index) {
        let offset = download.manifest.geometry().offset(index);
        let written = download
            .journal
            .note_begun(index)
            .and_then(|()| download.target.write_piece(offset, bytes))
            .inspect_err(
                |error| tracing::warn!(%error, piece = %index, "cannot write a piece again; fetching it"),
            );
        if written.is_err() {
            return false;
        }
    }
    download.journal.note_written(index, verdict.link_holds == Some(true));
    true
}

/// Hashes the bytes at these places. Bytes that cannot be read match nothing.
fn verify_places(
    download: &ActiveDownload,
    places: &[PiecePlace],
    buffers: &mut [Vec<u8>],
    hasher: Hasher,
) -> Vec<(PieceIndex, HashVerdict)> {
    let geometry = download.manifest.geometry();
    let (length, is_chain_intact) =
        download.with_transfer(|transfer, _| (transfer.geometry().length(), transfer.is_chain_intact()));
    read_places(&download.target, geometry, places, buffers);
    let jobs: Vec<PieceJob<'_>> = places
        .iter()
        .zip(&*buffers)
        .map(|((index, _), buffer)| PieceJob {
            bytes: &buffer[..geometry.piece_len(*index) as usize],
            digest: download.manifest.digest(*index),
            link: if is_chain_intact { link_check(&download.manifest, *index, length) } else { None },
        })
        .collect();
    places.iter().map(|(index, _)| *index).zip(hasher.verify(&jobs)).collect()
}

/// Writes pieces whose content is held at another index.
fn copy_pieces(
    download: &ActiveDownload,
    places: &[PiecePlace],
    buffers: &mut [Vec<u8>],
    hasher: Hasher,
) -> Result<(), StorageError> {
    let geometry = download.manifest.geometry();
    let mut copied = Vec::new();
    let verdicts = verify_places(download, places, buffers, hasher);
    if !download.can_verify() {
        return Ok(());
    }
    for ((index, verdict), buffer) in verdicts.into_iter().zip(&*buffers) {
        if !verdict.digest_holds {
            continue;
        }
        download.journal.note_begun(index)?;
        let bytes = &buffer[..geometry.piece_len(index) as usize];
        download.target.write_piece(geometry.offset(index), bytes)?;
        download.journal.note_written(index, verdict.link_holds == Some(true));
        copied.push((index, verdict.link_holds != Some(false)));
    }
    download.pieces_found(&copied, 0);
    Ok(())
}

/// Starts [`prove_zero_pieces`] when the file has zero pieces.
pub(crate) fn start_zero_pieces(
    download: &Arc<ActiveDownload>,
    hasher: Hasher,
    threads: &WorkThreads,
) -> io::Result<()> {
    if download.with_transfer(|transfer, _| transfer.holes()).count().0 == 0 {
        return Ok(());
    }
    let download = Arc::clone(download);
    threads.submit(WorkKind::Holes, move || prove_zero_pieces(&download, hasher))
}

/// Checks the links of zero pieces in full batches. Their digest is known and they are never fetched. Blocks.
fn prove_zero_pieces(download: &ActiveDownload, hasher: Hasher) {
    let zeros = vec![0; PIECE_BYTES as usize];
    let manifest = &download.manifest;
    let geometry = manifest.geometry();
    let holes: Vec<PieceIndex> = download.with_transfer(|transfer, _| transfer.holes()).iter().collect();
    for batch in holes.chunks(VERIFY_BATCH) {
        let job = |index: &PieceIndex| PieceJob {
            bytes: &zeros[..geometry.piece_len(*index) as usize],
            digest: manifest.digest(*index),
            link: link_check(manifest, *index, geometry.length()),
        };
        let jobs: Vec<PieceJob<'_>> = batch.iter().map(job).collect();
        let verdicts = hasher.verify(&jobs);
        if !download.can_verify() {
            return;
        }
        let links = verdicts.iter().map(|verdict| verdict.link_holds != Some(false));
        if !download.zero_pieces_proven(&batch.iter().copied().zip(links).collect::<Vec<_>>()) {
            return;
        }
    }
}
