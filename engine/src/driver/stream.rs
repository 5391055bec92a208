//! The transport: one connection, whichever back end moves its bytes. Nothing above this file knows which one runs.
//!
//! ```text
//!   receive(buffer, range) ─► at least one byte into the range        send(parts) ─► all of them, without a copy where
//!                                                                                    there is a route for that
//!   shutdown               ─► whatever is under way ends
//! ```
//!
//! Invariants: at most one `receive` and one `send` are under way on a connection; neither is ever dropped before it is
//! done, since dropping a ring operation cancels nothing: whoever wants to end one calls `shutdown`.

use std::cell::Cell;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::Interest;
use tokio_uring::buf::{BoundedBuf, IoBufMut};

use super::backend::IoKind;
use super::socket_options;
use super::zero_copy::ZeroCopyRoute;
use crate::mem::pool::PooledBuf;
use crate::mem::send::{send_uring, send_vectored};
use crate::mem::window::SendPart;

/// Memory that received bytes go to.
pub(crate) trait ReceiveBuf: IoBufMut {
    /// The bytes of a range.
    fn range_mut(&mut self, range: Range<usize>) -> &mut [u8];
}

impl ReceiveBuf for PooledBuf {
    fn range_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        self.as_mut_range(range)
    }
}

impl ReceiveBuf for Vec<u8> {
    fn range_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        &mut self[range]
    }
}

/// One connection.
pub(crate) struct PeerStream {
    socket: StreamSocket,
    /// Bytes moved in both directions since somebody asked.
    moved_bytes: Cell<u64>,
    /// A second descriptor of the socket, for `shutdown` while the first is in the ring's hands.
    control: Rc<std::net::TcpStream>,
    /// How pieces go without a copy, where they may.
    route: Option<ZeroCopyRoute>,
}

enum StreamSocket {
    Uring(tokio_uring::net::TcpStream),
    Epoll(tokio::net::TcpStream),
}

impl PeerStream {
    /// Takes over a connected socket.
    pub(crate) fn new(kind: IoKind, socket: std::net::TcpStream) -> io::Result<PeerStream> {
        socket_options::set_socket_options(&socket);
        let control = Rc::new(socket.try_clone()?);
        let inner = match kind {
            IoKind::Uring => {
                // The ring waits by itself; on a socket that does not block it would give EAGAIN instead.
                socket.set_nonblocking(false)?;
                StreamSocket::Uring(tokio_uring::net::TcpStream::from_std(socket))
            }
            IoKind::Epoll => {
                socket.set_nonblocking(true)?;
                StreamSocket::Epoll(tokio::net::TcpStream::from_std(socket)?)
            }
        };
        Ok(PeerStream { socket: inner, moved_bytes: Cell::new(0), control, route: None })
    }

    /// The same, with pieces sent by this route.
    pub(crate) fn with_route(self, route: Option<ZeroCopyRoute>) -> PeerStream {
        PeerStream { route, ..self }
    }

    /// Calls a peer. The call is made by epoll under both back ends: given up after `timeout`, it leaves nothing behind.
    pub(crate) async fn connect(
        kind: IoKind,
        address: SocketAddr,
        timeout: Duration,
    ) -> io::Result<PeerStream> {
        let calling = tokio::net::TcpStream::connect(address);
        let socket = tokio::time::timeout(timeout, calling).await.map_err(|_| io::ErrorKind::TimedOut)??;
        PeerStream::new(kind, socket.into_std()?)
    }

    /// Receives at least one byte into `range` of the buffer, unless the peer has ended the stream: then 0.
    pub(crate) async fn receive<B: ReceiveBuf>(
        &self,
        mut buffer: B,
        range: Range<usize>,
    ) -> (io::Result<usize>, B) {
        assert!(!range.is_empty(), "a read without room would look like the end of the stream");
        let (result, buffer) = match &self.socket {
            StreamSocket::Uring(stream) => {
                let (result, slice) = stream.read(buffer.slice(range)).await;
                (result, slice.into_inner())
            }
            StreamSocket::Epoll(stream) => {
                let target = buffer.range_mut(range);
                let result = loop {
                    if let Err(error) = stream.readable().await {
                        break Err(error);
                    }
                    match stream.try_read(target) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        result => break result,
                    }
                };
                (result, buffer)
            }
        };
        self.count_moved(*result.as_ref().unwrap_or(&0));
        (result, buffer)
    }

    fn count_moved(&self, bytes: usize) {
        self.moved_bytes.set(self.moved_bytes.get() + bytes as u64);
    }

    /// Bytes that went either way since the last call.
    pub(crate) fn take_moved_bytes(&self) -> u64 {
        self.moved_bytes.take()
    }

    /// Sends all of `parts`.
    pub(crate) async fn send(&self, mut parts: Vec<SendPart>) -> io::Result<()> {
        while !parts.is_empty() {
            let without_copy = match &self.route {
                Some(route) => route.send(&self.control, &parts).await,
                None => None,
            };
            let sent = match without_copy {
                Some(sent) => sent?,
                None => self.send_copied(&mut parts).await?,
            };
            if sent == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.count_moved(sent);
            SendPart::advance(&mut parts, sent);
        }
        Ok(())
    }

    /// Sends the beginning of `parts`, which the kernel copies.
    async fn send_copied(&self, parts: &mut Vec<SendPart>) -> io::Result<usize> {
        match &self.socket {
            StreamSocket::Uring(stream) => {
                let (result, back) = send_uring(stream, std::mem::take(parts)).await;
                *parts = back;
                result
            }
            StreamSocket::Epoll(stream) => {
                stream.async_io(Interest::WRITABLE, || send_vectored(stream.as_fd(), parts)).await
            }
        }
    }

    /// Ends whatever is under way in both directions. The socket closes when the last user of this value is done.
    pub(crate) fn shutdown(&self) {
        // ENOTCONN: the peer was faster.
        let _ = SockRef::from(&*self.control).shutdown(Shutdown::Both);
    }
}

impl std::fmt::Debug for PeerStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stream({})", self.control.as_raw_fd())
    }
}
