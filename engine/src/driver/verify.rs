//! Verifies and writes received pieces on the thread that received them, while their bytes are in its caches.
//!
//! Pieces of all connections and downloads of the worker are hashed together, up to a full batch of lanes. A verified piece is
//! written when this worker has the file's [`WriteTurn`](super::download::WriteTurn). Between two batches, and while another
//! worker writes, the thread goes back to its sockets.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::flush::start_writeback;
use super::limits::{VERIFY_BATCH, WRITEBACK_BYTES};
use super::piece_queue::{BufferedPiece, VerifiedPiece};
use super::worker_state::WorkerState;
use crate::hash::{LinkCheck, LinkEnd, PieceJob};
use crate::proto::geometry::Geometry;
use crate::proto::manifest::{FileProof, Manifest};
use crate::proto::transfer::PieceVerdict;
use crate::proto::units::{ChainState, PieceIndex};
use crate::storage::error::StorageError;

/// Verifies the worker's received pieces; never returns.
pub(crate) async fn run_verifier(worker: Rc<WorkerState>) {
    loop {
        let batch = worker.to_verify.take_batch().await;
        verify_batch(&worker, batch).await;
        // Pieces that do not match are not written.
        worker.notify_queue_room();
        tokio::task::yield_now().await;
    }
}

/// Writes the worker's verified pieces; never returns.
pub(crate) async fn run_writer(worker: Rc<WorkerState>) {
    loop {
        let first = worker.to_write.take_next().await;
        let download = Arc::clone(&first.piece.download);
        let turn = download.write_turn.acquire().await;
        let mut next = Some(first);
        // One turn for all queued pieces of the file.
        while let Some(verified) = next {
            write_verified(&worker, verified).await;
            next = worker.to_write.take_next_if(|verified| Arc::ptr_eq(&verified.piece.download, &download));
        }
        drop(turn);
        worker.notify_queue_room();
        tokio::task::yield_now().await;
    }
}

async fn verify_batch(worker: &WorkerState, batch: Vec<BufferedPiece>) {
    let clock = worker.context.clock;
    let (verdicts, hashing_us) = hash_batch(worker, &batch).await;
    let hashing_us_each = hashing_us / batch.len() as u64;
    for (piece, verdict) in batch.into_iter().zip(verdicts) {
        let (download, received) = (&piece.download, &piece.received);
        download.cost.hashing_us.fetch_add(hashing_us_each, Ordering::Relaxed);
        if !download.can_verify() {
            download.piece_dropped(received);
            drop((piece.buffer, piece.permit));
            continue;
        }
        if !download.with_transfer(|transfer, now| transfer.piece_checked(now, received, verdict)) {
            let file = &download.key;
            tracing::warn!(%file, piece = %received.index, "a piece does not match its SHA-1; fetching it again");
            continue;
        }
        download.cost.piece_verified(worker.number, clock.now(), received.requested_at);
        worker.to_write.push(VerifiedPiece { piece });
    }
}

/// Hashes a batch, each piece once for every link to check; also returns the microseconds that it took. After its first
/// mismatch a piece is not hashed again.
async fn hash_batch(worker: &WorkerState, batch: &[BufferedPiece]) -> (Vec<PieceVerdict>, u64) {
    const GOOD: PieceVerdict = PieceVerdict { digest_matches: true, links_match: true };
    let clock = worker.context.clock;
    let verdicts = vec![Cell::new(GOOD); batch.len()];
    let mut hashing_us = 0;
    let jobs = batch.iter().zip(&verdicts).flat_map(|(piece, verdict)| {
        hash_jobs(piece).take_while(|_| verdict.get() == GOOD).map(move |job| (verdict, job))
    });
    for_each_set(jobs, |set| {
        let start = clock.now();
        let _busy = worker.busy.mark_busy(start);
        let (verdicts, jobs): (Vec<_>, Vec<_>) = set.into_iter().unzip();
        for (verdict, hashed) in verdicts.into_iter().zip(worker.context.hasher.verify(&jobs)) {
            let PieceVerdict { digest_matches, links_match } = verdict.get();
            verdict.set(PieceVerdict {
                digest_matches: digest_matches && hashed.digest_holds,
                links_match: links_match && hashed.link_holds != Some(false),
            });
        }
        hashing_us += clock.now().micros_since(start);
        ControlFlow::Continue(())
    })
    .await;
    (verdicts.into_iter().map(Cell::into_inner).collect(), hashing_us)
}

