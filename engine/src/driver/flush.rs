//! Making what was written durable, and recording it, off the workers: one thread for all downloads of a node.
//!
//! ```text
//!   drive ─► is it due? ─► queue ─► thread: write again what is doubted ─► Ledger::record (flush, then the record)
//!   verify ► a stretch ──►   "   ─► thread: start to write it to the disk, which may wait for the disk's queue
//! ```
//!
//! Nobody waits for it: pieces go on to be written meanwhile. When it fails, the download waits until the disk is fit;
//! then it comes here again, and all that no record claims is proven and written once more first.
//!
//! Invariant: a download is in the queue to be flushed at most once.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;

use super::download::ActiveDownload;
use super::limits::{FLUSH_QUEUE_MAX, WRITEBACKS_WAITING_MAX};
use super::rewrite::rewrite_suspects;
use crate::abort::AbortOnPanic;
use crate::hash::Hasher;
use crate::proto::geometry::Geometry;
use crate::proto::time::Moment;
use crate::storage::error::StorageError;
use crate::storage::limits::RECORD_DUE_MS;
use crate::storage::resume::RecordClaim;

impl ActiveDownload {
    /// Whether it is time for another record.
    pub(crate) fn is_flush_due(&self) -> bool {
        let asked = self.flush_state.requested_ms.load(Ordering::Relaxed);
        let since_ms = self.now().ms_since(Moment::default()).saturating_sub(asked);
        self.storage_wait().is_none()
            && (self.ledger.is_record_due() || since_ms >= RECORD_DUE_MS && self.ledger.has_new_claims())
    }

    /// Flushes and records what was written. Blocks. A disk that was not fit and took it is fit again.
    pub(crate) fn flush(&self, hasher: Hasher) {
        match self.repair_suspects(hasher).and_then(|mended| if mended { self.record() } else { Ok(()) }) {
            Ok(()) if self.storage_wait().is_some() && !self.ledger.has_suspects() => {
                self.storage_recovered()
            }
            Ok(()) => {}
            Err(_) if self.is_over() => {}
            Err(error) => {
                tracing::warn!(%error, file = %self.key, "what was fetched cannot be made durable now");
                self.storage_failed(&error);
            }
        }
    }

    /// Flushes what was written, and then records it. What the record before this one claimed may leave the page cache. Blocks.
    pub(crate) fn record(&self) -> Result<(), StorageError> {
        let claim = || {
            self.with_transfer(|transfer, _| RecordClaim {
                links_hold: transfer.is_chain_intact(),
                exact_length: transfer.exact_length(),
            })
        };
        let recorded = self.ledger.write_record(|| self.target.sync(), claim)?;
        let mut behind = self.flush_state.behind.lock().unwrap_or_else(PoisonError::into_inner);
        let geometry = Geometry::longest(self.manifest.pieces());
        for range in behind.evictable_after_record(recorded) {
            if let Err(error) = self.target.drop_cached(geometry.bytes(range)) {
                tracing::debug!(%error, "a long file stays in the page cache");
            }
        }
        Ok(())
    }

    /// The last record of a node that goes down: what was written is found again without being hashed or fetched. Blocks.
    pub(crate) fn record_on_stop(&self) {
        if self.has_ended() || self.ledger.has_suspects() || !self.ledger.has_new_claims() {
            return;
        }
        if let Err(error) = self.record() {
            tracing::warn!(%error, file = %self.key, "what was fetched last is not recorded");
        }
    }

    /// After a failed flush: writes again what it may have lost, and gives up what is lost. `false` when that has to wait
    /// for pieces that are being verified.
    fn repair_suspects(&self, hasher: Hasher) -> Result<bool, StorageError> {
        if !self.ledger.has_suspects() {
            return Ok(true);
        }
        self.target.clear_flush_failure();
        let geometry = self.with_transfer(|transfer, _| transfer.geometry());
        let lost = rewrite_suspects(&self.target, &self.ledger, &self.manifest, geometry, hasher)?;
        if lost.is_empty() {
            return Ok(true);
        }
        if !self.can_verify() {
            return Ok(false);
        }
        let given_up = self.pieces_lost(&lost);
        if given_up {
            tracing::warn!(pieces = lost.len(), file = %self.key, "the disk lost what it had taken; it is fetched again");
            lost.iter().for_each(|index| self.ledger.note_missing(*index));
        }
        Ok(given_up)
    }
}

/// The thread that flushes.
#[derive(Debug)]
pub(crate) struct Flusher {
    queue: Option<SyncSender<FlushTask>>,
    /// Ranges in the queue.
    writebacks: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread is to do.
enum FlushTask {
    /// Flush and record.
    Record(Arc<ActiveDownload>),
    /// Start to write a range, in bytes.
    Writeback(Arc<ActiveDownload>, Range<u64>),
}

impl Flusher {
    /// Starts the thread. `hasher` proves what has to be written again.
    pub(crate) fn start(hasher: Hasher) -> io::Result<Flusher> {
        let (queue, due) = sync_channel(FLUSH_QUEUE_MAX);
        let writebacks = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&writebacks);
        let work = move || {
            let _ends = AbortOnPanic;
            for due in due {
                match due {
                    FlushTask::Record(download) => {
                        download.flush(hasher);
                        download.flush_state.is_queued.store(false, Ordering::Release);
                        // Another may be due by now.
                        download.wake.notify_one();
                    }
                    FlushTask::Writeback(download, range) => {
                        counted.fetch_sub(1, Ordering::Relaxed);
                        if let Err(error) = download.target.start_writeback(range)
                            && !download.is_over()
                        {
                            download.storage_failed(&error);
                        }
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("flush".into()).spawn(work)?;
        Ok(Flusher { queue: Some(queue), writebacks, thread: Some(thread) })
    }

    /// Has a download flushed and recorded soon, unless it will be already. When too many are waiting, it asks again.
    pub(crate) fn submit(&self, download: &Arc<ActiveDownload>) {
        let flushing = &download.flush_state;
        if flushing.is_queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let queue = self.queue.as_ref().expect("taken by drop alone");
        if queue.try_send(FlushTask::Record(Arc::clone(download))).is_err() {
            flushing.is_queued.store(false, Ordering::Release);
            return;
        }
        flushing.requested_ms.store(download.now().ms_since(Moment::default()), Ordering::Relaxed);
    }

    /// Has a range, in bytes, on its way to the disk soon. With too much to do it is left to the next flush.
    pub(crate) fn start_writeback(&self, download: &Arc<ActiveDownload>, range: Range<u64>) {
        let queue = self.queue.as_ref().expect("taken by drop alone");
        if self.writebacks.fetch_add(1, Ordering::Relaxed) < WRITEBACKS_WAITING_MAX
            && queue.try_send(FlushTask::Writeback(Arc::clone(download), range)).is_ok()
        {
            return;
        }
        // It was advice: what is full has a flush before it.
        self.writebacks.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A panic has ended the program.
            let _ = thread.join();
        }
    }
}
