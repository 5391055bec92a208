//! The side ring: sends that take the pages of a mapping themselves instead of a copy of their bytes.
//!
//! tokio-uring sends without a copy on UDP only, and panics there on any error. So a worker has a second, private ring, whose
//! descriptor its runtime polls. Such a send completes twice: first it is *sent* (queued to the socket, as with any send), and
//! when the peer has acknowledged all of it and the kernel holds none of its pages any more, it is *notified* of:
//!
//! ```text
//!   send(parts) ─► Flight ─► kernel ─► sent: how many bytes ──► the sender goes on
//!                    │                    └► notified: copied after all, or not ──► report; only now the flight is dropped
//!                    └ owns the parts, and with them the mapping
//! ```
//!
//! Invariants:
//! * A flight owns its parts, and what the kernel is told of them by, from before the submission until the notification, or
//!   until the kernel says that there will be none. What happens to the sender's future changes nothing of that.
//! * A ring that goes while flights are under way leaks them: what the kernel may still read stays mapped.
//! * Of each entry that is queued and not submitted, the sender is still trying: there are never more of those than senders. A
//!   ring that refuses for good is never submitted to again, and its senders end their connections.
//! * No more than [`SIDE_RING_SENDS_MAX`] are under way, so that the queue of completions, twice as long, never overflows.
//!
//! See io_uring_enter(2), `IORING_OP_SENDMSG_ZC`.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::rc::Rc;
use std::time::Duration;

use io_uring::{IoUring, Probe, cqueue, opcode, types};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use super::limits::{SEND_PARTS_MAX, SIDE_RING_SENDS_MAX, SUBMIT_TRIES_MAX};
use super::window::SendPart;

#[cfg(test)]
mod tests;

/// Asks for [`NOTIF_COPIED`] in notifications: `IORING_SEND_ZC_REPORT_USAGE` of linux/io_uring.h, which io-uring does not name.
const REPORT_USAGE: u16 = 1 << 3;

/// The kernel copied after all: `IORING_NOTIF_USAGE_ZC_COPIED`, the sign bit of a notification's result.
const NOTIF_COPIED: u32 = 1 << 31;

/// How long to wait before a submission is tried again for which the kernel had no memory.
const SUBMIT_RETRY_AFTER: Duration = Duration::from_millis(1);

/// What the kernel made of a send that it has notified of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyOutcome {
    /// The bytes left from the mapping's own pages.
    Mapped,
    /// All or some of them were copied after all: the way to this peer wants copies.
    Copied,
}

/// Called once with what became of a send, and the number of its bytes; dropped uncalled when nothing was sent.
pub type SendReport = Box<dyn FnOnce(CopyOutcome, u64)>;

/// A ring of one thread for sends without a copy.
pub struct SideRing {
    /// A second descriptor of the ring, polled by the runtime.
    ready: AsyncFd<OwnedFd>,
    ring: RefCell<IoUring>,
    sends: RefCell<Vec<Option<ZeroCopySend>>>,
    in_flight: Cell<usize>,
    /// The kernel takes no more submissions: never tried again.
    is_broken: Cell<bool>,
}

/// One send, from its submission until the kernel is done with its pages.
struct ZeroCopySend {
    message: PinnedMessage,
    /// Keeps the descriptor what it is until the kernel has taken it up.
    socket: Option<Rc<TcpStream>>,
    sent: Option<oneshot::Sender<io::Result<usize>>>,
    sent_bytes: u64,
    report: Option<SendReport>,
}

/// What the kernel reads of a send.
struct SendMessage {
    header: libc::msghdr,
    vectors: [libc::iovec; SEND_PARTS_MAX],
    /// Owns the bytes that `vectors` name; nobody looks at it again.
    _parts: Vec<SendPart>,
}

