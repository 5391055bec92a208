//! A download's own task: it looks after time, makes calls, waits out a full disk, and finishes.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::download::{DownloadState, Next};
use super::jobs::{Job, Workers};
use super::limits::{DISK_RETRY_MS, POLL_MS};
use super::local::Local;
use super::shares::Share;
use super::threads::Threads;
use super::verify::link;
use crate::hash::{FileHash, Hasher, PieceJob};
use crate::proto::Ending;
use crate::proto::bitfield::Bitfield;
use crate::proto::manifest::FileProof;
use crate::proto::units::{Digest, PIECE_BYTES, PieceIndex};
use crate::stats::{Failure, Phase, Wait};
use crate::storage::error::{StorageError, StorageErrorKind};
use crate::storage::source::Source;

/// Looks after a download until its end.
pub(crate) async fn drive(local: Rc<Local>, workers: Arc<Workers>, download: Arc<DownloadState>) {
    let _attended = Attended(&download);
    let mut look_at = None;
    loop {
        match download.poll() {
            Next::Calls(calls) => calls.into_iter().for_each(|call| {
                let connection = call.connection;
                if !workers.submit(Job::Fetch(Arc::clone(&download), call)) {
                    download.closed(connection, &Ending::Lost);
                }
            }),
            Next::Finish { unproven } => {
                if finish(&local, &download, unproven).await {
                    return;
                }
            }
            Next::Cancelled => return cancel(&local, &download),
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

/// Whether the download has ended, well or not; else its disk is full, and it goes on when there is room.
async fn finish(local: &Local, download: &Arc<DownloadState>, unproven: bool) -> bool {
    // What it was proven to be once, every piece that is written again is proven to be again.
    let unproven = unproven && !download.is_whole_proven();
    if unproven {
        download.enter(Phase::Checking);
    }
    let hasher = local.context.hasher;
    let (tell, told) = oneshot::channel();
    let work = Arc::clone(download);
    let thread = local.context.threads.spawn("finish", move || {
        // Nobody to tell: the node is going down, and waits for this.
        let _ = tell.send(complete(&work, hasher, unproven));
    });
    let result = match thread {
        Ok(()) => {
            let died = |_| Err(Failure::Io("the thread that finishes a download died".into()));
            told.await.unwrap_or_else(died)
        }
        Err(error) => Err(Failure::Io(format!("no thread to finish the download with: {error}"))),
    };
    match result {
        Ok(Completion::Durable(whole)) => {
            match whole {
                Some(source) => serve_whole(local, download, source),
                None => download.share().iter().for_each(|share| local.context.shares.remove_exactly(share)),
            }
            download.enter(Phase::Durable);
        }
        Ok(Completion::Postponed) => return false,
        Err(failure) => {
            if let (Some(share), Failure::FalseManifest { .. }) = (download.share(), &failure) {
                local.context.shares.remove_exactly(&share);
            }
            download.enter(Phase::Failed(failure));
        }
    }
    true
}

/// What became of the last steps.
enum Completion {
    /// It is durable under its name, and to be served by this source, unless it could not be opened again.
    Durable(Option<Source>),
    /// The disk is too full for that now, or the node goes down.
    Postponed,
}

/// Proves the whole where the chain could not, and makes it durable under its name.
fn complete(download: &DownloadState, hasher: Hasher, unproven: bool) -> Result<Completion, Failure> {
    let length = download.with(|transfer, _| transfer.geometry().length());
    if unproven && let FileProof::Whole(stated) = download.manifest.proof() {
        let found = digest_of(download, hasher, length).map_err(|error| Failure::Io(error.to_string()))?;
        let Some(found) = found else { return Ok(Completion::Postponed) };
        if found != stated {
            let (found, stated) = (found.to_string(), stated.to_string());
            return Err(Failure::FalseManifest { found, stated });
        }
        download.whole_is_proven();
    }
    download.enter(Phase::Syncing);
    let end = || -> Result<Option<Source>, StorageError> {
        if !download.manifest.length_known() {
            download.target.set_length(length)?;
        }
        let path = download.target.finish(download.overwrite)?;
        let warn = |error: &StorageError| tracing::warn!(%error, "it is durable, and is not served");
        Ok(Source::open(&path).inspect_err(warn).ok())
    };
    match end() {
        Ok(source) => {
            let fingerprint = source.as_ref().and_then(Source::fingerprint);
            let _ = fingerprint.map(|fingerprint| download.fingerprint.set(fingerprint));
            // What has its name needs no record.
            if let Err(error) = download.ledger.remove() {
                tracing::warn!(%error, "a record stays beside the file; it is not used again");
            }
            Ok(Completion::Durable(source))
        }
        Err(error) => {
            // What stays needs its record, or its doubts.
            let recorded = download.record();
            match error.kind {
                StorageErrorKind::NoSpace { .. } => {
                    download.storage_failed(&error);
                    Ok(Completion::Postponed)
                }
                // The flush that failed was the record's, a moment before.
                StorageErrorKind::Unflushed if recorded.is_err() && download.storage_wait().is_some() => {
                    Ok(Completion::Postponed)
                }
                StorageErrorKind::Exists => {
                    Err(Failure::Exists { path: download.target.path(), part: download.partial_path() })
                }
                _ => Err(Failure::Io(error.to_string())),
            }
        }
    }
}

/// One sequential pass over what was written; `None` when the node goes down meanwhile.
fn digest_of(download: &DownloadState, hasher: Hasher, length: u64) -> Result<Option<Digest>, StorageError> {
    let mut pass = FileHash::new(hasher);
    if length == 0 {
        return Ok(Some(pass.finish()));
    }
    let source = download.target.reader()?;
    source.expect_sequential();
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
fn serve_whole(local: &Local, download: &DownloadState, source: Source) {
    let geometry = download.with(|transfer, _| transfer.geometry());
    let held = Bitfield::full(geometry.pieces());
    let content = download.manifest.proof().id();
    let share = Arc::new(Share::new(download.key.clone(), content, geometry, source, held));
    if !local.context.shares.insert_unless_whole(share) {
        tracing::debug!(file = %download.key, "another copy is served already, and goes on being served");
    }
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
        let proven =
            some.iter().copied().zip(verdicts.iter().map(|verdict| verdict.link_holds != Some(false)));
        if !download.holes_proven(&proven.collect::<Vec<_>>()) {
            return;
        }
    }
}

/// Starts [`prove_holes`] on a thread of its own, when there are any.
pub(crate) fn start_holes(
    download: &Arc<DownloadState>,
    hasher: Hasher,
    threads: &Threads,
) -> io::Result<()> {
    if download.with(|transfer, _| transfer.holes()).count().0 == 0 {
        return Ok(());
    }
    let download = Arc::clone(download);
    threads.spawn("holes", move || prove_holes(&download, hasher))
}
