//! Landed pieces are proven and written here, on the thread that received them, while their bytes are hot.
//!
//! Whatever has landed on this worker by now goes together, over all its connections and downloads, up to a full set of
//! lanes. What is proven is written when it is this worker's [`Turn`](super::turn::Turn) to write the file. Between two
//! sets, and while another worker writes, the thread goes back to its sockets.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;

use super::limits::{VERIFY_BATCH, WRITEBACK_BYTES};
use super::piece_queue::{BufferedPiece, VerifiedPiece};
use super::worker_state::WorkerState;
use crate::hash::{LinkCheck, LinkEnd, PieceJob};
use crate::proto::geometry::Geometry;
use crate::proto::manifest::{FileProof, Manifest};
use crate::proto::transfer::PieceVerdict;
use crate::proto::units::{ChainState, PieceIndex};
use crate::storage::error::StorageError;

/// Verifies what lands on this worker, for ever.
pub(crate) async fn run_verifier(local: Rc<WorkerState>) {
    loop {
        let batch = local.to_verify.take_batch().await;
        verify_batch(&local, batch).await;
        // What did not hold is not written.
        local.notify_queue_room();
        tokio::task::yield_now().await;
    }
}

/// Writes what is verified on this worker, for ever.
pub(crate) async fn run_writer(local: Rc<WorkerState>) {
    loop {
        let first = local.to_write.take_next().await;
        let download = Arc::clone(&first.piece.download);
        let turn = download.write_turn.acquire().await;
        let mut next = Some(first);
        // One turn for all that is proven of the file by now.
        while let Some(proven) = next {
            write_proven(&local, proven).await;
            next = local.to_write.take_next_if(|proven| Arc::ptr_eq(&proven.piece.download, &download));
        }
        drop(turn);
        local.notify_queue_room();
        tokio::task::yield_now().await;
    }
}

async fn verify_batch(local: &WorkerState, batch: Vec<BufferedPiece>) {
    let clock = local.context.clock;
    let (findings, hashing) = hash_batch(local, &batch).await;
    let hashing_each = hashing / batch.len() as u64;
    for (landed, finding) in batch.into_iter().zip(findings) {
        let download = &landed.download;
        download.cost.add_hashing_us(hashing_each);
        if !download.can_verify() {
            download.piece_dropped(&landed.received);
            drop((landed.buffer, landed.permit));
            continue;
        }
        let good =
            download.with_transfer(|transfer, now| transfer.piece_checked(now, &landed.received, finding));
        if !good {
            let file = &download.key;
            tracing::warn!(%file, piece = %landed.received.index, "a piece does not match its SHA-1; it is fetched again");
            continue;
        }
        download.cost.piece_verified(local.number, clock.now(), landed.received.requested_at);
        let link_holds = landed.received.check_links && finding.links_match;
        local.to_write.push(VerifiedPiece { piece: landed, link_matches: link_holds });
    }
}

/// Hashes what has landed, and each piece once more for every link that is to hold; also for how many microseconds. Of a
/// piece that did not hold somewhere no more is hashed.
async fn hash_batch(local: &WorkerState, batch: &[BufferedPiece]) -> (Vec<PieceVerdict>, u64) {
    const GOOD: PieceVerdict = PieceVerdict { digest_matches: true, links_match: true };
    let clock = local.context.clock;
    let findings = vec![Cell::new(GOOD); batch.len()];
    let mut hashing = 0;
    let jobs = batch.iter().zip(&findings).flat_map(|(landed, finding)| {
        hash_jobs(landed).take_while(|_| finding.get() == GOOD).map(move |job| (finding, job))
    });
    for_each_set(jobs, |set| {
        let start = clock.now();
        let _busy = local.busy.mark_busy(start);
        let (findings, jobs): (Vec<_>, Vec<_>) = set.into_iter().unzip();
        for (finding, verdict) in findings.into_iter().zip(local.context.hasher.verify(&jobs)) {
            let PieceVerdict { digest_matches: digest_holds, links_match: links_hold } = finding.get();
            finding.set(PieceVerdict {
                digest_matches: digest_holds && verdict.digest_holds,
                links_match: links_hold && verdict.link_holds != Some(false),
            });
        }
        hashing += clock.now().micros_since(start);
        ControlFlow::Continue(())
    })
    .await;
    (findings.into_iter().map(Cell::into_inner).collect(), hashing)
}