/// A message at one address, which the kernel is told, until this is dropped. A `Box` would claim its memory for itself
/// whenever it moves; between [`PinnedMessage::new`] and the drop there is neither a box nor a reference to the message.
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
        // SAFETY: the pointer is of a box that was just given up, so it is valid and this function's alone; only an address
        // behind it is taken. Nobody may make a reference to the message while the kernel reads there.
        let vectors = unsafe { &raw mut (*message).vectors };
        // SAFETY: the pointer is valid and this function's alone, by the box given up above; a pointer is written in its place,
        // with nothing to drop there and no reference made. It would break once the kernel knew of the message.
        unsafe { (*message).header.msg_iov = vectors.cast() };
        PinnedMessage(NonNull::new(message).expect("a box has an address"))
    }

    /// For the kernel: valid until this is dropped, wherever it moves.
    fn header(&self) -> *const libc::msghdr {
        // SAFETY: the message lives as long as `self`; only its address is taken, nothing is read and no reference made.
        unsafe { &raw const (*self.0.as_ptr()).header }
    }
}

impl Drop for PinnedMessage {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `Box::into_raw` in `new`, and is made a box again here alone. The kernel is done with
        // it: a flight is dropped with its last completion, and `SideRing::drop` forgets the rest. To drop a flight earlier
        // would break it.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

impl SideRing {
    /// A ring for the runtime of this thread. [`SideRing::run`] has to run beside whoever sends.
    ///
    /// # Errors
    /// The system's; `UnsupportedKind` when the kernel is too old (`SENDMSG_ZC` came with Linux 6.1).
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
        // SAFETY: an `OwnedFd` is open and names one file for as long as it lives, and the `AsyncFd` owns it: nobody else can
        // close it. It would break if a number were given that somebody else owns, as the ring owns its own.
        let ready = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
        let ready = ready.map_err(|error| error.into_parts().1)?;
        let flights = (0..SIDE_RING_SENDS_MAX).map(|_| None).collect();
        Ok(SideRing {
            ready,
            ring: RefCell::new(ring),
            sends: RefCell::new(flights),
            in_flight: Cell::new(0),
            is_broken: Cell::new(false),
        })
    }

