//! One connection of the load, in two kinds: one that carries many requests, and one that is made anew for each.
//!
//! Invariants: the n-th answer belongs to the n-th request; a request is under way from when it is given until its answer
//! is whole, whether the kernel has taken it or not.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::requests::SUCCESS;
use crate::mix::RequestKind;

/// What is heard of by the kernel's events.
const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// A request under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InFlightRequest {
    /// What was asked.
    pub(crate) kind: RequestKind,
    /// When it was due, in nanoseconds.
    pub(crate) due_ns: u64,
}

/// An answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoadAnswer {
    /// Of which request.
    pub(crate) request: InFlightRequest,
    /// Whether it was carried out.
    pub(crate) success: bool,
}

/// What carries requests one after the other.
pub(crate) trait LoadConnection: Sized {
    /// Opens a line to a tracker, whose events come under `token`.
    fn open(address: SocketAddr, registry: &Registry, token: Token) -> anyhow::Result<Self>;

    /// Takes a request, which goes out with the next [`LoadConnection::flush`].
    fn queue_request(&mut self, request: InFlightRequest, text: &[u8]);

    /// Sends what the kernel takes.
    fn flush(&mut self) -> anyhow::Result<()>;

    /// Reads all that is there, and gives every answer in it.
    fn receive(&mut self, scratch: &mut [u8], answered: &mut dyn FnMut(LoadAnswer)) -> anyhow::Result<()>;

    /// Requests whose answers have not come.
    fn in_flight(&self) -> &VecDeque<InFlightRequest>;
}

/// Bytes on their way out.
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

/// Whether the kernel will tell when it is worth another try; a connection that is being made says so in its own way.
fn is_retryable(fault: &std::io::Error) -> bool {
    matches!(fault.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected)
}

/// A connection on which requests follow each other, a line of JSON each, before their answers have come.
pub(crate) struct PipelinedConnection {
    socket: TcpStream,
    underway: VecDeque<InFlightRequest>,
    unsent: UnsentBytes,
    /// The beginning of a line of which the end has not come.
    begun: Vec<u8>,
}

impl LoadConnection for PipelinedConnection {
    fn open(address: SocketAddr, registry: &Registry, token: Token) -> anyhow::Result<PipelinedConnection> {
        // Waits: a figure begins with open connections.
        let socket =
            std::net::TcpStream::connect(address).context("the tracker does not take connections")?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let mut socket = TcpStream::from_std(socket);
        registry.register(&mut socket, token, BOTH)?;
        Ok(PipelinedConnection {
            socket,
            underway: VecDeque::new(),
            unsent: UnsentBytes::default(),
            begun: Vec::new(),
        })
    }

    fn queue_request(&mut self, request: InFlightRequest, text: &[u8]) {
        self.unsent.bytes.extend_from_slice(text);
        self.underway.push_back(request);
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        self.unsent.flush(&mut self.socket)
    }

    fn receive(&mut self, scratch: &mut [u8], answered: &mut dyn FnMut(LoadAnswer)) -> anyhow::Result<()> {
        loop {
            match self.socket.read(scratch) {
                Ok(0) => bail!("the tracker closed a connection"),
                Ok(bytes) => take_lines(&mut self.begun, &mut self.underway, &scratch[..bytes], answered)?,
                Err(fault) if is_retryable(&fault) => return Ok(()),
                Err(fault) if fault.kind() == ErrorKind::Interrupted => {}
                Err(fault) => return Err(fault.into()),
            }
        }
    }

    fn in_flight(&self) -> &VecDeque<InFlightRequest> {
        &self.underway
    }
}

