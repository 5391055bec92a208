//! Beginning where an earlier attempt ended: what it may have left is hashed, what is there is kept, the rest is fetched.
//!
//! Invariant: nothing counts as held that was not proven here, or recorded as durable after it was proven.

use std::io;
use std::sync::Arc;

use super::download::DownloadState;
use super::limits::VERIFY_BATCH;
use super::verify::link;
use crate::hash::{Hasher, PieceJob, Verdict};
use crate::proto::units::{PIECE_BYTES, PieceIndex};
use crate::storage::error::StorageError;
use crate::storage::resume::Noted;

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
        for (index, verdict) in look(download, &places, &mut buffers, hasher) {
            checked_bytes += u64::from(download.manifest.geometry().piece_len(index));
            if verdict.digest_holds {
                download.ledger.wrote(index);
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
    let unreadable = |error: StorageError| tracing::warn!(%error, "it is fetched again");
    for ((index, from), buffer) in places.iter().zip(&mut *buffers) {
        let bytes = &mut buffer[..geometry.piece_len(*index) as usize];
        if let Err(error) = download.target.read_piece(geometry.offset(*from), bytes) {
            // Zeros are no piece that is looked for.
            bytes.fill(0);
            unreadable(error);
        }
    }
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
    for ((index, verdict), buffer) in proven.into_iter().zip(&*buffers).filter(|((_, it), _)| it.digest_holds)
    {
        if download.ledger.note(index)? == Noted::NoRoom {
            download.flush();
            if download.ledger.note(index)? == Noted::NoRoom {
                break;
            }
        }
        let bytes = &buffer[..geometry.piece_len(index) as usize];
        download.target.write_piece(geometry.offset(index), bytes)?;
        download.ledger.wrote(index);
        copied.push((index, verdict.link_holds != Some(false)));
    }
    download.found(&copied, 0);
    Ok(())
}
