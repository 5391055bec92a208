//! The last steps of a download: hash the whole where the chain proves nothing, make the file durable under its name, serve
//! it.
//!
//! The steps run on a thread of their own and enter the phase in which they end themselves. The download's own task waits
//! for them, and may be gone with its worker before they end.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::context::NodeContext;
use super::download::ActiveDownload;
use super::flush::record_download;
use super::share_file::{ShareFile, WholeFile};
use super::shares::Share;
use super::threads::WorkKind;
use crate::hash::{FileHash, Hasher};
use crate::proto::bitfield::Bitfield;
use crate::proto::manifest::FileProof;
use crate::proto::units::{Digest, PIECE_BYTES};
use crate::stats::{DownloadFailure, DownloadPhase, ManifestLoader};
use crate::storage::error::{StorageError, StorageErrorKind};
use crate::storage::source::Source;

#[cfg(test)]
mod tests;

/// Takes the last steps on another thread. Returns whether the download has ended; if not, it goes on.
pub(super) async fn finish_download(
    context: &Arc<NodeContext>,
    download: &Arc<ActiveDownload>,
    is_unverified: bool,
) -> bool {
    let (done, outcome) = oneshot::channel();
    let (shared, work) = (Arc::clone(context), Arc::clone(download));
    let submitted = context.threads.submit(WorkKind::Finish, download.target.filesystem(), move || {
        // The receiver is gone when the node is stopping.
        let _ = done.send(run_last_steps(&shared, &work, is_unverified));
    });
    let failure = match submitted {
        Ok(()) => match outcome.await {
            Ok(has_ended) => return has_ended,
            Err(_) => "the node is stopping; start the download again".to_owned(),
        },
        Err(error) => format!("no thread to finish the download with: {error}"),
    };
    fail_download(context, download, DownloadFailure::Io(failure));
    true
}

/// Ends a download that cannot succeed: its pieces are served no more.
pub(super) fn fail_download(context: &NodeContext, download: &ActiveDownload, failure: DownloadFailure) {
    if let Some(share) = download.share() {
        context.shares.remove_if_current(&share);
    }
    if matches!(failure, DownloadFailure::FileLost { .. })
        && let Err(error) = download.journal.remove()
    {
        tracing::debug!(%error, "cannot remove the record of a partial file that is lost");
    }
    download.enter_phase(DownloadPhase::Failed(failure));
}

/// Takes the last steps and enters the phase in which they end. `false`: they are postponed. Blocks.
fn run_last_steps(context: &NodeContext, download: &ActiveDownload, is_unverified: bool) -> bool {
    // Once the whole was proven, pieces that are written again have been verified again.
    let needs_pass = is_unverified && !download.is_whole_proven();
    match complete_file(download, context.hasher, needs_pass) {
        Ok(FinishOutcome::Durable(source)) => {
            match source {
                Some(source) => serve_whole_file(context, download, source),
                None => download.share().iter().for_each(|share| context.shares.remove_if_current(share)),
            }
            download.enter_phase(DownloadPhase::Durable);
        }
        Ok(FinishOutcome::Postponed) => return false,
        Err(failure) => {
            fail_download(context, download, failure);
        }
    }
    true
}

/// How the last steps ended.
enum FinishOutcome {
    /// The file is durable under its name. The source serves it; `None`: it could not be opened again.
    Durable(Option<Source>),
    /// The disk fails now, or the download was cancelled, or the node is stopping.
    Postponed,
}

/// With `needs_pass` hashes the whole file; then makes it durable under its name.
fn complete_file(
    download: &ActiveDownload,
    hasher: Hasher,
    needs_pass: bool,
) -> Result<FinishOutcome, DownloadFailure> {
    let length = download.with_transfer(|transfer, _| transfer.geometry().length());
    if download.is_over() {
        return Ok(FinishOutcome::Postponed);
    }
    if needs_pass && let FileProof::Whole(stated) = download.manifest.proof() {
        download.enter_phase(DownloadPhase::Checking);
        let found = hash_whole_file(download, hasher, length)
            .map_err(|error| DownloadFailure::Io(error.to_string()))?;
        let Some(found) = found else { return Ok(FinishOutcome::Postponed) };
        if found != stated {
            let (found, stated) = (found.to_string(), stated.to_string());
            return Err(DownloadFailure::FalseManifest { found, stated });
        }
        download.set_whole_proven();
    }
    if download.is_over() {
        return Ok(FinishOutcome::Postponed);
    }
    download.enter_phase(DownloadPhase::Syncing);
    // All pieces are held, so none is being written: every piece that a failed flush may have lost is a suspect by now.
    if download.journal.has_suspect_pieces() {
        return Ok(postpone_finish(download, &download.target.flush_failed_error()));
    }
    match name_file(download, length) {
        Ok(source) => {
            if let Some(fingerprint) = source.as_ref().and_then(Source::fingerprint) {
                let _ = download.fingerprint.set(fingerprint);
            }
            if let Err(error) = download.journal.remove() {
                tracing::warn!(%error, "cannot remove the record of a finished download; it is not used again");
            }
            Ok(FinishOutcome::Durable(source))
        }
        Err(error) => finish_failure(download, &error),
    }
}

