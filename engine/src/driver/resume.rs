//! Beginning where an earlier attempt ended: what it may have left is hashed, what is there is kept, the rest is fetched.
//! And the same in small after a failed flush.
//!
//! Invariant: nothing counts as held that was not proven here, or noted as written or recorded as durable after it was
//! proven.

use std::io;
use std::sync::Arc;

use super::download::DownloadState;
use super::limits::VERIFY_BATCH;
use super::verify::link;
use crate::hash::{Hasher, PieceJob, Verdict};
use crate::proto::geometry::Geometry;
use crate::proto::manifest::Manifest;
use crate::proto::units::{PIECE_BYTES, PieceIndex};
use crate::storage::error::StorageError;
use crate::storage::resume::Ledger;
use crate::storage::target::Target;

/// A piece to look for, and the index where its bytes are.
type Place = (PieceIndex, PieceIndex);

/// Starts the check on a thread of its own. The download was made as one that is being checked.
pub(crate) fn start_check(
    download: &Arc<DownloadState>,
    to_check: Vec<PieceIndex>,
    hasher: Hasher,
) -> io::Result<()> {
    let download = Arc::clone(download);
    let work = move || {
        check(&download, &to_check, hasher);
        download.begin();
    };
    std::thread::Builder::new().name("resume".into()).spawn(work).map(drop)
}

fn check(download: &DownloadState, to_check: &[PieceIndex], hasher: Hasher) {
    let mut buffers = vec![vec![0; PIECE_BYTES as usize]; VERIFY_BATCH];
    for some in to_check.chunks(VERIFY_BATCH) {
        let places: Vec<Place> = some.iter().map(|index| (*index, *index)).collect();
        let mut found = Vec::new();
        let mut checked_bytes = 0;
        for ((index, verdict), bytes) in
            look(download, &places, &mut buffers, hasher).into_iter().zip(&buffers)
        {
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

/// Reads what is at these places; zeros, which are no piece that is looked for, where it cannot.
fn read(target: &Target, geometry: Geometry, places: &[Place], buffers: &mut [Vec<u8>]) {
    for ((index, from), buffer) in places.iter().zip(buffers) {
        let bytes = &mut buffer[..geometry.piece_len(*index) as usize];
        if let Err(error) = target.read_piece(geometry.offset(*from), bytes) {
            bytes.fill(0);
            tracing::warn!(%error, piece = %index, "it is fetched again");
        }
    }
}

/// Proves and writes once more what a failed flush may have lost, and returns what it did lose. Blocks.
///
/// # Errors
/// [`StorageError`]: it cannot be written; what is left is still doubted.
pub(crate) fn write_again(
    target: &Target,
    ledger: &Ledger,
    manifest: &Manifest,
    geometry: Geometry,
    hasher: Hasher,
) -> Result<Vec<PieceIndex>, StorageError> {
    let mut buffers = vec![vec![0; PIECE_BYTES as usize]; VERIFY_BATCH];
    let mut lost = Vec::new();
    for some in ledger.doubted().chunks(VERIFY_BATCH) {
        let places: Vec<Place> = some.iter().map(|index| (*index, *index)).collect();
        read(target, geometry, &places, &mut buffers);
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
                ledger.begin(*index)?;
                target.write_piece(geometry.offset(*index), bytes)?;
                ledger.wrote(*index, false);
            } else {
                lost.push(*index);
            }
        }
    }
    Ok(lost)
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

#[cfg(test)]
mod tests;
