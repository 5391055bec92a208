//! Connections of the load, of two types: one carries many pipelined requests, the other is opened anew for each
//! request.
//!
//! Invariants: the n-th answer belongs to the n-th request. A request is in flight from when it is queued until its
//! answer is complete, even before the kernel has taken it.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::requests::SUCCESS;
use crate::mix::RequestKind;

/// Events of interest.
const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// A request without an answer yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InFlightRequest {
    pub(crate) kind: RequestKind,
    /// When the request was due, in nanoseconds of [`crate::clock::now`].
    pub(crate) due_ns: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct LoadAnswer {
    pub(crate) request: InFlightRequest,
    /// Whether the tracker carried the request out.
    pub(crate) success: bool,
}

/// A connection, or a sequence of connections, that carries requests in order.
pub(crate) trait LoadConnection: Sized {
    /// Connects to a tracker; events come under `token`.
    fn open(address: SocketAddr, registry: &Registry, token: Token) -> anyhow::Result<Self>;

    /// Queues a request, which is sent by the next [`LoadConnection::flush`].
    fn queue_request(&mut self, request: InFlightRequest, text: &[u8]);

    /// Sends as much as the kernel takes.
    fn flush(&mut self) -> anyhow::Result<()>;

    /// Reads everything that has arrived, and passes every complete answer to `answered`.
    fn receive(&mut self, scratch: &mut [u8], answered: &mut dyn FnMut(LoadAnswer)) -> anyhow::Result<()>;

    /// Requests whose answers have not arrived.
    fn in_flight(&self) -> &VecDeque<InFlightRequest>;
}

/// Bytes to be sent.
#[derive(Default)]
struct UnsentBytes {
    bytes: Vec<u8>,
    sent: usize,
}

impl UnsentBytes {
    fn flush(&mut self, socket: &mut TcpStream) -> anyhow::Result<()> {
        while self.sent < self.bytes.len() {
            match socket.write(&self.bytes[self.sent..]) {
                Ok(bytes) => self.sent += bytes,
                Err(fault) if is_retryable(&fault) => return Ok(()),
                Err(fault) if fault.kind() == ErrorKind::Interrupted => {}
                Err(fault) => return Err(fault.into()),
            }
        }
        self.bytes.clear();
        self.sent = 0;
        Ok(())
    }
}

/// Whether an event will follow when the operation can succeed. A connection in progress gives `NotConnected`.
fn is_retryable(fault: &std::io::Error) -> bool {
    matches!(fault.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected)
}

/// A connection with pipelined requests, one JSON line each.
pub(crate) struct PipelinedConnection {
    socket: TcpStream,
    in_flight: VecDeque<InFlightRequest>,
    unsent: UnsentBytes,
    /// The start of an incomplete line.
    partial: Vec<u8>,
}

impl LoadConnection for PipelinedConnection {
    fn open(address: SocketAddr, registry: &Registry, token: Token) -> anyhow::Result<PipelinedConnection> {
        // Blocks, so that every connection is open before the measurement begins.
        let socket =
            std::net::TcpStream::connect(address).context("the tracker does not accept connections")?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let mut socket = TcpStream::from_std(socket);
        registry.register(&mut socket, token, BOTH)?;
        Ok(PipelinedConnection {
            socket,
            in_flight: VecDeque::new(),
            unsent: UnsentBytes::default(),
            partial: Vec::new(),
        })
    }

    fn queue_request(&mut self, request: InFlightRequest, text: &[u8]) {
        self.unsent.bytes.extend_from_slice(text);
        self.in_flight.push_back(request);
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        self.unsent.flush(&mut self.socket)
    }

    fn receive(&mut self, scratch: &mut [u8], answered: &mut dyn FnMut(LoadAnswer)) -> anyhow::Result<()> {
        loop {
            match self.socket.read(scratch) {
                Ok(0) => bail!("the tracker closed a connection"),
                Ok(bytes) => take_lines(&mut self.partial, &mut self.in_flight, &scratch[..bytes], answered)?,
                Err(fault) if is_retryable(&fault) => return Ok(()),
                Err(fault) if fault.kind() == ErrorKind::Interrupted => {}
                Err(fault) => return Err(fault.into()),
            }
        }
    }

    fn in_flight(&self) -> &VecDeque<InFlightRequest> {
        &self.in_flight
    }
}

fn take_lines(
    partial: &mut Vec<u8>,
    in_flight: &mut VecDeque<InFlightRequest>,
    mut bytes: &[u8],
    answered: &mut dyn FnMut(LoadAnswer),
) -> anyhow::Result<()> {
    while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
        let success = if partial.is_empty() {
            bytes.starts_with(SUCCESS)
        } else {
            partial.extend_from_slice(&bytes[..end]);
            partial.starts_with(SUCCESS)
        };
        partial.clear();
        bytes = &bytes[end + 1..];
        match in_flight.pop_front() {
            Some(request) => answered(LoadAnswer { request, success }),
            None => bail!("the tracker sent an answer without a request"),
        }
    }
    partial.extend_from_slice(bytes);
    Ok(())
}

