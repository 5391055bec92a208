//! A download's own task: it looks after time, makes calls, waits out a full disk, and has it finished.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::download::{DownloadState, Next};
use super::finish::finish;
use super::jobs::{Job, Workers};
use super::limits::{DISK_RETRY_MS, POLL_MS};
use super::local::Local;
use super::threads::{Lane, Threads};
use super::verify::link;
use crate::hash::{Hasher, PieceJob};
use crate::proto::Ending;
use crate::proto::units::{PIECE_BYTES, PieceIndex};
use crate::stats::{Phase, Wait};

/// Looks after a download until its end.
pub(crate) async fn drive(local: Rc<Local>, workers: Arc<Workers>, download: Arc<DownloadState>) {
    let _attended = Attended(&download);
    let mut look_at = None;
    loop {
        let own_stall = local.context.pulses.stand_still(local.context.clock.now());
        match download.poll(own_stall) {
            Next::Calls(calls) => calls.into_iter().for_each(|call| {
                let connection = call.connection;
                if !workers.submit(Job::Fetch(Arc::clone(&download), call)) {
                    download.closed(connection, &Ending::Lost);
                }
            }),
            Next::Finish { unproven } => {
                if finish(&local.context, &download, unproven).await {
                    return;
                }
            }
            Next::Cancelled => return cancel(&local, &download),
            Next::Failed(failure) => return download.enter(Phase::Failed(failure)),
        }
        if let Some(share) = download.share() {
            share.wake();
        }
        if download.storage_wait().is_none() {
            look_at = None;
        } else {
            let now = local.context.clock.now();
            let due = *look_at.get_or_insert(now.plus_ms(DISK_RETRY_MS));
            if now >= due {
                look_at = None;
                look_at_disk(&local, &download);
            }
        }
        if download.flush_is_due() {
            local.context.flusher.submit(&download);
        }
        let _ = tokio::time::timeout(Duration::from_millis(POLL_MS), download.wake.notified()).await;
    }
}

/// However its task ends, whatever else works for the download is told.
struct Attended<'a>(&'a DownloadState);

impl Drop for Attended<'_> {
    fn drop(&mut self) {
        self.0.leave_alone();
    }
}

/// Goes on when what stood in the way of writing seems to be gone: at once, or when what is written could be recorded. If
/// it is not gone, the next piece says so again.
fn look_at_disk(local: &Local, download: &Arc<DownloadState>) {
    let fit = match download.storage_wait() {
        Some(Wait::DiskFull { directory, .. }) => rustix::fs::statvfs(&directory)
            .is_ok_and(|stat| stat.f_bavail.saturating_mul(stat.f_frsize) >= u64::from(PIECE_BYTES)),
        _ => true,
    };
    if fit && (download.ledger.has_news() || download.ledger.has_doubts()) {
        local.context.flusher.submit(download);
    } else if fit {
        download.storage_is_fit();
    }
}

fn cancel(local: &Local, download: &DownloadState) {
    if let Some(share) = download.share() {
        local.context.shares.remove_exactly(&share);
    }
    if let Err(error) = download.ledger.remove().and_then(|()| download.target.discard()) {
        tracing::warn!(%error, "the partial file of a cancelled download stays");
    }
    download.enter(Phase::Cancelled);
}

/// Proves the pieces of zeros, which are never fetched: their digest is known, their links are checked here, in full sets
/// of lanes, off the workers. Blocks.
pub(crate) fn prove_holes(download: &DownloadState, hasher: Hasher) {
    /// A full set of lanes.
    const TOGETHER: usize = super::limits::VERIFY_BATCH;
    let zeros = vec![0; PIECE_BYTES as usize];
    let manifest = &download.manifest;
    let geometry = manifest.geometry();
    let holes: Vec<PieceIndex> = download.with(|transfer, _| transfer.holes()).iter().collect();
    for some in holes.chunks(TOGETHER) {
        let job = |index: &PieceIndex| PieceJob {
            bytes: &zeros[..geometry.piece_len(*index) as usize],
            digest: manifest.digest(*index),
            link: link(manifest, *index, geometry.length()),
        };
        let jobs: Vec<PieceJob<'_>> = some.iter().map(job).collect();
        let verdicts = hasher.verify(&jobs);
        if !download.may_judge() {
            return;
        }
        let proven =
            some.iter().copied().zip(verdicts.iter().map(|verdict| verdict.link_holds != Some(false)));
        if !download.holes_proven(&proven.collect::<Vec<_>>()) {
            return;
        }
    }
}

/// Has [`prove_holes`] done by a thread, when there are any.
pub(crate) fn start_holes(
    download: &Arc<DownloadState>,
    hasher: Hasher,
    threads: &Threads,
) -> io::Result<()> {
    if download.with(|transfer, _| transfer.holes()).count().0 == 0 {
        return Ok(());
    }
    let download = Arc::clone(download);
    threads.submit(Lane::Holes, move || prove_holes(&download, hasher))
}
