//! The end of a download: the whole is proven where the chain could not, the file is made durable, named, and served.
//!
//! Invariant: who works on the last steps says himself how they ended. The download's own task waits for that, and may be
//! gone by then with its node: what has its name is durable all the same.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::context::NodeContext;
use super::download::ActiveDownload;
use super::shares::Share;
use super::threads::WorkLane;
use crate::hash::{FileHash, Hasher};
use crate::proto::bitfield::Bitfield;
use crate::proto::manifest::FileProof;
use crate::proto::units::{Digest, PIECE_BYTES};
use crate::stats::{DownloadFailure, DownloadPhase};
use crate::storage::error::{StorageError, StorageErrorKind};
use crate::storage::source::Source;

#[cfg(test)]
mod tests;

/// Whether the download has ended, well or not; else something stands in the way of that, and it goes on.
pub(super) async fn finish_download(
    context: &Arc<NodeContext>,
    download: &Arc<ActiveDownload>,
    unproven: bool,
) -> bool {
    let (tell, told) = oneshot::channel();
    let (shared, work) = (Arc::clone(context), Arc::clone(download));
    let submitted = context.threads.submit(WorkLane::Finish, move || {
        // Nobody to tell: the node is going down, and waits for this.
        let _ = tell.send(run_last_steps(&shared, &work, unproven));
    });
    let failure = match submitted {
        Ok(()) => match told.await {
            Ok(ended) => return ended,
            Err(_) => "this node is going down; start the download again".to_owned(),
        },
        Err(error) => format!("no thread to finish the download with: {error}"),
    };
    download.enter_phase(DownloadPhase::Failed(DownloadFailure::Io(failure)));
    true
}

/// Takes the last steps, and enters the phase in which they end; `false` when they are postponed. Blocks.
fn run_last_steps(context: &NodeContext, download: &ActiveDownload, unproven: bool) -> bool {
    // What it was proven to be once, every piece that is written again is proven to be again.
    let unproven = unproven && !download.is_whole_proven();
    match complete_file(download, context.hasher, unproven) {
        Ok(FinishOutcome::Durable(whole)) => {
            match whole {
                Some(source) => serve_whole_file(context, download, source),
                None => download.share().iter().for_each(|share| context.shares.remove_if_current(share)),
            }
            download.enter_phase(DownloadPhase::Durable);
        }
        Ok(FinishOutcome::Postponed) => return false,
        Err(failure) => {
            if let (Some(share), DownloadFailure::FalseManifest { .. }) = (download.share(), &failure) {
                context.shares.remove_if_current(&share);
            }
            download.enter_phase(DownloadPhase::Failed(failure));
        }
    }
    true
}

/// What became of the last steps.
enum FinishOutcome {
    /// It is durable under its name, and to be served by this source, unless it could not be opened again.
    Durable(Option<Source>),
    /// The disk does not take it now, or nobody wants it any more: it is cancelled, or the node goes down.
    Postponed,
}

/// Proves the whole where the chain could not, and makes it durable under its name.
fn complete_file(
    download: &ActiveDownload,
    hasher: Hasher,
    unproven: bool,
) -> Result<FinishOutcome, DownloadFailure> {
    let length = download.with_transfer(|transfer, _| transfer.geometry().length());
    if download.is_over() {
        return Ok(FinishOutcome::Postponed);
    }
    if unproven && let FileProof::Whole(stated) = download.manifest.proof() {
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
    // All is held, and so nothing is being written: whatever a failed flush may have lost is doubted by now.
    if download.ledger.has_suspects() {
        return Ok(postpone_finish(download, &download.target.flush_failed_error()));
    }
    let end = || -> Result<Option<Source>, StorageError> {
        if !download.manifest.is_length_known() {
            download.target.set_length(length)?;
        }
        download.target.finish(download.overwrite)?;
        let warn = |error: &StorageError| tracing::warn!(%error, "it is durable, and is not served");
        Ok(download.target.open_finished().inspect_err(warn).ok())
    };
    match end() {
        Ok(source) => {
            let fingerprint = source.as_ref().and_then(Source::fingerprint);
            let _ = fingerprint.map(|fingerprint| download.fingerprint.set(fingerprint));
            // What has its name needs no record.
            if let Err(error) = download.ledger.remove() {
                tracing::warn!(%error, "a record stays beside the file; it is not used again");
            }
            Ok(FinishOutcome::Durable(source))
        }
        Err(error) => {
            // What stays needs its record, or its doubts.
            let recorded = download.record();
            match error.kind {
                StorageErrorKind::NoSpace { .. } => Ok(postpone_finish(download, &error)),
                // As after any other failed flush: it was this one, or the record's a moment before.
                StorageErrorKind::FlushFailed | StorageErrorKind::Io(_)
                    if recorded.is_err() && download.ledger.has_suspects() =>
                {
                    Ok(postpone_finish(download, &error))
                }
                StorageErrorKind::Exists => Err(DownloadFailure::Exists {
                    path: download.target.path(),
                    part: download.partial_path(),
                }),
                _ => Err(DownloadFailure::Io(error.to_string())),
            }
        }
    }
}

/// The download waits until the disk is fit: then what is doubted is written again, and these steps are taken again.
fn postpone_finish(download: &ActiveDownload, error: &StorageError) -> FinishOutcome {
    tracing::warn!(%error, file = %download.key, "what was fetched cannot be made durable now");
    download.storage_failed(error);
    FinishOutcome::Postponed
}

/// One sequential pass over what was written; `None` when the node goes down meanwhile.
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
    let step = u64::from(PIECE_BYTES);
    let mut start = 0;
    while start < length {
        if download.is_over() {
            return Ok(None);
        }
        let end = (start + step).min(length);
        source.with_bytes(start..end, |bytes| pass.update(bytes))?;
        start = end;
    }
    Ok(Some(pass.finish()))
}

/// From now on the file is served under its name, watched like any other source; unless another copy is already.
fn serve_whole_file(context: &NodeContext, download: &ActiveDownload, source: Source) {
    let geometry = download.with_transfer(|transfer, _| transfer.geometry());
    let held = Bitfield::full(geometry.pieces());
    let content = download.manifest.proof().id();
    let share = Arc::new(Share::new(download.key.clone(), content, geometry, source, held));
    if !context.shares.insert_unless_whole(share) {
        tracing::debug!(file = %download.key, "another copy is served already, and goes on being served");
    }
}
