//! One peer connection, over io_uring or epoll. No other file depends on which of them runs.
//!
//! ```text
//!   receive(buffer, range) ─► at least one byte into the range
//!   send(parts)            ─► all parts, without a copy where there is a route for that
//!   shutdown               ─► ends both
//! ```
//!
//! Invariants: at most one `receive` and one `send` run on a connection; neither is dropped before it is done, because
//! dropping a ring operation cancels nothing. `shutdown` is the way to end them early.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::Interest;
use tokio_uring::buf::{BoundedBuf, IoBufMut};

use super::backend::IoKind;
use super::socket_options::set_socket_options;
use super::zero_copy::ZeroCopyRoute;
use crate::mem::pool::PooledBuf;
use crate::mem::send::{send_uring, send_vectored};
use crate::mem::window::SendPart;

/// Memory that bytes are received into.
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
    /// Bytes moved in both directions since they were last taken.
    moved_bytes: Cell<u64>,
    /// A second descriptor of the socket, for `shutdown` while the ring owns the first.
    control: Arc<std::net::TcpStream>,
    /// For sends without a copy, where they are allowed.
    route: Option<ZeroCopyRoute>,
}

enum StreamSocket {
    Uring(tokio_uring::net::TcpStream),
    Epoll(tokio::net::TcpStream),
}

impl PeerStream {
    /// Takes over a connected socket; `control` is a second descriptor of it.
    pub(crate) fn new(
        kind: IoKind,
        socket: std::net::TcpStream,
        control: Arc<std::net::TcpStream>,
    ) -> io::Result<PeerStream> {
        set_socket_options(&socket);
        let socket = match kind {
            IoKind::Uring => {
                // The ring waits itself. On a nonblocking socket it would return EAGAIN instead.
                socket.set_nonblocking(false)?;
                StreamSocket::Uring(tokio_uring::net::TcpStream::from_std(socket))
            }
            IoKind::Epoll => {
                socket.set_nonblocking(true)?;
                StreamSocket::Epoll(tokio::net::TcpStream::from_std(socket)?)
            }
        };
        Ok(PeerStream { socket, moved_bytes: Cell::new(0), control, route: None })
    }

    /// The same connection, sending by this route where it can.
    pub(crate) fn with_route(self, route: Option<ZeroCopyRoute>) -> PeerStream {
        PeerStream { route, ..self }
    }

    /// Connects to a peer. Both back ends connect by epoll, because a connect that times out there leaves nothing behind.
    pub(crate) async fn connect(
        kind: IoKind,
        address: SocketAddr,
        timeout: Duration,
    ) -> io::Result<PeerStream> {
        let connecting = tokio::net::TcpStream::connect(address);
        let socket =
            tokio::time::timeout(timeout, connecting).await.map_err(|_| io::ErrorKind::TimedOut)??;
        let socket = socket.into_std()?;
        let control = Arc::new(socket.try_clone()?);
        PeerStream::new(kind, socket, control)
    }

    /// Receives at least one byte into `range` of the buffer; 0 when the peer has ended the stream.
    pub(crate) async fn receive<B: ReceiveBuf>(
        &self,
        mut buffer: B,
        range: Range<usize>,
    ) -> (io::Result<usize>, B) {
        assert!(!range.is_empty(), "an empty read would look like the end of the stream");
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

    /// Bytes moved in both directions since the last call.
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

    /// The IP of the other side, as IPv4 where it is mapped.
    pub(crate) fn peer_ip(&self) -> io::Result<IpAddr> {
        self.control.peer_addr().map(|peer| peer.ip().to_canonical())
    }

    /// Ends all operations in both directions. The socket closes when this value is dropped.
    pub(crate) fn shutdown(&self) {
        // ENOTCONN: the peer has closed it already.
        let _ = SockRef::from(&*self.control).shutdown(Shutdown::Both);
    }
}

impl std::fmt::Debug for PeerStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PeerStream({})", self.control.as_raw_fd())
    }
}
