//! Makes written pieces durable and records them, off the workers: on a thread of each filesystem.
//!
//! ```text
//!   drive  ─► is_flush_due ─► queue ─► thread: rewrite suspects ─► ResumeJournal::write_record (flush, then the record)
//!   verify ─► a full range ─► queue ─► thread: start its write-back, which may wait for the disk
//! ```
//!
//! Pieces are written meanwhile. After a failed flush the download waits until the disk recovers; the next flush first
//! verifies and writes again every piece that no record claims.
//!
//! Invariant: a download is in the queue to be flushed at most once.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::context::NodeContext;
use super::download::ActiveDownload;
use super::limits::WRITEBACKS_WAITING_MAX;
use super::rewrite::rewrite_suspects;
use super::threads::WorkKind;
use crate::hash::Hasher;
use crate::lock::lock;
use crate::proto::geometry::Geometry;
use crate::proto::time::Moment;
use crate::storage::error::StorageError;
use crate::storage::limits::RECORD_DUE_MS;
use crate::storage::resume::RecordClaim;

/// Whether it is time for another record.
pub(crate) fn is_flush_due(download: &ActiveDownload) -> bool {
    let requested_ms = download.flush_state.requested_ms.load(Ordering::Relaxed);
    let since_ms = download.now().ms_since(Moment::default()).saturating_sub(requested_ms);
    let journal = &download.journal;
    download.storage_wait().is_none()
        && (journal.is_record_due() || since_ms >= RECORD_DUE_MS && journal.has_new_claims())
}

/// Flushes and records what was written; success ends a wait for the disk. Blocks.
pub(crate) fn flush_download(download: &ActiveDownload, hasher: Hasher) {
    let flushed = repair_suspects(download, hasher)
        .and_then(|is_repaired| if is_repaired { record_download(download) } else { Ok(()) });
    match flushed {
        Ok(()) if download.storage_wait().is_some() && !download.journal.has_suspect_pieces() => {
            download.storage_recovered();
        }
        Ok(()) => {}
        Err(_) if download.is_over() => {}
        Err(error) => {
            tracing::warn!(%error, file = %download.key, "cannot make fetched pieces durable now");
            download.storage_failed(&error);
        }
    }
}

/// Flushes what was written, then records it. Pieces that the previous record claimed may leave the page cache. Blocks.
pub(crate) fn record_download(download: &ActiveDownload) -> Result<(), StorageError> {
    let claim = || {
        let file_state = download.target.settled_state();
        download.with_transfer(|transfer, _| RecordClaim {
            links_hold: transfer.is_chain_intact(),
            exact_length: transfer.exact_length(),
            file_state,
        })
    };
    let recorded = download.journal.write_record(|| download.target.sync(), claim)?;
    let mut eviction = lock(&download.flush_state.eviction);
    let geometry = Geometry::longest(download.manifest.pieces());
    for range in eviction.evictable_after_record(recorded) {
        if let Err(error) = download.target.drop_cached(geometry.bytes(range)) {
            tracing::debug!(%error, "cannot drop pages of a long file from the page cache");
        }
    }
    Ok(())
}

/// Has the last record made before the node stops: the next attempt need not hash or fetch again what was written.
pub(crate) fn start_last_record(context: &NodeContext, download: &Arc<ActiveDownload>) {
    let recorded = Arc::clone(download);
    let record = move || record_on_stop(&recorded);
    if let Err(error) = context.threads.submit(WorkKind::Flush, download.target.filesystem(), record) {
        tracing::warn!(%error, file = %download.key, "cannot record the pieces that were fetched last");
    }
}

/// The last record before the node stops. Blocks.
pub(super) fn record_on_stop(download: &ActiveDownload) {
    let journal = &download.journal;
    if download.has_ended() || journal.has_suspect_pieces() || !journal.has_new_claims() {
        return;
    }
    if let Err(error) = record_download(download) {
        tracing::warn!(%error, file = %download.key, "cannot record the pieces that were fetched last");
    }
}

/// After a failed flush: writes again what it may have lost, and discards what it did lose. `false`: that has to wait for
/// pieces that are being verified.
fn repair_suspects(download: &ActiveDownload, hasher: Hasher) -> Result<bool, StorageError> {
    let journal = &download.journal;
    if !journal.has_suspect_pieces() {
        return Ok(true);
    }
    download.target.clear_flush_failure();
    let geometry = download.with_transfer(|transfer, _| transfer.geometry());
    let lost = rewrite_suspects(&download.target, journal, &download.manifest, geometry, hasher)?;
    if lost.is_empty() {
        return Ok(true);
    }
    if !download.can_verify() {
        return Ok(false);
    }
    let is_discarded = download.discard_pieces(&lost);
    if is_discarded {
        let (pieces, file) = (lost.len(), &download.key);
        tracing::warn!(pieces, %file, "the disk lost pieces that it had accepted; fetching them again");
        lost.iter().for_each(|index| journal.note_missing(*index));
    }
    Ok(is_discarded)
}

/// Has a download flushed and recorded, unless that is queued. With a full queue the download asks again.
pub(crate) fn start_flush(context: &NodeContext, download: &Arc<ActiveDownload>) {
    let flush_state = &download.flush_state;
    if flush_state.is_queued.swap(true, Ordering::AcqRel) {
        return;
    }
    let (flushed, hasher) = (Arc::clone(download), context.hasher);
    let flush = move || {
        flush_download(&flushed, hasher);
        flushed.flush_state.is_queued.store(false, Ordering::Release);
        // Another flush may be due by now.
        flushed.wake.notify_one();
    };
    if context.threads.submit(WorkKind::Flush, download.target.filesystem(), flush).is_err() {
        flush_state.is_queued.store(false, Ordering::Release);
        return;
    }
    flush_state.requested_ms.store(download.now().ms_since(Moment::default()), Ordering::Relaxed);
}

/// Has the write-back of a byte range started, unless [`WRITEBACKS_WAITING_MAX`] wait: then the next flush writes the range.
pub(crate) fn start_writeback(context: &NodeContext, download: &Arc<ActiveDownload>, range: Range<u64>) {
    let waiting = &download.flush_state.writebacks_waiting;
    if waiting.fetch_add(1, Ordering::Relaxed) < WRITEBACKS_WAITING_MAX {
        let written = Arc::clone(download);
        let start = move || {
            written.flush_state.writebacks_waiting.fetch_sub(1, Ordering::Relaxed);
            if let Err(error) = written.target.start_writeback(range)
                && !written.is_over()
            {
                written.storage_failed(&error);
            }
        };
        if context.threads.submit(WorkKind::Flush, download.target.filesystem(), start).is_ok() {
            return;
        }
    }
    waiting.fetch_sub(1, Ordering::Relaxed);
}
