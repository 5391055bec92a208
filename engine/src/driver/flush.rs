//! Making what was written durable, and recording it, off the workers: one thread for all downloads of a node.
//!
//! ```text
//!   drive ─► is_due? ─► queue ─► thread: Ledger::record (flush, then the record) ─► wake whoever waits for room
//!   verify ─► room ──────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Invariants: a download is in the queue at most once; whoever waits for room is woken after every attempt, however it
//! ended, and when the download ends.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::download::DownloadState;
use super::limits::FLUSH_QUEUE_MAX;
use crate::proto::time::Moment;
use crate::storage::limits::RECORD_DUE_MS;
use crate::storage::resume::Claim;

impl DownloadState {
    /// Whether it is time for another record.
    pub(crate) fn flush_is_due(&self) -> bool {
        let asked = self.flushing.asked_ms.load(Ordering::Relaxed);
        let since_ms = self.now().ms_since(Moment::default()).saturating_sub(asked);
        self.storage_wait().is_none()
            && (self.ledger.is_due() || since_ms >= RECORD_DUE_MS && self.ledger.has_news())
    }

    /// Flushes and records what was written. Blocks. A disk that was not fit and took it is fit again.
    pub(crate) fn flush(&self) {
        let claim = || {
            self.with(|transfer, _| Claim {
                links_hold: transfer.links_hold(),
                exact_length: transfer.exact_length(),
            })
        };
        match self.ledger.record(|| self.target.sync(), claim) {
            Ok(()) if self.storage_wait().is_some() => self.storage_is_fit(),
            Ok(()) => {}
            Err(_) if self.is_over() => {}
            Err(error) => {
                tracing::warn!(%error, file = %self.key, "what was fetched cannot be made durable now");
                self.storage_failed(&error);
            }
        }
    }

    /// Waits until another piece may be written; `false` when none may for now.
    pub(crate) async fn room(&self) -> bool {
        loop {
            let done = self.flushing.done.notified();
            tokio::pin!(done);
            // From here on no wake-up is missed.
            done.as_mut().enable();
            if self.ledger.has_room() {
                return true;
            }
            if self.storage_wait().is_some() || self.is_over() {
                return false;
            }
            self.wake.notify_one();
            done.await;
        }
    }
}

/// The thread that flushes.
#[derive(Debug)]
pub(crate) struct Flusher {
    queue: Option<SyncSender<Arc<DownloadState>>>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Flusher> {
        let (queue, due) = sync_channel::<Arc<DownloadState>>(FLUSH_QUEUE_MAX);
        let work = move || {
            for download in due {
                download.flush();
                download.flushing.queued.store(false, Ordering::Release);
                download.flushing.wake();
                // It may have waited for this to become due again.
                download.wake.notify_one();
            }
        };
        let thread = std::thread::Builder::new().name("flush".into()).spawn(work)?;
        Ok(Flusher { queue: Some(queue), thread: Some(thread) })
    }

    /// Has a download flushed and recorded soon, unless it will be already. When too many are waiting, it asks again.
    pub(crate) fn submit(&self, download: &Arc<DownloadState>) {
        let flushing = &download.flushing;
        if flushing.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        flushing.asked_ms.store(download.now().ms_since(Moment::default()), Ordering::Relaxed);
        let queue = self.queue.as_ref().expect("taken by drop alone");
        if queue.try_send(Arc::clone(download)).is_err() {
            flushing.queued.store(false, Ordering::Release);
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A panic has been reported on its thread already.
            let _ = thread.join();
        }
    }
}
