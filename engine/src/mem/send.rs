//! Frames and windows on their way out: the two ways of handing them to the kernel.
//!
//! The kernel copies once, from the mapping into its socket buffers; nothing is copied in user space. A window whose
//! file has shrunk gives EFAULT, or a short count when some bytes before the hole could be sent: never a signal.
//!
//! Invariant: parts lent to a ring are owned by the operation until it is done, also when its future is dropped.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use tokio_uring::buf::IoBuf;
use tokio_uring::net::TcpStream;

use super::limits::SEND_PARTS_MAX;
use super::window::SendPart;

#[cfg(test)]
mod tests;

/// A part in the kernel's hands. It is private so that no safe code can turn a window into a slice by tokio-uring's
/// `BoundedBuf::slice`.
struct RingSendPart(SendPart);

// SAFETY: the contract is that the pointer stays valid and the same while the runtime owns the value, though the
// value moves. A head's bytes are on the heap, in a vector that nobody changes meanwhile; a window's are in a mapping
// that its `Arc` keeps mapped at one address. `bytes_init` counts bytes that can be read from there: all of a head is
// initialised, and for a window the kernel reads what the file has, and reports EFAULT where it has none. Nothing of
// this would hold if `SendPart::skip` were called in flight; it needs `&mut`, and the operation owns the value.
unsafe impl IoBuf for RingSendPart {
    fn stable_ptr(&self) -> *const u8 {
        self.0.address()
    }

    fn bytes_init(&self) -> usize {
        self.0.len()
    }

    fn bytes_total(&self) -> usize {
        self.0.len()
    }
}

/// Sends parts through the ring of this thread's runtime, in one `writev`; gives them back with the number of bytes
/// sent, which may be short: [`SendPart::advance`] and send the rest.
///
/// # Errors
/// The system's; EFAULT when a window's file has shrunk.
///
/// # Panics
/// Outside a tokio-uring runtime; without a part, or with more than [`SEND_PARTS_MAX`].
pub async fn send_uring(stream: &TcpStream, parts: Vec<SendPart>) -> (io::Result<usize>, Vec<SendPart>) {
    assert_part_count(&parts);
    let lent: Vec<RingSendPart> = parts.into_iter().map(RingSendPart).collect();
    let (result, lent) = stream.writev(lent).await;
    (result, lent.into_iter().map(|lent| lent.0).collect())
}

/// Sends parts by one `sendmsg`, without raising SIGPIPE; returns the number of bytes sent, which may be short. On a
/// socket that does not block, `WouldBlock` says that it is full.
///
/// # Errors
/// The system's; EFAULT when a window's file has shrunk.
///
/// # Panics
/// Without a part, or with more than [`SEND_PARTS_MAX`].
pub fn send_vectored(socket: BorrowedFd<'_>, parts: &[SendPart]) -> io::Result<usize> {
    assert_part_count(parts);
    let mut vectors = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; SEND_PARTS_MAX];
    for (vector, part) in vectors.iter_mut().zip(parts) {
        *vector = libc::iovec { iov_base: part.address().cast_mut().cast(), iov_len: part.len() };
    }
    // SAFETY: all zeros is a valid `msghdr`: no address, no vectors, no control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = vectors.as_mut_ptr();
    message.msg_iovlen = parts.len();
    // SAFETY: `message` names `parts.len()` vectors, no more than there are (asserted); each names bytes that `parts`,
    // borrowed for the whole call, keeps in place; the kernel only reads them, whatever the type of the pointer says.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

fn assert_part_count(parts: &[SendPart]) {
    assert!((1..=SEND_PARTS_MAX).contains(&parts.len()), "{} parts to send", parts.len());
}