/// A sequence of connections with one request each, as HTTP trackers take them. The next one opens when the answer on
/// the last one has ended.
pub(crate) struct OneShotConnection {
    address: SocketAddr,
    registry: Registry,
    token: Token,
    socket: Option<TcpStream>,
    /// The first one belongs to the open connection.
    in_flight: VecDeque<InFlightRequest>,
    /// The texts of all others.
    waiting: VecDeque<Vec<u8>>,
    unsent: UnsentBytes,
    answer: Vec<u8>,
}

impl OneShotConnection {
    /// Opens a connection for the next waiting request, if there is one.
    fn connect_next(&mut self) -> anyhow::Result<()> {
        self.socket = None;
        self.answer.clear();
        let Some(text) = self.waiting.pop_front() else { return Ok(()) };
        let mut socket =
            TcpStream::connect(self.address).context("the tracker does not accept connections")?;
        self.registry.register(&mut socket, self.token, BOTH)?;
        self.unsent = UnsentBytes { bytes: text, sent: 0 };
        self.socket = Some(socket);
        Ok(())
    }
}

impl LoadConnection for OneShotConnection {
    fn open(address: SocketAddr, registry: &Registry, token: Token) -> anyhow::Result<OneShotConnection> {
        Ok(OneShotConnection {
            address,
            registry: registry.try_clone()?,
            token,
            socket: None,
            in_flight: VecDeque::new(),
            waiting: VecDeque::new(),
            unsent: UnsentBytes::default(),
            answer: Vec::new(),
        })
    }

    fn queue_request(&mut self, request: InFlightRequest, text: &[u8]) {
        self.waiting.push_back(text.to_vec());
        self.in_flight.push_back(request);
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        if self.socket.is_none() {
            self.connect_next()?;
        }
        match &mut self.socket {
            Some(socket) => self.unsent.flush(socket),
            None => Ok(()),
        }
    }

    fn receive(&mut self, scratch: &mut [u8], answered: &mut dyn FnMut(LoadAnswer)) -> anyhow::Result<()> {
        while let Some(socket) = &mut self.socket {
            match socket.read(scratch) {
                Ok(0) => {
                    let request = self.in_flight.pop_front().context("an answer without a request")?;
                    answered(LoadAnswer { request, success: is_announce_accepted(&self.answer) });
                    self.connect_next()?;
                }
                Ok(bytes) => self.answer.extend_from_slice(&scratch[..bytes]),
                Err(fault) if is_retryable(&fault) => return Ok(()),
                Err(fault) if fault.kind() == ErrorKind::Interrupted => {}
                Err(fault) => return Err(fault).context("a connection to the tracker failed"),
            }
        }
        Ok(())
    }

    fn in_flight(&self) -> &VecDeque<InFlightRequest> {
        &self.in_flight
    }
}

/// Whether an HTTP tracker accepted an announce. Refusals also have status 200; their body starts with `failure
/// reason` (BEP 3).
pub(crate) fn is_announce_accepted(answer: &[u8]) -> bool {
    let is_ok = [&b"HTTP/1.1 200"[..], b"HTTP/1.0 200"].iter().any(|status| answer.starts_with(status));
    let body = answer.windows(4).position(|four| four == b"\r\n\r\n").map(|at| &answer[at + 4..]);
    is_ok && body.is_some_and(|body| body.starts_with(b"d") && !body.starts_with(b"d14:failure reason"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_match_requests_in_order_at_any_segmentation() {
        let mut in_flight: VecDeque<InFlightRequest> =
            [RequestKind::Ping, RequestKind::GetPeers, RequestKind::Login]
                .into_iter()
                .map(|kind| InFlightRequest { kind, due_ns: 7 })
                .collect();
        let (mut partial, mut found) = (Vec::new(), Vec::new());
        let mut note = |answered: LoadAnswer| found.push((answered.request.kind, answered.success));
        let mut take = |bytes: &[u8]| take_lines(&mut partial, &mut in_flight, bytes, &mut note);
        take(b"{\"status\":\"succ").unwrap();
        take(b"ess\"}\n{\"status\":\"failure\"}\n{\"status\":\"success\"").unwrap();
        take(b"}\n").unwrap();
        assert!(take(b"{}\n").is_err());
        assert_eq!(
            found,
            [(RequestKind::Ping, true), (RequestKind::GetPeers, false), (RequestKind::Login, true)]
        );
    }

    #[test]
    fn refused_announces_are_recognized() {
        let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n";
        assert!(is_announce_accepted(&[&ok[..], b"d8:completei0ee"].concat()));
        assert!(!is_announce_accepted(&[&ok[..], b"d14:failure reason3:no.e"].concat()));
        assert!(!is_announce_accepted(b"HTTP/1.1 500 Invalid Request\r\n\r\nd8:completei0ee"));
        assert!(!is_announce_accepted(b"HTTP/1.1 200 OK"));
    }
}
