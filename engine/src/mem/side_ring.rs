//! The side ring: zero-copy sends, in which the kernel takes the pages of a mapping instead of a copy of
//! their bytes.
//!
//! tokio-uring supports zero-copy only on UDP, and panics there on errors. So each worker has a second,
//! private ring, whose descriptor its runtime polls. A zero-copy send completes twice: first it is *sent*
//! (queued to the socket, as any send). When the peer has acknowledged all of it and the kernel holds none of
//! its pages any more, the kernel *notifies*:
//!
//! ```text
//!   send(parts) ─► ZeroCopySend ─► kernel ─► sent: number of bytes ──► the caller continues
//!                       │                        └► notification: copied or not ──► report; the send is dropped only now
//!                       └ owns the parts, and with them the mapping
//! ```
//!
//! Invariants:
//! * A send owns its parts and everything the kernel is told about them, from before the submission until the
//!   notification, or until the kernel reports that there will be none. Dropping the caller's future does not
//!   change that.
//! * A ring that is dropped with sends in flight leaks them: pages that the kernel may still read stay
//!   mapped.
//! * Every entry that is queued and not submitted has a caller that still tries to submit it, so there are
//!   never more of them than callers. A ring with a permanent error is never submitted to again, and its
//!   callers close their connections.
//! * At most [`SIDE_RING_SENDS_MAX`] sends are in flight, so the completion queue, twice as long, never
//!   overflows.
//!
//! See io_uring_enter(2), `IORING_OP_SENDMSG_ZC`.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use io_uring::{IoUring, Probe, cqueue, opcode, types};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use super::limits::{SEND_PARTS_MAX, SIDE_RING_SENDS_MAX, SUBMIT_TRIES_MAX};
use super::window::SendPart;

#[cfg(test)]
mod tests;

/// Requests [`NOTIF_COPIED`] in notifications: `IORING_SEND_ZC_REPORT_USAGE` of linux/io_uring.h, which
/// io-uring does not define.
const REPORT_USAGE: u16 = 1 << 3;

/// The kernel copied the bytes: `IORING_NOTIF_USAGE_ZC_COPIED`, the sign bit of a notification's result.
const NOTIF_COPIED: u32 = 1 << 31;

/// Delay before a submission is retried for which the kernel had no memory.
const SUBMIT_RETRY_AFTER: Duration = Duration::from_millis(1);

/// Whether a completed send was zero-copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyOutcome {
    /// The bytes left from the mapping's own pages.
    Mapped,
    /// The kernel copied some or all of the bytes: the path to this peer does not support zero-copy.
    Copied,
}

/// Called once with the outcome of a send and its number of bytes; dropped uncalled when nothing was sent.
pub type SendReport = Box<dyn FnOnce(CopyOutcome, u64)>;

/// A ring for zero-copy sends of one thread.
pub struct SideRing {
    /// A second descriptor of the ring, polled by the runtime.
    ready: AsyncFd<OwnedFd>,
    ring: RefCell<IoUring>,
    sends: RefCell<Vec<Option<ZeroCopySend>>>,
    in_flight: Cell<usize>,
    /// The kernel takes no more submissions; permanent.
    is_broken: Cell<bool>,
}

/// One send, from its submission until the kernel is done with its pages.
struct ZeroCopySend {
    message: PinnedMessage,
    /// Keeps the descriptor open until the kernel has taken up the send.
    socket: Option<Arc<TcpStream>>,
    result_sender: Option<oneshot::Sender<io::Result<usize>>>,
    sent_bytes: u64,
    report: Option<SendReport>,
}

/// What the kernel reads of a send.
struct SendMessage {
    header: libc::msghdr,
    vectors: [libc::iovec; SEND_PARTS_MAX],
    /// Owns the bytes that `vectors` point to; never accessed again.
    _parts: Vec<SendPart>,
}

/// A message at a fixed address that the kernel knows, until this is dropped. A `Box` would assert unique
/// access to its memory whenever it moves; between [`PinnedMessage::new`] and the drop there is neither a box
/// of nor a reference to the message.
struct PinnedMessage(NonNull<SendMessage>);

