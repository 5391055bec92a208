//! A download's own task: it looks after time, makes calls, waits out a full disk, and has it finished.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::download::{ActiveDownload, DriveStep};
use super::finish::finish_download;
use super::jobs::{EngineWorkers, WorkerJob};
use super::limits::{DISK_RETRY_MS, DRIVE_POLL_MS};
use super::threads::{LaneThreads, WorkLane};
use super::verify::link_check;
use super::worker_state::WorkerState;
use crate::hash::{Hasher, PieceJob};
use crate::proto::DisconnectReason;
use crate::proto::units::{PIECE_BYTES, PieceIndex};
use crate::stats::{DownloadPhase, WaitReason};

/// Looks after a download until its end.
pub(crate) async fn drive_download(
    local: Rc<WorkerState>,
    workers: Arc<EngineWorkers>,
    download: Arc<ActiveDownload>,
) {
    let _attended = DetachOnDrop(&download);
    let mut look_at = None;
    loop {
        let own_stall = local.context.stalls.is_any_stalled(local.context.clock.now());
        match download.poll(own_stall) {
            DriveStep::Connect(calls) => calls.into_iter().for_each(|call| {
                let connection = call.connection;
                if !workers.submit(WorkerJob::Fetch(Arc::clone(&download), call)) {
                    download.connection_closed(connection, &DisconnectReason::Lost);
                }
            }),
            DriveStep::Finish { unproven } => {
                if finish_download(&local.context, &download, unproven).await {
                    return;
                }
            }
            DriveStep::Cancelled => return cancel_download(&local, &download),
            DriveStep::Failed(failure) => return download.enter_phase(DownloadPhase::Failed(failure)),
        }
        if let Some(share) = download.share() {
            share.wake_listeners();
        }
        if download.storage_wait().is_none() {
            look_at = None;
        } else {
            let now = local.context.clock.now();
            let due = *look_at.get_or_insert(now.plus_ms(DISK_RETRY_MS));
            if now >= due {
                look_at = None;
                recheck_disk(&local, &download);
            }
        }
        if download.is_flush_due() {
            local.context.flusher.submit(&download);
        }
        let _ = tokio::time::timeout(Duration::from_millis(DRIVE_POLL_MS), download.wake.notified()).await;
    }
}

/// However its task ends, whatever else works for the download is told.
struct DetachOnDrop<'a>(&'a ActiveDownload);

impl Drop for DetachOnDrop<'_> {
    fn drop(&mut self) {
        self.0.detach();
    }
}

/// Goes on when what stood in the way of writing seems to be gone: at once, or when what is written could be recorded. If
/// it is not gone, the next piece says so again.
fn recheck_disk(local: &WorkerState, download: &Arc<ActiveDownload>) {
    let fit = match download.storage_wait() {
        Some(WaitReason::DiskFull { directory, .. }) => rustix::fs::statvfs(&directory)
            .is_ok_and(|stat| stat.f_bavail.saturating_mul(stat.f_frsize) >= u64::from(PIECE_BYTES)),
        _ => true,
    };
    if fit && (download.ledger.has_new_claims() || download.ledger.has_suspects()) {
        local.context.flusher.submit(download);
    } else if fit {
        download.storage_recovered();
    }
}

fn cancel_download(local: &WorkerState, download: &ActiveDownload) {
    if let Some(share) = download.share() {
        local.context.shares.remove_if_current(&share);
    }
    if let Err(error) = download.ledger.remove().and_then(|()| download.target.discard()) {
        tracing::warn!(%error, "the partial file of a cancelled download stays");
    }
    download.enter_phase(DownloadPhase::Cancelled);
}

/// Proves the pieces of zeros, which are never fetched: their digest is known, their links are checked here, in full sets
/// of lanes, off the workers. Blocks.
pub(crate) fn prove_zero_pieces(download: &ActiveDownload, hasher: Hasher) {
    /// A full set of lanes.
    const TOGETHER: usize = super::limits::VERIFY_BATCH;
    let zeros = vec![0; PIECE_BYTES as usize];
    let manifest = &download.manifest;
    let geometry = manifest.geometry();
    let holes: Vec<PieceIndex> = download.with_transfer(|transfer, _| transfer.holes()).iter().collect();
    for some in holes.chunks(TOGETHER) {
        let job = |index: &PieceIndex| PieceJob {
            bytes: &zeros[..geometry.piece_len(*index) as usize],
            digest: manifest.digest(*index),
            link: link_check(manifest, *index, geometry.length()),
        };
        let jobs: Vec<PieceJob<'_>> = some.iter().map(job).collect();
        let verdicts = hasher.verify(&jobs);
        if !download.can_verify() {
            return;
        }
        let proven =
            some.iter().copied().zip(verdicts.iter().map(|verdict| verdict.link_holds != Some(false)));
        if !download.zero_pieces_proven(&proven.collect::<Vec<_>>()) {
            return;
        }
    }
}

/// Has [`prove_zero_pieces`] done by a thread, when there are any.
pub(crate) fn start_zero_pieces(
    download: &Arc<ActiveDownload>,
    hasher: Hasher,
    threads: &LaneThreads,
) -> io::Result<()> {
    if download.with_transfer(|transfer, _| transfer.holes()).count().0 == 0 {
        return Ok(());
    }
    let download = Arc::clone(download);
    threads.submit(WorkLane::Holes, move || prove_zero_pieces(&download, hasher))
}
