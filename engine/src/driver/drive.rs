//! A download's own task: it polls the transfer, makes connections, retries a failed disk, and finishes the file.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::checks::{CheckCause, start_check, start_examination};
use super::download::{ActiveDownload, DriveStep};
use super::finish::{fail_download, finish_download};
use super::flush::{is_flush_due, start_flush};
use super::jobs::{EngineWorkers, WorkerJob};
use super::limits::{DISK_RETRY_MS, DRIVE_POLL_MS, EXAMINE_EVERY_MS};
use super::shares::Share;
use super::worker_state::WorkerState;
use crate::proto::DisconnectReason;
use crate::proto::units::PIECE_BYTES;
use crate::stats::{DownloadFailure, DownloadPhase, WaitReason};

/// Drives a download until its end.
pub(crate) async fn drive_download(
    worker: Rc<WorkerState>,
    workers: Arc<EngineWorkers>,
    download: Arc<ActiveDownload>,
) {
    let _detach = DetachOnDrop(&download);
    let mut disk_retry_at = None;
    let mut examine_at = worker.context.clock.now().plus_ms(EXAMINE_EVERY_MS);
    loop {
        let local_stall = worker.context.stalls.is_any_stalled(worker.context.clock.now());
        match download.poll(local_stall) {
            DriveStep::Connect(requests) => requests.into_iter().for_each(|request| {
                let connection = request.connection;
                if !workers.submit(WorkerJob::Fetch(Arc::clone(&download), request)) {
                    download.connection_closed(connection, &DisconnectReason::ConnectionLimit);
                }
            }),
            DriveStep::Finish { is_unverified } => {
                if finish_download(&worker.context, &download, is_unverified).await {
                    return;
                }
            }
            DriveStep::Check(pieces) => {
                let context = &worker.context;
                if let Err(error) = start_check(context, &download, pieces, CheckCause::ChangedOutside) {
                    let failure = DownloadFailure::Io(format!("no thread to check the file with: {error}"));
                    return fail_download(context, &download, failure);
                }
            }
            DriveStep::Cancelled => return cancel_download(&worker, &download),
            DriveStep::Failed(failure) => return fail_download(&worker.context, &download, failure),
        }
        if let Some(share) = download.share() {
            share.wake_listeners();
            discard_lost_pieces(&download, &share);
        }
        if download.storage_wait().is_none() {
            disk_retry_at = None;
        } else {
            let now = worker.context.clock.now();
            let due = *disk_retry_at.get_or_insert(now.plus_ms(DISK_RETRY_MS));
            if now >= due {
                disk_retry_at = None;
                retry_disk(&worker, &download);
            }
        }
        let now = worker.context.clock.now();
        if now >= examine_at {
            examine_at = now.plus_ms(EXAMINE_EVERY_MS);
            start_examination(&worker.context, &download);
        }
        if is_flush_due(&download) {
            start_flush(&worker.context, &download);
        }
        let _ = tokio::time::timeout(Duration::from_millis(DRIVE_POLL_MS), download.wake.notified()).await;
    }
}

/// Fetches pieces again that were found to be wrong after a consumer had complained.
fn discard_lost_pieces(download: &ActiveDownload, share: &Share) {
    let lost = share.take_lost();
    if lost.is_empty() {
        return;
    }
    if download.discard_pieces(&lost) {
        let (pieces, file) = (lost.len(), &download.key);
        tracing::warn!(pieces, %file, "pieces of the partial file were changed by another program; fetching them again");
        lost.iter().for_each(|index| download.journal.note_missing(*index));
    } else {
        // Not while a piece is being verified.
        share.add_lost(lost);
    }
}

/// Detaches the download when its task ends, also by a panic or with its worker.
struct DetachOnDrop<'a>(&'a ActiveDownload);

impl Drop for DetachOnDrop<'_> {
    fn drop(&mut self) {
        self.0.detach();
    }
}

/// Goes on writing when the disk may have recovered. Pieces that are written but not recorded have to be flushed first; if
/// the disk still fails, the flush or the next piece reports it again.
fn retry_disk(worker: &WorkerState, download: &Arc<ActiveDownload>) {
    let has_space = match download.storage_wait() {
        Some(WaitReason::DiskFull { directory, .. }) => rustix::fs::statvfs(&directory)
            .is_ok_and(|stat| stat.f_bavail.saturating_mul(stat.f_frsize) >= u64::from(PIECE_BYTES)),
        _ => true,
    };
    if has_space && (download.journal.has_new_claims() || download.journal.has_suspect_pieces()) {
        start_flush(&worker.context, download);
    } else if has_space {
        download.storage_recovered();
    }
}

fn cancel_download(worker: &WorkerState, download: &ActiveDownload) {
    if let Some(share) = download.share() {
        worker.context.shares.remove_if_current(&share);
    }
    if let Err(error) = download.remove_files() {
        tracing::warn!(%error, "cannot remove the partial file of a cancelled download");
    }
    download.enter_phase(DownloadPhase::Cancelled);
}