/// Flushes the file and gives it its final name; opens it to be served.
fn name_file(download: &ActiveDownload, length: u64) -> Result<Option<Source>, StorageError> {
    if !download.manifest.is_length_known() {
        download.target.set_length(length)?;
    }
    download.target.finish(download.overwrite)?;
    let warn = |error: &StorageError| tracing::warn!(%error, "cannot serve the finished file");
    Ok(download.target.open_finished().inspect_err(warn).ok())
}

/// Whether the steps can be tried again after this error.
fn finish_failure(download: &ActiveDownload, error: &StorageError) -> Result<FinishOutcome, DownloadFailure> {
    // The partial file stays, so its record or its suspects have to be up to date.
    let recorded = record_download(download);
    match error.kind {
        StorageErrorKind::NoSpace { .. }
        | StorageErrorKind::QuotaFull { .. }
        | StorageErrorKind::ChangedOutside => Ok(postpone_finish(download, error)),
        ref kind if kind.is_lost_name() => Ok(postpone_finish(download, error)),
        // As after any other failed flush: this one failed, or the record's a moment before.
        _ if error.kind.is_in_system() && recorded.is_err() && download.journal.has_suspect_pieces() => {
            Ok(postpone_finish(download, error))
        }
        StorageErrorKind::Exists => {
            Err(DownloadFailure::Exists { path: download.target.path(), part: download.partial_path() })
        }
        _ => Err(DownloadFailure::Io(error.to_string())),
    }
}

/// Waits for the disk to recover, or for the file to be checked: then the last steps are taken again.
fn postpone_finish(download: &ActiveDownload, error: &StorageError) -> FinishOutcome {
    tracing::warn!(%error, file = %download.key, "cannot make fetched pieces durable now");
    download.storage_failed(error);
    FinishOutcome::Postponed
}

/// Hashes the partial file in one sequential pass; `None` when the download ends or the node stops meanwhile.
fn hash_whole_file(
    download: &ActiveDownload,
    hasher: Hasher,
    length: u64,
) -> Result<Option<Digest>, StorageError> {
    let mut pass = FileHash::new(hasher);
    if length == 0 {
        return Ok(Some(pass.finish()));
    }
    let source = download.target.reader()?;
    source.advise_sequential();
    download.begin_check(length);
    let step = u64::from(PIECE_BYTES);
    let mut start = 0;
    while start < length {
        if download.is_over() {
            return Ok(None);
        }
        let end = (start + step).min(length);
        source.with_bytes(start..end, |bytes| pass.update(bytes))?;
        download.add_checked(end - start);
        start = end;
    }
    Ok(Some(pass.finish()))
}

/// Serves the file under its name in place of the partial file, unless another whole copy is served already.
fn serve_whole_file(context: &NodeContext, download: &ActiveDownload, source: Source) {
    let geometry = download.with_transfer(|transfer, _| transfer.geometry());
    let held = Bitfield::full(geometry.pieces());
    let content = download.manifest.proof().id();
    let Some(fingerprint) = source.fingerprint() else { return };
    let file = WholeFile::new(source.path().to_owned(), fingerprint);
    // Closed before the file is served: it is opened again when a consumer needs it.
    drop(source);
    if let Some(share) = download.share().filter(|share| context.shares.is_current(share)) {
        share.set_complete(file);
        return;
    }
    let file = ShareFile::Whole(file);
    let manifest = Arc::clone(&download.manifest);
    let loader: ManifestLoader = Arc::new(move || Some(Arc::clone(&manifest)));
    let share = Arc::new(Share::new(download.key.clone(), content, geometry, (file, loader), held));
    if !context.shares.insert_unless_whole(share, &context.file_calls) {
        tracing::debug!(file = %download.key, "another copy of the file is served already");
    }
}
