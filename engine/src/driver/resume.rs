//! Beginning where an earlier attempt ended: what it may have left is hashed, what is there is kept, the rest is fetched.
//!
//! Invariant: nothing counts as held that was not proven here, or noted as written or recorded as durable after it was
//! proven.

use std::io;
use std::sync::Arc;

use super::download::DownloadState;
use super::limits::VERIFY_BATCH;
use super::rewrite::{Place, read};
use super::threads::{Lane, Threads};
use super::verify::link;
use crate::hash::{Hasher, PieceJob, Verdict};
use crate::proto::units::{PIECE_BYTES, PieceIndex};
use crate::storage::error::StorageError;

/// Has it checked by a thread, as soon as one is free. The download was made as one that is being checked.
pub(crate) fn start_check(
    download: &Arc<DownloadState>,
    to_check: Vec<PieceIndex>,
    hasher: Hasher,
    threads: &Threads,
) -> io::Result<()> {
    let download = Arc::clone(download);
    let work = move || {
        check(&download, &to_check, hasher);
        download.begin();
    };
    threads.submit(Lane::Check, work)
}

fn check(download: &DownloadState, to_check: &[PieceIndex], hasher: Hasher) {
    if download.is_over() {
        return;
    }
    let mut buffers = vec![vec![0; PIECE_BYTES as usize]; VERIFY_BATCH];
    for some in to_check.chunks(VERIFY_BATCH) {
        let places: Vec<Place> = some.iter().map(|index| (*index, *index)).collect();
        let mut found = Vec::new();
        let mut checked_bytes = 0;
        let verdicts = look(download, &places, &mut buffers, hasher);
        if !download.may_judge() {
            return;
        }
        for ((index, verdict), bytes) in verdicts.into_iter().zip(&buffers) {
            let length = download.manifest.geometry().piece_len(index);
            checked_bytes += u64::from(length);
            if verdict.digest_holds && keep(download, index, &bytes[..length as usize], verdict) {
                found.push((index, verdict.link_holds != Some(false)));
            } else {
                download.ledger.missed(index);
            }
        }
        download.found(&found, checked_bytes);
        if download.is_over() {
            return;
        }
    }
    download.ledger.all_checked();
    for some in download.with(|transfer, _| transfer.to_copy()).chunks(VERIFY_BATCH) {
        if let Err(error) = copy(download, some, &mut buffers, hasher) {
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
fn keep(download: &DownloadState, index: PieceIndex, bytes: &[u8], verdict: Verdict) -> bool {
    if download.ledger.is_begun(index) {
        let offset = download.manifest.geometry().offset(index);
        let written = download
            .ledger
            .begin(index)
            .and_then(|()| download.target.write_piece(offset, bytes))
            .inspect_err(|error| tracing::warn!(%error, piece = %index, "it is fetched again"));
        if written.is_err() {
            return false;
        }
    }
    download.ledger.wrote(index, verdict.link_holds == Some(true));
    true
}

/// Proves what is at these places. What cannot be read is not there.
fn look(
    download: &DownloadState,
    places: &[Place],
    buffers: &mut [Vec<u8>],
    hasher: Hasher,
) -> Vec<(PieceIndex, Verdict)> {
    let geometry = download.manifest.geometry();
    let (length, links_hold) =
        download.with(|transfer, _| (transfer.geometry().length(), transfer.links_hold()));
    read(&download.target, geometry, places, buffers);
    let jobs: Vec<PieceJob<'_>> = places
        .iter()
        .zip(&*buffers)
        .map(|((index, _), buffer)| PieceJob {
            bytes: &buffer[..geometry.piece_len(*index) as usize],
            digest: download.manifest.digest(*index),
            link: if links_hold { link(&download.manifest, *index, length) } else { None },
        })
        .collect();
    places.iter().map(|(index, _)| *index).zip(hasher.verify(&jobs)).collect()
}

/// Writes pieces whose content is there at another index.
fn copy(
    download: &DownloadState,
    places: &[Place],
    buffers: &mut [Vec<u8>],
    hasher: Hasher,
) -> Result<(), StorageError> {
    let geometry = download.manifest.geometry();
    let mut copied = Vec::new();
    let proven = look(download, places, buffers, hasher);
    if !download.may_judge() {
        return Ok(());
    }
    for ((index, verdict), buffer) in proven.into_iter().zip(&*buffers).filter(|((_, it), _)| it.digest_holds)
    {
        download.ledger.begin(index)?;
        let bytes = &buffer[..geometry.piece_len(index) as usize];
        download.target.write_piece(geometry.offset(index), bytes)?;
        download.ledger.wrote(index, verdict.link_holds == Some(true));
        copied.push((index, verdict.link_holds != Some(false)));
    }
    download.found(&copied, 0);
    Ok(())
}