fn take_lines(
    begun: &mut Vec<u8>,
    underway: &mut VecDeque<InFlightRequest>,
    mut bytes: &[u8],
    answered: &mut dyn FnMut(LoadAnswer),
) -> anyhow::Result<()> {
    while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
        let success = if begun.is_empty() {
            bytes.starts_with(SUCCESS)
        } else {
            begun.extend_from_slice(&bytes[..end]);
            begun.starts_with(SUCCESS)
        };
        begun.clear();
        bytes = &bytes[end + 1..];
        match underway.pop_front() {
            Some(request) => answered(LoadAnswer { request, success }),
            None => bail!("the tracker sent an answer that nobody asked for"),
        }
    }
    begun.extend_from_slice(bytes);
    Ok(())
}

/// A place for connections of which each carries one request, as HTTP trackers are asked: the next is made when the answer
/// to the one before has ended.
pub(crate) struct OneShotConnection {
    address: SocketAddr,
    registry: Registry,
    token: Token,
    socket: Option<TcpStream>,
    /// The first is that of the connection that there is.
    underway: VecDeque<InFlightRequest>,
    /// What the others will say.
    waiting: VecDeque<Vec<u8>>,
    unsent: UnsentBytes,
    answer: Vec<u8>,
}

impl OneShotConnection {
    /// Makes a connection for the next request, where one waits.
    fn connect_next(&mut self) -> anyhow::Result<()> {
        self.socket = None;
        self.answer.clear();
        let Some(text) = self.waiting.pop_front() else { return Ok(()) };
        let mut socket = TcpStream::connect(self.address).context("the tracker does not take connections")?;
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
            underway: VecDeque::new(),
            waiting: VecDeque::new(),
            unsent: UnsentBytes::default(),
            answer: Vec::new(),
        })
    }

    fn queue_request(&mut self, request: InFlightRequest, text: &[u8]) {
        self.waiting.push_back(text.to_vec());
        self.underway.push_back(request);
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
                    let request = self.underway.pop_front().context("an answer that nobody asked for")?;
                    answered(LoadAnswer { request, success: is_announce_accepted(&self.answer) });
                    self.connect_next()?;
                }
                Ok(bytes) => self.answer.extend_from_slice(&scratch[..bytes]),
                Err(fault) if is_retryable(&fault) => return Ok(()),
                Err(fault) if fault.kind() == ErrorKind::Interrupted => {}
                Err(fault) => return Err(fault).context("a connection to the tracker broke"),
            }
        }
        Ok(())
    }

    fn in_flight(&self) -> &VecDeque<InFlightRequest> {
        &self.underway
    }
}

/// Whether an HTTP tracker took an announce: refusals too have the status 200, and say so by `failure reason` (BEP 3).
pub(crate) fn is_announce_accepted(answer: &[u8]) -> bool {
    let is_ok = [&b"HTTP/1.1 200"[..], b"HTTP/1.0 200"].iter().any(|status| answer.starts_with(status));
    let body = answer.windows(4).position(|four| four == b"\r\n\r\n").map(|at| &answer[at + 4..]);
    is_ok && body.is_some_and(|body| body.starts_with(b"d") && !body.starts_with(b"d14:failure reason"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_belong_to_requests_in_order_however_they_are_cut() {
        let mut underway: VecDeque<InFlightRequest> =
            [RequestKind::Ping, RequestKind::GetPeers, RequestKind::Login]
                .into_iter()
                .map(|kind| InFlightRequest { kind, due_ns: 7 })
                .collect();
        let (mut begun, mut found) = (Vec::new(), Vec::new());
        let mut note = |answered: LoadAnswer| found.push((answered.request.kind, answered.success));
        let mut take = |bytes: &[u8]| take_lines(&mut begun, &mut underway, bytes, &mut note);
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
    fn a_refused_announce_is_told_from_one_that_was_taken() {
        let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n";
        assert!(is_announce_accepted(&[&ok[..], b"d8:completei0ee"].concat()));
        assert!(!is_announce_accepted(&[&ok[..], b"d14:failure reason3:no.e"].concat()));
        assert!(!is_announce_accepted(b"HTTP/1.1 500 Invalid Request\r\n\r\nd8:completei0ee"));
        assert!(!is_announce_accepted(b"HTTP/1.1 200 OK"));
    }
}
