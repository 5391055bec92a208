//! Sends one piece of a source: in its turn, in portions, for as long as it may be served.
//!
//! ```text
//!   send slot? ── no ─► trickle a few bytes ───┐
//!      └ yes ─► book a portion, wait ──────────┴─► load it ─► may it be served? ── no, nothing sent yet ─► Reject
//!      ▲                                                          │     └ no, in the middle ─► shut the stream down
//!      └───────────────────────── send it ◄───────────────────────┘ yes
//! ```
//!
//! Under a limit few connections have a send slot; the others trickle bytes of their pieces so that consumers do not take them
//! for dead. Without a limit every connection has a slot and a piece is one portion.
//!
//! Invariants: a closed connection waits for no booking and gives an unused one back; a connection whose peer does not read
//! loses its slot.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use super::limits::{LIMITED_SLOT_MS, TRICKLE_BYTES, TRICKLE_EVERY_MS};
use super::rate_limiter::{RateLimiter, SendSlot};
use super::share_file::ServedSource;
use super::shares::Share;
use super::stream::PeerStream;
use super::worker_state::WorkerState;
use crate::mem::window::SendPart;
use crate::proto::codec;
use crate::proto::frame::{Message, RejectCode};
use crate::proto::units::PieceIndex;
use crate::storage::source::{Source, SourceWindow};

/// Tells a connection's writing task that the reading task has ended. Only one task may wait for it.
#[derive(Debug, Default)]
pub(crate) struct CloseSignal {
    is_closed: Cell<bool>,
    closed: Notify,
}

impl CloseSignal {
    /// The connection is closed.
    pub(crate) fn close(&self) {
        self.is_closed.set(true);
        self.closed.notify_one();
    }

    /// Whether [`CloseSignal::close`] was called.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.get()
    }

    /// Waits for at most `ms` milliseconds; whether the connection was closed in that time.
    pub(crate) async fn closes_within(&self, ms: u64) -> bool {
        timeout(Duration::from_millis(ms), self.wait()).await.is_ok()
    }

    /// The result of `work`; `None` when the connection was closed before.
    async fn unless_closed<R>(&self, work: impl Future<Output = R>) -> Option<R> {
        tokio::select! {
            biased;
            result = work => Some(result),
            () = self.wait() => None,
        }
    }

    async fn wait(&self) {
        while !self.is_closed.get() {
            self.closed.notified().await;
        }
    }
}

/// Sends a piece. Returns why it was rejected instead, when nothing of it was sent.
pub(crate) async fn send_piece(
    worker: &WorkerState,
    stream: &PeerStream,
    (share, source): (&Share, &ServedSource),
    close_signal: &CloseSignal,
    index: PieceIndex,
) -> io::Result<Option<RejectCode>> {
    let (geometry, limiter) = (share.geometry(), &worker.context.upload_limit);
    let (mut at, length) = (geometry.offset(index), geometry.piece_len(index));
    let end = at + u64::from(length);
    let mut head = Some(codec::encode_message(&Message::Piece { index, length }));
    let mut queue = SendSlotQueue { limiter, slot: None, pending: None };
    while at < end {
        let has_slot = queue.wait_for_slot().await;
        let max_bytes = if has_slot { limiter.max_send_bytes() } else { TRICKLE_BYTES };
        let next = end.min(at.saturating_add(max_bytes.min(source.max_window_bytes())));
        let wait_ms = limiter.reserve(next - at);
        // Trickled bytes are booked too, but only holders of a slot wait for a booking.
        if close_signal.is_closed() || (has_slot && wait_ms > 0 && close_signal.closes_within(wait_ms).await)
        {
            limiter.refund(next - at);
            return Ok(None);
        }
        let loading = load_window(worker, source, source.window(at..next));
        let Some(loaded) = close_signal.unless_closed(loading).await else {
            limiter.refund(next - at);
            return Ok(None);
        };
        let loaded = loaded?;
        if let Err(error) = &loaded {
            tracing::debug!(%error, piece = %index, "cannot read a piece of the source");
            share.set_source_changed(source.mark_unreadable(error).change);
        }
        // Checked again, because the waits may have been long since the piece was chosen.
        match reject_reason(share, source) {
            Some(code) if head.is_some() => {
                limiter.refund(next - at);
                return Ok(Some(code));
            }
            // The protocol has no message in the middle of a piece. The next connection is told why.
            Some(RejectCode::SourceChanged) => {
                limiter.refund(next - at);
                stream.shutdown();
                return Ok(None);
            }
            // A closed share still sends the rest of a piece.
            _ => {}
        }
        let part = loaded.expect("a source that could not be read has changed");
        share.count_sent_bytes(next - at);
        let parts = head.take().map(SendPart::from).into_iter().chain([part]);
        let sent = queue.send(stream, parts.collect()).await;
        if let Err(error) = &sent
            && error.raw_os_error() == Some(libc::EFAULT)
        {
            share.set_source_changed(source.mark_unreadable(error).change);
        }
        sent?;
        at = next;
    }
    Ok(None)
}

/// Why no piece of this share may be sent now, if so. Calls no filesystem: another thread watches the file.
pub(crate) fn reject_reason(share: &Share, source: &Source) -> Option<RejectCode> {
    if let Err(changed) = source.check_remembered() {
        share.set_source_changed(changed.change);
    }
    if share.source_change().is_some() {
        Some(RejectCode::SourceChanged)
    } else {
        share.is_closed().then_some(RejectCode::NotHeld)
    }
}

/// One piece's way to a send slot.
struct SendSlotQueue<'a> {
    limiter: &'a RateLimiter,
    slot: Option<SendSlot<'a>>,
    /// The wait for a slot. It is kept while the piece trickles, and with it the position in the queue.
    pending: Option<Pin<Box<dyn Future<Output = SendSlot<'a>> + 'a>>>,
}

impl SendSlotQueue<'_> {
    /// Waits for a slot for at most [`TRICKLE_EVERY_MS`]; whether there is one.
    async fn wait_for_slot(&mut self) -> bool {
        if self.slot.is_none() {
            let limiter = self.limiter;
            let pending = self.pending.get_or_insert_with(|| Box::pin(limiter.wait_for_send_slot()));
            self.slot = timeout(Duration::from_millis(TRICKLE_EVERY_MS), pending).await.ok();
            if self.slot.is_some() {
                self.pending = None;
            }
        }
        self.slot.is_some()
    }

    /// Sends. A peer that has not taken the bytes within [`LIMITED_SLOT_MS`] loses the slot.
    async fn send(&mut self, stream: &PeerStream, parts: Vec<SendPart>) -> io::Result<()> {
        let mut sending = std::pin::pin!(stream.send(parts));
        if self.limiter.is_set() {
            if let Ok(sent) = timeout(Duration::from_millis(LIMITED_SLOT_MS), &mut sending).await {
                return sent;
            }
            self.slot = None;
        }
        sending.await
    }
}

/// Has cold bytes read by a thread of the file's filesystem, so that no disk stalls this thread's ring.
///
/// # Errors
/// There is no such thread now. What reading the bytes gave is inside.
async fn load_window(
    worker: &WorkerState,
    source: &ServedSource,
    window: SourceWindow,
) -> io::Result<io::Result<SendPart>> {
    if window.is_resident() {
        return Ok(window.into_part());
    }
    let (done, loaded) = oneshot::channel();
    // The connection may be gone by then.
    let load = move || drop(done.send(window.load()));
    worker.context.loaders.submit(source.filesystem(), load).map_err(io::Error::other)?;
    loaded.await.map_err(io::Error::other)
}
