//! Landed pieces are proven and written here, on the thread that received them, while their bytes are hot.
//!
//! Whatever has landed on this worker by now goes together, over all its connections and downloads, up to a full set of
//! lanes. What is proven is written when it is this worker's [`Turn`](super::turn::Turn) to write the file. Between two
//! sets, and while another worker writes, the thread goes back to its sockets.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::landed::{Landed, Proven};
use super::limits::{VERIFY_BATCH, WRITEBACK_BYTES};
use super::local::Local;
use crate::hash::{LinkCheck, LinkEnd, PieceJob};
use crate::proto::geometry::Geometry;
use crate::proto::manifest::{FileProof, Manifest};
use crate::proto::transfer::Finding;
use crate::proto::units::{ChainState, PieceIndex};
use crate::storage::error::StorageError;

/// Verifies what lands on this worker, for ever.
pub(crate) async fn verify(local: Rc<Local>) {
    loop {
        let batch = local.landed.next_set().await;
        judge(&local, batch).await;
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
            keep(&local, proven).await;
            next = local.proven.next_if(|proven| Arc::ptr_eq(&proven.landed.download, &download));
        }
        drop(turn);
        local.made_room();
        tokio::task::yield_now().await;
    }
}

async fn judge(local: &Local, batch: Vec<Landed>) {
    let clock = local.context.clock;
    let (findings, hashing) = look(local, &batch).await;
    let hashing_each = hashing / batch.len() as u64;
    for (landed, finding) in batch.into_iter().zip(findings) {
        let download = &landed.download;
        download.spent.hashing.fetch_add(hashing_each, Ordering::Relaxed);
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

/// Hashes what has landed, and each piece once more for every link that is to hold; also for how many microseconds. Of a
/// piece that did not hold somewhere no more is hashed.
async fn look(local: &Local, batch: &[Landed]) -> (Vec<Finding>, u64) {
    const GOOD: Finding = Finding { digest_holds: true, links_hold: true };
    let clock = local.context.clock;
    let findings = vec![Cell::new(GOOD); batch.len()];
    let mut hashing = 0;
    let jobs = batch.iter().zip(&findings).flat_map(|(landed, finding)| {
        piece_jobs(landed).take_while(|_| finding.get() == GOOD).map(move |job| (finding, job))
    });
    in_sets(jobs, |set| {
        let start = clock.now();
        let _busy = local.pulse.begin(start);
        let (findings, jobs): (Vec<_>, Vec<_>) = set.into_iter().unzip();
        for (finding, verdict) in findings.into_iter().zip(local.context.hasher.verify(&jobs)) {
            let Finding { digest_holds, links_hold } = finding.get();
            finding.set(Finding {
                digest_holds: digest_holds && verdict.digest_holds,
                links_hold: links_hold && verdict.link_holds != Some(false),
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
async fn in_sets<T>(jobs: impl Iterator<Item = T>, mut work: impl FnMut(Vec<T>) -> ControlFlow<()>) {
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
async fn keep(local: &Local, proven: Proven) {
    let Proven { landed, link_holds } = proven;
    let (clock, download) = (local.context.clock, &landed.download);
    let mut result = Ok(());
    let mut left = landed.job.copies.len();
    in_sets(landed.job.copies.iter().copied(), |places| {
        if left < landed.job.copies.len() && download.is_over() {
            return ControlFlow::Break(());
        }
        let start = clock.now();
        let busy = (local.pulse.begin(start), download.writing.begin(start));
        result = write_at(local, &landed, &places, link_holds);
        drop(busy);
        download.spent.writing.fetch_add(clock.now().micros_since(start), Ordering::Relaxed);
        left -= places.len();
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })
    .await;
    match result {
        Ok(()) if left == 0 => download.written(&landed.job),
        Ok(()) => download.not_kept(&landed.job),
        Err(error) => {
            download.not_kept(&landed.job);
            download.storage_failed(&error);
        }
    }
    drop((landed.buffer, landed.permit));
}

/// What is to be hashed of a piece: all places of one content have one digest, and each has a link of its own.
fn piece_jobs(landed: &Landed) -> impl Iterator<Item = PieceJob<'_>> {
    let Landed { download, job, buffer, length, .. } = landed;
    let manifest = &download.manifest;
    let links = if job.with_links { job.copies.len() } else { 1 };
    job.copies.iter().take(links).map(move |index| PieceJob {
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

/// Writes a piece at some of its places, with a note before and one after each.
fn write_at(
    local: &Local,
    landed: &Landed,
    places: &[PieceIndex],
    link_holds: bool,
) -> Result<(), StorageError> {
    let download = &landed.download;
    let geometry = Geometry::longest(download.manifest.pieces());
    for index in places {
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
            in_sets(0..2 * VERIFY_BATCH + 1, |set| {
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
            let mut all = std::pin::pin!(in_sets(0..VERIFY_BATCH, |_| count(ControlFlow::Continue(()))));
            let first = std::future::poll_fn(|context| std::task::Poll::Ready(all.as_mut().poll(context)));
            assert!(first.await.is_ready(), "it goes on at once");
            in_sets(0..9 * VERIFY_BATCH, |_| count(ControlFlow::Break(()))).await;
            assert_eq!(sets.get(), 2);
        });
    }
}