    /// Whether one more send can go this way now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.is_broken.get() && self.in_flight.get() < SIDE_RING_SENDS_MAX as usize
    }

    /// Sends that the kernel is at, or holds pages of.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// Sends parts to a socket that blocks, without copying them where the way to the peer allows it; gives the number of
    /// bytes sent, which is short only when something ended the send. `report` hears later what the kernel made of it.
    ///
    /// # Errors
    /// The system's; EFAULT when a window's file has shrunk, ENOMEM or ENOBUFS when too much memory is locked: then nothing
    /// was sent, and the ordinary way is open. BrokenPipe when the ring takes no more sends: what was sent is not known, and the
    /// connection has to end.
    ///
    /// # Panics
    /// Without [room](SideRing::has_room); without a part, or with more than [`SEND_PARTS_MAX`].
    pub async fn send(
        &self,
        socket: &Rc<TcpStream>,
        parts: Vec<SendPart>,
        report: SendReport,
    ) -> io::Result<usize> {
        let (tell, mut sent) = oneshot::channel();
        let slot = self.queue_send(ZeroCopySend {
            message: PinnedMessage::new(parts),
            socket: Some(Rc::clone(socket)),
            sent: Some(tell),
            sent_bytes: 0,
            report: Some(report),
        });
        let mut tries = 0;
        loop {
            if self.is_broken.get() {
                // Another's submission may have taken it before.
                return sent.try_recv().unwrap_or_else(|_| Err(self.abandon_send(slot)));
            }
            let submitted = self.ring.borrow().submit();
            match submitted {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The kernel has no memory for it just now. The flight stays queued, and goes with the next submission.
                Err(error) if is_transient(&error) && tries < SUBMIT_TRIES_MAX => {
                    tries += 1;
                    tokio::time::sleep(SUBMIT_RETRY_AFTER).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "the ring for sends without a copy takes no more; sent the ordinary way from now on");
                    self.is_broken.set(true);
                }
            }
        }
        // With room in the socket it is sent by now.
        self.drain_completions();
        sent.await.expect("a flight tells before it goes, and `self` keeps it")
    }

    /// Lets a flight of a broken ring be, of which nothing was heard: the kernel may have it, so its slot and its message stay.
    fn abandon_send(&self, slot: usize) -> io::Error {
        if let Some(flight) = &mut self.sends.borrow_mut()[slot] {
            (flight.report, flight.socket) = (None, None);
        }
        io::ErrorKind::BrokenPipe.into()
    }

    /// Takes in completions as they come; never returns while the runtime runs.
    pub async fn run(&self) {
        while let Ok(mut ready) = self.ready.readable().await {
            // First, so that what completes meanwhile counts as new.
            ready.clear_ready();
            self.drain_completions();
        }
    }

    /// Queues a flight; its slot.
    fn queue_send(&self, flight: ZeroCopySend) -> usize {
        let mut flights = self.sends.borrow_mut();
        let slot = flights.iter().position(Option::is_none).expect("the caller has asked for room");
        let socket = flight.socket.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        // The flight is in its place before the kernel is told of it.
        let flight = flights[slot].insert(flight);
        let entry = opcode::SendMsgZc::new(types::Fd(socket), flight.message.header())
            .ioprio(REPORT_USAGE)
            .flags((libc::MSG_NOSIGNAL | libc::MSG_WAITALL).cast_unsigned())
            .build()
            .user_data(slot as u64);
        self.in_flight.set(self.in_flight.get() + 1);
        let mut ring = self.ring.borrow_mut();
        // SAFETY: what the entry names is valid until the kernel is done with it: header and vectors are on the heap, in a
        // message to which no reference or box exists until its `PinnedMessage` is dropped; the vectors name bytes of parts in the same
        // message: frames that nobody changes, and windows, whose mapping stays by their `Arc`. The flight stays in its slot
        // until `take_in` has its last completion, and is leaked when the ring goes before. The descriptor is open until the
        // first completion, or until a broken ring will not submit the entry any more. Clearing a slot early, or changing
        // `_parts`, would break it.
        let queued = unsafe { ring.submission().push(&entry) };
        queued.expect("as many entries as flights");
        slot
    }

    /// Takes in what has completed.
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
        let mut flights = self.sends.borrow_mut();
        let flight = flights[slot].as_mut().expect("the kernel knows of flights only");
        if !cqueue::notif(flags) {
            let sent = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
            flight.sent_bytes = sent.as_ref().map_or(0, |bytes| *bytes as u64);
            if let Some(tell) = flight.sent.take() {
                // The sender may have gone.
                let _ = tell.send(sent);
            }
            flight.socket = None;
        }
        if cqueue::more(flags) {
            return;
        }
        let mut flight = flights[slot].take().expect("looked at above");
        drop(flights);
        self.in_flight.set(self.in_flight.get() - 1);
        // Of a send that failed before its first byte the kernel says that it copied, since it mapped nothing.
        let sent_bytes = flight.sent_bytes;
        if let Some(report) = flight.report.take().filter(|_| cqueue::notif(flags) && sent_bytes > 0) {
            let copied = result.cast_unsigned() & NOTIF_COPIED != 0;
            report(if copied { CopyOutcome::Copied } else { CopyOutcome::Mapped }, sent_bytes);
        }
        // The parts go here, and no earlier.
        drop(flight.message);
    }
}

impl Drop for SideRing {
    fn drop(&mut self) {
        // Closing the ring tells the kernel to give up, but not when it has.
        for flight in self.sends.get_mut().drain(..).flatten() {
            std::mem::forget(flight.message);
        }
    }
}

/// Whether the kernel may take a submission later that it refuses now.
fn is_transient(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOMEM | libc::EBUSY))
}

impl std::fmt::Debug for SideRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SideRing({} under way)", self.in_flight.get())
    }
}
