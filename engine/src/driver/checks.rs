//! Hashing for downloads off the workers: what an earlier attempt or another program left in the partial file, and pieces of
//! zeros. Also looks whether the file is still there and unchanged.
//!
//! Invariant: nothing counts as held unless it was verified here, or its record says that it was verified and is durable.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::context::NodeContext;
use super::download::{ActiveDownload, clear_zero_pieces};
use super::limits::VERIFY_BATCH;
use super::rewrite::{PiecePlace, read_places};
use super::threads::WorkKind;
use super::verify::link_check;
use crate::hash::{HashVerdict, Hasher, PieceJob};
use crate::proto::units::{PIECE_BYTES, PieceIndex};
use crate::stats::DownloadFailure;
use crate::storage::error::{StorageError, StorageErrorKind};
use crate::storage::filesystem_threads::SubmitError;

/// Why a partial file is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckCause {
    /// An earlier attempt left it.
    EarlierAttempt,
    /// Another program has changed it.
    ChangedOutside,
}

/// Starts to hash pieces of the partial file. The download fetches nothing before the check has ended.
pub(crate) fn start_check(
    context: &NodeContext,
    download: &Arc<ActiveDownload>,
    to_check: Vec<PieceIndex>,
    cause: CheckCause,
) -> Result<(), SubmitError> {
    let (checked, hasher) = (Arc::clone(download), context.hasher);
    let check = move || {
        let accepted = match cause {
            CheckCause::EarlierAttempt => Ok(()),
            CheckCause::ChangedOutside => accept_changed_file(&checked),
        };
        match accepted {
            Ok(()) => check_pieces(&checked, &to_check, hasher),
            Err(error) => checked.fail(DownloadFailure::Io(error.to_string())),
        }
        examine_file(&checked);
        checked.finish_check();
    };
    context.threads.submit(WorkKind::Check, download.target.filesystem(), check)
}

fn accept_changed_file(download: &ActiveDownload) -> Result<(), StorageError> {
    let (file, path) = (&download.key, download.partial_path());
    tracing::warn!(%file, path = %path.display(), "another program has changed the partial file; checking all of it");
    // The record on the disk names a state that the file no longer has.
    download.journal.forget_pieces();
    download.target.accept_changes()?;
    clear_zero_pieces(&download.target, &download.manifest)?;
    download.zeros_restored();
    Ok(())
}

/// Looks on another thread whether the partial file is still where it was created and unchanged, unless one is looking.
pub(crate) fn start_examination(context: &NodeContext, download: &Arc<ActiveDownload>) {
    if download.is_examined.swap(true, Ordering::AcqRel) {
        return;
    }
    let examined = Arc::clone(download);
    let work = move || {
        examine_file(&examined);
        examined.is_examined.store(false, Ordering::Release);
    };
    if context.threads.submit(WorkKind::Examination, download.target.filesystem(), work).is_err() {
        download.is_examined.store(false, Ordering::Release);
    }
}

fn examine_file(download: &ActiveDownload) {
    match download.target.examine() {
        Err(error) if error.kind.is_lost_name() || matches!(error.kind, StorageErrorKind::ChangedOutside) => {
            download.storage_failed(&error);
        }
        // The next write or flush reports a disk that fails.
        Err(error) => tracing::debug!(%error, "cannot examine a partial file"),
        Ok(()) => {}
    }
}

fn check_pieces(download: &ActiveDownload, to_check: &[PieceIndex], hasher: Hasher) {
    if download.is_check_over() {
        return;
    }
    let geometry = download.manifest.geometry();
    download.begin_check(to_check.iter().map(|index| u64::from(geometry.piece_len(*index))).sum());
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
            // For the transfer a link that was not checked counts as matching.
            if verdict.digest_holds && keep_found(download, index, &bytes[..length as usize]) {
                found.push((index, verdict.link_holds != Some(false)));
            } else {
                download.journal.note_missing(index);
            }
        }
        download.pieces_found(&found, checked_bytes);
        if download.is_check_over() {
            return;
        }
    }
    download.journal.mark_all_checked();
    for batch in download.with_transfer(|transfer, _| transfer.pieces_to_copy()).chunks(VERIFY_BATCH) {
        if let Err(error) = copy_pieces(download, batch, &mut buffers, hasher) {
            tracing::warn!(%error, "cannot copy pieces that are held at another index; fetching them instead");
            return;
        }
        if download.is_check_over() {
            return;
        }
    }
}

/// Keeps a piece that matches; `false` when it could not be written. A piece that the journal notes as begun is written
/// again, because it may be right in the page cache only.
fn keep_found(download: &ActiveDownload, index: PieceIndex, bytes: &[u8]) -> bool {
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
    download.journal.note_written(index);
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
        download.journal.note_written(index);
        copied.push((index, verdict.link_holds != Some(false)));
    }
    download.pieces_found(&copied, 0);
    Ok(())
}

/// Starts [`prove_zero_pieces`] when the file has zero pieces.
pub(crate) fn start_zero_pieces(
    context: &NodeContext,
    download: &Arc<ActiveDownload>,
) -> Result<(), SubmitError> {
    if download.with_transfer(|transfer, _| transfer.holes()).count().0 == 0 {
        return Ok(());
    }
    let (proven, hasher) = (Arc::clone(download), context.hasher);
    let prove = move || prove_zero_pieces(&proven, hasher);
    context.threads.submit(WorkKind::Holes, download.target.filesystem(), prove)
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
