//! Beginning where an earlier attempt ended: what it may have left is hashed, what is there is kept, the rest is fetched.
//!
//! Invariant: nothing counts as held that was not proven here, or noted as written or recorded as durable after it was
//! proven.

use std::io;
use std::sync::Arc;

use super::download::ActiveDownload;
use super::limits::VERIFY_BATCH;
use super::rewrite::{PiecePlace, read_places};
use super::threads::{LaneThreads, WorkLane};
use super::verify::link_check;
use crate::hash::{HashVerdict, Hasher, PieceJob};
use crate::proto::units::{PIECE_BYTES, PieceIndex};
use crate::storage::error::StorageError;

/// Has it checked by a thread, as soon as one is free. The download was made as one that is being checked.
pub(crate) fn start_check(
    download: &Arc<ActiveDownload>,
    to_check: Vec<PieceIndex>,
    hasher: Hasher,
    threads: &LaneThreads,
) -> io::Result<()> {
    let download = Arc::clone(download);
    let work = move || {
        check_pieces(&download, &to_check, hasher);
        download.finish_check();
    };
    threads.submit(WorkLane::Check, work)
}

fn check_pieces(download: &ActiveDownload, to_check: &[PieceIndex], hasher: Hasher) {
    if download.is_over() {
        return;
    }
    let mut buffers = vec![vec![0; PIECE_BYTES as usize]; VERIFY_BATCH];
    for some in to_check.chunks(VERIFY_BATCH) {
        let places: Vec<PiecePlace> = some.iter().map(|index| (*index, *index)).collect();
        let mut found = Vec::new();
        let mut checked_bytes = 0;
        let verdicts = verify_places(download, &places, &mut buffers, hasher);
        if !download.can_verify() {
            return;
        }
        for ((index, verdict), bytes) in verdicts.into_iter().zip(&buffers) {
            let length = download.manifest.geometry().piece_len(index);
            checked_bytes += u64::from(length);
            if verdict.digest_holds && keep_found(download, index, &bytes[..length as usize], verdict) {
                found.push((index, verdict.link_holds != Some(false)));
            } else {
                download.ledger.note_missing(index);
            }
        }
        download.pieces_found(&found, checked_bytes);
        if download.is_over() {
            return;
        }
    }
    download.ledger.mark_all_checked();
    for some in download.with_transfer(|transfer, _| transfer.pieces_to_copy()).chunks(VERIFY_BATCH) {
        if let Err(error) = copy_pieces(download, some, &mut buffers, hasher) {
            tracing::warn!(%error, "pieces that are there at another place are fetched again");
            return;
        }
        if download.is_over() {
            return;
        }
    }
}

/// Keeps a piece that was found to be right; whether it could. One that may have been written lately is written again:
/// it may be right in memory alone.
fn keep_found(download: &ActiveDownload, index: PieceIndex, bytes: &[u8], verdict: HashVerdict) -> bool {
    if download.ledger.is_begun(index) {
        let offset = download.manifest.geometry().offset(index);
        let written = download
            .ledger
            .note_begun(index)
            .and_then(|()| download.target.write_piece(offset, bytes))
            .inspect_err(|error| tracing::warn!(%error, piece = %index, "it is fetched again"));
        if written.is_err() {
            return false;
        }
    }
    download.ledger.note_written(index, verdict.link_holds == Some(true));
    true
}

/// Proves what is at these places. What cannot be read is not there.
fn verify_places(
    download: &ActiveDownload,
    places: &[PiecePlace],
    buffers: &mut [Vec<u8>],
    hasher: Hasher,
) -> Vec<(PieceIndex, HashVerdict)> {
    let geometry = download.manifest.geometry();
    let (length, links_hold) =
        download.with_transfer(|transfer, _| (transfer.geometry().length(), transfer.is_chain_intact()));
    read_places(&download.target, geometry, places, buffers);
    let jobs: Vec<PieceJob<'_>> = places
        .iter()
        .zip(&*buffers)
        .map(|((index, _), buffer)| PieceJob {
            bytes: &buffer[..geometry.piece_len(*index) as usize],
            digest: download.manifest.digest(*index),
            link: if links_hold { link_check(&download.manifest, *index, length) } else { None },
        })
        .collect();
    places.iter().map(|(index, _)| *index).zip(hasher.verify(&jobs)).collect()
}

/// Writes pieces whose content is there at another index.
fn copy_pieces(
    download: &ActiveDownload,
    places: &[PiecePlace],
    buffers: &mut [Vec<u8>],
    hasher: Hasher,
) -> Result<(), StorageError> {
    let geometry = download.manifest.geometry();
    let mut copied = Vec::new();
    let proven = verify_places(download, places, buffers, hasher);
    if !download.can_verify() {
        return Ok(());
    }
    for ((index, verdict), buffer) in proven.into_iter().zip(&*buffers).filter(|((_, it), _)| it.digest_holds)
    {
        download.ledger.note_begun(index)?;
        let bytes = &buffer[..geometry.piece_len(index) as usize];
        download.target.write_piece(geometry.offset(index), bytes)?;
        download.ledger.note_written(index, verdict.link_holds == Some(true));
        copied.push((index, verdict.link_holds != Some(false)));
    }
    download.pieces_found(&copied, 0);
    Ok(())
}
