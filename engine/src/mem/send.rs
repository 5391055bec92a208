//! Sends frames and windows, in the two ordinary ways: through the ring, or by `sendmsg`.
//!
//! The kernel copies once, from the mapping into its socket buffers; user space copies nothing. A window
//! whose file has shrunk gives EFAULT, or a short count if some bytes before the hole could be sent, but
//! never a signal.
//!
//! Invariant: parts lent to a ring are owned by the operation until it completes, even if its future is
//! dropped.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use tokio_uring::buf::IoBuf;
use tokio_uring::net::TcpStream;

use super::limits::SEND_PARTS_MAX;
use super::window::SendPart;

#[cfg(test)]
mod tests;

/// A part in the kernel's hands. Private, so that no safe code can turn a window into a slice by
/// tokio-uring's `BoundedBuf::slice`.
struct RingSendPart(SendPart);

// SAFETY: the contract is that the pointer stays valid and the same while the runtime owns the value, though
// the value moves. Frames are on the heap, in a vector that does not change meanwhile; a window's bytes are
// in a mapping that its `Arc` keeps mapped at one address. `bytes_init` counts bytes that can be read from
// there: frames are initialised, and for a window the kernel reads what the file has, and reports EFAULT
// where it has none. Calling `SendPart::skip` in flight would break this; it needs `&mut`, and the operation
// owns the value.
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

/// Sends parts through the ring of this thread's runtime, in one `writev`. Returns them with the number of
/// bytes sent, which may be short: then [`SendPart::advance`] and send the rest.
///
/// # Errors
/// Any error of the system; EFAULT when a window's file has shrunk.
///
/// # Panics
/// Outside a tokio-uring runtime; without a part, or with more than [`SEND_PARTS_MAX`].
pub async fn send_uring(stream: &TcpStream, parts: Vec<SendPart>) -> (io::Result<usize>, Vec<SendPart>) {
    assert_part_count(&parts);
    let lent: Vec<RingSendPart> = parts.into_iter().map(RingSendPart).collect();
    let (result, lent) = stream.writev(lent).await;
    (result, lent.into_iter().map(|lent| lent.0).collect())
}

/// Sends parts by one `sendmsg`, without raising SIGPIPE. Returns the number of bytes sent, which may be
/// short. `WouldBlock` means that a non-blocking socket is full.
///
/// # Errors
/// Any error of the system; EFAULT when a window's file has shrunk.
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
    // SAFETY: `message` names `parts.len()` vectors, no more than there are (asserted); each names bytes that
    // `parts`, borrowed for the whole call, keeps in place; the kernel only reads them, although the pointer
    // type is mutable.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

fn assert_part_count(parts: &[SendPart]) {
    assert!((1..=SEND_PARTS_MAX).contains(&parts.len()), "{} parts to send", parts.len());
}