impl PinnedMessage {
    /// # Panics
    /// Without a part, or with more than [`SEND_PARTS_MAX`].
    fn new(parts: Vec<SendPart>) -> PinnedMessage {
        assert!((1..=SEND_PARTS_MAX).contains(&parts.len()), "{} parts to send", parts.len());
        let mut vectors = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; SEND_PARTS_MAX];
        for (vector, part) in vectors.iter_mut().zip(&parts) {
            *vector = libc::iovec { iov_base: part.address().cast_mut().cast(), iov_len: part.len() };
        }
        // SAFETY: all zeros is a valid `msghdr`: no address, no vectors, no control data.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iovlen = parts.len();
        let message = Box::into_raw(Box::new(SendMessage { header, vectors, _parts: parts }));
        // SAFETY: the pointer is of a box that was just given up, so it is valid and this function's alone;
        // only an address behind it is taken. A reference to the message while the kernel reads there would
        // break this.
        let vectors = unsafe { &raw mut (*message).vectors };
        // SAFETY: the pointer is valid and this function's alone, by the box given up above; a pointer is
        // written in its place, with nothing to drop there and no reference made. It would break once the
        // kernel knew of the message.
        unsafe { (*message).header.msg_iov = vectors.cast() };
        PinnedMessage(NonNull::new(message).expect("a box is never null"))
    }

    /// For the kernel: valid until this is dropped, even if it moves.
    fn header(&self) -> *const libc::msghdr {
        // SAFETY: the message lives as long as `self`; only its address is taken, nothing is read and no
        // reference made.
        unsafe { &raw const (*self.0.as_ptr()).header }
    }
}

impl Drop for PinnedMessage {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `Box::into_raw` in `new`, and becomes a box again only here. The
        // kernel is done with it: a send is dropped with its last completion, and `SideRing::drop` forgets
        // the rest. Dropping a send earlier would break this.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

impl SideRing {
    /// A ring for the runtime of this thread. [`SideRing::run`] has to run concurrently with its sends.
    ///
    /// # Errors
    /// Any error of the system; `Unsupported` when the kernel is too old (`SENDMSG_ZC` came with Linux 6.1).
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new() -> io::Result<SideRing> {
        let ring = IoUring::builder().setup_coop_taskrun().build(SIDE_RING_SENDS_MAX)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::SendMsgZc::CODE) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let descriptor = ring.as_fd().try_clone_to_owned()?;
        SideRing::of(ring, descriptor)
    }

    /// `descriptor` is a second one of the ring.
    fn of(ring: IoUring, descriptor: OwnedFd) -> io::Result<SideRing> {
        // SAFETY: an `OwnedFd` is open and names one file for as long as it lives, and the `AsyncFd` owns it,
        // so nothing else can close it. Passing a descriptor number with another owner, as the ring owns its
        // own, would break this.
        let ready = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
        let ready = ready.map_err(|error| error.into_parts().1)?;
        let sends = (0..SIDE_RING_SENDS_MAX).map(|_| None).collect();
        Ok(SideRing {
            ready,
            ring: RefCell::new(ring),
            sends: RefCell::new(sends),
            in_flight: Cell::new(0),
            is_broken: Cell::new(false),
        })
    }