/// Works through jobs in sets of [`VERIFY_BATCH`], until they end or `work` breaks. Between two sets the thread goes back to
/// its sockets: one piece of a disk image may have a hundred thousand indices.
async fn for_each_set<T>(jobs: impl Iterator<Item = T>, mut work: impl FnMut(Vec<T>) -> ControlFlow<()>) {
    let mut jobs = jobs.peekable();
    loop {
        let is_broken_off = work(jobs.by_ref().take(VERIFY_BATCH).collect()).is_break();
        if is_broken_off || jobs.peek().is_none() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Writes a verified piece at all its indices, unless the download ends meanwhile.
async fn write_verified(worker: &WorkerState, verified: VerifiedPiece) {
    let VerifiedPiece { piece } = verified;
    let (clock, download, received) = (worker.context.clock, &piece.download, &piece.received);
    let mut result = Ok(());
    let mut left = received.copies.len();
    for_each_set(received.copies.iter().copied(), |indices| {
        if left < received.copies.len() && download.is_over() {
            return ControlFlow::Break(());
        }
        let start = clock.now();
        let busy = (worker.busy.mark_busy(start), download.write_busy.mark_busy(start));
        result = write_copies(worker, &piece, &indices);
        drop(busy);
        download.cost.writing_us.fetch_add(clock.now().micros_since(start), Ordering::Relaxed);
        left -= indices.len();
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })
    .await;
    match result {
        Ok(()) if left == 0 => download.piece_written(received),
        Ok(()) => download.piece_dropped(received),
        Err(error) => {
            download.piece_dropped(received);
            download.storage_failed(&error);
        }
    }
    drop((piece.buffer, piece.permit));
}

/// What to hash of a piece: all its indices have the same digest, and each has a link of its own.
fn hash_jobs(piece: &BufferedPiece) -> impl Iterator<Item = PieceJob<'_>> {
    let BufferedPiece { download, received, buffer, length, .. } = piece;
    let manifest = &download.manifest;
    let links = if received.check_links { received.copies.len() } else { 1 };
    received.copies.iter().take(links).map(move |index| PieceJob {
        bytes: buffer.as_range(0..*length),
        digest: manifest.digest(*index),
        link: if received.check_links { link_check(manifest, *index, received.file_length) } else { None },
    })
}

/// The link of one piece: from the chain state before it to the state after it, or to the file's digest. `None` without a
/// chain.
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

/// Writes a piece at some of its indices, each between two notes in the journal.
fn write_copies(
    worker: &WorkerState,
    piece: &BufferedPiece,
    indices: &[PieceIndex],
) -> Result<(), StorageError> {
    let download = &piece.download;
    let geometry = Geometry::longest(download.manifest.pieces());
    for index in indices {
        download.journal.note_begun(*index)?;
        let offset = geometry.offset(*index);
        download.target.write_piece(offset, piece.buffer.as_range(0..piece.length))?;
        download.journal.note_written(*index);
        // The last piece of each aligned range starts its write-back, also when others of the range are missing: it is
        // advice, and the flush is what counts.
        let end = offset + piece.length as u64;
        if end.is_multiple_of(WRITEBACK_BYTES) {
            start_writeback(&worker.context, download, end - WRITEBACK_BYTES..end);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on_worker_thread<F: Future<Output = ()>>(main: F) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, main);
    }

    #[test]
    fn other_tasks_run_between_two_sets() {
        block_on_worker_thread(async {
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
            assert!(seen.windows(2).all(|pair| pair[0].1 < pair[1].1), "{seen:?}");
        });
    }

    #[test]
    fn a_single_set_does_not_yield_and_a_break_ends_the_sets() {
        block_on_worker_thread(async {
            let sets = Cell::new(0);
            let count = |answer| {
                sets.set(sets.get() + 1);
                answer
            };
            let mut all = std::pin::pin!(for_each_set(0..VERIFY_BATCH, |_| count(ControlFlow::Continue(()))));
            let first = std::future::poll_fn(|context| std::task::Poll::Ready(all.as_mut().poll(context)));
            assert!(first.await.is_ready(), "a single set ends without yielding");
            for_each_set(0..9 * VERIFY_BATCH, |_| count(ControlFlow::Break(()))).await;
            assert_eq!(sets.get(), 2);
        });
    }
}
