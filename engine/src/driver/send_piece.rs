//! A piece on its way out: in its turn, in portions, for as long as it may be served.
//!
//! ```text
//!   a place? ── no ─► a sign of life ──────────┐
//!      └ yes ─► book a portion, wait ──────────┴─► bring it in ─► may it be served? ── no, nothing sent yet ─► Reject
//!      ▲                                                              │     └ no, in the middle ─► the connection ends
//!      └──────────────────────────── sent ◄──────────────────────────┘ yes
//! ```
//!
//! Under a low limit few connections send at the same time, so that pieces get done; the others are kept alive by a few bytes
//! of their pieces. Without a limit all have a place, and a piece is one portion.
//!
//! Invariants: a connection that is over waits for no booking, and gives an unused one back; nobody keeps a place who does
//! not take what is sent.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use super::limits::{LIMITED_SLOT_MS, TRICKLE_BYTES, TRICKLE_EVERY_MS};
use super::rate_limiter::{RateLimiter, SendSlot};
use super::shares::Share;
use super::stream::PeerStream;
use super::worker_state::WorkerState;
use crate::mem::window::{MappedWindow, SendPart};
use crate::proto::codec;
use crate::proto::frame::{Message, RejectCode};
use crate::proto::units::PieceIndex;

/// That a connection is over, as its reader tells its writer: one task waits for it.
#[derive(Debug, Default)]
pub(crate) struct CloseSignal {
    is_closed: Cell<bool>,
    closed: Notify,
}

impl CloseSignal {
    /// It is over.
    pub(crate) fn close(&self) {
        self.is_closed.set(true);
        self.closed.notify_one();
    }

    /// Whether it is.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.get()
    }

    /// Whether it is before `ms` milliseconds have passed.
    async fn closes_within(&self, ms: u64) -> bool {
        let over = async {
            while !self.is_closed.get() {
                self.closed.notified().await;
            }
        };
        timeout(Duration::from_millis(ms), over).await.is_ok()
    }
}

/// Sends a piece straight from the mapping; why not, when nothing of it was sent.
pub(crate) async fn send_piece(
    local: &WorkerState,
    stream: &PeerStream,
    share: &Share,
    over: &CloseSignal,
    index: PieceIndex,
) -> io::Result<Option<RejectCode>> {
    let (geometry, up) = (share.geometry(), &local.context.upload_limit);
    let (mut at, length) = (geometry.offset(index), geometry.piece_len(index));
    let end = at + u64::from(length);
    let mut head = Some(codec::encode_message(&Message::Piece { index, length }));
    let mut queue = SendSlotQueue { limiter: up, slot: None, pending: None };
    while at < end {
        let has_place = queue.wait_for_slot().await;
        let most = if has_place { up.max_send_bytes() } else { TRICKLE_BYTES };
        let next = end.min(at.saturating_add(most));
        let wait_ms = up.reserve(next - at);
        // Signs of life are counted, and those who have a place wait for them.
        if over.is_closed() || (has_place && wait_ms > 0 && over.closes_within(wait_ms).await) {
            up.refund(next - at);
            return Ok(None);
        }
        let window = share.source().window(at..next);
        if let Err(error) = load_window(local, &window).await {
            tracing::debug!(%error, piece = %index, "a piece of the source cannot be read");
            share.set_source_changed(share.source().mark_unreadable().to_string());
        }
        // The waits may have been long: what was true when the piece was chosen need not be any more.
        match reject_reason(local, share) {
            Some(code) if head.is_some() => {
                up.refund(next - at);
                return Ok(Some(code));
            }
            // In the middle of a piece there is nothing else to say. The next call is told why.
            Some(RejectCode::SourceChanged) => {
                up.refund(next - at);
                stream.shutdown();
                return Ok(None);
            }
            // A share that was closed ends with its piece.
            _ => {}
        }
        share.count_sent_bytes(next - at);
        let parts = head.take().map(SendPart::from).into_iter().chain([SendPart::from(window)]);
        let sent = queue.send(stream, parts.collect()).await;
        if sent.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EFAULT)) {
            share.set_source_changed(share.source().mark_unreadable().to_string());
        }
        sent?;
        at = next;
    }
    Ok(None)
}

/// Why no piece of this share may be sent now, if so.
pub(crate) fn reject_reason(local: &WorkerState, share: &Share) -> Option<RejectCode> {
    if let Err(changed) = share.source().check(local.context.clock.now().ms()) {
        share.set_source_changed(changed.to_string());
    }
    if share.source_change().is_some() {
        Some(RejectCode::SourceChanged)
    } else {
        share.is_closed().then_some(RejectCode::NotHeld)
    }
}

/// One piece's way to a place among those who send.
struct SendSlotQueue<'a> {
    limiter: &'a RateLimiter,
    slot: Option<SendSlot<'a>>,
    /// Kept from one sign of life to the next: who waits keeps its turn.
    pending: Option<Pin<Box<dyn Future<Output = SendSlot<'a>> + 'a>>>,
}

impl SendSlotQueue<'_> {
    /// Whether it has a place, after a while.
    async fn wait_for_slot(&mut self) -> bool {
        if self.slot.is_none() {
            let up = self.limiter;
            let waits = self.pending.get_or_insert_with(|| Box::pin(up.wait_for_send_slot()));
            self.slot = timeout(Duration::from_millis(TRICKLE_EVERY_MS), waits).await.ok();
            if self.slot.is_some() {
                self.pending = None;
            }
        }
        self.slot.is_some()
    }

    /// Sends; whoever takes long to take it loses its place meanwhile.
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

/// Has cold bytes read by another thread, so that no page fault stalls this one's ring.
async fn load_window(local: &WorkerState, window: &MappedWindow) -> io::Result<()> {
    if window.is_resident() {
        return Ok(());
    }
    let (done, resident) = oneshot::channel();
    let tell = Box::new(move |result| {
        // The connection may be gone by now.
        let _ = done.send(result);
    });
    match local.context.prefault.try_submit(window.clone(), tell) {
        Ok(()) => resident.await.unwrap_or(Ok(())),
        // Too many wait already: the send itself brings the piece in.
        Err(_) => Ok(()),
    }
}
