//! Landed pieces are proven and written here, on the thread that received them, while their bytes are hot.
//!
//! Whatever has landed on this worker by now goes together, over all its connections and downloads, up to a full set of
//! lanes. What is proven is written when it is this worker's [`Turn`](super::turn::Turn) to write the file. Between two
//! sets, and while another worker writes, the thread goes back to its sockets.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::download::DownloadState;
use super::landed::{Landed, Proven};
use super::limits::WRITEBACK_BYTES;
use super::local::Local;
use crate::hash::{LinkCheck, LinkEnd, PieceJob, Verdict};
use crate::proto::geometry::Geometry;
use crate::proto::manifest::{FileProof, Manifest};
use crate::proto::transfer::Finding;
use crate::proto::units::{ChainState, PieceIndex};
use crate::storage::error::StorageError;

/// Verifies what lands on this worker, for ever.
pub(crate) async fn verify(local: Rc<Local>) {
    loop {
        let batch = local.landed.next_set().await;
        judge(&local, batch);
        // What did not hold is not written.
        local.made_room();
        tokio::task::yield_now().await;
    }
}

/// Writes what is verified on this worker, for ever.
pub(crate) async fn write(local: Rc<Local>) {
    loop {
        let first = local.proven.next().await;
        let download = Arc::clone(&first.landed.download);
        let turn = download.turn.take().await;
        let mut next = Some(first);
        // One turn for all that is proven of the file by now.
        while let Some(proven) = next {
            keep(&local, proven);
            next = local.proven.next_if(|proven| Arc::ptr_eq(&proven.landed.download, &download));
        }
        drop(turn);
        local.made_room();
        tokio::task::yield_now().await;
    }
}

fn judge(local: &Local, batch: Vec<Landed>) {
    let clock = local.context.clock;
    let start = clock.now();
    let _busy = local.pulse.begin(start);
    let mut verdicts = {
        let jobs: Vec<PieceJob<'_>> = batch.iter().flat_map(piece_jobs).collect();
        local.context.hasher.verify(&jobs).into_iter()
    };
    let hashing_each = clock.now().micros_since(start) / batch.len() as u64;
    for landed in batch {
        let download = &landed.download;
        download.spent.hashing.fetch_add(hashing_each, Ordering::Relaxed);
        let verdicts: Vec<Verdict> = verdicts.by_ref().take(landed.job.copies.len()).collect();
        let finding = Finding {
            digest_holds: verdicts.iter().all(|verdict| verdict.digest_holds),
            links_hold: verdicts.iter().all(|verdict| verdict.link_holds != Some(false)),
        };
        if !download.may_judge() {
            download.not_kept(&landed.job);
            drop((landed.buffer, landed.permit));
            continue;
        }
        let good = download.with(|transfer, now| transfer.judged(now, &landed.job, finding));
        if !good {
            let file = &download.key;
            tracing::warn!(%file, piece = %landed.job.index, "a piece does not match its SHA-1; it is fetched again");
            continue;
        }
        download.spent.verified(local.number, clock.now(), landed.job.asked);
        let link_holds = landed.job.with_links && finding.links_hold;
        local.proven.push(Proven { landed, link_holds });
    }
}

fn keep(local: &Local, proven: Proven) {
    let Proven { landed, link_holds } = proven;
    let (clock, download) = (local.context.clock, &landed.download);
    let start = clock.now();
    let busy = (local.pulse.begin(start), download.writing.begin(start));
    let result = write_copies(local, download, &landed, link_holds);
    drop(busy);
    download.spent.writing.fetch_add(clock.now().micros_since(start), Ordering::Relaxed);
    match result {
        Ok(()) => download.written(&landed.job),
        Err(error) => {
            download.not_kept(&landed.job);
            download.storage_failed(&error);
        }
    }
    drop((landed.buffer, landed.permit));
}

fn piece_jobs(landed: &Landed) -> impl Iterator<Item = PieceJob<'_>> {
    let Landed { download, job, buffer, length, .. } = landed;
    let manifest = &download.manifest;
    job.copies.iter().map(move |index| PieceJob {
        bytes: buffer.as_range(0..*length),
        digest: manifest.digest(*index),
        link: if job.with_links { link(manifest, *index, job.file_length) } else { None },
    })
}

/// The link of one piece: from the state before it to the state after it, or to the file's digest. `None` without a chain.
pub(crate) fn link(manifest: &Manifest, index: PieceIndex, file_length: u64) -> Option<LinkCheck> {
    let chain = manifest.chain()?;
    let FileProof::Whole(digest) = manifest.proof() else { return None };
    let from = match index.as_usize().checked_sub(1) {
        None => ChainState::INITIAL,
        Some(before) => chain.get(before).expect("n pieces have n - 1 states"),
    };
    let to = match chain.get(index.as_usize()) {
        Some(state) => LinkEnd::State(state),
        None => LinkEnd::File { length: file_length, digest },
    };
    Some(LinkCheck { from, to })
}

/// Writes a piece at all its places, with a note before and one after each.
fn write_copies(
    local: &Local,
    download: &Arc<DownloadState>,
    landed: &Landed,
    link_holds: bool,
) -> Result<(), StorageError> {
    let geometry = Geometry::longest(download.manifest.pieces());
    for index in &landed.job.copies {
        download.ledger.begin(*index)?;
        let offset = geometry.offset(*index);
        download.target.write_piece(offset, landed.buffer.as_range(0..landed.length))?;
        download.ledger.wrote(*index, link_holds);
        // Whichever piece completes a stretch may start it: it is advice, and the last flush is what counts.
        let end = offset + landed.length as u64;
        if end.is_multiple_of(WRITEBACK_BYTES) {
            local.context.flusher.start_writeback(download, end - WRITEBACK_BYTES..end);
        }
    }
    Ok(())
}