/// Works through jobs by sets of lanes, until they end or one breaks it off. A piece of a disk image may belong at a hundred
/// thousand places: between two sets the thread goes back to its sockets.
async fn for_each_set<T>(jobs: impl Iterator<Item = T>, mut work: impl FnMut(Vec<T>) -> ControlFlow<()>) {
    let mut jobs = jobs.peekable();
    loop {
        let broken_off = work(jobs.by_ref().take(VERIFY_BATCH).collect()).is_break();
        if broken_off || jobs.peek().is_none() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Writes a piece that is proven, for as long as anybody wants it.
async fn write_proven(local: &WorkerState, proven: VerifiedPiece) {
    let VerifiedPiece { piece: landed, link_matches: link_holds } = proven;
    let (clock, download) = (local.context.clock, &landed.download);
    let mut result = Ok(());
    let mut left = landed.received.copies.len();
    for_each_set(landed.received.copies.iter().copied(), |places| {
        if left < landed.received.copies.len() && download.is_over() {
            return ControlFlow::Break(());
        }
        let start = clock.now();
        let busy = (local.busy.mark_busy(start), download.write_busy.mark_busy(start));
        result = write_copies(local, &landed, &places, link_holds);
        drop(busy);
        download.cost.add_writing_us(clock.now().micros_since(start));
        left -= places.len();
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })
    .await;
    match result {
        Ok(()) if left == 0 => download.piece_written(&landed.received),
        Ok(()) => download.piece_dropped(&landed.received),
        Err(error) => {
            download.piece_dropped(&landed.received);
            download.storage_failed(&error);
        }
    }
    drop((landed.buffer, landed.permit));
}

/// What is to be hashed of a piece: all places of one content have one digest, and each has a link of its own.
fn hash_jobs(landed: &BufferedPiece) -> impl Iterator<Item = PieceJob<'_>> {
    let BufferedPiece { download, received: job, buffer, length, .. } = landed;
    let manifest = &download.manifest;
    let links = if job.check_links { job.copies.len() } else { 1 };
    job.copies.iter().take(links).map(move |index| PieceJob {
        bytes: buffer.as_range(0..*length),
        digest: manifest.digest(*index),
        link: if job.check_links { link_check(manifest, *index, job.file_length) } else { None },
    })
}

/// The link of one piece: from the state before it to the state after it, or to the file's digest. `None` without a chain.
pub(crate) fn link_check(manifest: &Manifest, index: PieceIndex, file_length: u64) -> Option<LinkCheck> {
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

/// Writes a piece at some of its places, with a note before and one after each.
fn write_copies(
    local: &WorkerState,
    landed: &BufferedPiece,
    places: &[PieceIndex],
    link_holds: bool,
) -> Result<(), StorageError> {
    let download = &landed.download;
    let geometry = Geometry::longest(download.manifest.pieces());
    for index in places {
        download.journal.note_begun(*index)?;
        let offset = geometry.offset(*index);
        download.target.write_piece(offset, landed.buffer.as_range(0..landed.length))?;
        download.journal.note_written(*index, link_holds);
        // Whichever piece completes a stretch may start it: it is advice, and the last flush is what counts.
        let end = offset + landed.length as u64;
        if end.is_multiple_of(WRITEBACK_BYTES) {
            local.context.flusher.start_writeback(download, end - WRITEBACK_BYTES..end);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs what a worker's thread would.
    fn on_a_thread<F: Future<Output = ()>>(main: F) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, main);
    }

    #[test]
    fn between_two_sets_others_have_their_turn() {
        on_a_thread(async {
            let turns = Rc::new(Cell::new(0));
            let counted = Rc::clone(&turns);
            let other = tokio::task::spawn_local(async move {
                loop {
                    counted.set(counted.get() + 1);
                    tokio::task::yield_now().await;
                }
            });
            let mut seen = Vec::new();
            for_each_set(0..2 * VERIFY_BATCH + 1, |set| {
                seen.push((set.len(), turns.get()));
                ControlFlow::Continue(())
            })
            .await;
            other.abort();
            assert_eq!(
                seen.iter().map(|(count, _)| *count).collect::<Vec<_>>(),
                [VERIFY_BATCH, VERIFY_BATCH, 1]
            );
            assert!(seen.windows(2).all(|two| two[0].1 < two[1].1), "{seen:?}");
        });
    }

    #[test]
    fn one_set_alone_waits_for_nobody_and_a_broken_off_one_is_the_last() {
        on_a_thread(async {
            let sets = Cell::new(0);
            let count = |answer| {
                sets.set(sets.get() + 1);
                answer
            };
            let mut all = std::pin::pin!(for_each_set(0..VERIFY_BATCH, |_| count(ControlFlow::Continue(()))));
            let first = std::future::poll_fn(|context| std::task::Poll::Ready(all.as_mut().poll(context)));
            assert!(first.await.is_ready(), "it goes on at once");
            for_each_set(0..9 * VERIFY_BATCH, |_| count(ControlFlow::Break(()))).await;
            assert_eq!(sets.get(), 2);
        });
    }
}