    /// Whether one more send can be queued now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.is_broken.get() && self.in_flight.get() < SIDE_RING_SENDS_MAX as usize
    }

    /// Sends that the kernel is working on or holds pages of.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// Sends parts to a blocking socket, without copying where the path to the peer allows it. Returns the
    /// number of bytes sent, which is short only when something ended the send. `report` is called later with
    /// what the kernel did.
    ///
    /// # Errors
    /// Any error of the system. EFAULT when a window's file has shrunk, ENOMEM or ENOBUFS when too much
    /// memory is locked: then nothing was sent, and the ordinary way is open. BrokenPipe when the ring takes
    /// no more sends: it is unknown what was sent, and the connection has to end.
    ///
    /// # Panics
    /// Without [room](SideRing::has_room); without a part, or with more than [`SEND_PARTS_MAX`].
    pub async fn send(
        &self,
        socket: &Arc<TcpStream>,
        parts: Vec<SendPart>,
        report: SendReport,
    ) -> io::Result<usize> {
        let (result_sender, mut sent) = oneshot::channel();
        let slot = self.queue_send(ZeroCopySend {
            message: PinnedMessage::new(parts),
            socket: Some(Arc::clone(socket)),
            result_sender: Some(result_sender),
            sent_bytes: 0,
            report: Some(report),
        });
        let mut tries = 0;
        loop {
            if self.is_broken.get() {
                // Another caller's submission may have included it.
                return sent.try_recv().unwrap_or_else(|_| Err(self.abandon_send(slot)));
            }
            let submitted = self.ring.borrow().submit();
            match submitted {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The kernel is out of memory. The send stays queued, and goes with the next submission.
                Err(error) if is_transient(&error) && tries < SUBMIT_TRIES_MAX => {
                    tries += 1;
                    tokio::time::sleep(SUBMIT_RETRY_AFTER).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "zero-copy sends are disabled: the ring takes no more submissions");
                    self.is_broken.set(true);
                }
            }
        }
        // If the socket has room, it is sent by now.
        self.drain_completions();
        sent.await.expect("every send in a slot reports before it is dropped")
    }

    /// Abandons an unanswered send of a broken ring. The kernel may have it, so its slot and its message
    /// stay.
    fn abandon_send(&self, slot: usize) -> io::Error {
        if let Some(send) = &mut self.sends.borrow_mut()[slot] {
            (send.report, send.socket) = (None, None);
        }
        io::ErrorKind::BrokenPipe.into()
    }

    /// Processes completions as they come. Never returns while the runtime runs.
    pub async fn run(&self) {
        while let Ok(mut ready) = self.ready.readable().await {
            // Clear first, so that completions from here on count as new.
            ready.clear_ready();
            self.drain_completions();
        }
    }

    /// Queues a send and returns its slot.
    fn queue_send(&self, send: ZeroCopySend) -> usize {
        let mut sends = self.sends.borrow_mut();
        let slot = sends.iter().position(Option::is_none).expect("the caller checked `has_room`");
        let socket = send.socket.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        // The send is in its slot before the kernel knows of it.
        let send = sends[slot].insert(send);
        let entry = opcode::SendMsgZc::new(types::Fd(socket), send.message.header())
            .ioprio(REPORT_USAGE)
            .flags((libc::MSG_NOSIGNAL | libc::MSG_WAITALL).cast_unsigned())
            .build()
            .user_data(slot as u64);
        self.in_flight.set(self.in_flight.get() + 1);
        let mut ring = self.ring.borrow_mut();
        // SAFETY: everything that the entry points to is valid until the kernel is done with it: header and
        // vectors are on the heap, in a message to which no reference or box exists until its `PinnedMessage`
        // is dropped; the vectors point to bytes of parts in the same message: frames that do not change, and
        // windows, whose mapping stays by their `Arc`. The send stays in its slot until `drain_completions`
        // has its last completion, and is leaked when the ring is dropped before. The descriptor is open
        // until the first completion, or until a broken ring will not submit the entry any more. Clearing a
        // slot early, or changing `_parts`, would break it.
        let queued = unsafe { ring.submission().push(&entry) };
        queued.expect("the submission queue has as many entries as slots");
        slot
    }

    fn drain_completions(&self) {
        loop {
            let next = self.ring.borrow_mut().completion().next();
            match next {
                Some(completion) => self.handle_completion(&completion),
                None => return,
            }
        }
    }

    fn handle_completion(&self, completion: &cqueue::Entry) {
        let slot = usize::try_from(completion.user_data()).unwrap_or(usize::MAX);
        let (result, flags) = (completion.result(), completion.flags());
        let mut sends = self.sends.borrow_mut();
        let send = sends[slot].as_mut().expect("completions are of slots in use");
        if !cqueue::notif(flags) {
            let sent = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
            send.sent_bytes = sent.as_ref().map_or(0, |bytes| *bytes as u64);
            if let Some(result_sender) = send.result_sender.take() {
                // The caller may have dropped its future.
                let _ = result_sender.send(sent);
            }
            send.socket = None;
        }
        if cqueue::more(flags) {
            return;
        }
        let mut send = sends[slot].take().expect("checked above");
        drop(sends);
        self.in_flight.set(self.in_flight.get() - 1);
        // The kernel also reports "copied" for a send that failed before its first byte, since it mapped
        // nothing.
        let sent_bytes = send.sent_bytes;
        if let Some(report) = send.report.take().filter(|_| cqueue::notif(flags) && sent_bytes > 0) {
            let copied = result.cast_unsigned() & NOTIF_COPIED != 0;
            report(if copied { CopyOutcome::Copied } else { CopyOutcome::Mapped }, sent_bytes);
        }
        // The parts are dropped here, and no earlier.
        drop(send.message);
    }
}

impl Drop for SideRing {
    fn drop(&mut self) {
        // Closing the ring cancels the sends, but does not tell when the kernel is done.
        for send in self.sends.get_mut().drain(..).flatten() {
            std::mem::forget(send.message);
        }
    }
}

/// Whether the kernel may accept a submission later that it refuses now.
fn is_transient(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOMEM | libc::EBUSY))
}

impl std::fmt::Debug for SideRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SideRing({} in flight)", self.in_flight.get())
    }
}
